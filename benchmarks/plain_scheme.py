"""The winner's scheme of views and models in plain code, which recomputes the backbone for each of its three steps.

The code is deliberately slow and simple: it is the oracle of tests/inference/test_cascade.py and the rival of
benchmarks/ensemble.py. It uses only mmdet's modules, one view of one model at a time, and nothing from
fashion_hydra.inference.cascade.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fashion_hydra.model.detector import Detector

# isort: split
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi

Size = tuple[int, int]


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, iou_thr: float) -> list[int]:
    """Return the indices of the boxes (N, 4) that survive NMS, by descending score."""
    boxes = boxes.astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = list(np.argsort(-scores, kind="stable"))
    kept = []
    while left:
        best, rest = left[0], np.array(left[1:], dtype=int)
        kept.append(int(best))
        if not len(rest):
            break
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        far = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.clip(far - corner, 0, None).prod(axis=1)
        left = rest[shared / (areas[best] + areas[rest] - shared) <= iou_thr].tolist()
    return kept


class View:
    """One model on one scale of an image, mirrored or not."""

    def __init__(self, detector: Detector, image: Tensor, flip: bool, original: Size) -> None:
        self.detector, self.net, self.flip = detector, detector.net, flip
        self.height, self.width = image.shape[1:]
        self.image = image.flip(-1) if flip else image
        self.scale = torch.tensor([original[1] / self.width, original[0] / self.height] * 2, device=image.device)

    def features(self) -> tuple[Tensor, ...]:
        """Compute backbone and pyramid, again on every call."""
        below, right = -self.height % 32, -self.width % 32
        padded = torch.nn.functional.pad(self.image, (0, right, 0, below))[None]
        return self.net.extract_feat(self.detector.normalise(padded, [(self.height, self.width)]))

    def back(self, boxes: Tensor) -> Tensor:
        """Map boxes from the view to the file."""
        if self.flip:
            boxes = torch.stack([self.width - boxes[:, 2], boxes[:, 1], self.width - boxes[:, 0], boxes[:, 3]], 1)
        return boxes * self.scale

    def there(self, boxes: Tensor) -> Tensor:
        """Map boxes from the file to the view."""
        boxes = boxes / self.scale
        if self.flip:
            boxes = torch.stack([self.width - boxes[:, 2], boxes[:, 1], self.width - boxes[:, 0], boxes[:, 3]], 1)
        return boxes

    def proposals(self) -> tuple[Tensor, Tensor]:
        """Return proposals in file coordinates, and their scores."""
        features = self.features()
        shape = (features[0].shape[2] * 4, features[0].shape[3] * 4)
        sizes = {"img_shape": (self.height, self.width), "ori_shape": (self.height, self.width)}
        sample = DetDataSample(metainfo={**sizes, "pad_shape": shape, "batch_input_shape": shape})
        [found] = self.net.rpn_head.predict(features, [sample], rescale=False)
        return self.back(found.bboxes), found.scores

    def boxes(self, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes in file coordinates after three stages, and class probabilities."""
        features, head = self.features(), self.net.roi_head
        current, logits = self.there(proposals), []
        for stage in range(3):
            pooled = head.bbox_roi_extractor[stage](features[:4], bbox2roi([current]))
            scores, deltas = head.bbox_head[stage](pooled)
            logits.append(scores)
            coder = head.bbox_head[stage].bbox_coder
            current = coder.decode(current, deltas, max_shape=(self.height, self.width))
        return self.back(current), torch.softmax(sum(logits) / 3, dim=-1)

    def masks(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the mask probabilities of the three stages, not mirrored: (3, N, M, M)."""
        features, head = self.features(), self.net.roi_head
        pooled = head.mask_roi_extractor[2](features[:4], bbox2roi([self.there(boxes)]))
        found, last = [], None
        for stage in range(3):
            logits, last = head.mask_head[stage](pooled, last)
            chosen = logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()
            found.append(chosen.flip(-1) if self.flip else chosen)
        return torch.stack(found)


@torch.no_grad()
def plain_scheme(
    detectors: Sequence[Detector],
    images: Sequence[Tensor],
    flips: Sequence[bool],
    original: Size,
    *,
    score_thr: float,
    iou_thr: float,
    max_proposals: int = 1000,
    max_per_image: int = 10**6,
    nms: Callable[[np.ndarray, np.ndarray, float], Sequence[int]] = greedy_nms,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predict with all detectors and views, and merge their outputs.

    Args:
        detectors: detectors in evaluation mode.
        images: uint8 (3, h, w), the image at each scale.
        flips: views to use: mirrored (True), not mirrored (False).
        original: height and width of the file.
        score_thr: only boxes with a higher score are kept.
        iou_thr: IoU threshold of NMS within each class.
        max_proposals: maximum number of merged proposals; the best are kept.
        max_per_image: maximum number of detections; the best are kept.
        nms: function (boxes (N, 4), scores (N,), IoU threshold) -> indices of kept boxes, by descending score.

    Returns:
        Boxes (N, 4) in file coordinates, scores, labels and mask probabilities (N, M, M), by descending score.
    """
    views = [View(d, image, flip, original) for d in detectors for image in images for flip in flips]
    proposed = [view.proposals() for view in views]
    boxes, scores = torch.cat([b for b, _ in proposed]), torch.cat([s for _, s in proposed])
    proposals = boxes[nms(boxes.cpu().numpy(), scores.cpu().numpy(), 0.7)[:max_proposals]]
    refined = [view.boxes(proposals) for view in views]
    boxes = torch.stack([b for b, _ in refined]).mean(0)
    probabilities = torch.stack([p for _, p in refined]).mean(0)
    answer = []
    for label in range(probabilities.shape[1] - 1):
        able = torch.nonzero(probabilities[:, label] > score_thr)[:, 0]
        kept = nms(boxes[able].cpu().numpy(), probabilities[able, label].cpu().numpy(), iou_thr)
        answer += [(float(probabilities[i, label]), int(i), label) for i in able[kept].tolist()]
    answer = sorted(answer, reverse=True)[:max_per_image]
    owners, labels = (torch.tensor([entry[i] for entry in answer], dtype=torch.int64) for i in (1, 2))
    masks = torch.cat([view.masks(boxes[owners], labels) for view in views]).mean(0)
    return boxes[owners], torch.tensor([s for s, *_ in answer]), labels, masks
