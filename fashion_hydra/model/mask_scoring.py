"""Mask Scoring: a head that predicts the IoU of each predicted mask with the object's true mask.

Huang et al., Mask Scoring R-CNN, CVPR 2019, arXiv:1903.00241, on the last stage of a cascade. The head reads the
features of the last mask stage and the mask averaged over the stages, before its refinement if the model has one. No
gradient flows from the head into the rest of the network, so boxes, classes and masks are those of a model without it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.models.task_modules import SamplingResult
from torch import Tensor, nn
from torch.nn import functional as F

from fashion_hydra.model.mask_points import PointRoIHead
from fashion_hydra.model.mask_targets import GroundTruthMasks
from fashion_hydra.model.roi_head import LastMasks


class MaskIoUHead(nn.Module):
    """Two convolutions and two fully connected layers over mask features and the mask itself.

    Args:
        num_classes: number of outputs.
        channels: number of channels of the mask features.
        roi_size: height and width of the mask features; the masks have twice as many cells per edge.
        fc_channels: width of the hidden fully connected layer.
    """

    def __init__(self, *, num_classes: int, channels: int, roi_size: int, fc_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.fc = nn.Linear(channels * (-(-roi_size // 2)) ** 2, fc_channels)
        self.fc_mask_iou = nn.Linear(fc_channels, num_classes)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return the logit of the mask IoU for each class.

        Args:
            features: (N, C, S, S).
            masks: (N, 2 S, 2 S), mask probabilities.

        Returns:
            (N, classes).
        """
        x = torch.cat([features, F.max_pool2d(masks[:, None].to(features), 2)], dim=1)
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        logits: Tensor = self.fc_mask_iou(F.relu(self.fc(x.flatten(1))))
        return logits


class MaskScoringRoIHead(PointRoIHead):
    """`PointRoIHead` with a `MaskIoUHead` on the last stage.

    Args:
        mask_iou: arguments of `MaskIoUHead`; None for heads without it.
        arguments: arguments of `PointRoIHead`.
    """

    def __init__(self, *, mask_iou: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mask_iou_head = None if mask_iou is None else MaskIoUHead(**mask_iou)

    @property
    def reads_mask_stages(self) -> bool:
        """Whether a training step needs the outputs of all mask stages for the last stage's boxes."""
        return self.mask_iou_head is not None or super().reads_mask_stages

    def losses_of_last_masks(self, seen: LastMasks) -> dict[str, Tensor]:
        """Return the losses without this head, and `loss_mask_iou`, the mean over positive boxes."""
        losses = super().losses_of_last_masks(seen)
        if self.mask_iou_head is None:
            return losses
        masks, labels = seen.masks.detach(), seen.labels
        areas = torch.cat([mask_areas(*pair) for pair in zip(seen.sampled, seen.truth, strict=True)])
        boxes = torch.cat([sampled.pos_priors for sampled in seen.sampled])
        wanted = mask_ious(masks > 0.5, seen.targets > 0.5, boxes, areas)
        logits = self.mask_iou_head(seen.features.detach(), masks).gather(1, labels[:, None])[:, 0].float()
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {**losses, "loss_mask_iou": each / max(1, len(labels))}


def mask_areas(sampled: SamplingResult, truth: Any) -> Tensor:
    """Return the area in pixels of the true mask behind each box on an object: float32 (P,)."""
    masks: GroundTruthMasks = truth.masks
    return masks.areas.to(sampled.pos_priors.device, torch.float32)[sampled.pos_assigned_gt_inds]


def mask_ious(masks: Tensor, targets: Tensor, boxes: Tensor, areas: Tensor) -> Tensor:
    """Return the IoU of masks on grids over boxes with whole true masks, also where these leave the box.

    Args:
        masks: bool (N, M, M).
        targets: bool (N, M, M), the true masks on the same grids.
        boxes: (N, 4) in pixels.
        areas: (N,), pixels of the whole true masks.

    Returns:
        float32 (N,); 0 where both masks are empty.
    """
    cell = (boxes[:, 2:] - boxes[:, :2]).float().prod(1) / (masks.shape[1] * masks.shape[2])
    both = (masks & targets).sum((1, 2)) * cell
    union = masks.sum((1, 2)) * cell + torch.maximum(areas, both) - both
    return torch.where(union > 0, both / union.clamp(min=1e-6), torch.zeros_like(union))
