"""Move the edges of masks to edges in the image: the guided filter of He, Sun and Tang (TPAMI 35, 2013)."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from fashion_hydra.structures.batch import Size

_RADIUS = 3 / 56  # of the windows, as a share of the box's edge
_MARGIN = 4 / 56  # of the image around the box, as a share of the box's edge
_EPSILON = 1e-3  # variance of colours, in [0, 1], below which a window is flat


def filter_masks(masks: Tensor, boxes: Tensor, image: Tensor, size: Size, *, grid: int) -> Tensor:
    """Return masks on a finer grid, filtered with the image's colours as the guide.

    Within each small window, the filtered mask is a linear function of the colours. So the mask's edge moves to an edge
    between two colours if there is one in the window, and stays about where it is if there is none.

    Args:
        masks: float32 (N, M, M), mask probabilities on a grid over the box; at least one mask.
        boxes: float32 (N, 4) in the frame of `size`.
        image: uint8 (3, h, w), at any scale.
        size: height and width of the frame of the boxes.
        grid: cells along an edge of the returned masks; at least M are returned.

    Returns:
        float32 (N, G, G), where G is the larger of `grid` and M.
    """
    grid = max(grid, masks.shape[-1])
    at_a_time = 8 if masks.device.type == "cpu" else 256  # few masks fit the CPU's cache, which is much faster
    pixels = image[None].float() / 255
    boxes = boxes * boxes.new_tensor([image.shape[2] / size[1], image.shape[1] / size[0]] * 2)
    parts = zip(masks.float().split(at_a_time), boxes.split(at_a_time), strict=True)
    return torch.cat([filter_on_grid(*part, pixels, grid) for part in parts])


def filter_on_grid(masks: Tensor, boxes: Tensor, pixels: Tensor, grid: int) -> Tensor:
    """Filter masks as `filter_masks` does, all at once and without branches, so that it can be traced.

    Args:
        masks: float32 (N, M, M).
        boxes: float32 (N, 4) in the frame of the pixels.
        pixels: float32 (1, 3, h, w), from 0 to 1.
        grid: cells along an edge of the returned masks, at least M.
    """
    margin = round(_MARGIN * grid)
    around = (boxes[:, 2:] - boxes[:, :2]) * (margin / grid)
    frames = F.pad(torch.cat([boxes[:, :2] - around, boxes[:, 2:] + around], dim=1), (1, 0))
    colours = roi_align(pixels, frames, grid + 2 * margin, sampling_ratio=2, aligned=True)  # zero outside the image
    finer = F.interpolate(masks[:, None], size=(grid, grid), mode="bilinear", align_corners=False)
    filtered = guided_filter(F.pad(finer, [margin] * 4), colours, round(_RADIUS * grid), _EPSILON)
    return filtered[:, 0, margin : margin + grid, margin : margin + grid].clamp(0, 1)


def guided_filter(values: Tensor, guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """Filter values with colours as the guide, see `filter_masks`.

    Args:
        values: float32 (N, 1, H, W).
        guide: float32 (N, 3, H, W).
        radius: radius of the square windows, in cells; 0: windows of one cell.
        epsilon: regularization of the linear functions; a larger value smooths more.
    """
    products = (guide[:, :, None] * guide[:, None]).flatten(1, 2)  # (N, 9, H, W)
    means = _box_mean(torch.cat([guide, values, guide * values, products], dim=1), radius)
    colour, value, colour_value, colour_colour = means.split([3, 1, 3, 9], dim=1)
    covariance = colour_value - colour * value
    variance = colour_colour.unflatten(1, (3, 3)) - colour[:, :, None] * colour[:, None]
    slope = _solve(variance, covariance, epsilon)
    offset = value - (slope * colour).sum(1, keepdim=True)
    slope, offset = _box_mean(torch.cat([slope, offset], dim=1), radius).split([3, 1], dim=1)
    return (slope * guide).sum(1, keepdim=True) + offset


def _solve(matrix: Tensor, right: Tensor, epsilon: float) -> Tensor:
    """Solve (matrix + epsilon) x = right per cell by Cramer's rule; matrix (N, 3, 3, H, W), right (N, 3, H, W)."""
    first, second, third = (matrix + epsilon * torch.eye(3, device=matrix.device)[None, :, :, None, None]).unbind(1)
    rows = _cross(second, third), _cross(third, first), _cross(first, second)
    solved = sum(row * right[:, i : i + 1] for i, row in enumerate(rows))
    return solved / (first * rows[0]).sum(1, keepdim=True)


def _cross(one: Tensor, other: Tensor) -> Tensor:
    """Return the cross product of vectors (N, 3, H, W); `torch.linalg.cross` is slower on a CPU."""
    a, b, c = one.unbind(1)
    x, y, z = other.unbind(1)
    return torch.stack([b * z - c * y, c * x - a * z, a * y - b * x], dim=1)


def _box_mean(values: Tensor, radius: int) -> Tensor:
    """Return the mean over the cells of a square window that are inside the map, (N, C, H, W)."""
    if not radius:
        return values
    kernel = 2 * radius + 1
    values = values.contiguous(memory_format=torch.channels_last)  # much faster on a CPU
    rows = F.avg_pool2d(values, (kernel, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, kernel), 1, (0, radius), count_include_pad=False)
