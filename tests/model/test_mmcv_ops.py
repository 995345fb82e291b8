"""Compare the operators, under mmdet's names for them, with float64 references written from their definitions."""

import itertools
import subprocess
import sys
from pathlib import Path

import mmcv.ops
import numpy as np
import pytest
import torch
from torch import Tensor

from fashion_hydra.model import mmcv_ops

COMPILED = hasattr(sys.modules["mmcv._ext"], "__file__")
without_compiled = pytest.mark.skipif(COMPILED, reason="compiled mmcv is installed and left as it is")
with_compiled = pytest.mark.skipif(not COMPILED, reason="needs compiled mmcv, here is mmcv-lite")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
BF16_STEP = 2**-8  # maximum relative error of rounding to bfloat16


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# References


def tent(points: Tensor, size: int) -> Tensor:
    """Return the bilinear weights (..., size) of the pixels 0 .. size - 1 at `points` (...); zero outside the image."""
    return (1 - (points[..., None] - torch.arange(size, dtype=points.dtype)).abs()).clamp(min=0)


def bin_weights(start: float, end: float, *, bins: int, size: int, ratio: int, aligned: bool) -> Tensor:
    """Return the weight (bins, size) of each pixel in each bin's average, along one axis of RoIAlign."""
    if not aligned:
        end = start + max(end - start, 1.0)
    width = (end - start) / bins
    samples = ratio if ratio > 0 else max(int(np.ceil(width)), 0)
    rows = []
    for b in range(bins):
        points = torch.tensor([start + width * (b + (i + 0.5) / samples) for i in range(samples)], dtype=torch.float64)
        inside = (points >= -1) & (points <= size)  # points farther out count as zero, nearer points as the edge
        weights = tent(points.clamp(0, size - 1), size) * inside[:, None]
        rows.append(weights.sum(0) / max(samples, 1))
    return torch.stack(rows)


def reference_roi_align(
    features: Tensor, rois: Tensor, *, out: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    pooled = []
    for image, *box in rois.tolist():
        x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0.0) for v in box)
        wy = bin_weights(y1, y2, bins=out[0], size=features.shape[2], ratio=ratio, aligned=aligned)
        wx = bin_weights(x1, x2, bins=out[1], size=features.shape[3], ratio=ratio, aligned=aligned)
        pooled.append(torch.einsum("chw,yh,xw->cyx", features[int(image)], wy, wx))
    return torch.stack(pooled)


