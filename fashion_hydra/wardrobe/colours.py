"""Palettes and colour arithmetic."""

import numpy as np

from fashion_hydra.wardrobe.canvas import Colour

NEUTRALS = (
    "f2ede4",
    "d9cfc0",
    "b8a78e",
    "8c7a64",
    "5b4a3d",
    "3c3a3e",
    "25262b",
    "8d9199",
    "c4c8cc",
    "43506b",
)
BRIGHTS = ("d8423e", "e7713b", "efb23a", "6aa84f", "2a9d8f", "2f74b5", "5a4fa2", "b83b7c", "e4688e", "1f4e79")
PASTELS = ("f6c9c4", "f9e0a8", "cfe3c4", "b9dce3", "c8cdf0", "e7c6e4", "fdf3e1", "a9c3b6", "e8b79b", "9fb8d8")
EARTHS = ("7a3b2e", "a65a3a", "c58b4e", "6b6b3a", "41523a", "2e4a4f", "5a2c3e", "8f3445", "b0643c", "d0a15f")
DENIMS = ("3a5a83", "27405f", "6d8fb5", "8fb0cf", "1f2f47", "4a6a94")


def rgb(code: str) -> Colour:
    """Convert a hex code such as `"ff8000"` to RGB in 0..1."""
    return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))  # type: ignore[return-value]


def blend(a: Colour, b: Colour, share: float) -> Colour:
    """Mix `share` (0..1) of `b` into `a`."""
    return tuple(float(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def shade(colour: Colour, factor: float) -> Colour:
    """Darken a colour (factor below 1) or lighten it towards white (factor above 1)."""
    if factor <= 1:
        return blend((0.0, 0.0, 0.0), colour, factor)
    return blend(colour, (1.0, 1.0, 1.0), factor - 1)


def luma(colour: Colour) -> float:
    """Return the perceived brightness, 0..1."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def against(colour: Colour, rng: np.random.Generator) -> Colour:
    """Choose a random colour that contrasts with `colour`."""
    pool = [rgb(c) for c in (*NEUTRALS[:2], *NEUTRALS[5:7], *BRIGHTS, *PASTELS[6:7])]
    far = [c for c in pool if abs(luma(c) - luma(colour)) > 0.28]
    return far[rng.integers(len(far))]
