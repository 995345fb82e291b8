"""Compare mask targets computed from crops with mmdet's, computed from full bitmaps."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks

from fashion_hydra.model.mask_targets import GroundTruthMasks
from fashion_hydra.structures.batch import CropMasks

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


def scene(seed, size=(60, 80), objects=5):
    rng = np.random.default_rng(seed)
    planes, windows, pixels = np.zeros((objects, *size), np.uint8), [], []
    for plane in planes:
        x0, y0 = rng.integers(0, size[1] - 8), rng.integers(0, size[0] - 8)
        x1, y1 = rng.integers(x0 + 1, size[1] + 1), rng.integers(y0 + 1, size[0] + 1)
        plane[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.7
        windows.append([x0, y0, x1, y1])
        pixels.append(plane[y0:y1, x0:x1].ravel())
    crops = CropMasks(torch.from_numpy(np.concatenate(pixels)), torch.tensor(np.array(windows)), size)
    corners = rng.random((20, 4)).astype(np.float32) * np.array([*size[::-1], *size[::-1]], np.float32)
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    boxes[0] = [0, 0, size[1], size[0]]
    return planes, crops, boxes, rng.integers(0, objects, 20)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(4))
def test_targets_are_mmdets(seed, device):
    planes, crops, boxes, owner = scene(seed)
    assert (crops.bitmaps().numpy() == planes).all()
    size = (28, 28)
    theirs = BitmapMasks(planes, *crops.size).crop_and_resize(boxes, size, owner, device="cpu", binarize=False)
    mine = GroundTruthMasks(crops).crop_and_resize(boxes, size, owner, device=device, binarize=False)
    assert np.abs(mine.to_ndarray() - theirs.to_ndarray()).max() < 1e-5
    hard = GroundTruthMasks(crops).crop_and_resize(boxes, size, owner, device=device)
    sure = np.abs(theirs.to_ndarray() - 0.5) > 1e-5
    assert (hard.to_ndarray() == (theirs.to_ndarray() >= 0.5))[sure].all()