def reference_deform_conv(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Sample the image at every (kernel point, output pixel), then multiply by the kernel."""
    n, c, h, w = x.shape
    o, _, kh, kw = weight.shape
    out_h, out_w = offset.shape[2:]
    ys = torch.arange(out_h)[:, None] * stride[0] - padding[0]
    xs = torch.arange(out_w)[None, :] * stride[1] - padding[1]
    columns = x.new_zeros(n, c, kh * kw, out_h, out_w)
    per_group = c // deform_groups
    for image, g, (k, (i, j)) in itertools.product(
        range(n), range(deform_groups), enumerate(itertools.product(range(kh), range(kw)))
    ):
        point = g * kh * kw + k
        py = ys + i * dilation[0] + offset[image, 2 * point]
        px = xs + j * dilation[1] + offset[image, 2 * point + 1]
        channels = slice(g * per_group, (g + 1) * per_group)
        sampled = torch.einsum("chw,yxh,yxw->cyx", x[image, channels], tent(py, h), tent(px, w))
        if mask is not None:
            sampled = sampled * mask[image, point]
        columns[image, channels, k] = sampled
    result = torch.einsum(
        "ngckyx,gock->ngoyx",
        columns.reshape(n, groups, c // groups, kh * kw, out_h, out_w),
        weight.reshape(groups, o // groups, c // groups, kh * kw),
    ).reshape(n, o, out_h, out_w)
    return result if bias is None else result + bias[:, None, None]


def reference_nms(boxes: Tensor, scores: Tensor, classes: Tensor, *, threshold: float) -> list[int]:
    """Run greedy NMS: keep a box unless a kept box of its class overlaps it by more than the threshold."""
    kept: list[int] = []
    for i in np.argsort(-scores.double().numpy(), kind="stable").tolist():
        if all(classes[i] != classes[j] or iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def iou(a: Tensor, b: Tensor) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.tolist(), b.tolist()
    shared = max(min(ax2, bx2) - max(ax1, bx1), 0) * max(min(ay2, by2) - max(ay1, by1), 0)
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


# Inputs


def roi_align_inputs() -> tuple[Tensor, Tensor]:
    """Return features of 2 images at a quarter of their size, and RoIs: inside, beyond each edge, tiny, full size."""
    rois = [
        [0, 10.3, 4.1, 40.7, 30.9],
        [1, -9.5, -7.2, 20.1, 33.3],
        [0, 30.2, 20.6, 75.8, 61.4],
        [1, 12.1, 13.4, 13.2, 14.0],
        [1, 0.0, 0.0, 52.0, 44.0],
    ]
    return torch.randn(2, 3, 11, 13, dtype=torch.float64), torch.tensor(rois, dtype=torch.float64)


DEFORM_CASES = {
    "plain": {},
    "strided": {"stride": (2, 1), "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": (2, 0)},
    "grouped": {"groups": 2, "padding": (1, 1)},
    "deform_grouped": {"deform_groups": 2, "padding": (1, 1)},
    "all": {
        "stride": (1, 2),
        "padding": (2, 1),
        "dilation": (1, 2),
        "groups": 4,
        "deform_groups": 2,
    },
}


def deform_inputs(
    *, kernel: tuple[int, int] = (3, 2), size: tuple[int, int] = (7, 8), batch: int = 2, **case
) -> dict[str, Tensor]:
    """Return x, offset, mask, weight and bias for 4 input and 8 output channels."""
    stride, padding, dilation = (
        case.get(key, default) for key, default in [("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1))]
    )
    out = [(size[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(2)]
    points = case.get("deform_groups", 1) * kernel[0] * kernel[1]
    shapes = {
        "input": (batch, 4, *size),
        "offset": (batch, 2 * points, *out),
        "mask": (batch, points, *out),
        "weight": (8, 4 // case.get("groups", 1), *kernel),
        "bias": (8,),
    }
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def crowded_boxes(count: int, *, size: float = 100.0) -> tuple[Tensor, Tensor]:
    """Return heavily overlapping boxes in random order, with distinct scores."""
    corner = torch.rand(count, 2) * size * 0.6
    boxes = torch.cat([corner, corner + size * (0.2 + 0.2 * torch.rand(count, 2))], 1)
    return boxes, (torch.randperm(count) + 1) / (count + 1)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Assert that the largest difference is within `tolerance` of the largest value."""
    assert actual.shape == expected.shape
    difference = (actual.detach().double().cpu() - expected.detach().double().cpu()).abs().max()
    assert difference <= tolerance * expected.detach().abs().max()


# RoIAlign


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_roi_align_and_its_gradient_equal_the_definition(device, ratio, aligned, dtype, tolerance):
    features, rois = roi_align_inputs()
    features.requires_grad_()
    expected = reference_roi_align(features, rois, out=(3, 4), scale=0.25, ratio=ratio, aligned=aligned)
    upstream = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, features, upstream)

    given = features.detach().to(device, dtype).requires_grad_()
    actual = mmcv_ops.roi_align(given, rois.to(device, dtype), (3, 4), 0.25, ratio, "avg", aligned)
    actual.backward(upstream.to(device, dtype))
    close(actual, expected, tolerance)
    close(given.grad, expected_grad, tolerance)


def test_roi_align_gradcheck():
    features, rois = roi_align_inputs()
    features = features[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: mmcv_ops.roi_align(f, rois, 2, 0.25, 2, "avg", True), (features,))


def test_roi_align_layer_passes_its_settings_on():
    features, rois = roi_align_inputs()
    layer = mmcv.ops.RoIAlign(output_size=(2, 5), spatial_scale=0.5, sampling_ratio=3, aligned=False)
    expected = reference_roi_align(features, rois, out=(2, 5), scale=0.5, ratio=3, aligned=False)
    close(layer(features, rois), expected, 1e-12)


def test_roi_align_of_no_rois_is_empty_and_has_a_gradient():
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    pooled = mmcv_ops.roi_align(features, torch.zeros(0, 5), 7)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 7, 7)
    assert not features.grad.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("feature_type", [torch.bfloat16, torch.float32])
