"""Configs of the parts of mmdet's Hybrid Task Cascade, for `fashion_hydra.model.htc.build_htc`.

The functions return plain dictionaries in mmdet's format; their arguments are those of `build_htc`.
"""

from collections.abc import Sequence
from typing import Any

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.model.attribute_head import LOSSES, AttributeBoxHead, AttributeRoIHead
from fashion_hydra.model.class_loss import class_loss
from fashion_hydra.model.detector import SEMANTIC_LEVEL, STRIDES
from fashion_hydra.model.mask_loss import MaskLoss
from fashion_hydra.model.mask_points import PointRoIHead
from fashion_hydra.model.mask_scoring import MaskScoringRoIHead
from fashion_hydra.model.roi_align import PreciseRoIExtractor
from fashion_hydra.model.roi_head import CascadeRoIHead
from fashion_hydra.model.sampling import ImageSampler
from fashion_hydra.model.semantic_targets import IGNORED
from fashion_hydra.utils.errors import UserError

_BOX_LOSSES: dict[str, dict[str, Any]] = {
    "smooth_l1": {"type": "SmoothL1Loss", "beta": 1.0},
    "giou": {"type": "GIoULoss", "loss_weight": 10.0},
}


def norm_cfg(norm: str | None) -> dict[str, Any] | None:
    """Return the norm of pyramid and mask heads; None for no norm."""
    choices: dict[str | None, dict[str, Any] | None] = {
        None: None,
        "BN": {"type": "BN"},
        "GN": {"type": "GN", "num_groups": 8},
    }
    if norm not in choices:
        raise UserError(f"model.norm={norm}: give null, BN or GN")
    return choices[norm]


def roi_extractor(channels: int, size: int, sampling_ratio: int) -> dict[str, Any]:
    """Return RoIAlign on the pyramid's first four levels, to `size` x `size` cells."""
    return {
        "type": PreciseRoIExtractor,
        "roi_layer": {"type": "RoIAlign", "output_size": size, "sampling_ratio": sampling_ratio},
        "out_channels": channels,
        "featmap_strides": list(STRIDES[:4]),
    }


def roi_head(
    stage_weights: Sequence[float],
    *,
    box_heads: list[dict[str, Any]],
    mask_heads: list[dict[str, Any]],
    box_roi: dict[str, Any],
    mask_roi: dict[str, Any],
) -> dict[str, Any]:
    """Return the interleaved stages, where each mask stage also receives the features of the one before it."""
    return {
        "type": CascadeRoIHead,
        "interleaved": True,
        "mask_info_flow": True,
        "num_stages": len(stage_weights),
        "stage_loss_weights": list(stage_weights),
        "bbox_roi_extractor": box_roi,
        "bbox_head": box_heads,
        "mask_roi_extractor": mask_roi,
        "mask_head": mask_heads,
    }


def add_mask_points(roi_head: dict[str, Any], channels: int, hidden: int, refinements: int) -> None:
    """Add PointRend's head, which refines the masks."""
    head = {"in_channels": channels, "fc_channels": hidden}
    roi_head |= {"type": PointRoIHead, "mask_points": head, "mask_refinements": refinements}


def add_mask_scoring(
    roi_head: dict[str, Any], num_classes: int, channels: int, roi_size: int, fc_channels: int
) -> None:
    """Add the head that predicts the IoU of each mask."""
    head = {"num_classes": num_classes, "channels": channels, "roi_size": roi_size, "fc_channels": fc_channels}
    roi_head |= {"type": MaskScoringRoIHead, "mask_iou": head}


def add_attributes(roi_head: dict[str, Any], attributes: AttributeSet | None, *, loss: str, weight: float) -> None:
    """Let the box heads learn attributes.

    Raises:
        UserError: there are no attributes, or an option is invalid.
    """
    if not attributes:
        raise UserError(
            "model.attributes=true: no attributes given. Use data with attributes or model.attributes=false"
        )
    if loss not in LOSSES or not weight > 0:
        raise UserError(
            f"model.attribute_loss={loss} model.attribute_weight={weight}: must be a loss among "
            f"{', '.join(LOSSES)} and a weight above 0"
        )
    roi_head["bbox_head"] = [
        {**head, "type": AttributeBoxHead, "num_attributes": len(attributes)} for head in roi_head["bbox_head"]
    ]
    roi_head |= {
        "type": AttributeRoIHead,
        "allowed": attributes.allowed().tolist(),
        "frequencies": attributes.frequencies().tolist(),
        "attribute_loss": loss,
        "attribute_weight": weight,
    }


def add_semantic_branch(roi_head: dict[str, Any], roi_extractor: dict[str, Any], head: dict[str, Any]) -> None:
    """Add the semantic branch, whose features are added to those of the box and mask heads."""
    roi_head["semantic_roi_extractor"] = {**roi_extractor, "featmap_strides": [STRIDES[SEMANTIC_LEVEL]]}
    roi_head["semantic_head"] = head


