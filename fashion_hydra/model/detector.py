"""mmdet's Hybrid Task Cascade behind four plain steps: features, proposals, boxes, masks.

The only module that knows mmdet's classes. Hybrid Task Cascade: Chen et al., CVPR 2019, arXiv:1901.07518.
"""

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
from fashion_hydra.model.fuse import fuse_batch_norms
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
"""Of the feature pyramid, the one that the semantic branch brings all others to."""


ROI_BLOCK = 64
"""Mask heads take so many RoIs at most, because oneDNN keeps what it makes for each batch size that it meets: with
as many sizes as images have numbers of objects, memory would grow with the number of images."""


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
    origin = "none: from scratch"
    """Where the weights came from, in words for messages."""

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
        """On a device and in evaluation mode for good, which leaves no way back to training: batch norms become part
        of the convolutions before them, and on a CPU weights lie channels last, which oneDNN is faster with."""
        self.eval().requires_grad_(False)
        self._fuse_batch_norms()
        self.to(device)
        if device.type == "cpu":
            self.lay_channels_last()
        return self

    def lay_channels_last(self) -> None:
        """Store the weights of plain convolutions channels last, and with them come all features so: oneDNN on a CPU
        is faster with that. Layers that make other weights of theirs may rely on the order that they know."""
        for module in self.modules():
            if type(module) is nn.Conv2d:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _fuse_batch_norms(self) -> None:
        """Fold batch norms of backbone, pyramid and mask heads, each checked on random numbers."""
        random = torch.Generator().manual_seed(0)
        image = torch.randn(1, 3, 64, 64, generator=random)
        levels = [level.clone() for level in self.net.backbone(image)]
        size = self.net.roi_head.mask_roi_extractor[-1].roi_layers[0].output_size
        pooled = torch.randn(1, self.channels, *size, generator=random)

        def masks() -> list[Tensor]:
            logits, carried = [], None
            for head in self.net.roi_head.mask_head:
                made, carried = head(pooled, carried)
                logits.append(made)
            return logits

        fuse_batch_norms(self.net.backbone, lambda: self.net.backbone(image))
        fuse_batch_norms(self.net.neck, lambda: self.net.neck(levels))
        fuse_batch_norms(self.net.roi_head.mask_head, masks)
        if self.net.roi_head.with_semantic:
            pyramid = [level.clone() for level in self.net.neck(levels)]
            fuse_batch_norms(self.net.roi_head.semantic_head, lambda: self.net.roi_head.semantic_head(pyramid))

    @property
    def channels(self) -> int:
        """Of each level of the feature pyramid."""
        return int(self.net.neck.out_channels)

    @property
    def has_attributes(self) -> bool:
        """Whether the box stages have outputs for attributes."""
        return isinstance(self.net.roi_head, AttributeRoIHead)

    @property
    def scores_masks(self) -> bool:
        """Whether the model predicts the IoU of its masks."""
        return getattr(self.net.roi_head, "mask_iou_head", None) is not None

    @property
    def strides(self) -> tuple[int, ...]:
        """Of what `features` gives: the pyramid's, and that of the semantic branch."""
        return (*STRIDES, STRIDES[SEMANTIC_LEVEL]) if self.net.roi_head.with_semantic else STRIDES

    def normalise(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> what the backbone expects, float32, padding at zero."""
        pixels = (images.flip(1) if self.bgr else images).float().sub_(self.mean).div_(self.std)
        for image, (height, width) in zip(pixels, sizes, strict=True):
            image[:, height:].zero_()
            image[:, :, width:].zero_()
        return pixels

    def loss(self, batch: Batch, seeds: Sequence[int] = ()) -> dict[str, Tensor]:
        """The losses of a training step by name; their sum is to be minimised.

        Args:
            batch: of this process.
            seeds: of the boxes that are sampled in each image; without any torch's generator draws.

        Returns:
            Means over the boxes of the whole step: where processes train together, each process's share, so that the
            mean over the processes is what one process with all images has.
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
            # To the proposal network every object is of one class.
            rpn_truth.append(InstanceData(bboxes=boxes, labels=torch.zeros_like(labels)))
        stages = begin_sampling(self.net, seeds)
        logits, deltas = self.net.rpn_head(features)
        # A strip of fewer pixels than the padding would hold no anchor, which mmdet takes for an error.
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
        """Hand the samples what the semantic branch learns; how many cells its loss is a mean over."""
        frame = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        background = self.net.roi_head.semantic_head.num_classes - 1
        painted = paint_classes(
            batch.targets, batch.sizes, frame, stride=STRIDES[SEMANTIC_LEVEL], background=background
        )
        for sample, classes in zip(samples, painted.to(batch.images.device), strict=True):
            sample.gt_sem_seg = PixelData(sem_seg=classes)
        return {"loss_semantic_seg": int((painted != IGNORED).sum())}

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """What the heads look at: uint8 (B, 3, H, W) -> the pyramid's five (B, C, H / stride, W / stride), and after
        them the semantic branch's, where the model has one."""
        pyramid = self._pyramid(images, sizes)
        head = self.net.roi_head
        return (*pyramid, head.semantic_head(pyramid)[1]) if head.with_semantic else pyramid

    def _pyramid(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        made = self.net.extract_feat(self.normalise(images, sizes))
        if self.net.roi_head.mask_roi_extractor[-1].reads_channels_last(images.device):
            return tuple(made)
        return tuple(level.contiguous() for level in made)  # once, or RoIAlign would do it in each stage

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Class-agnostic boxes (N, 4) and their scores (N,) for each image, by descending score.

        What `RPNHead.predict` of mmdet gives (NMS on each level of the pyramid, then the best of all levels), with
        NMS over no more boxes than it takes.
        """
        logits, deltas = self.net.rpn_head(tuple(features[: len(STRIDES)]))
        return self._proposals(logits, deltas, sizes, self.net.test_cfg.rpn)

    @torch.no_grad()
    def _proposals(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Sequence[Size], rule: ConfigDict
    ) -> list[tuple[Tensor, Tensor]]:
        """Boxes and scores of each image from the proposal network's outputs, (B, A, H, W) and (B, 4 A, H, W)."""
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
            if len(boxes):  # each level at a place of its own, so that none suppresses another's
                apart = boxes.float() + (levels * (boxes.max() + 1))[:, None]
                kept = top_survivors(apart, scores.float(), iou_thr=rule.nms.iou_threshold, count=rule.max_per_img)
                boxes, scores = boxes[kept], scores[kept]
            answer.append((boxes, scores))
        return answer

    def _highest(self, scores: Tensor, count: int) -> Tensor:
        """Indices of the best so many, by descending score; training takes mmdet's where scores are equal."""
        if self.training:
            return scores.sort(descending=True).indices[:count]
        return scores.topk(min(count, len(scores))).indices

    def refine(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Refined]:
        """Boxes, class probabilities and, where they are learnt, attributes' after the three stages.

        The scores of the stages are averaged before softmax and sigmoid, as in mmdet.
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
        averaged = torch.stack(logits).float().mean(0).softmax(-1).split(counts)
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
        """Predict the mask of each box for its class, and its expected IoU where the model scores masks.

        Args:
            features: of the images.
            boxes: (N, 4) of each image, in the frame of the features' images.
            labels: int64 (N,) of each image.
            last_stage_only: the last stage alone, as mmdet 3.x does, instead of the average of all.
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
        if not self.scores_masks:
            return [Segmented(of_image) for of_image in masks]
        ious = torch.cat([block.ious for block in made if block.ious is not None]).split(counts)
        return [Segmented(*of_image) for of_image in zip(masks, ious, strict=True)]

    def _mask_block(self, pooled: Tensor, labels: Tensor, *, last_stage_only: bool) -> Segmented:
        """Predict masks from RoI features (N, C, S, S) for the class of each RoI."""
        index = torch.arange(len(labels), device=labels.device)
        probabilities: list[Tensor] = []
        carried = None
        for mask_head in self.net.roi_head.mask_head:
            logits, carried = mask_head(pooled, carried)
            probabilities.append(logits[index, labels].float().sigmoid())
        averaged = torch.stack(probabilities).mean(0)
        ious = None
        if self.scores_masks:
            ious = self.net.roi_head.mask_iou_head(carried, averaged)[index, labels].float().sigmoid()
        return Segmented(probabilities[-1] if last_stage_only else averaged, ious)


def block_sizes(count: int) -> list[int]:
    """`count` as a sum of `ROI_BLOCK`s and falling powers of two, so that few different sizes ever occur."""
    sizes = [ROI_BLOCK] * (count // ROI_BLOCK)
    rest = count % ROI_BLOCK
    sizes += [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
    return sizes or [0]


def _samples(sizes: Sequence[Size], images: Tensor) -> list[DetDataSample]:
    shape = (int(images.shape[-2]), int(images.shape[-1]))
    meta = {"pad_shape": shape, "batch_input_shape": shape}
    return [DetDataSample(metainfo={"img_shape": size, "ori_shape": size, **meta}) for size in sizes]
