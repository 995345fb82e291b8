"""Cloth: matching colours, and patterns drawn once as a tile and repeated over a garment."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from fashion_hydra.wardrobe.canvas import Colour
from fashion_hydra.wardrobe.colours import against, blend, rgb, shade

TILE = 192  # side of a tile in pixels, before it is reduced to the canvas's scale

# Pattern name -> id of the pattern's attribute.
PATTERN_ATTRIBUTES = {
    "plain": 61,
    "stripe": 72,
    "check": 66,
    "dot": 67,
    "floral": 69,
    "fair isle": 68,
    "argyle": 76,
    "camouflage": 65,
    "leopard": 77,
    "geometric": 70,
    "knit": 61,
    "rib": 61,
    "denim": 61,
    "quilt": 61,
    "wool": 61,
}


@dataclass(frozen=True)
class Fabric:
    """A patterned cloth: a repeated square tile with a side of `period` units."""

    pattern: str
    base: Colour
    accent: Colour
    period: float
    seed: int
    _sized: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def attribute(self) -> int:
        """Id of the pattern's attribute."""
        return PATTERN_ATTRIBUTES[self.pattern]

    def colours(self, x_HW: np.ndarray, y_HW: np.ndarray, *, scale: float) -> np.ndarray:
        """Return RGB (H, W, 3) at cloth coordinates; the tile is reduced first to avoid aliasing."""
        side = int(np.clip(round(self.period * scale), 8, TILE))
        if side not in self._sized:
            self._sized[side] = cv2.resize(_tile(self), (side, side), interpolation=cv2.INTER_AREA)
        u = np.mod(x_HW * (side / self.period), side).astype(np.float32)
        v = np.mod(y_HW * (side / self.period), side).astype(np.float32)
        return cv2.remap(self._sized[side], u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def plain(self, factor: float = 1.0) -> "Fabric":
        """Return the cloth without its pattern, darker or lighter, for collars, linings and cuffs."""
        return Fabric("plain", shade(self.base, factor), self.accent, self.period, self.seed)

    def ribbed(self, factor: float = 1.0) -> "Fabric":
        """Return a ribbed cloth of the same colour, for cuffs and hems."""
        return Fabric("rib", shade(self.base, factor), self.accent, 0.22, self.seed)


@lru_cache(maxsize=64)
def _tile(fabric: Fabric) -> np.ndarray:
    rng = np.random.default_rng(fabric.seed)
    tile = np.empty((TILE, TILE, 3), np.float32)
    tile[:] = fabric.base
    weave = rng.normal(0, 0.02, (TILE, TILE, 1)).astype(np.float32)
    tile = _PATTERNS[fabric.pattern](tile, fabric, rng)
    return np.clip(tile + weave, 0, 1).astype(np.float32)


def _stripe(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(3, 6))
    width = TILE / count
    thick = width * rng.choice([0.25, 0.5, 0.4])
    on = (np.arange(TILE) % width) < thick
    tile[(slice(None), on) if rng.random() < 0.4 else (on, slice(None))] = fabric.accent
    return tile


def _check(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    at = np.arange(TILE) % (TILE // 2) / (TILE // 2)
    bands = 0.55 * (at < 0.42) + 0.3 * ((at > 0.68) & (at < 0.76))
    share = np.clip(bands[:, None] + bands[None, :], 0, 1)[..., None]
    return tile * (1 - share * 0.75) + np.array(fabric.accent, np.float32) * share * 0.75


def _wrapped(tile: np.ndarray, x: float, y: float, draw: Callable[[int, int], object]) -> None:
    """Call `draw` at (x, y) and at its copies shifted by one tile, so that the pattern repeats without seams."""
    for dx in (-TILE, 0, TILE):
        for dy in (-TILE, 0, TILE):
            draw(round(x + dx), round(y + dy))


def _dot(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    r = int(rng.integers(18, 30))
    for x, y in ((TILE / 4, TILE / 4), (3 * TILE / 4, 3 * TILE / 4)):
        _wrapped(tile, x, y, lambda cx, cy: cv2.circle(tile, (cx, cy), r, fabric.accent, -1, cv2.LINE_AA))
    return tile


def _floral(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    leaf, heart = rgb("4f7a4a"), rgb("f4cf57")
    places = [(48, 44), (140, 30), (96, 108), (30, 140), (158, 150), (92, 182)]
    for i, (x, y) in enumerate(places):
        turn = float(rng.random()) * 6.28
        petal = fabric.accent if i % 2 else shade(fabric.accent, 1.45)
        size = int(rng.integers(11, 15)) if i % 3 else 17

        def blossom(cx: int, cy: int, turn=turn, petal=petal, size=size) -> None:
            for a in (turn, turn + 2.6):
                tip = (round(cx + 2.1 * size * np.cos(a)), round(cy + 2.1 * size * np.sin(a)))
                cv2.ellipse(tile, tip, (size, size // 2), np.degrees(a), 0, 360, leaf, -1, cv2.LINE_AA)
            for k in range(5):
                a = turn + k * 2 * np.pi / 5
                at = (round(cx + size * np.cos(a)), round(cy + size * np.sin(a)))
                cv2.circle(tile, at, round(size * 0.72), petal, -1, cv2.LINE_AA)
            cv2.circle(tile, (cx, cy), round(size * 0.5), heart, -1, cv2.LINE_AA)

        _wrapped(tile, x + float(rng.integers(-8, 9)), y + float(rng.integers(-8, 9)), blossom)
    return tile


def _knit(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    """Draw columns of V stitches."""
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)
    columns, rows = 8, 12
    across = (x * columns / TILE) % 1
    v = np.abs(across - 0.5) * 2
    stitch = (y * rows / TILE + 0.9 * v) % 1
    light = 0.80 + 0.26 * np.sin(np.pi * stitch) * (0.5 + 0.5 * np.sqrt(np.clip(np.sin(np.pi * v), 0, 1)))
    light *= 1 - 0.28 * np.exp(-(((v - 1) / 0.22) ** 2))
    return tile * light[..., None]


def _rib(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    light = 0.72 + 0.34 * np.abs(np.sin(np.arange(TILE) * np.pi * 2 / TILE))
    return tile * light[None, :, None].astype(np.float32)


def _denim(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:TILE, :TILE]
    twill = 0.05 * np.sin((x + y) * 2 * np.pi * 24 / TILE)
    wash = _noise(rng, 3) * 0.03
    yarn = rng.normal(0, 0.04, (TILE, 1)) + rng.normal(0, 0.03, (1, TILE))
    return tile * (1 + twill + wash + yarn)[..., None].astype(np.float32)


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Return smooth periodic noise (TILE, TILE) of about unit variance."""
    grid = np.tile(rng.normal(0, 1, (cells, cells)), (3, 3)).astype(np.float32)
    big = cv2.resize(grid, (3 * TILE, 3 * TILE), interpolation=cv2.INTER_CUBIC)
    return big[TILE : 2 * TILE, TILE : 2 * TILE] * 1.4


def _camouflage(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    for share, cells in ((0.55, 5), (1.0, 5), (0.25, 6)):
        spot = np.clip((_noise(rng, cells) - 0.35) * 8, 0, 1)[..., None]
        tile = tile * (1 - spot) + np.array(blend(fabric.base, fabric.accent, share), np.float32) * spot
    return tile


def _leopard(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    dark, warm = rgb("2b1d16"), shade(fabric.base, 0.72)
    for i in range(16):
        x = (i % 4 + 0.5 + 0.5 * (i // 4 % 2) + rng.uniform(-0.15, 0.15)) * TILE / 4
        y = (i // 4 + 0.5 + rng.uniform(-0.15, 0.15)) * TILE / 4
        start = int(rng.integers(360))

        def rosette(cx: int, cy: int, start=start) -> None:
            cv2.circle(tile, (cx, cy), 12, warm, -1, cv2.LINE_AA)
            for gap in (0, 130, 240):
                cv2.ellipse(tile, (cx, cy), (15, 13), 0, start + gap, start + gap + 85, dark, 8, cv2.LINE_AA)

        _wrapped(tile, x, y, rosette)
    return tile


def _fair_isle(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    """Draw a knit with bands of diamonds and zigzags."""
    y, x = np.mgrid[:TILE, :TILE] * 24 // TILE  # stitches
    zigzag = np.abs(x % 6 - 3) == (y - 1) % 12
    diamond = np.abs(x % 8 - 4) + np.abs(y - 16) <= 3
    line = (y == 6) | (y == 9) | (y == 22)
    tile[zigzag | diamond | line] = fabric.accent
    return _knit(tile, fabric, rng)


def _argyle(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:TILE, :TILE] / TILE
    a, b = (2 * x + y) % 1, (2 * x - y) % 1
    tile[(a < 0.5) & (b < 0.5)] = fabric.accent
    lines = (np.abs((2 * x + y + 0.25) % 1 - 0.5) < 0.03) | (np.abs((2 * x - y + 0.25) % 1 - 0.5) < 0.03)
    tile[lines] = shade(fabric.accent, 1.5)
    return _knit(tile, fabric, rng)


def _geometric(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    half = TILE // 2
    for i, (x, y) in enumerate([(0, 0), (half, 0), (0, half), (half, half)]):
        flip = (i in (0, 3)) == (rng.random() < 0.5)
        corner = (x + half, y + half) if flip else (x, y)
        points = np.array([(x + half, y), (x, y + half), corner], np.int32)
        tone = fabric.accent if i % 2 else blend(fabric.accent, fabric.base, 0.45)
        cv2.fillPoly(tile, [points], tone, cv2.LINE_AA)
    return tile


def _quilt(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    """Draw horizontal padded chambers."""
    at = (np.arange(TILE) * 2 / TILE) % 1
    light = 0.62 + 0.62 * np.clip(np.sin(np.pi * at), 0, 1) ** 0.6 * (1 - 0.45 * at)
    return tile * light[:, None, None].astype(np.float32)


def _wool(tile: np.ndarray, fabric: Fabric, rng: np.random.Generator) -> np.ndarray:
    fleck = cv2.GaussianBlur(rng.normal(0, 0.32, (TILE, TILE)).astype(np.float32), (0, 0), 1.6)
    y, x = np.mgrid[:TILE, :TILE]
    bone = 0.04 * np.sign(np.sin((x + np.abs((y % 48) - 24)) * 2 * np.pi * 8 / TILE))
    return tile * (1 + fleck + bone)[..., None].astype(np.float32)


_PATTERNS: dict[str, Callable[[np.ndarray, Fabric, np.random.Generator], np.ndarray]] = {
    "plain": lambda tile, fabric, rng: tile,
    "stripe": _stripe,
    "check": _check,
    "dot": _dot,
    "floral": _floral,
    "knit": _knit,
    "rib": _rib,
    "denim": _denim,
    "camouflage": _camouflage,
    "leopard": _leopard,
    "fair isle": _fair_isle,
    "argyle": _argyle,
    "geometric": _geometric,
    "quilt": _quilt,
    "wool": _wool,
}


def weave(rng: np.random.Generator, pattern: str, palette: tuple[str, ...], *, period: float) -> Fabric:
    """Make a cloth with the given pattern in a random colour of `palette`."""
    base = rgb(palette[rng.integers(len(palette))])
    accent = against(base, rng)
    if pattern == "leopard":
        base = rgb("d2a566")
    if pattern == "camouflage":
        base, accent = rgb("7d8458"), rgb("3a3d2c")
    return Fabric(pattern, base, accent, period * float(rng.uniform(0.85, 1.2)), int(rng.integers(2**31)))
