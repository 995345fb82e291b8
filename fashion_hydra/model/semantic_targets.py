"""Ground truth of the semantic branch: the class of each cell of a feature level, painted from the instances' masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fashion_hydra.structures.batch import Size, Targets

IGNORED = 255
"""Label of padding."""


def paint_classes(
    targets: Sequence[Targets], sizes: Sequence[Size], frame: Size, *, stride: int, background: int
) -> Tensor:
    """Return the class at the centre pixel of each cell; where masks overlap, the class of the smallest mask.

    Args:
        targets: each image's instances.
        sizes: each image's height and width before padding.
        frame: height and width after padding, multiples of `stride`.
        stride: edge of a cell in pixels.
        background: label of pixels without a mask.

    Returns:
        int64 (B, 1, H / stride, W / stride), with `IGNORED` in padding.
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
    """Return the number of cells whose centre pixel is before pixel `edge`."""
    return (edge + stride // 2 - 1) // stride
