"""Run mmcv's operators on torchvision's kernels, so that mmdet works without compiled mmcv.

mmcv-lite ships the Python sources of `mmcv.ops` but not the compiled module `mmcv._ext`, and mmdet imports
`mmcv.ops` everywhere. The Hybrid Task Cascade needs three operators: non-maximum suppression, RoIAlign and
deformable convolution. `install` replaces them with torchvision's kernels for the same algorithms. All other
operators can be imported, but raise an error when called.

The functions have the signatures of mmcv 2.1.0. They compute in float32, or float64 if an argument is float64,
with and without autocast, because torchvision has no bfloat16 kernels and box coordinates do not fit in 8 bits
of mantissa.
"""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor

_EXTENSION = "mmcv._ext"
_REMEDY = "install mmcv==2.1.0 in place of mmcv-lite"

Pair = int | tuple[int, int]


_OUTSIDE = 1e6  # pixels; outside any image, but still convertible to an index


def install() -> None:
    """Make `mmcv.ops` importable. Call this before importing `mmcv.ops` or mmdet; further calls do nothing.

    A compiled mmcv is left unchanged.
    """
    if _importable_extension():
        return
    sys.modules[_EXTENSION] = _Extension()
    importlib.import_module("mmcv.ops")
    for module, replacement in (
        ("roi_align", roi_align),
        ("deform_conv", deform_conv2d),
        ("modulated_deform_conv", modulated_deform_conv2d),
        ("nms", _at_full_precision(importlib.import_module("mmcv.ops.nms").batched_nms)),
    ):
        original = getattr(importlib.import_module(f"mmcv.ops.{module}"), replacement.__name__)
        _replace_everywhere(original, replacement)


