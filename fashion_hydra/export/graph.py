"""The cascade on one view as one traceable forward pass from pixels to candidates.

It takes the same steps as `fashion_hydra.inference.cascade` with one source and the default `mask_grid`, but without
Python branches that depend on the image, so that one graph serves every image. Only the two non-maximum suppressions
have outputs of dynamic size.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms, roi_align

from fashion_hydra.inference.guided_filter import filter_on_grid
from fashion_hydra.inference.merging import MASK_GRID
from fashion_hydra.model.class_loss import class_probabilities
from fashion_hydra.model.detector import STRIDES, Detector
from fashion_hydra.model.mask_stages import mask_logits
from fashion_hydra.postprocess.rule import NO_LIMIT
from fashion_hydra.structures.batch import PAD_DIVISOR

_ANY_SCORE = -0.5  # below every probability, above _NO_BOX
_NO_BOX = -1.0


class CascadeGraph(nn.Module):
    """A detector as one forward pass over one image.

    Args:
        detector: model in evaluation mode, with unfolded batch norms, so that weights are those of the checkpoint.
        score_floor: see `fashion_hydra.inference.manifest.Manifest`.
        iou_grid: see `fashion_hydra.inference.manifest.Manifest`.
    """

    def __init__(self, detector: Detector, *, score_floor: float, iou_grid: Sequence[float]) -> None:
        super().__init__()
        self.detector, self.score_floor, self.iou_grid = detector, score_floor, tuple(iou_grid)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Find the candidates in an image.

        Args:
            image: (1, 3, H, W), RGB from 0 to 255, uint8 or float32, of any height and width.

        Returns:
            By descending score: boxes float32 (N, 4) in pixels of the image, scores float32 (N,), labels int64 (N,),
            mask probabilities float32 (N, G, G) on a grid over each box, and, if the model has attributes, their
            probabilities float32 (N, A).
        """
        net = self.detector.net
        height, width = image.shape[2], image.shape[3]
        frame = torch.stack([torch.as_tensor(edge) for edge in (width, height, width, height)]).float()
        features = net.extract_feat(self._padded(image, height, width))
        semantic = net.roi_head.semantic_head(features)[1] if net.roi_head.with_semantic else None
        boxes, probabilities, attributes = self._refine(features, semantic, self._propose(features, frame), frame)
        owners, labels, scores = self._survivors(boxes, probabilities[:, :-1])
        boxes = boxes[owners]
        # Append the whole image as a box, because some runtimes do not support convolutions over zero boxes.
        whole = F.pad(frame[None, :2], (2, 0))
        frames = torch.cat([boxes, whole])
        masks = self._segment(features, semantic, frames, F.pad(labels, (0, 1)))
        masks = filter_on_grid(masks, frames, image.float() / 255, max(MASK_GRID, int(masks.shape[-1])))[:-1]
        found = (boxes, scores, labels, masks)
        return found if attributes is None else (*found, attributes[owners])

    def _padded(self, image: Tensor, height: Any, width: Any) -> Tensor:
        """Return normalised pixels, zero-padded at the right and bottom to a multiple of the coarsest stride."""
        pixels = image.flip(1) if self.detector.bgr else image
        pixels = (pixels.float() - self.detector.mean) / self.detector.std
        return F.pad(pixels, (0, -width % PAD_DIVISOR, 0, -height % PAD_DIVISOR))

    def _propose(self, features: Sequence[Tensor], frame: Tensor) -> Tensor:
        """Return proposals (K, 4), best first, equal to those of `Detector.propose`."""
        net, rule = self.detector.net, self.detector.net.test_cfg.rpn
        head = net.rpn_head
        logits, deltas = head(tuple(features))
        boxes, scores, levels = [], [], []
        for level, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
            # Pad by the number of anchors to take, so that levels with fewer anchors need no special case.
            score = F.pad(logit[0].permute(1, 2, 0).flatten().sigmoid(), (0, rule.nms_pre), value=_NO_BOX)
            score, at = score.topk(rule.nms_pre)
            moved = F.pad(delta[0].permute(1, 2, 0).reshape(-1, 4), (0, 0, 0, rule.nms_pre))[at]
            priors = head.prior_generator.base_anchors[level].to(moved)
            cell = torch.div(at, len(priors), rounding_mode="floor")
            place = torch.stack([cell % logit.shape[3], torch.div(cell, logit.shape[3], rounding_mode="floor")], 1)
            anchors = priors[at % len(priors)] + (place * STRIDES[level]).float().repeat(1, 2)
            boxes.append(_decode(anchors, moved, head.bbox_coder, frame))
            scores.append(score)
            levels.append(torch.full_like(score, level))
        box, score = torch.cat(boxes), torch.cat(scores)
        able = ((box[:, 2:] - box[:, :2]) > rule.min_bbox_size).all(1)
        score = torch.where(able, score, torch.full_like(score, _NO_BOX))
        apart = box + (torch.cat(levels) * (box.max() + 1))[:, None]
        kept = _NMS.apply(apart[None], score[None, None], rule.nms.iou_threshold, _ANY_SCORE, rule.max_per_img)
        return box[kept[:, 2]]

    def _refine(
        self, features: Sequence[Tensor], semantic: Tensor | None, boxes: Tensor, frame: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return boxes, class and attribute probabilities after all stages, equal to those of `Detector.refine`."""
        head, logits, attributes = self.detector.net.roi_head, [], []
        for extractor, box_head in zip(head.bbox_roi_extractor, head.bbox_head, strict=True):
            pooled = _pool(extractor, features, boxes)
            if semantic is not None:
                size = int(pooled.shape[-1])
                pooled = pooled + _average(_pool(head.semantic_roi_extractor, [semantic], boxes), size)
            logit, delta = box_head(pooled)
            logits.append(logit)
            if self.detector.has_attributes:
                attributes.append(box_head.take_attribute_logits())
            boxes = _decode(boxes, delta, box_head.bbox_coder, frame)
        shares = torch.stack(attributes).mean(0).sigmoid() if attributes else None
        return boxes, class_probabilities(head.bbox_head[-1], torch.stack(logits).mean(0)), shares

    def _survivors(self, boxes: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return box index, label and score of each (box, class) pair that at least one NMS threshold keeps."""
        classes = probabilities.shape[1]
        kept = [
            _NMS.apply(boxes[None], probabilities.t()[None], thr, self.score_floor, NO_LIMIT) for thr in self.iou_grid
        ]
        pairs = torch.cat([one[:, 2] * classes + one[:, 1] for one in kept]).unique()
        owners, labels = torch.div(pairs, classes, rounding_mode="floor"), pairs % classes
        scores, order = probabilities[owners, labels].sort(descending=True)
        return owners[order], labels[order], scores

    def _segment(self, features: Sequence[Tensor], semantic: Tensor | None, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return mask probabilities (N, M, M) for the class of each box, equal to those of `Detector.segment`."""
        head, probabilities = self.detector.net.roi_head, []
        pooled = _pool(head.mask_roi_extractor[-1], features, boxes)
        if semantic is not None:
            pooled = pooled + _pool(head.semantic_roi_extractor, [semantic], boxes)
        for logits in mask_logits(head.mask_head, pooled)[0]:
            index = labels[:, None, None, None].expand(-1, 1, logits.shape[2], logits.shape[3])
            probabilities.append(logits.gather(1, index)[:, 0].sigmoid())
        masks = torch.stack(probabilities).mean(0)
        return head.refine_masks(features[0], boxes, masks) if self.detector.refines_masks else masks


class _NMS(torch.autograd.Function):
    """ONNX's NonMaxSuppression, which is greedy and per class."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou_thr: float, score_thr: float, count: int) -> Tensor:
        """Map boxes (1, N, 4) and scores (1, C, N) to kept (image, class, box), int64 (K, 3), by class and score."""
        rows = []
        for label, of_class in enumerate(scores[0]):
            able = torch.nonzero(of_class > score_thr)[:, 0]
            kept = able[nms(boxes[0, able], of_class[able], iou_thr)][:count]
            rows.append(torch.stack([torch.zeros_like(kept), torch.full_like(kept, label), kept], 1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou_thr: float, score_thr: float, count: int) -> Any:
        """Return the operator's node in the ONNX graph."""

        def constant(value: float) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=torch.float32))

        most = g.op("Constant", value_t=torch.tensor([count]))
        return g.op("NonMaxSuppression", boxes, scores, most, constant(iou_thr), constant(score_thr))


def _decode(boxes: Tensor, deltas: Tensor, coder: Any, frame: Tensor) -> Tensor:
    """Shift boxes (N, 4) by deltas (N, 4), and clip them to the frame (Girshick et al. 2014), as mmdet does."""
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    most = abs(math.log(16 / 1000))
    edges = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, :2] + boxes[:, 2:]) * 0.5 + edges * deltas[:, :2]
    half = edges * deltas[:, 2:].clamp(-most, most).exp() * 0.5
    return torch.minimum(torch.cat([middle - half, middle + half], 1).clamp(min=0), frame)


