"""RoIAlign over a whole feature pyramid as one sparse matrix product, for training on a CPU.

torchvision's CPU kernel recomputes the bilinear weights for every channel and runs its backward pass on one
thread. With a fixed number of samples, pooling is the product of a sparse matrix and the channels-last features.
`embedding_bag` computes the product on all cores, forward and backward.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models import SingleRoIExtractor
from torch import Tensor


class PreciseRoIExtractor(SingleRoIExtractor):
    """mmdet's extractor with boxes in float32, because bf16 would shift them by up to four pixels."""

    def reads_channels_last(self, device: torch.device) -> bool:
        """Return whether pooling is faster with channels-last features than with contiguous ones."""
        return self.roi_layers[0].sampling_ratio > 0 and device.type != "cuda"

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Return features (K, C, size, size) pooled from the pyramid for boxes (K, 5), batch index first."""
        assert roi_scale_factor is None, "not used by Hybrid Task Cascade"
        levels = self.map_roi_levels(rois, len(feats))
        size, samples = self.roi_layers[0].output_size, self.roi_layers[0].sampling_ratio
        if self.reads_channels_last(rois.device):
            return pyramid_roi_align(feats, rois, levels, strides=self.featmap_strides, size=size[0], samples=samples)
        pooled = feats[0].new_zeros((len(rois), self.out_channels, *size))
        for level, (layer, feature) in enumerate(zip(self.roi_layers, feats, strict=True)):
            members = torch.nonzero(levels == level)[:, 0]
            if len(members):
                pooled[members] = layer(feature, rois[members])
            else:  # distributed training requires every level to be part of the graph
                pooled += feature.sum() * 0.0
        return pooled

    def averaged(self, feats: Sequence[Tensor], rois: Tensor, *, size: int) -> Tensor:
        """Return the averages of blocks of `forward`'s cells: (K, C, size, size)."""
        own, samples = self.roi_layers[0].output_size[0], self.roi_layers[0].sampling_ratio
        if own % size or not self.reads_channels_last(rois.device):
            return F.adaptive_avg_pool2d(self(feats, rois), size)
        # The same bilinear samples, more of them in each cell.
        levels, samples = self.map_roi_levels(rois, len(feats)), samples * own // size
        return pyramid_roi_align(feats, rois, levels, strides=self.featmap_strides, size=size, samples=samples)


def pyramid_roi_align(
    features: Sequence[Tensor], rois: Tensor, levels: Tensor, *, strides: Sequence[int], size: int, samples: int
) -> Tensor:
    """Apply RoIAlign (He et al. 2017; `aligned`, averaged) to boxes with one pyramid level each.

    Args:
        features: (B, C, H, W) for each level.
        rois: (K, 5), batch index, then x0, y0, x1, y1 in pixels of the image.
        levels: int64 (K,), each box's level.
        strides: stride of each level in pixels of the image.
        size: edge of the result in cells.
        samples: bilinear samples per edge of a cell.

    Returns:
        (K, C, size, size).
    """
    batch, channels = features[0].shape[:2]
    rows = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, channels) for f in features])
    edges = torch.tensor([f.shape[-2:] for f in features], device=rois.device)[levels]
    pixels = torch.tensor([0, *(batch * f.shape[-2] * f.shape[-1] for f in features)], device=rois.device)
    heights, widths = edges.unbind(1)
    first = pixels.cumsum(0)[levels] + rois[:, 0].long() * heights * widths

    corners = rois[:, 1:] / rois.new_tensor(strides)[levels, None] - 0.5
    y, y_share = _taps(corners[:, 1], corners[:, 3], heights, size, samples)
    x, x_share = _taps(corners[:, 0], corners[:, 2], widths, size, samples)
    # (K, cell row, tap, cell column, tap) -> one bag of taps per cell
    index = first[:, None, None, None, None] + y[:, :, :, None, None] * widths[:, None, None, None, None]
    index = (index + x[:, None, None]).transpose(2, 3).reshape(len(rois) * size * size, (2 * samples) ** 2)
    share = (y_share[:, :, :, None, None] * x_share[:, None, None]).transpose(2, 3).reshape(index.shape)
    pooled = F.embedding_bag(index, rows, per_sample_weights=share.to(rows.dtype), mode="sum")
    return pooled.view(len(rois), size, size, channels).permute(0, 3, 1, 2)


def _taps(low: Tensor, high: Tensor, edges: Tensor, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """Return, for one axis, the feature cells that each result cell reads, and their bilinear weights.

    Args:
        low: (K,), start of each box in cells of its level.
        high: (K,), end of each box in cells of its level.
        edges: int64 (K,), number of cells of each box's level.
        size: number of cells of the result.
        samples: bilinear samples per cell of the result.

    Returns:
        Indices, int64, and weights, float32, both (K, size, 2 * samples).
    """
    place = (torch.arange(size * samples, dtype=low.dtype, device=low.device) + 0.5) / (size * samples)
    at = low[:, None] + place * (high - low)[:, None]
    last = (edges - 1)[:, None]
    inside = (at >= -1) & (at <= edges[:, None])
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    before = at.long()
    after = torch.minimum(before + 1, last)
    share = at - before
    cells = torch.stack([before, after], -1)
    shares = torch.stack([1 - share, share], -1) * (inside.to(low.dtype) / samples)[..., None]
    shape = (len(low), size, 2 * samples)
    return cells.view(shape), shares.view(shape)
