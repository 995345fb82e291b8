"""mmdet's Hybrid Task Cascade behind four plain steps: features, proposals, boxes, masks.

The only module that knows mmdet's classes. Hybrid Task Cascade: Chen et al., CVPR 2019, arXiv:1901.07518.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fashion_hydra.errors import UserError
from fashion_hydra.model import ops

ops.install()

from mmdet.models import HybridTaskCascade, SingleRoIExtractor  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.bbox import bbox2roi  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from fashion_hydra.model.mask_targets import GroundTruthMasks  # noqa: E402
from fashion_hydra.model.roi import pyramid_roi_align  # noqa: E402
from fashion_hydra.model.weights import load_backbone  # noqa: E402
from fashion_hydra.structures import Batch, Size  # noqa: E402

STRIDES = (4, 8, 16, 32, 64)
_BOX_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


@MODELS.register_module()
class PreciseRoIExtractor(SingleRoIExtractor):
    """mmdet's extractor with the boxes left in float32: bf16 would move them by up to four pixels."""

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Pool (K, 5) boxes, batch index first, from the pyramid: (K, C, size, size)."""
        assert roi_scale_factor is None, "not used by Hybrid Task Cascade"
        levels = self.map_roi_levels(rois, len(feats))
        size, samples = self.roi_layers[0].output_size, self.roi_layers[0].sampling_ratio
        if samples > 0 and not rois.is_cuda:
            return pyramid_roi_align(feats, rois, levels, strides=self.featmap_strides, size=size[0], samples=samples)
        pooled = feats[0].new_zeros((len(rois), self.out_channels, *size))
        for level, (layer, feature) in enumerate(zip(self.roi_layers, feats, strict=True)):
            members = torch.nonzero(levels == level)[:, 0]
            if len(members):
                pooled[members] = layer(feature, rois[members])
            else:  # every level stays part of the graph, as processes that train together need it
                pooled += feature.sum() * 0.0
        return pooled


class Detector(nn.Module):
    """A cascade detector in steps, so that several views and models can be merged between them.

    Args:
        net: mmdet's detector.
        mean: of each channel, in the backbone's channel order, on 0-255.
        std: likewise.
        channel_order: `rgb` or `bgr`, what the backbone's weights expect.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, net: HybridTaskCascade, *, mean: Sequence[float], std: Sequence[float], channel_order: str
    ) -> None:
        super().__init__()
        if channel_order not in ("rgb", "bgr"):
            raise UserError(f"model.backbone.channel_order={channel_order}: give rgb or bgr")
        self.net = net
        self.bgr = channel_order == "bgr"
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> what the backbone expects, float32, padding at zero."""
        pixels = (images.flip(1) if self.bgr else images).float().sub_(self.mean).div_(self.std)
        for image, (height, width) in zip(pixels, sizes, strict=True):
            image[:, height:].zero_()
            image[:, :, width:].zero_()
        return pixels

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a training step by name; their sum is to be minimised."""
        features = self.features(batch.images, batch.sizes)
        samples = _samples(batch.sizes, batch.images)
        rpn_samples = _samples(batch.sizes, batch.images)
        device = batch.images.device
        for sample, rpn_sample, targets in zip(samples, rpn_samples, batch.targets, strict=True):
            boxes, labels = targets.boxes.to(device), targets.labels.to(device)
            masks = GroundTruthMasks(targets.masks)
            sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=masks)
            # To the proposal network every object is of one class.
            rpn_sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros_like(labels))
        rpn_losses, proposals = self.net.rpn_head.loss_and_predict(
            features, rpn_samples, proposal_cfg=self.net.train_cfg.rpn_proposal
        )
        losses = {**rpn_losses, **self.net.roi_head.loss(features, proposals, samples)}
        return {
            name: value.sum() if isinstance(value, Tensor) else torch.stack(list(value)).sum()
            for name, value in losses.items()
            if "loss" in name
        }

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """The feature pyramid of padded images: uint8 (B, 3, H, W) -> five of (B, C, H / stride, W / stride)."""
        return self.net.extract_feat(self.normalise(images, sizes))

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Class-agnostic boxes (N, 4) and their scores (N,) for each image, by descending score."""
        height, width = (int(edge) * STRIDES[0] for edge in features[0].shape[-2:])
        samples = _samples(sizes, features[0], padded=(height, width))
        found = self.net.rpn_head.predict(features, samples, rescale=False)
        return [(result.bboxes, result.scores) for result in found]

    def refine(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[tuple[Tensor, Tensor]]:
        """Boxes (N, 4) after the three stages, and class probabilities (N, C + 1), background last.

        The scores of the stages are averaged before the softmax, as in mmdet.
        """
        head = self.net.roi_head
        boxes, counts = list(proposals), [len(p) for p in proposals]
        logits: list[Tensor] = []
        for stage in range(head.num_stages):
            result = head._bbox_forward(stage, features, bbox2roi(boxes))
            logits.append(result["cls_score"])
            coder = head.bbox_head[stage].bbox_coder
            deltas = result["bbox_pred"].split(counts)
            boxes = [coder.decode(b, d, max_shape=size) for b, d, size in zip(boxes, deltas, sizes, strict=True)]
        averaged = torch.stack(logits).float().mean(0).softmax(-1).split(counts)
        return list(zip(boxes, averaged, strict=True))

    def segment(
        self,
        features: Sequence[Tensor],
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        last_stage_only: bool = False,
    ) -> list[Tensor]:
        """Mask probabilities (N, M, M) on a grid over each box, for its class.

        Args:
            features: of the images.
            boxes: (N, 4) of each image, in the frame of the features' images.
            labels: int64 (N,) of each image.
            last_stage_only: the last stage alone, as mmdet 3.x does, instead of the average of all.
        """
        head = self.net.roi_head
        extract = head.mask_roi_extractor[-1]
        pooled = extract(features[: extract.num_inputs], bbox2roi(list(boxes)))
        chosen = torch.cat(list(labels))
        index = torch.arange(len(chosen), device=chosen.device)
        probabilities: list[Tensor] = []
        carried = None
        for mask_head in head.mask_head:
            logits, carried = mask_head(pooled, carried)
            probabilities.append(logits[index, chosen].float().sigmoid())
        merged = probabilities[-1] if last_stage_only else torch.stack(probabilities).mean(0)
        return list(merged.split([len(b) for b in boxes]))


def _samples(sizes: Sequence[Size], images: Tensor, padded: Size | None = None) -> list[DetDataSample]:
    shape = padded or (int(images.shape[-2]), int(images.shape[-1]))
    meta = {"pad_shape": shape, "batch_input_shape": shape}
    return [DetDataSample(metainfo={"img_shape": size, "ori_shape": size, **meta}) for size in sizes]


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
) -> Detector:
    """Hybrid Task Cascade without the semantic branch: interleaved, with mask information flow.

    Args:
        num_classes: outputs, background not counted.
        backbone: `type` of mmdet's registry with its arguments, beside them `channels` (of its four outputs),
            `mean`, `std`, `channel_order`, and `weights` (a safetensors file or null).
        neck_channels: of the feature pyramid.
        fc_channels: of the two fully connected layers of a box head.
        mask_channels: of the convolutions of a mask head.
        mask_convs: how many of them.
        mask_roi_size: cells an edge that a mask head sees; its masks have twice as many.
        anchor_scale: anchor edge in strides.
        anchor_ratios: height over width.
        rpn_batch: anchors sampled an image in training.
        train_proposals: kept an image in training.
        test_proposals: kept an image in inference.
        proposal_iou_thr: of the proposals' NMS.
        rois_per_stage: boxes sampled an image and stage in training.
        stage_ious: overlap from which a box counts as an object, stage by stage.
        stage_weights: of the stages' losses.
        roi_sampling_ratio: samples an edge of a RoIAlign cell; 0: as many as it has feature pixels.
        norm: `BN` or `GN` in pyramid and mask heads, which training from scratch needs; null as in the paper.
        gradient_checkpointing: recompute the backbone's activations in the backward pass to save memory.

    Raises:
        UserError: a backbone that mmdet does not know, arguments that it refuses, or weights that do not fit.
    """
    if len(stage_ious) != len(stage_weights) or not 1 <= len(stage_ious) <= len(_BOX_STDS):
        raise UserError(
            f"model.stage_ious={list(stage_ious)} model.stage_weights={list(stage_weights)}: "
            "one to three of each expected"
        )
    arguments = dict(backbone)
    channels, mean, std = (list(arguments.pop(key)) for key in ("channels", "mean", "std"))
    channel_order, weights = arguments.pop("channel_order"), arguments.pop("weights", None)
    arguments["with_cp"] = gradient_checkpointing
    stages, norm_cfg = range(len(stage_ious)), _norm_cfg(norm)

    def roi_extractor(size: int) -> dict[str, Any]:
        layer = {"type": "RoIAlign", "output_size": size, "sampling_ratio": roi_sampling_ratio}
        return {
            "type": "PreciseRoIExtractor",
            "roi_layer": layer,
            "out_channels": neck_channels,
            "featmap_strides": list(STRIDES[:4]),
        }

    roi_head = {
        "type": "HybridTaskCascadeRoIHead",
        "interleaved": True,
        "mask_info_flow": True,
        "num_stages": len(stage_ious),
        "stage_loss_weights": list(stage_weights),
        "bbox_roi_extractor": roi_extractor(7),
        "bbox_head": [_box_head(num_classes, neck_channels, fc_channels, _BOX_STDS[s]) for s in stages],
        "mask_roi_extractor": roi_extractor(mask_roi_size),
        "mask_head": [_mask_head(num_classes, neck_channels, mask_channels, mask_convs, norm_cfg, s) for s in stages],
    }
    try:
        net = HybridTaskCascade(
            backbone=ConfigDict(arguments),
            neck=ConfigDict(
                type="FPN", in_channels=channels, out_channels=neck_channels, num_outs=len(STRIDES), norm_cfg=norm_cfg
            ),
            rpn_head=ConfigDict(_rpn_head(neck_channels, anchor_scale, anchor_ratios)),
            roi_head=ConfigDict(roi_head),
            train_cfg=ConfigDict(
                _train_cfg(rpn_batch, train_proposals, proposal_iou_thr, rois_per_stage, stage_ious, 2 * mask_roi_size)
            ),
            test_cfg=ConfigDict(_test_cfg(test_proposals, proposal_iou_thr)),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"model.backbone={dict(backbone)}: mmdet refuses it: {error}") from error
    MMLogger.get_current_instance().setLevel("WARNING")  # it would list every parameter
    net.init_weights()
    if weights:
        load_backbone(net.backbone, Path(weights))
    return Detector(net, mean=mean, std=std, channel_order=channel_order)


def _norm_cfg(norm: str | None) -> dict[str, Any] | None:
    choices: dict[str | None, dict[str, Any] | None] = {
        None: None,
        "BN": {"type": "BN"},
        "GN": {"type": "GN", "num_groups": 8},
    }
    if norm not in choices:
        raise UserError(f"model.norm={norm}: give null, BN or GN")
    return choices[norm]


def _box_coder(stds: Sequence[float]) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(stds)}


def _rpn_head(channels: int, anchor_scale: float, ratios: Sequence[float]) -> dict[str, Any]:
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


def _box_head(num_classes: int, channels: int, fc_channels: int, stds: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "Shared2FCBBoxHead",
        "in_channels": channels,
        "fc_out_channels": fc_channels,
        "roi_feat_size": 7,
        "num_classes": num_classes,
        "bbox_coder": _box_coder(stds),
        "reg_class_agnostic": True,
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False},
        "loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0},
    }


def _mask_head(
    num_classes: int, channels: int, mask_channels: int, convs: int, norm_cfg: dict[str, Any] | None, stage: int
) -> dict[str, Any]:
    return {
        "type": "HTCMaskHead",
        "with_conv_res": stage > 0,  # the first stage has no earlier one to take features from
        "num_convs": convs,
        "in_channels": channels,
        "conv_out_channels": mask_channels,
        "norm_cfg": norm_cfg,
        "num_classes": num_classes,
        "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
    }


def _train_cfg(
    rpn_batch: int, proposals: int, proposal_iou: float, rois: int, stage_ious: Sequence[float], mask_size: int
) -> dict[str, Any]:
    def sampler(num: int, positive: float, add_truth: bool) -> dict[str, Any]:
        return {
            "type": "RandomSampler",
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


def _test_cfg(proposals: int, proposal_iou: float) -> dict[str, Any]:
    # Thresholds of the final answer live in Postprocess; mmdet's `predict`, which needs them here, is not used.
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
