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
        masks: float32 (N, M, M), mask probabilities on a grid over the box.
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
    parts = zip(masks.split(at_a_time), boxes.split(at_a_time), strict=True)
    filtered = [_filtered(*part, pixels, size, grid) for part in parts if len(part[0])]
    return torch.cat(filtered) if filtered else masks.new_zeros((0, grid, grid))


def _filtered(masks: Tensor, boxes: Tensor, pixels: Tensor, size: Size, grid: int) -> Tensor:
    """Filter masks, see `filter_masks`; `pixels` is float32 (1, 3, h, w) in [0, 1], and `grid` at least M."""
    margin = round(_MARGIN * grid)
    edge = grid + 2 * margin
    zoom = torch.eye(2, 3, device=masks.device).mul(edge / grid).expand(len(masks), 2, 3)
    sampling = F.affine_grid(zoom, [len(masks), 1, edge, edge], align_corners=False)
    probabilities = F.grid_sample(masks[:, None].float(), sampling, padding_mode="zeros", align_corners=False)
    filtered = guided_filter(probabilities, _crops(pixels, boxes, size, grid, margin), round(_RADIUS * grid), _EPSILON)
    return filtered[:, 0, margin : margin + grid, margin : margin + grid].clamp(0, 1)


def _crops(pixels: Tensor, boxes: Tensor, size: Size, grid: int, margin: int) -> Tensor:
    """Return the image at the grid over each box and a margin, float32 (N, 3, S, S) in [0, 1]; zero outside."""
    around = (boxes[:, 2:] - boxes[:, :2]) * (margin / grid)
    frames = torch.cat([boxes[:, :2] - around, boxes[:, 2:] + around], dim=1)
    scale = boxes.new_tensor([pixels.shape[3] / size[1], pixels.shape[2] / size[0]] * 2)
    return roi_align(pixels, [frames * scale], grid + 2 * margin, sampling_ratio=2, aligned=True)


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
    rows = [torch.linalg.cross(*pair, dim=1) for pair in ((second, third), (third, first), (first, second))]
    determinant = (first * rows[0]).sum(1, keepdim=True)
    return sum(row * right[:, i : i + 1] for i, row in enumerate(rows)) / determinant


def _box_mean(values: Tensor, radius: int) -> Tensor:
    """Return the mean over the cells of a square window that are inside the map, (N, C, H, W)."""
    if not radius:
        return values
    kernel = 2 * radius + 1
    values = values.contiguous(memory_format=torch.channels_last)  # much faster on a CPU
    rows = F.avg_pool2d(values, (kernel, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, kernel), 1, (0, radius), count_include_pad=False)
