"""mmdet's Hybrid Task Cascade (Chen et al. 2019, arXiv:1901.07518) in four steps: features, proposals, boxes, masks."""

from collections.abc import Sequence
from typing import Self

import torch
from mmdet.models import HybridTaskCascade
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fashion_hydra.model.attribute_head import AttributeRoIHead
from fashion_hydra.model.class_loss import class_probabilities
from fashion_hydra.model.fixed_norms import apply_fixed_norms_to_weights
from fashion_hydra.model.fuse import fuse_batch_norms
from fashion_hydra.model.mask_stages import mask_logits, mask_probabilities
from fashion_hydra.model.mask_targets import GroundTruthMasks
from fashion_hydra.model.sampling import _shares, _world_size, begin_sampling
from fashion_hydra.model.semantic_targets import IGNORED, paint_classes
from fashion_hydra.postprocess.nms import top_survivors
from fashion_hydra.structures.batch import PAD_DIVISOR, Batch, Size
from fashion_hydra.structures.detections import Refined, Segmented
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import shorten

STRIDES = (4, 8, 16, 32, 64)
SEMANTIC_LEVEL = 1
"""The level of the feature pyramid that the semantic branch resizes all levels to."""


ROI_BLOCK = 64
"""Maximum RoIs per call of a mask head. oneDNN caches data for each batch size. Without blocks, the batch size
would vary with the number of objects, and memory would grow with the number of images."""


