"""Of a mask in several parts only the largest stays."""

import cv2
import numpy as np

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.paste import ScoredMask


def step(found: list[ScoredMask], size: Size) -> list[ScoredMask]:
    """Leave out all parts but the largest; pixels that touch at a corner are of one part."""
    return [(mask._replace(pixels=_largest(mask.pixels)), label, score) for mask, label, score in found]


def _largest(pixels: np.ndarray) -> np.ndarray:
    """bool (h, w), column-major, as it was."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    if count <= 2:  # the background and one part, or none
        return pixels
    return np.asfortranarray(parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