def _box_coder(stds: Sequence[float]) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(stds)}


def rpn_head(channels: int, anchor_scale: float, ratios: Sequence[float]) -> dict[str, Any]:
    """Return the region proposal network."""
    return {
        "type": "RPNHead",
        "in_channels": channels,
        "feat_channels": channels,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [anchor_scale],
            "ratios": list(ratios),
            "strides": list(STRIDES),
        },
        "bbox_coder": _box_coder((1.0,) * 4),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
        "loss_bbox": {"type": "SmoothL1Loss", "beta": 1 / 9},
    }


def box_head(
    num_classes: int, channels: int, fc_channels: int, stds: Sequence[float], *, box_loss: str, loss_of_classes: str
) -> dict[str, Any]:
    """Return the box head of a stage; `stds` scales its box deltas."""
    if box_loss not in _BOX_LOSSES:
        raise UserError(f"model.box_loss={box_loss}: choose one of {', '.join(_BOX_LOSSES)}")
    return {
        "type": "Shared2FCBBoxHead",
        "in_channels": channels,
        "fc_out_channels": fc_channels,
        "roi_feat_size": 7,
        "num_classes": num_classes,
        "bbox_coder": _box_coder(stds),
        "reg_class_agnostic": True,
        "reg_decoded_bbox": box_loss == "giou",
        "loss_cls": class_loss(loss_of_classes, num_classes),
        "loss_bbox": _BOX_LOSSES[box_loss],
    }


def mask_head(
    num_classes: int,
    channels: int,
    mask_channels: int,
    convs: int,
    norm_cfg: dict[str, Any] | None,
    dice_weight: float,
    *,
    first: bool,
) -> dict[str, Any]:
    """Return the mask head of a stage."""
    return {
        "type": "HTCMaskHead",
        "with_conv_res": not first,  # the first stage has no earlier stage's features to add
        "num_convs": convs,
        "in_channels": channels,
        "conv_out_channels": mask_channels,
        "norm_cfg": norm_cfg,
        "num_classes": num_classes,
        "loss_mask": {"type": MaskLoss, "dice_weight": dice_weight},
    }


def semantic_head(
    num_classes: int, channels: int, convs: int, weight: float, norm_cfg: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the head that learns the class of every eighth pixel."""
    return {
        "type": "FusedSemanticHead",
        "num_ins": len(STRIDES),
        "fusion_level": SEMANTIC_LEVEL,
        "seg_scale_factor": 1,  # the ground truth already has the level's stride
        "num_convs": convs,
        "in_channels": channels,
        "conv_out_channels": channels,
        "norm_cfg": norm_cfg,
        "num_classes": num_classes + 1,
        "loss_seg": {
            "type": "CrossEntropyLoss",
            "ignore_index": IGNORED,
            "avg_non_ignore": True,
            "loss_weight": weight,
        },
    }


def train_cfg(
    rpn_batch: int, proposals: int, proposal_iou: float, rois: int, stage_ious: Sequence[float], mask_size: int
) -> dict[str, Any]:
    """Return how anchors and RoIs are assigned to objects and sampled."""

    def sampler(num: int, positive: float, add_truth: bool) -> dict[str, Any]:
        return {
            "type": ImageSampler,
            "num": num,
            "pos_fraction": positive,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": add_truth,
        }

    def assigner(positive: float, negative: float, at_least: float) -> dict[str, Any]:
        return {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": positive,
            "neg_iou_thr": negative,
            "min_pos_iou": at_least,
            "ignore_iof_thr": -1,
        }

    return {
        "rpn": {
            "assigner": assigner(0.7, 0.3, 0.3),
            "sampler": sampler(rpn_batch, 0.5, False),
            "allowed_border": 0,
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": _proposals(proposals, proposal_iou),
        "rcnn": [
            {
                "assigner": assigner(iou, iou, iou),
                "sampler": sampler(rois, 0.25, True),
                "mask_size": mask_size,
                "pos_weight": -1,
                "debug": False,
            }
            for iou in stage_ious
        ],
    }


def test_cfg(proposals: int, proposal_iou: float) -> dict[str, Any]:
    """Return the number of proposals in inference and the IoU threshold of their NMS."""
    # Only mmdet's `predict` uses these, and it is never called: Postprocess has the thresholds of predictions.
    rcnn = {
        "score_thr": 0.001,
        "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 100,
        "mask_thr_binary": 0.5,
    }
    return {"rpn": _proposals(proposals, proposal_iou), "rcnn": rcnn}


def _proposals(count: int, iou_thr: float) -> dict[str, Any]:
    return {
        "nms_pre": count,
        "max_per_img": count,
        "nms": {"type": "nms", "iou_threshold": iou_thr},
        "min_bbox_size": 0,
    }
