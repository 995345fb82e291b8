"""What the semantic branch learns: the class of each cell of a feature level, painted from the instances' masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fashion_hydra.structures.batch import Size, Targets

IGNORED = 255
"""The label of padding."""


def paint_classes(
    targets: Sequence[Targets], sizes: Sequence[Size], frame: Size, *, stride: int, background: int
) -> Tensor:
    """The class of the pixel in the middle of each cell; where masks overlap, that of the smallest.

    Args:
        targets: of each image.
        sizes: height and width of each image before padding.
        frame: height and width after it, multiples of `stride`.
        stride: pixels a cell.
        background: the label of pixels without a mask.

    Returns:
        int64 (B, 1, H / stride, W / stride), `IGNORED` where only padding lies.
    """
    painted = torch.full((len(targets), 1, frame[0] // stride, frame[1] // stride), IGNORED)
    for (plane,), (height, width), objects in zip(painted, sizes, targets, strict=True):
        plane[: _cells(height, stride), : _cells(width, stride)] = background
        crops = objects.masks.crops()
        for index in sorted(range(len(crops)), key=lambda i: -int(crops[i].sum())):
            x0, y0 = objects.masks.windows[index, :2].tolist()
            top, left = _cells(y0, stride), _cells(x0, stride)
            seen = crops[index][top * stride + stride // 2 - y0 :: stride, left * stride + stride // 2 - x0 :: stride]
            cells = plane[top : top + seen.shape[0], left : left + seen.shape[1]]
            cells[seen > 0] = objects.labels[index]
    return painted


def _cells(edge: int, stride: int) -> int:
    """How many cells have their middle before a pixel's edge."""
    return (edge + stride // 2 - 1) // stride
