"""Fill the holes of each mask."""

import cv2
import numpy as np

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.paste import ScoredMask


def step(found: list[ScoredMask], size: Size) -> list[ScoredMask]:
    """Fill the holes of each mask; a gap that reaches the edge of the mask's box is not a hole."""
    return [(mask._replace(pixels=_filled(mask.pixels)), label, score) for mask, label, score in found]


def _filled(pixels: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask, bool (h, w), column-major."""
    edges, _ = cv2.findContours(pixels.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(pixels.shape, np.uint8)
    cv2.drawContours(drawn, edges, -1, 1, cv2.FILLED)
    return np.asfortranarray(drawn.astype(bool))
