"""Compare values and gradients of the sparse RoIAlign with torchvision's."""

import pytest
import torch
from torchvision.ops import roi_align

from fashion_hydra.model.roi_align import pyramid_roi_align

STRIDES = (4, 8, 16)


def scene(seed, boxes=40):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(2, 5, 96 // s, 128 // s, generator=generator, dtype=torch.float64) for s in STRIDES]
    corner = torch.rand(boxes, 2, generator=generator, dtype=torch.float64) * 150 - 20
    edges = torch.rand(boxes, 2, generator=generator, dtype=torch.float64) * 90
    owner = torch.randint(0, 2, (boxes, 1), generator=generator).double()
    rois = torch.cat([owner, corner, corner + edges], 1)
    rois[0, 1:] = torch.tensor([-400.0, -400, -300, -300])  # outside
    rois[1, 1:] = torch.tensor([10.0, 10, 10, 10])  # empty
    return features, rois, torch.randint(0, len(STRIDES), (boxes,), generator=generator)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 14])
def test_values_and_gradients_are_torchvisions(samples, size):
    features, rois, levels = scene(samples)
    mine = [f.clone().requires_grad_() for f in features]
    theirs = [f.clone().requires_grad_() for f in features]
    pooled = pyramid_roi_align(mine, rois, levels, strides=STRIDES, size=size, samples=samples)
    expected = torch.empty_like(pooled)
    for level, (feature, stride) in enumerate(zip(theirs, STRIDES, strict=True)):
        chosen = levels == level
        expected[chosen] = roi_align(feature, rois[chosen], size, 1 / stride, samples, aligned=True)
    assert torch.allclose(pooled, expected, atol=1e-10)
    weight = torch.randn_like(pooled)
    (pooled * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10)


def test_no_boxes():
    features, rois, levels = scene(0)
    assert pyramid_roi_align(features, rois[:0], levels[:0], strides=STRIDES, size=7, samples=1).shape == (0, 5, 7, 7)
