"""Holes in a mask become part of it."""

import cv2
import numpy as np

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.paste import ScoredMask


def step(found: list[ScoredMask], size: Size) -> list[ScoredMask]:
    """Fill what a mask encloses; what is open to a side of the box that it was drawn on is no hole."""
    return [(mask._replace(pixels=_filled(mask.pixels)), label, score) for mask, label, score in found]


def _filled(pixels: np.ndarray) -> np.ndarray:
    """bool (h, w), column-major, as it was."""
    edges, _ = cv2.findContours(pixels.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(pixels.shape, np.uint8)
    cv2.drawContours(drawn, edges, -1, 1, cv2.FILLED)
    return np.asfortranarray(drawn.astype(bool))