def _pool(extractor: Any, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Return RoI features (N, C, S, S) of boxes, each from one pyramid level."""
    layer, strides = extractor.roi_layers[0], extractor.featmap_strides
    rois = F.pad(boxes, (1, 0))
    arguments = {"output_size": layer.output_size, "sampling_ratio": layer.sampling_ratio, "aligned": True}
    if len(strides) == 1:
        return roi_align(features[0], rois, spatial_scale=1 / strides[0], **arguments)
    edges = boxes[:, 2:] - boxes[:, :2]
    scale = (edges[:, 0] * edges[:, 1]).sqrt() / extractor.finest_scale + 1e-6
    level = sum((scale >= 2**step).long() for step in range(1, len(strides)))
    index = [torch.nonzero(level == step)[:, 0] for step in range(len(strides))]
    pooled = [
        roi_align(features[step], rois[at], spatial_scale=1 / stride, **arguments)
        for step, (at, stride) in enumerate(zip(index, strides, strict=True))
    ]
    return torch.cat(pooled)[torch.cat(index).argsort()]


def _average(pooled: Tensor, size: int) -> Tensor:
    """Pool adaptively by averaging, (N, C, S, S) -> (N, C, size, size), as two products with a constant matrix."""
    cells = int(pooled.shape[-1])
    shares = np.zeros((size, cells), np.float32)  # not a tensor, because tracing would record the assignments below
    for row, share in enumerate(shares):
        first, end = row * cells // size, -(-(row + 1) * cells // size)
        share[first:end] = 1 / (end - first)
    averaging = torch.from_numpy(shares)
    return averaging @ pooled @ averaging.t()
