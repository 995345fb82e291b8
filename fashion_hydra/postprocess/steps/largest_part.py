"""Keep the largest connected part of each mask."""

import cv2
import numpy as np

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.paste import ScoredMask


def step(found: list[ScoredMask], size: Size) -> list[ScoredMask]:
    """Keep only the largest part of each mask; pixels that touch at a corner are connected."""
    return [(mask._replace(pixels=_largest(mask.pixels)), label, score) for mask, label, score in found]


def _largest(pixels: np.ndarray) -> np.ndarray:
    """Return the largest part of a mask, bool (h, w), column-major."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    if count <= 2:  # the background and at most one part
        return pixels
    return np.asfortranarray(parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
