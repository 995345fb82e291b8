"""Compare boundaries with distances computed pixel by pixel, and test boundary AP."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_cdt

from fashion_hydra.evaluation.boundary import WIDTH, boundary, boundary_iou
from fashion_hydra.evaluation.coco_ap import TrueMask, mask_ap
from fashion_hydra.structures.detections import Detections


def encoded(bitmap):
    return coco_mask.encode(np.asfortranarray(bitmap, np.uint8))


def blob(seed, size):
    """Make a mask with holes, several pieces, and parts at the frame's edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(4):
        (cy, cx), radius = rng.integers(0, size), rng.integers(5, min(size) // 2)
        mask ^= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    return mask


@pytest.mark.parametrize("size", [(60, 80), (200, 150), (90, 400)])
@pytest.mark.parametrize("seed", range(3))
def test_the_boundary_is_what_lies_near_the_outside(seed, size):
    mask = blob(seed, size)
    steps = max(1, round(WIDTH * np.hypot(*size)))
    far = distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
    wanted = mask & (far <= steps)
    assert (coco_mask.decode(boundary(encoded(mask))).astype(bool) == wanted).all()
    assert 0 < wanted.sum() < mask.sum()


def test_an_empty_mask_has_none():
    assert coco_mask.area(boundary(encoded(np.zeros((20, 20), bool)))) == 0


def test_the_smaller_of_both_overlaps():
    large, ragged = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    large[10:90, 10:90] = True
    ragged[14:86, 14:86] = True
    overlap = boundary_iou([encoded(ragged)], [encoded(large)], [False])[0, 0]
    assert overlap == 0  # the boundaries, three pixels wide, do not touch
    assert coco_mask.iou([encoded(ragged)], [encoded(large)], [0])[0, 0] == 0.81
    truth = {"a": [TrueMask(0, encoded(large), 6400.0)]}
    found = {"a": Detections("a", [0], [0.9], [encoded(ragged)])}
    assert mask_ap(truth, found, labels=1).overall["AP50"] == pytest.approx(1)
    assert mask_ap(truth, found, labels=1, overlap=boundary_iou).overall["AP50"] == 0
    inside = np.zeros((100, 100), bool)
    inside[10:20, 10:90] = True
    pair = boundary_iou([encoded(inside)], [encoded(large)], [False])[0, 0]
    assert pair == coco_mask.iou([encoded(inside)], [encoded(large)], [0])[0, 0]