def test_roi_align_of_mixed_types_is_near_float32(device, autocast, feature_type):
    features, rois = roi_align_inputs()
    features = features.to(device, feature_type)
    expected = mmcv_ops.roi_align(features.float(), rois.to(device, torch.float32), (7, 7), 0.25)
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        actual = mmcv_ops.roi_align(features, rois.to(device, torch.float32), (7, 7), 0.25)
    assert actual.dtype == feature_type
    close(actual, expected, BF16_STEP if feature_type == torch.bfloat16 else 1e-6)


@without_compiled
def test_roi_align_refuses_max_pooling():
    features, rois = roi_align_inputs()
    with pytest.raises(NotImplementedError, match=r"`roi_align` with pool_mode='max'.*install mmcv==2\.1\.0"):
        mmcv.ops.RoIAlign(7, pool_mode="max")(features, rois)


# Deformable convolution


def both_versions(case: dict, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return (actual, reference) for version 1, and for version 2 with a bias."""
    x, offset, mask, weight, bias = tensors.values()
    return [
        (mmcv_ops.deform_conv2d(x, offset, weight, **case), reference_deform_conv(x, offset, weight, **case)),
        (
            mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, bias, **case),
            reference_deform_conv(x, offset, weight, mask, bias, **case),
        ),
    ]


@pytest.mark.parametrize("case", DEFORM_CASES.values(), ids=DEFORM_CASES.keys())
def test_deform_conv_and_its_gradients_equal_the_definition(case):
    tensors = {name: t.requires_grad_() for name, t in deform_inputs(**case).items()}
    for actual, expected in both_versions(case, tensors):
        close(actual, expected, 1e-12)
        upstream = torch.randn_like(expected)
        gradients = [
            torch.autograd.grad(out, list(tensors.values()), upstream, allow_unused=True) for out in (actual, expected)
        ]
        for actual_grad, expected_grad in zip(*gradients, strict=True):
            assert (actual_grad is None) == (expected_grad is None)
            if expected_grad is not None:
                close(actual_grad, expected_grad, 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", DEFORM_CASES.values(), ids=DEFORM_CASES.keys())
def test_deform_conv_in_float32_is_near_float64(device, case):
    x, offset, mask, weight, bias = (t.to(device, torch.float32) for t in deform_inputs(**case).values())
    exact = [t.double().cpu() for t in (x, offset, weight, mask, bias)]
    close(mmcv_ops.deform_conv2d(x, offset, weight, **case), reference_deform_conv(*exact[:3], **case), 1e-5)
    close(
        mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, bias, **case),
        reference_deform_conv(*exact, **case),
        1e-5,
    )


def test_deform_conv_gradcheck():
    case = {"stride": (2, 1), "padding": (1, 1), "groups": 2, "deform_groups": 2}
    tensors = deform_inputs(kernel=(2, 2), size=(3, 3), batch=1, **case)
    x, offset, mask, weight, bias = (t.requires_grad_() for t in tensors.values())
    stride, padding = case["stride"], case["padding"]
    assert torch.autograd.gradcheck(
        lambda *a: mmcv_ops.modulated_deform_conv2d(*a, stride, padding, 1, 2, 2), (x, offset, mask, weight, bias)
    )
    assert torch.autograd.gradcheck(
        lambda *a: mmcv_ops.deform_conv2d(*a, stride, padding, 1, 2, 2), (x, offset, weight)
    )


@pytest.mark.parametrize("batch", [1, 33, 37])
def test_deform_conv_takes_any_batch(batch):
    tensors = deform_inputs(batch=batch, kernel=(1, 1), size=(2, 2))
    for actual, expected in both_versions({}, tensors):
        close(actual, expected, 1e-12)


@pytest.mark.parametrize("name", ["DeformConv2dPack", "ModulatedDeformConv2dPack"])
def test_new_deform_conv_layer_is_the_plain_convolution(name):
    """Offsets start at zero; the masks of version 2 start at sigmoid(0)."""
    layer = getattr(mmcv.ops, name)(4, 8, 3, stride=2, padding=1, groups=2, deform_groups=2).double()
    x = torch.randn(2, 4, 9, 10, dtype=torch.float64)
    share = 0.5 if name.startswith("Modulated") else 1.0
    close(layer(x), share * torch.nn.functional.conv2d(x, layer.weight, None, 2, 1, 1, 2), 1e-12)


@pytest.mark.parametrize("name", ["DeformConv2dPack", "ModulatedDeformConv2dPack"])
def test_deform_conv_layers_hand_their_offsets_on(name):
    case = {"stride": (2, 1), "padding": (1, 1), "groups": 2, "deform_groups": 2}
    layer = getattr(mmcv.ops, name)(4, 8, 3, **case).double()
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.2)
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    predicted = layer.conv_offset(x)
    offset, mask = predicted[:, :36], predicted[:, 36:].sigmoid() if name.startswith("Modulated") else None
    close(layer(x), reference_deform_conv(x, offset, layer.weight, mask, **case), 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast", [True, False])
def test_deform_conv_of_mixed_types_is_near_float32(device, autocast):
    """With bfloat16 features and masks and float32 offsets and weights, only the result is rounded."""
    tensors = {name: t.to(device, torch.float32) for name, t in deform_inputs(padding=(1, 1)).items()}
    x, offset, mask, weight, bias = tensors.values()
    x, mask = x.bfloat16(), mask.bfloat16()
    expected = mmcv_ops.modulated_deform_conv2d(x.float(), offset, mask.float(), weight, bias, 1, 1)
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        actual = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
        version_1 = mmcv_ops.deform_conv2d(x, offset, weight, 1, 1)
    assert actual.dtype == version_1.dtype == torch.bfloat16
    close(actual, expected, BF16_STEP)
    close(version_1, mmcv_ops.deform_conv2d(x.float(), offset, weight, 1, 1), BF16_STEP)


@without_compiled
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["DeformConv2dPack", "ModulatedDeformConv2dPack"])
def test_deform_conv_layer_trains_under_autocast(device, name):
    layer = getattr(mmcv.ops, name)(8, 8, 3, padding=1)
    # Keep offsets near one half: the gradient jumps where an offset crosses a pixel's border, and rounding decides it.
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.01)
    torch.nn.init.constant_(layer.conv_offset.bias, 0.5)
    layer, x = layer.to(device), torch.randn(2, 8, 10, 10).to(device)
    results = []
    for autocast in (False, True):
        layer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            out = layer(x)
        out.float().square().sum().backward()
        results.append([out.detach().clone()] + [p.grad.clone() for p in layer.parameters()])
    for full, mixed in zip(*results, strict=True):
        close(mixed, full, 0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 2}, r"input of 4 channels and weight of shape \(8, 4, 3, 2\) do not fit groups=2"),
        ({"deform_groups": 2}, r"expected offset of 24 channels .* but got 12"),
        ({"bias": True}, r"expected bias=False .* but got True"),
    ],
)
def test_deform_conv_refuses_what_does_not_fit(settings, message):
    x, offset, _, weight, _ = deform_inputs().values()
    with pytest.raises(ValueError, match=message):
        mmcv_ops.deform_conv2d(x, offset, weight, **settings)


# Non-maximum suppression


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("threshold", [0.3, 0.7])
@pytest.mark.parametrize("agnostic", [True, False])
def test_batched_nms_equals_brute_force(device, threshold, agnostic):
    boxes, scores = crowded_boxes(80)
    classes = torch.randint(5, (80,))
    dets, keep = mmcv.ops.batched_nms(
        boxes.to(device),
        scores.to(device),
        classes.to(device),
        {"type": "nms", "iou_threshold": threshold},
        class_agnostic=agnostic,
    )
    expected = reference_nms(boxes, scores, torch.zeros_like(classes) if agnostic else classes, threshold=threshold)
    assert keep.tolist() == expected
    assert torch.equal(dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[expected])


def test_nms_filters_by_score_and_number_and_takes_numpy():
    boxes, scores = crowded_boxes(60)
    expected = [i for i in reference_nms(boxes, scores, torch.zeros(60), threshold=0.5) if scores[i] > 0.4][:5]
    dets, keep = mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.4, max_num=5)
    assert isinstance(dets, np.ndarray)
    assert keep.tolist() == expected
    assert len(expected) == 5


def test_nms_keeps_boxes_that_overlap_by_the_threshold_exactly():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])  # IoU is 1/2
    scores = torch.tensor([0.9, 0.8])
    assert mmcv.ops.nms(boxes, scores, 0.5)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, scores, 0.499)[1].tolist() == [0]


def test_nms_of_no_boxes():
    dets, keep = mmcv.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert keep.shape == (0,)
    assert keep.dtype == torch.int64


@without_compiled
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("box_type", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("split", [10_000, 10])
def test_batched_nms_of_bfloat16_equals_brute_force(device, autocast, box_type, split):
    """40 classes in an image of 1000 pixels: the offsets of the classes do not fit in bfloat16."""
    boxes, scores = crowded_boxes(100, size=1000.0)
    boxes, scores = boxes.to(box_type), scores.bfloat16()
    classes = torch.randint(40, (100,))
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        dets, keep = mmcv.ops.batched_nms(
            boxes.to(device),
            scores.to(device),
            classes.to(device),
            {"type": "nms", "iou_threshold": 0.2, "split_thr": split},
        )
    expected = reference_nms(boxes, scores, classes, threshold=0.2)
    assert sorted(keep.tolist()) == sorted(expected)  # equal scores are common in bfloat16, in any order
    assert dets.dtype == box_type
    assert len(expected) < 100
    assert torch.equal(dets[:, 4].cpu(), scores[expected].to(box_type))


@without_compiled
def test_nms_refuses_offset_1():
    boxes, scores = crowded_boxes(3)
    with pytest.raises(NotImplementedError, match=r"`nms` with offset=1.*install mmcv==2\.1\.0"):
        mmcv.ops.nms(boxes, scores, 0.5, offset=1)


# Installation


def test_second_install_changes_nothing():
    def state() -> dict[str, object]:
        names = ("nms", "batched_nms", "roi_align", "deform_conv2d", "modulated_deform_conv2d")
        return {name: getattr(mmcv.ops, name) for name in names} | {"ext": sys.modules["mmcv._ext"]}

    before = state()
    mmcv_ops.install()
    after = state()
    assert all(before[name] is after[name] for name in before)


ABSENT = {
    "softnms": lambda: mmcv.ops.soft_nms(torch.rand(2, 4), torch.rand(2)),
    "nms_match": lambda: mmcv.ops.nms_match(torch.rand(2, 5), 0.5),
    "roi_pool_forward": lambda: mmcv.ops.RoIPool(2)(torch.rand(1, 1, 4, 4), torch.zeros(1, 5)),
    "sigmoid_focal_loss_forward": lambda: mmcv.ops.sigmoid_focal_loss(
        torch.rand(2, 3), torch.zeros(2, dtype=torch.long)
    ),
    "carafe_forward": lambda: mmcv.ops.carafe(torch.rand(1, 4, 3, 3), torch.rand(1, 9, 6, 6), 3, 1, 2),
    "deform_roi_pool_forward": lambda: mmcv.ops.deform_roi_pool(
        torch.rand(1, 1, 4, 4), torch.zeros(1, 5), None, (2, 2)
    ),
}


@without_compiled
@pytest.mark.parametrize("name", ABSENT)
def test_absent_operator_says_what_to_install(name):
    with pytest.raises(NotImplementedError, match=rf"`{name}` needs compiled mmcv: install mmcv==2\.1\.0"):
        ABSENT[name]()


def run_python(code: str) -> str:
    """Run code in a new interpreter, check that it succeeds and writes nothing to stderr, and return its output."""
    root = Path(mmcv_ops.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_compiled_extension_is_left_untouched():
    output = run_python(
        "import sys, types\n"
        "class Compiled(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        if name.startswith('_'): raise AttributeError(name)\n"
        "        return lambda *a, **k: 'compiled ' + name\n"
        "fake = sys.modules['mmcv._ext'] = Compiled('mmcv._ext')\n"
        "from fashion_hydra.model import mmcv_ops\n"
        "assert sys.modules['mmcv._ext'] is fake\n"
        "import mmcv.ops\n"
        "print(mmcv.ops.roi_align is mmcv_ops.roi_align, mmcv.ops.deform_conv2d is mmcv_ops.deform_conv2d,\n"
        "      hasattr(mmcv.ops.batched_nms, '__wrapped__'), mmcv.ops.get_compiler_version())\n"
    )
    assert output.split(maxsplit=3) == ["False", "False", "False", "compiled get_compiler_version\n"]


@without_compiled
def test_mmdet_imports_in_silence_and_copies_the_replacements():
    """mmdet's version assertions pass, and no warning is printed."""
    run_python(
        "from fashion_hydra.model import mmcv_ops\n"
        "import mmcv.ops, mmdet.models\n"
        "from mmcv.ops import saconv\n"
        "from mmcv.ops.nms import batched_nms\n"
        "from mmcv.ops.roi_align import roi_align\n"
        "from mmdet.models.layers import bbox_nms\n"
        "from mmdet.structures.mask import structures\n"
        "assert mmcv.ops.roi_align is roi_align is structures.roi_align is mmcv_ops.roi_align\n"
        "assert mmcv.ops.deform_conv2d is saconv.deform_conv2d is mmcv_ops.deform_conv2d\n"
        "assert mmcv.ops.modulated_deform_conv2d is mmcv_ops.modulated_deform_conv2d\n"
        "assert mmcv.ops.batched_nms is batched_nms is bbox_nms.batched_nms\n"
        "assert mmdet.models.HybridTaskCascade\n"
    )


def test_extension_built_for_another_torch_is_reported(monkeypatch):
    class BrokenExtension:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "mmcv._ext":
                raise ImportError("undefined symbol: _ZN3c10")

    monkeypatch.delitem(sys.modules, "mmcv._ext")
    monkeypatch.setattr(sys, "meta_path", [BrokenExtension, *sys.meta_path])
    with pytest.warns(UserWarning, match="compiled mmcv cannot be loaded.*undefined symbol"):
        assert not mmcv_ops._importable_extension()


# Comparison with compiled mmcv


def outputs_and_gradients(function, tensors: list[Tensor], *settings) -> list[Tensor]:
    leaves = [t.detach().float().requires_grad_() for t in tensors]
    out = function(*leaves, *settings)
    return [out, *torch.autograd.grad(out.square().sum(), leaves)]


@with_compiled
@pytest.mark.parametrize("case", DEFORM_CASES.values(), ids=DEFORM_CASES.keys())
def test_deform_conv_equals_compiled_mmcv(case):
    x, offset, mask, weight, bias = deform_inputs(**case).values()
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "deform_groups": 1}
    settings = (plain | case).values()
    for ours, theirs, tensors in (
        (mmcv_ops.deform_conv2d, mmcv.ops.deform_conv2d, [x, offset, weight]),
        (mmcv_ops.modulated_deform_conv2d, mmcv.ops.modulated_deform_conv2d, [x, offset, mask, weight, bias]),
    ):
        pairs = zip(*(outputs_and_gradients(f, tensors, *settings) for f in (ours, theirs)), strict=True)
        for actual, expected in pairs:
            close(actual, expected, 1e-5)


