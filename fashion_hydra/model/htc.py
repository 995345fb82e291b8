"""Build a Hybrid Task Cascade of mmdet from plain arguments.

Chen et al., CVPR 2019, arXiv:1901.07518; constants without an argument are those of mmdet's published models.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from mmdet.models import HybridTaskCascade
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from torch import nn

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.model import htc_parts as parts
from fashion_hydra.model.detector import STRIDES, Detector
from fashion_hydra.model.htc_checks import check_features, check_numbers, check_pixels
from fashion_hydra.model.outline import outline
from fashion_hydra.model.timm_backbone import TARGET as TIMM
from fashion_hydra.model.timm_backbone import describe_network
from fashion_hydra.model.weights.catalogue import locate_backbone
from fashion_hydra.model.weights.load import load_backbone
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import import_object

_MOST_PARAMETERS = 5 * 10**8  # 2 GB; the winner's model has 1.4 * 10**8
_BOX_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


def build_htc(
    *,
    num_classes: int,
    backbone: Mapping[str, Any],
    neck_channels: int,
    fc_channels: int,
    mask_channels: int,
    mask_convs: int,
    mask_roi_size: int,
    anchor_scale: float,
    anchor_ratios: Sequence[float],
    rpn_batch: int,
    train_proposals: int,
    test_proposals: int,
    proposal_iou_thr: float,
    rois_per_stage: int,
    stage_ious: Sequence[float],
    stage_weights: Sequence[float],
    roi_sampling_ratio: int,
    norm: str | None,
    gradient_checkpointing: bool,
    semantic_convs: int = 0,
    semantic_weight: float = 0.2,
    attributes: bool = False,
    attribute_loss: str = "bce",
    attribute_weight: float = 0.5,
    attribute_set: AttributeSet | None = None,
    mask_scoring: bool = False,
    mask_refinements: int = 0,
    box_loss: str = "smooth_l1",
    class_loss: str = "cross_entropy",
    dice_weight: float = 0.0,
) -> Detector:
    """Build a Hybrid Task Cascade with interleaved stages, mask information flow and optional branches.

    Args:
        num_classes: number of classes without background.
        backbone: `type` (a name in mmdet's registry or an import path) and its arguments, plus `channels` (of its four
            outputs), `mean`, `std`, `channel_order`, and `weights` (`imagenet`, a catalogue name, a file, a URL or
            null).
        neck_channels: number of channels of each level of the feature pyramid.
        fc_channels: width of the two fully connected layers of each box head.
        mask_channels: number of channels of the convolutions in each mask head.
        mask_convs: number of convolutions in each mask head.
        mask_roi_size: edge of a mask head's input in cells; the edge of its masks is twice that.
        anchor_scale: anchor edge in strides.
        anchor_ratios: anchor heights divided by anchor widths.
        rpn_batch: number of anchors sampled per image in training.
        train_proposals: maximum number of proposals per image in training.
        test_proposals: maximum number of proposals per image in inference.
        proposal_iou_thr: IoU threshold of the proposals' NMS.
        rois_per_stage: number of RoIs sampled per image and stage in training.
        stage_ious: for each stage, the IoU from which a box counts as an object.
        stage_weights: loss weight of each stage.
        roi_sampling_ratio: samples per edge of a RoIAlign cell; 0: one per feature pixel.
        norm: `BN` or `GN` in pyramid and mask heads, needed to train from scratch; null: no norm, as in the paper.
        gradient_checkpointing: recompute the backbone's activations in the backward pass to save memory.
        semantic_convs: number of convolutions in the semantic branch, which learns the class of every eighth pixel from
            the instances' masks; 0: no semantic branch.
        semantic_weight: weight of the semantic branch's loss.
        attributes: whether the box heads also learn the objects' attributes.
        attribute_loss: `bce`; `balanced`, which gives an attribute's presence the same total weight as its absence; or
            `focal`.
        attribute_weight: weight of the attribute loss.
        attribute_set: the attributes to learn, from the data or the checkpoint.
        box_loss: loss of the boxes in the stages: `smooth_l1`, or `giou`, the generalised IoU of decoded boxes
            (Rezatofighi et al., CVPR 2019, arXiv:1902.09630), with weight 10.
        class_loss: loss of the classes in the stages: `cross_entropy`, or `seesaw` for rare classes, see
            `fashion_hydra.model.class_loss`.
        dice_weight: weight of the Dice loss in the mask stages, see `fashion_hydra.model.mask_loss`; 0 for none.
        mask_scoring: whether to add a head that predicts the IoU of each mask, see `fashion_hydra.model.mask_scoring`.
        mask_refinements: how many times PointRend's head doubles the number of cells per edge of the masks, see
            `fashion_hydra.model.mask_points`; 0: the model has no such head.

    Raises:
        UserError: the backbone is unknown to mmdet, an argument is invalid, the model is too large, or the weights do
            not fit.
    """
    check_numbers(
        {
            "neck_channels": neck_channels,
            "fc_channels": fc_channels,
            "mask_channels": mask_channels,
            "mask_convs": mask_convs,
            "rpn_batch": rpn_batch,
            "train_proposals": train_proposals,
            "test_proposals": test_proposals,
            "rois_per_stage": rois_per_stage,
            "roi_sampling_ratio": roi_sampling_ratio,
            "semantic_convs": semantic_convs,
            "dice_weight": dice_weight,
            "mask_refinements": mask_refinements,
        },
        mask_roi_size=mask_roi_size,
        anchor_scale=anchor_scale,
        anchor_ratios=anchor_ratios,
        proposal_iou_thr=proposal_iou_thr,
        stage_ious=stage_ious,
        stage_weights=stage_weights,
    )
    if "." not in str(backbone["type"]) and MODELS.get(backbone["type"]) is None:
        raise UserError(
            f"model.backbone.type={backbone['type']}: mmdet has no backbone of that name. Give the name of one of "
            "mmdet's backbones, or the import path of your own"
        )
    arguments = dict(backbone)
    channels, mean, std = _inputs(arguments)
    check_pixels(mean, std)
    channel_order, weights = arguments.pop("channel_order"), arguments.pop("weights", None)
    if gradient_checkpointing:
        if not _takes(backbone["type"], "with_cp"):
            raise UserError(f"model.gradient_checkpointing=true: {backbone['type']} cannot recompute activations")
        arguments["with_cp"] = True
    norm_cfg = parts.norm_cfg(norm)
    roi_head = parts.roi_head(
        stage_weights,
        box_heads=[
            parts.box_head(num_classes, neck_channels, fc_channels, stds, box_loss=box_loss, loss_of_classes=class_loss)
            for stds in _BOX_STDS[: len(stage_ious)]
        ],
        mask_heads=[
            parts.mask_head(
                num_classes, neck_channels, mask_channels, mask_convs, norm_cfg, dice_weight, first=stage == 0
            )
            for stage in range(len(stage_ious))
        ],
        box_roi=parts.roi_extractor(neck_channels, 7, roi_sampling_ratio),
        mask_roi=parts.roi_extractor(neck_channels, mask_roi_size, roi_sampling_ratio),
    )
    if mask_refinements:
        parts.add_mask_points(roi_head, neck_channels, mask_channels, mask_refinements)
    if mask_scoring:
        parts.add_mask_scoring(roi_head, num_classes, mask_channels, mask_roi_size, fc_channels)
    if attributes:
        parts.add_attributes(roi_head, attribute_set, loss=attribute_loss, weight=attribute_weight)
    if semantic_convs:
        extractor = parts.roi_extractor(neck_channels, mask_roi_size, roi_sampling_ratio)
        head = parts.semantic_head(num_classes, neck_channels, semantic_convs, semantic_weight, norm_cfg)
        parts.add_semantic_branch(roi_head, extractor, head)

    def make() -> HybridTaskCascade:
        return HybridTaskCascade(
            backbone=ConfigDict(arguments),
            neck=ConfigDict(
                type="FPN", in_channels=channels, out_channels=neck_channels, num_outs=len(STRIDES), norm_cfg=norm_cfg
            ),
            rpn_head=ConfigDict(parts.rpn_head(neck_channels, anchor_scale, anchor_ratios)),
            roi_head=ConfigDict(roi_head),
            train_cfg=ConfigDict(
                parts.train_cfg(
                    rpn_batch, train_proposals, proposal_iou_thr, rois_per_stage, stage_ious, 2 * mask_roi_size
                )
            ),
            test_cfg=ConfigDict(parts.test_cfg(test_proposals, proposal_iou_thr)),
        )

    try:
        with outline():
            count = sum(parameter.numel() for parameter in make().parameters())
        if count > _MOST_PARAMETERS:
            raise UserError(f"model: {count} parameters, must have at most {_MOST_PARAMETERS}")
        net = make()
        check_features(net.backbone, channels, STRIDES[:4])
    except UserError:
        raise
    except Exception as error:  # mmdet raises arbitrary errors for invalid arguments
        raise UserError(f"model.backbone.type={backbone.get('type')}: mmdet cannot build it: {error}") from error
    MMLogger.get_current_instance().setLevel("WARNING")  # INFO would list every parameter
    net.init_weights()
    for name, parameter in net.backbone.named_parameters():
        if "conv_offset" in name:  # a deformable convolution starts as a plain one (Dai et al. 2017, section 3)
            nn.init.zeros_(parameter)
    detector = Detector(net, mean=mean, std=std, channel_order=channel_order)
    if weights:
        found = locate_backbone(str(weights), backbone)
        detector.origin = f"backbone: {load_backbone(detector, found.path)}"
    return detector


def _inputs(arguments: dict[str, Any]) -> list[list[Any]]:
    """Remove channels, mean and std from a backbone's arguments, with timm's values for those that are null."""
    given = {key: arguments.pop(key, None) for key in ("channels", "mean", "std")}
    if arguments["type"] == TIMM and None in given.values():
        network = describe_network(str(arguments["name"]))
        given = {key: getattr(network, key) if value is None else value for key, value in given.items()}
    if missing := [key for key, value in given.items() if value is None]:
        raise UserError(f"model.backbone.{missing[0]}: missing, but required for {arguments['type']}")
    return [list(value) for value in given.values()]


def _takes(backbone: str, argument: str) -> bool:
    """Return whether the constructor of a backbone, or of a base class of the backbone, has an argument."""
    kind = import_object(backbone, "model.backbone.type") if "." in backbone else MODELS.get(backbone)
    constructors = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    return any(argument in signature(constructor).parameters for constructor in constructors[:-1])