def roi_align(
    input: Tensor,
    rois: Tensor,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = "avg",
    aligned: bool = True,
) -> Tensor:
    """Average bilinear samples in each bin of each RoI (He et al., Mask R-CNN, arXiv:1703.06870).

    Args:
        input: features (N, C, H, W).
        rois: (K, 5), batch index and x1, y1, x2, y2 in pixels of the image.
        output_size: number of bins, (height, width).
        spatial_scale: pixels of the features per pixel of the image.
        sampling_ratio: samples per bin and axis; 0: one per pixel of the bin, rounded up.
        pool_mode: 'avg'; torchvision has no 'max'.
        aligned: True: pixel centres are at half-integers; False: they are at integers, and RoIs are enlarged to
            at least one pixel of the features.

    Returns:
        (K, C, height, width) in the type of `input`. Only `input` gets gradients.
    """
    if pool_mode != "avg":
        raise NotImplementedError(
            f"mmcv operator `roi_align` with pool_mode={pool_mode!r} needs compiled mmcv "
            f"(torchvision only has 'avg'): {_REMEDY}"
        )
    dtype = _compute_dtype(input, rois)
    pooled = torchvision.ops.roi_align(
        input.to(dtype), rois.to(dtype), output_size, spatial_scale, sampling_ratio, aligned
    )
    return pooled.to(input.dtype)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
    bias: bool = False,
    im2col_step: int = 32,
) -> Tensor:
    """Apply a deformable convolution, version 1 (Dai et al., arXiv:1703.06211).

    Args:
        input: (N, C, H, W).
        offset: (N, deform_groups * kh * kw * 2, H', W'), in pixels, y before x.
        weight: (O, C // groups, kh, kw).
        stride: step between outputs, one number or (y, x).
        padding: zeros on each side, one number or (y, x).
        dilation: spacing of the kernel's points, one number or (y, x).
        groups: number of channel groups of the convolution.
        deform_groups: number of input channel groups with separate offsets.
        bias: must be False; version 1 has no bias.
        im2col_step: ignored; mmcv's chunk size, which does not change the result.

    Returns:
        (N, O, H', W') in the type of `input`.
    """
    if bias is not False:
        raise ValueError(f"deform_conv2d: expected bias=False (version 1 has none) but got {bias!r}")
    return _deform_conv(input, offset, None, weight, None, stride, padding, dilation, groups, deform_groups)


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Apply a deformable convolution, version 2 (Zhu et al., arXiv:1811.11168), which weights every sample.

    Args:
        input: (N, C, H, W).
        offset: (N, deform_groups * kh * kw * 2, H', W'), in pixels, y before x.
        mask: (N, deform_groups * kh * kw, H', W'), weights of the samples.
        weight: (O, C // groups, kh, kw).
        bias: (O,) or None.
        stride: step between outputs, one number or (y, x).
        padding: zeros on each side, one number or (y, x).
        dilation: spacing of the kernel's points, one number or (y, x).
        groups: number of channel groups of the convolution.
        deform_groups: number of input channel groups with separate offsets and masks.

    Returns:
        (N, O, H', W') in the type of `input`.
    """
    return _deform_conv(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)


def _deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Apply a deformable convolution of either version; version 1 has neither mask nor bias."""
    _check_groups(input, offset, weight, groups=groups, deform_groups=deform_groups)
    given = (input, offset, mask, weight, bias)
    dtype = _compute_dtype(*(x for x in given if x is not None))
    x, mask_, weight_, bias_ = (None if t is None else t.to(dtype) for t in (input, mask, weight, bias))
    # torchvision's kernel converts a NaN coordinate to an index outside the image and crashes the process. mmcv's
    # kernel reads zero there, as do coordinates of _OUTSIDE.
    offset_ = offset.to(dtype).nan_to_num(nan=_OUTSIDE).clamp(-_OUTSIDE, _OUTSIDE)
    out = torchvision.ops.deform_conv2d(
        x, offset_, weight_, bias_, stride=stride, padding=padding, dilation=dilation, mask=mask_
    )
    return out.to(input.dtype)


def _check_groups(input: Tensor, offset: Tensor, weight: Tensor, *, groups: int, deform_groups: int) -> None:
    """Raise ValueError unless the shapes match both numbers of groups, which torchvision infers, rounding down."""
    if input.dim() != 4:
        raise ValueError(f"deformable convolution: expected input of 4 dimensions but got {input.dim()}")
    channels, (_, in_group, kernel_h, kernel_w) = input.shape[1], weight.shape
    if channels != groups * in_group:
        raise ValueError(
            f"deformable convolution: input of {channels} channels and weight of shape {tuple(weight.shape)} "
            f"do not fit groups={groups}"
        )
    expected = deform_groups * 2 * kernel_h * kernel_w
    if offset.shape[1] != expected:
        raise ValueError(
            f"deformable convolution: expected offset of {expected} channels (deform_groups={deform_groups}, "
            f"kernel {kernel_h}x{kernel_w}, 2 coordinates) but got {offset.shape[1]}"
        )


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the promoted type of all tensors and float32."""
    return functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)


def _nms_kernel(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes by descending score; `mmcv.ops.nms` calls this as its compiled kernel."""
    if offset != 0:
        raise NotImplementedError(
            f"mmcv operator `nms` with offset={offset} needs compiled mmcv (torchvision only has 0): {_REMEDY}"
        )
    dtype = _compute_dtype(boxes, scores)
    return torchvision.ops.nms(boxes.to(dtype), scores.to(dtype), iou_threshold)


def _at_full_precision(
    batched_nms: Callable[..., tuple[Tensor, Tensor]],
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Wrap mmcv's `batched_nms` to compute in float32 or float64.

    `batched_nms` shifts the boxes of each class apart, up to classes x image size, where different boxes become
    equal in bfloat16. From 10,000 boxes, it also fails if boxes and scores differ in type.
    """

    @functools.wraps(batched_nms)
    def wrapper(boxes: Tensor, scores: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        dtype = _compute_dtype(boxes, scores)
        dets, keep = batched_nms(boxes.to(dtype), scores.to(dtype), *args, **kwargs)
        return dets.to(torch.promote_types(boxes.dtype, scores.dtype)), keep

    return wrapper


class _Extension(ModuleType):
    """Replacement for `mmcv._ext` with NMS; all other kernels raise an error that names the package to install."""

    def __init__(self) -> None:
        super().__init__(_EXTENSION, self.__doc__)
        # Without a loader, mmcv's check `check_ops_exist` still reports that nothing is compiled.
        self.__spec__ = ModuleSpec(_EXTENSION, loader=None)
        self.nms = _nms_kernel
        # mmcv's `collect_env` prints the same without operators.
        self.get_compiler_version = self.get_compiling_cuda_version = lambda: "n/a"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):  # looked up by the import system and by inspection; never a kernel
            raise AttributeError(f"module {_EXTENSION!r} has no attribute {name!r}")

        def absent(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"mmcv operator `{name}` needs compiled mmcv: {_REMEDY}")

        return absent


def _importable_extension() -> bool:
    """Return whether `mmcv._ext` can be imported, either compiled or installed by this module."""
    importlib.import_module("mmcv")  # fails here if mmcv is missing, not only the extension
    try:
        importlib.import_module(_EXTENSION)
    except ModuleNotFoundError:
        return False
    except ImportError as error:  # installed, but built for another version of torch
        warnings.warn(f"compiled mmcv cannot be loaded, using torchvision's kernels: {error}", stacklevel=3)
        return False
    return True


def _replace_everywhere(original: object, replacement: object) -> None:
    """Rebind every name bound to `original` in `mmcv.ops`, whose modules import one another's functions by name."""
    for module_name, module in list(sys.modules.items()):
        if module_name == "mmcv.ops" or module_name.startswith("mmcv.ops."):
            for name, value in list(vars(module).items()):
                if value is original:
                    setattr(module, name, replacement)