@with_compiled
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_equals_compiled_mmcv(ratio, aligned):
    features, rois = roi_align_inputs()
    settings = (rois.float(), (7, 7), 0.25, ratio, "avg", aligned)
    ours, theirs = (outputs_and_gradients(f, [features], *settings) for f in (mmcv_ops.roi_align, mmcv.ops.roi_align))
    for actual, expected in zip(ours, theirs, strict=True):
        close(actual, expected, 1e-5)


@with_compiled
def test_nms_equals_compiled_mmcv():
    boxes, scores = crowded_boxes(200)
    assert mmcv_ops._nms_kernel(boxes, scores, 0.5, 0).tolist() == mmcv.ops.nms(boxes, scores, 0.5)[1].tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_offsets_that_are_no_place_in_the_image_read_zero(value):
    image, weight = torch.randn(1, 3, 6, 6), torch.randn(4, 3, 3, 3)
    offset = torch.zeros(1, 18, 6, 6)
    offset[0, 8:10, 2, 3] = value  # offsets of the kernel's centre, at one pixel
    offset.requires_grad_()
    out = mmcv_ops.deform_conv2d(image, offset, weight, 1, 1)
    without_centre = weight.clone()
    without_centre[:, :, 1, 1] = 0
    expected = torch.nn.functional.conv2d(image, weight, padding=1)
    expected[0, :, 2, 3] = torch.nn.functional.conv2d(image, without_centre, padding=1)[0, :, 2, 3]
    assert torch.allclose(out, expected, atol=1e-5)
    out.sum().backward()
    assert torch.isfinite(offset.grad).all()
