"""PointRend: finer masks, predicted again at the points of a finer grid where they are least certain.

Kirillov et al., PointRend, CVPR 2020, arXiv:1912.08193, on top of a cascade's masks. Two things differ from the paper:
the head reads the mask of the object's class alone, so that all classes share its weights, and it predicts a correction
of the mask's logit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads.mask_heads import MaskPointHead
from mmdet.models.task_modules import SamplingResult
from torch import Tensor
from torch.nn import functional as F

from fashion_hydra.model.roi_head import CascadeRoIHead, LastMasks

_POINTS = 14**2  # points of a box in a training step; this and the next two numbers are those of the paper
_DRAWN = 3 * _POINTS
_UNCERTAIN = 3 * _POINTS // 4
_LEAST = 1e-4  # probabilities are clamped before their logits are taken


class PointRoIHead(CascadeRoIHead):
    """Hybrid Task Cascade's heads with PointRend's head after the last mask stage.

    Args:
        mask_points: arguments of mmdet's `MaskPointHead`; None for heads without it.
        mask_refinements: how many times inference doubles the number of cells per edge of the masks.
        arguments: arguments of mmdet's head.
    """

    def __init__(
        self, *, mask_points: Mapping[str, Any] | None = None, mask_refinements: int = 0, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.mask_point_head: Any = None if mask_points is None else MaskPointHead(num_classes=1, **mask_points)
        self.mask_refinements = mask_refinements
        self.point_seeds: Sequence[int] = ()
        """Seeds of the points, one per image; empty: use torch's global generator."""

    @property
    def reads_mask_stages(self) -> bool:
        """Whether a training step needs the outputs of all mask stages for the last stage's boxes."""
        return self.mask_point_head is not None

    def refine_masks(self, level: Tensor, boxes: Tensor, masks: Tensor) -> Tensor:
        """Return masks of one image on the finer grid.

        Args:
            level: (1, C, H, W), the finest level of the image's pyramid.
            boxes: (N, 4) in pixels of the image.
            masks: (N, M, M), mask probability on a grid over each box.

        Returns:
            float32 (N, M R, M R), where R is 2 to the power of `mask_refinements`.
        """
        coarse, count = masks.float(), masks.shape[-1] ** 2
        finer = coarse
        for _ in range(self.mask_refinements):
            finer = F.interpolate(finer[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
            edge = finer.shape[-1]
            each = finer.flatten(1)
            index = (each - 0.5).abs().topk(count, largest=False).indices
            places = torch.stack([index % edge, torch.div(index, edge, rounding_mode="floor")], -1)
            logits = self._logits(level, boxes, coarse, (places + 0.5) / edge)
            finer = each.scatter(1, index, logits.sigmoid()).view(-1, edge, edge)
        return finer

    def _logits(self, level: Tensor, boxes: Tensor, masks: Tensor, points: Tensor) -> Tensor:
        """Return float32 logits (N, P) at points (N, P, 2), x and y as shares of the box, of boxes in one image."""
        coarse = _sample(masks.clamp(_LEAST, 1 - _LEAST).logit()[:, None], points)
        features = _sample_level(level, self.mask_roi_extractor[0].featmap_strides[0], boxes, points)
        correction: Tensor = self.mask_point_head(features, coarse.to(features))
        return (coarse + correction)[:, 0].float()

    def losses_of_last_masks(self, seen: LastMasks) -> dict[str, Tensor]:
        """Return `loss_mask_points`, the mean over all points."""
        losses = super().losses_of_last_masks(seen)
        if self.mask_point_head is None:
            return losses
        level, masks = seen.pyramid[0], seen.masks.split([len(sampled.pos_priors) for sampled in seen.sampled])
        total = torch.stack(
            [
                self._point_loss(level[i : i + 1], sampled, truth.masks, masks[i], self.point_seeds[i : i + 1])
                for i, (sampled, truth) in enumerate(zip(seen.sampled, seen.truth, strict=True))
            ]
        ).sum()
        return {**losses, "loss_mask_points": total / max(1, len(seen.labels) * _POINTS)}

    def _point_loss(
        self, level: Tensor, sampled: SamplingResult, truth: Any, masks: Tensor, seed: Sequence[int]
    ) -> Tensor:
        """Return the sum of the cross-entropies at the points of an image's positive boxes."""
        boxes = sampled.pos_priors
        if not len(boxes):  # keep every parameter in the graph
            nothing = sum(parameter.sum() for parameter in self.mask_point_head.parameters())
            return 0 * (nothing + level.sum() + masks.sum())
        points = draw_points(masks.detach(), seed)
        wanted = truth.values_at(_in_image(points, boxes), sampled.pos_assigned_gt_inds)
        logits = self._logits(level, boxes, masks, points)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


def draw_points(masks: Tensor, seed: Sequence[int]) -> Tensor:
    """Draw points for training: of three times as many random points the least certain, and a quarter at random.

    Args:
        masks: (N, M, M), mask probabilities.
        seed: the seed, or empty to use torch's global generator.

    Returns:
        (N, P, 2), x and y as shares of the grid.
    """
    generator = torch.Generator().manual_seed(seed[0]) if len(seed) else None
    drawn = torch.rand(len(masks), _DRAWN, 2, generator=generator).to(masks)
    evenly = torch.rand(len(masks), _POINTS - _UNCERTAIN, 2, generator=generator).to(masks)
    certainty = (_sample(masks[:, None], drawn)[:, 0] - 0.5).abs()
    least = certainty.topk(_UNCERTAIN, largest=False).indices[..., None].expand(-1, -1, 2)
    return torch.cat([drawn.gather(1, least), evenly], 1)


def _in_image(points: Tensor, boxes: Tensor) -> Tensor:
    """Return points (N, P, 2), given as shares of the boxes (N, 4), in pixels of the image."""
    return boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]


def _sample(grids: Tensor, points: Tensor) -> Tensor:
    """Interpolate grids (N, C, H, W) at points (N, P, 2), x and y as shares of the grid: (N, C, P)."""
    return F.grid_sample(grids, (2 * points - 1)[:, None], padding_mode="border", align_corners=False)[:, :, 0]


def _sample_level(level: Tensor, stride: int, boxes: Tensor, points: Tensor) -> Tensor:
    """Interpolate a pyramid level (1, C, H, W) at points (N, P, 2), as shares of the boxes (N, 4): (N, C, P)."""
    height, width = level.shape[-2:]
    extent = torch.stack([torch.as_tensor(edge) for edge in (width, height)]).to(boxes) * stride
    places = (_in_image(points, boxes) / extent).flatten(0, 1)[None]
    return _sample(level, places)[0].unflatten(1, points.shape[:2]).transpose(0, 1)
