"""Checks of the arguments of `build_htc`. mmdet accepts nearly any value, and fails later or trains nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fashion_hydra.utils.errors import UserError

LARGEST_MASK_ROI = 112
MOST_STAGES = 3
_AT_LEAST = {
    "neck_channels": 1,
    "fc_channels": 1,
    "mask_channels": 1,
    "mask_convs": 0,
    "rpn_batch": 1,
    "train_proposals": 1,
    "test_proposals": 1,
    "rois_per_stage": 1,
    "roi_sampling_ratio": 0,
    "semantic_convs": 0,
    "dice_weight": 0,
    "mask_refinements": 0,
}
_PROBE = 64  # edge of the test image in pixels


def check_numbers(
    counts: Mapping[str, float],
    *,
    mask_roi_size: int,
    anchor_scale: float,
    anchor_ratios: Sequence[float],
    proposal_iou_thr: float,
    stage_ious: Sequence[float],
    stage_weights: Sequence[float],
) -> None:
    """Raise `UserError` if a number is out of range.

    Args:
        counts: values of the options in `_AT_LEAST`, by name.
        mask_roi_size: see `build_htc`.
        anchor_scale: see `build_htc`.
        anchor_ratios: see `build_htc`.
        proposal_iou_thr: see `build_htc`.
        stage_ious: see `build_htc`.
        stage_weights: see `build_htc`.
    """
    for name, least in _AT_LEAST.items():
        if not counts[name] >= least:  # also refuses NaN
            raise UserError(f"model.{name}={counts[name]}: must be at least {least}")
    if len(stage_ious) != len(stage_weights) or not 1 <= len(stage_ious) <= MOST_STAGES:
        raise UserError(
            f"model.stage_ious={list(stage_ious)} model.stage_weights={list(stage_weights)}: "
            "must have one to three numbers each, the same number in both"
        )
    mask, neck = counts["mask_channels"], counts["neck_channels"]
    if mask != neck and len(stage_ious) > 1:
        raise UserError(
            f"model.mask_channels={mask} model.neck_channels={neck}: must be equal, because a stage's mask "
            "features are added to the pyramid's"
        )
    if not 1 <= mask_roi_size <= LARGEST_MASK_ROI:
        raise UserError(f"model.mask_roi_size={mask_roi_size}: must be between 1 and {LARGEST_MASK_ROI}")
    for name, values in (("anchor_scale", [anchor_scale]), ("anchor_ratios", anchor_ratios)):
        if not values or min(values) <= 0:
            raise UserError(f"model.{name}={_shown(values)}: must be above 0")
    for name, values in (("proposal_iou_thr", [proposal_iou_thr]), ("stage_ious", stage_ious)):
        if not 0 < min(values) <= max(values) < 1:
            raise UserError(f"model.{name}={_shown(values)}: must be between 0 and 1")
    if min(stage_weights) < 0:
        raise UserError(f"model.stage_weights={_shown(stage_weights)}: must be at least 0")


def check_pixels(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise `UserError` unless mean and standard deviation have three channels and all deviations are above 0."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            raise UserError(f"model.backbone.{name}={_shown(values)}: must be three numbers, above 0 for std")


def check_features(backbone: nn.Module, channels: Sequence[int], strides: Sequence[int]) -> None:
    """Raise `UserError` unless a backbone returns features with these channels at these strides.

    Parameters that no feature depends on are frozen, because distributed training waits for every gradient.
    """
    was_training = backbone.training
    backbone.eval()  # returns None in mmdet
    with torch.enable_grad():
        features = backbone(torch.zeros(1, 3, _PROBE, _PROBE))
        if (total := sum(feature.sum() for feature in features)).requires_grad:
            total.backward()
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    backbone.train(was_training)
    found = [feature.shape[1] for feature in features]
    if found != list(channels):
        raise UserError(f"model.backbone.channels={_shown(channels)}: the backbone has {_shown(found)}")
    edges = [_PROBE // stride for stride in strides]
    if any(feature.shape[-2:] != (edge, edge) for feature, edge in zip(features, edges, strict=True)):
        given = [_PROBE // feature.shape[-1] for feature in features]
        raise UserError(f"model.backbone: must return features at strides {_shown(strides)}, returns {_shown(given)}")


def _shown(values: Sequence[Any]) -> str:
    return str(values[0] if len(values) == 1 else list(values)).replace(" ", "")
