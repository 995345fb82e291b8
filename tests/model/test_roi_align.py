"""Compare values and gradients of the sparse RoIAlign with torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models import HybridTaskCascadeRoIHead
from torchvision.ops import roi_align

from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.roi_align import PreciseRoIExtractor, pyramid_roi_align
from tests.helpers import model_options

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


@pytest.mark.parametrize(("own", "samples"), [(14, 1), (28, 1), (14, 2), (14, 0), (10, 1)])
def test_averages_of_blocks_of_cells(own, samples):
    """As mmdet averages semantic features for its box heads: adaptively, after pooling."""
    features, rois, _ = scene(own + samples)
    layer = {"type": "RoIAlign", "output_size": own, "sampling_ratio": samples}
    extractor = PreciseRoIExtractor(layer, out_channels=5, featmap_strides=[4])
    mine, theirs = (features[0].clone().requires_grad_() for _ in range(2))
    averaged = extractor.averaged([mine], rois, size=7)
    expected = F.adaptive_avg_pool2d(roi_align(theirs, rois, own, 1 / 4, samples, aligned=True), 7)
    torch.testing.assert_close(averaged, expected)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    (averaged * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_box_heads_get_what_mmdet_gives_them():
    torch.manual_seed(0)
    head = build_htc(num_classes=3, **model_options("htc_lite")).net.roi_head
    features = [torch.randn(1, 64, 64 // 2**level, 64 // 2**level) for level in range(5)]
    semantic, corner = torch.randn(1, 64, 32, 32), torch.rand(20, 2) * 150
    rois = torch.cat([torch.zeros(20, 1), corner, corner + 10 + torch.rand(20, 2) * 90], 1)
    found = head._bbox_forward(0, features, rois, semantic)
    head.__class__ = HybridTaskCascadeRoIHead
    expected = head._bbox_forward(0, features, rois, semantic)
    assert list(found) == list(expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name])