class Detector(nn.Module):
    """A cascade detector split into steps, so that several views and models can be merged between the steps.

    Args:
        net: mmdet's detector.
        mean: per-channel mean on the 0-255 scale, in `channel_order`.
        std: per-channel standard deviation on the 0-255 scale, in `channel_order`.
        channel_order: `rgb` or `bgr`, the channel order that the backbone's weights expect.
    """

    mean: Tensor
    std: Tensor
    origin = "none: from scratch"
    """Source of the weights, for messages."""

    def __init__(
        self, net: HybridTaskCascade, *, mean: Sequence[float], std: Sequence[float], channel_order: str
    ) -> None:
        super().__init__()
        if channel_order not in ("rgb", "bgr"):
            raise UserError(f"model.backbone.channel_order={channel_order}: give rgb or bgr")
        self._frozen_norms: list[nn.Module] = []
        self.net = net
        self.bgr = channel_order == "bgr"
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def train_only(self, parts: Sequence[str]) -> None:
        """Freeze all parameters but those of some parts, and the statistics of the frozen batch norms.

        Args:
            parts: names of modules of mmdet's detector, such as `roi_head` or `roi_head.mask_iou_head`.

        Raises:
            UserError: a part that the model does not have, or one without parameters that can be trained.
        """
        modules = dict(self.net.named_modules())
        for part in parts:
            if part not in modules or not any(p.requires_grad for p in modules[part].parameters()):
                depth = part.count(".") + 1
                known = sorted({".".join(name.split(".")[:depth]) for name, _ in self.net.named_parameters()})
                raise UserError(
                    f"schedule.train_only=[{part}]: the model has no such part with parameters to train; it has "
                    f"{shorten(', '.join(known), 300)}"
                )
        trained = {id(p) for part in parts for p in modules[part].parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in trained)
        inside = {id(module) for part in parts for module in modules[part].modules()}
        self._frozen_norms = [m for m in self.modules() if isinstance(m, _BatchNorm) and id(m) not in inside]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; the batch norms that `train_only` froze stay in evaluation."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def for_inference(self, device: torch.device) -> Self:
        """Move to `device` and optimise for inference (irreversible): fold batch norms into the preceding convolutions
        and, on a CPU, use the channels-last layout, which is faster in oneDNN."""
        self.eval().requires_grad_(False)
        self._fuse_batch_norms()
        self.to(device)
        if device.type == "cpu":
            self.lay_channels_last()
        return self

    def lay_channels_last(self) -> None:
        """Store the weights of plain convolutions channels last, which makes all features channels last: on a CPU,
        oneDNN is faster this way. Subclasses are skipped, as they may transform weights in their usual layout."""
        for module in self.modules():
            if type(module) is nn.Conv2d:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def apply_fixed_norms_to_weights(self) -> None:
        """Let the backbone's convolutions apply its fixed batch norms, see `fashion_hydra.model.fixed_norms`."""
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        apply_fixed_norms_to_weights(self.net.backbone, lambda: self.net.backbone(image))

    def _fuse_batch_norms(self) -> None:
        """Fold batch norms of backbone, pyramid, mask heads and semantic branch; check each part on random input."""
        random = torch.Generator().manual_seed(0)
        image = torch.randn(1, 3, 64, 64, generator=random)
        levels = [level.clone() for level in self.net.backbone(image)]
        size = self.net.roi_head.mask_roi_extractor[-1].roi_layers[0].output_size
        pooled = torch.randn(1, self.channels, *size, generator=random)
        heads = self.net.roi_head.mask_head
        fuse_batch_norms(self.net.backbone, lambda: self.net.backbone(image))
        fuse_batch_norms(self.net.neck, lambda: self.net.neck(levels))
        fuse_batch_norms(heads, lambda: mask_logits(heads, pooled)[0])
        if self.net.roi_head.with_semantic:
            pyramid = [level.clone() for level in self.net.neck(levels)]
            fuse_batch_norms(self.net.roi_head.semantic_head, lambda: self.net.roi_head.semantic_head(pyramid))

    @property
    def channels(self) -> int:
        """Number of channels of each level of the feature pyramid."""
        return int(self.net.neck.out_channels)

    @property
    def has_attributes(self) -> bool:
        """Whether the box heads predict attributes."""
        return isinstance(self.net.roi_head, AttributeRoIHead)

    @property
    def scores_masks(self) -> bool:
        """Whether the model predicts the IoU of its masks."""
        return getattr(self.net.roi_head, "mask_iou_head", None) is not None

    @property
    def refines_masks(self) -> bool:
        """Whether the model predicts masks on a finer grid than its mask heads."""
        return getattr(self.net.roi_head, "mask_point_head", None) is not None

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the feature maps that `features` returns."""
        return (*STRIDES, STRIDES[SEMANTIC_LEVEL]) if self.net.roi_head.with_semantic else STRIDES

    def normalise(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Convert uint8 RGB images (B, 3, H, W) to the backbone's input: float32, normalised, with zero padding."""
        pixels = (images.flip(1) if self.bgr else images).float().sub_(self.mean).div_(self.std)
        for image, (height, width) in zip(pixels, sizes, strict=True):
            image[:, height:].zero_()
            image[:, :, width:].zero_()
        return pixels

    def loss(self, batch: Batch, seeds: Sequence[int] = ()) -> dict[str, Tensor]:
        """Return the losses of a training step by name; training minimises their sum.

        Args:
            batch: this rank's batch.
            seeds: one seed per image for sampling boxes; empty: use torch's global generator.

        Returns:
            Means over all boxes of the step. In distributed training, each rank gets its share, so that the mean over
            ranks equals the loss of a single process with all images.
        """
        features = self._pyramid(batch.images, batch.sizes)
        samples, rpn_truth = _samples(batch.sizes, batch.images), []
        device = batch.images.device
        for sample, targets in zip(samples, batch.targets, strict=True):
            boxes, labels = targets.boxes.to(device), targets.labels.to(device)
            sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=GroundTruthMasks(targets.masks))
            if self.has_attributes:
                assert targets.attributes is not None
                sample.gt_instances.attributes = targets.attributes.to(device)
            # The proposal network is class-agnostic.
            rpn_truth.append(InstanceData(bboxes=boxes, labels=torch.zeros_like(labels)))
        stages = begin_sampling(self.net, seeds)
        logits, deltas = self.net.rpn_head(features)
        # mmdet fails on an image without any anchor inside, such as a strip narrower than the padding.
        frames = [{**s.metainfo, "img_shape": [max(edge, PAD_DIVISOR) for edge in s.img_shape]} for s in samples]
        rpn_losses = self.net.rpn_head.loss_by_feat(logits, deltas, rpn_truth, frames)
        found = self._proposals(logits, deltas, batch.sizes, self.net.train_cfg.rpn_proposal)
        proposals = [InstanceData(bboxes=boxes, scores=scores) for boxes, scores in found]
        counted = self._paint(batch, samples) if self.net.roi_head.with_semantic else {}
        losses = {**rpn_losses, **self.net.roi_head.loss(features, proposals, samples)}
        if self.has_attributes:
            counted |= self.net.roi_head.counted
        summed = {
            name: value.sum() if isinstance(value, Tensor) else torch.stack(list(value)).sum()
            for name, value in losses.items()
            if "loss" in name
        }
        return summed if _world_size() == 1 else _shares(summed, stages, len(batch), device, counted)

    def _paint(self, batch: Batch, samples: Sequence[DetDataSample]) -> dict[str, int]:
        """Add the semantic ground truth to the samples and return the number of cells that its loss averages over."""
        frame = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        background = self.net.roi_head.semantic_head.num_classes - 1
        painted = paint_classes(
            batch.targets, batch.sizes, frame, stride=STRIDES[SEMANTIC_LEVEL], background=background
        )
        for sample, classes in zip(samples, painted.to(batch.images.device), strict=True):
            sample.gt_sem_seg = PixelData(sem_seg=classes)
        return {"loss_semantic_seg": int((painted != IGNORED).sum())}

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """Return the features of uint8 images (B, 3, H, W): the pyramid's five levels (B, C, H / stride, W / stride),
        followed by the semantic branch's features if the model has one."""
        pyramid = self._pyramid(images, sizes)
        head = self.net.roi_head
        return (*pyramid, head.semantic_head(pyramid)[1]) if head.with_semantic else pyramid

    def _pyramid(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        made = self.net.extract_feat(self.normalise(images, sizes))
        if self.net.roi_head.mask_roi_extractor[-1].reads_channels_last(images.device):
            return tuple(made)
        return tuple(level.contiguous() for level in made)  # once here, or else RoIAlign repeats it in each stage

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Return class-agnostic boxes (N, 4) and their scores (N,) for each image, by descending score.

        The result equals that of mmdet's `RPNHead.predict` (NMS per pyramid level, then the best of all levels), but
        NMS runs on only as many boxes as needed.
        """
        logits, deltas = self.net.rpn_head(tuple(features[: len(STRIDES)]))
        return self._proposals(logits, deltas, sizes, self.net.test_cfg.rpn)

    @torch.no_grad()
    def _proposals(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Sequence[Size], rule: ConfigDict
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each image's boxes and scores from the proposal network's outputs (B, A, H, W) and (B, 4 A, H, W)."""
        head = self.net.rpn_head
        anchors = head.prior_generator.grid_priors(
            [level.shape[-2:] for level in logits], dtype=logits[0].dtype, device=logits[0].device
        )
        answer = []
        for i, size in enumerate(sizes):
            each = [level[i].permute(1, 2, 0).flatten().sigmoid() for level in logits]
            index = [self._highest(level, rule.nms_pre) for level in each]
            scores = torch.cat([level[at] for level, at in zip(each, index, strict=True)])
            moved = [d[i].permute(1, 2, 0).reshape(-1, 4)[at] for d, at in zip(deltas, index, strict=True)]
            priors = torch.cat([level[at] for level, at in zip(anchors, index, strict=True)])
            boxes = head.bbox_coder.decode(priors, torch.cat(moved), max_shape=size)
            levels = torch.cat([torch.full_like(at, level) for level, at in enumerate(index)])
            able = ((boxes[:, 2:] - boxes[:, :2]) > rule.min_bbox_size).all(1)
            boxes, scores, levels = boxes[able], scores[able], levels[able]
            if len(boxes):  # shift the levels apart, so that boxes of different levels do not suppress each other
                apart = boxes.float() + (levels * (boxes.max() + 1))[:, None]
                kept = top_survivors(apart, scores.float(), iou_thr=rule.nms.iou_threshold, count=rule.max_per_img)
                boxes, scores = boxes[kept], scores[kept]
            answer.append((boxes, scores))
        return answer

    def _highest(self, scores: Tensor, count: int) -> Tensor:
        """Return the indices of the `count` best scores, descending; training orders equal scores as mmdet does."""
        if self.training:
            return scores.sort(descending=True).indices[:count]
        return scores.topk(min(count, len(scores))).indices

    def refine(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Refined]:
        """Return boxes, class probabilities and, if the model has attributes, their probabilities after all stages.

        Logits are averaged over the stages before they become probabilities, as in mmdet.
        """
        head = self.net.roi_head
        boxes, counts = list(proposals), [len(p) for p in proposals]
        logits: list[Tensor] = []
        attributes: list[Tensor] = []
        semantic = features[-1] if head.with_semantic else None
        for stage in range(head.num_stages):
            result = head._bbox_forward(stage, features, bbox2roi(boxes), semantic)
            logits.append(result["cls_score"])
            if self.has_attributes:
                attributes.append(result["attribute_logits"])
            coder = head.bbox_head[stage].bbox_coder
            deltas = result["bbox_pred"].split(counts)
            boxes = [coder.decode(b, d, max_shape=size) for b, d, size in zip(boxes, deltas, sizes, strict=True)]
        averaged = class_probabilities(head.bbox_head[-1], torch.stack(logits).float().mean(0)).split(counts)
        if not attributes:
            return [Refined(*one) for one in zip(boxes, averaged, strict=True)]
        shares = torch.stack(attributes).float().mean(0).sigmoid().split(counts)
        return [Refined(*one) for one in zip(boxes, averaged, shares, strict=True)]

    def segment(
        self,
        features: Sequence[Tensor],
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        last_stage_only: bool = False,
    ) -> list[Segmented]:
        """Return for each image the masks of the boxes for their classes, with expected IoUs if the model scores masks.

        Args:
            features: feature maps from `features`.
            boxes: (N, 4) for each image, in pixels of the images that the features come from.
            labels: int64 (N,) for each image.
            last_stage_only: use only the last stage, as mmdet 3.x does, instead of the average of all stages.
        """
        head = self.net.roi_head
        extract = head.mask_roi_extractor[-1]
        rois = bbox2roi(list(boxes))
        pooled = extract(features[: extract.num_inputs], rois)
        if head.with_semantic:
            pooled = pooled + head.semantic_roi_extractor([features[-1]], rois)
        chosen = torch.cat(list(labels))
        blocks = block_sizes(len(chosen))
        parts = zip(pooled.split(blocks), chosen.split(blocks), strict=True)
        made = [self._mask_block(*part, last_stage_only=last_stage_only) for part in parts]
        counts = [len(b) for b in boxes]
        masks = torch.cat([block.masks for block in made]).split(counts)
        if self.refines_masks:
            masks = tuple(
                self._refine_masks(features[0][i : i + 1], *of_image)
                for i, of_image in enumerate(zip(boxes, masks, strict=True))
            )
        if not self.scores_masks:
            return [Segmented(of_image) for of_image in masks]
        ious = torch.cat([block.ious for block in made if block.ious is not None]).split(counts)
        return [Segmented(*of_image) for of_image in zip(masks, ious, strict=True)]

    def _refine_masks(self, level: Tensor, boxes: Tensor, masks: Tensor) -> Tensor:
        """Return the masks of one image on the finer grid, in blocks, see `PointRoIHead.refine_masks`."""
        blocks = block_sizes(len(boxes))
        parts = zip(boxes.split(blocks), masks.split(blocks), strict=True)
        return torch.cat([self.net.roi_head.refine_masks(level, *part) for part in parts])

    def _mask_block(self, pooled: Tensor, labels: Tensor, *, last_stage_only: bool) -> Segmented:
        """Return masks from RoI features (N, C, S, S) and the label of each RoI."""
        head = self.net.roi_head
        stages, features = mask_logits(head.mask_head, pooled)
        probabilities = mask_probabilities(stages, labels)
        averaged = probabilities.mean(0)
        ious = None
        if self.scores_masks:
            ious = head.mask_iou_head(features, averaged).gather(1, labels[:, None])[:, 0].float().sigmoid()
        return Segmented(probabilities[-1] if last_stage_only else averaged, ious)


def block_sizes(count: int) -> list[int]:
    """Split `count` into blocks of `ROI_BLOCK` and descending powers of two, so that few different sizes occur."""
    sizes = [ROI_BLOCK] * (count // ROI_BLOCK)
    rest = count % ROI_BLOCK
    sizes += [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
    return sizes or [0]


def _samples(sizes: Sequence[Size], images: Tensor) -> list[DetDataSample]:
    shape = (int(images.shape[-2]), int(images.shape[-1]))
    meta = {"pad_shape": shape, "batch_input_shape": shape}
    return [DetDataSample(metainfo={"img_shape": size, "ori_shape": size, **meta}) for size in sizes]
