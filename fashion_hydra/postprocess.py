"""Candidates -> detections: thresholds, NMS, pasting, overlaps. Pure functions of a frozen rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as _nms

from fashion_hydra import rle
from fashion_hydra.errors import UserError
from fashion_hydra.structures import Candidates, Detections, Size


@dataclass(frozen=True)
class Postprocess:
    """How candidates become an answer.

    Args:
        score_thr: scores at or below are left out.
        iou_thr: within a class, boxes that overlap a better one by more are left out.
        mask_thr: mask probability from which a pixel belongs to the object.
        max_per_image: the best so many are kept.
        min_area: masks of fewer pixels, on the grid of the answer and after overlaps, are left out.
        suppress_overlaps: within a class each mask loses the pixels that a better one has.
    """

    score_thr: float
    iou_thr: float
    mask_thr: float
    max_per_image: int
    min_area: int = 1
    suppress_overlaps: bool = True

    def __post_init__(self) -> None:
        for name in ("score_thr", "iou_thr", "mask_thr"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"postprocess.{name}={getattr(self, name)}: between 0 and 1 expected")
        if self.max_per_image < 1 or self.min_area < 1:
            raise UserError(
                f"postprocess.max_per_image={self.max_per_image} postprocess.min_area={self.min_area}: "
                "at least 1 expected"
            )


COCO_RULE = Postprocess(score_thr=0.001, iou_thr=0.5, mask_thr=0.5, max_per_image=100, suppress_overlaps=False)
"""What COCO average precision is measured with (mmdet's test settings of Hybrid Task Cascade)."""


def select(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score_thr: float, iou_thr: float, max_per_image: int
) -> Tensor:
    """Greedy NMS within each class: indices of what is kept, by descending score.

    Class by class rather than with shifted coordinates, so that a box's fate depends on its class alone and not
    on what else is in the list.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: see `Postprocess`.
        iou_thr: see there.
        max_per_image: see there.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    kept = [
        members[_nms(boxes[members], scores[members], iou_thr)]
        for label in labels[able].unique()
        for members in [able[labels[able] == label]]
    ]
    if not kept:
        return able
    index = torch.cat(kept).sort().values  # ties in score fall to the earlier candidate
    order = scores[index].sort(descending=True, stable=True).indices
    return index[order[:max_per_image]]


def apply(candidates: Candidates, rule: Postprocess, *, size: Size, dropped_labels: Sequence[int] = ()) -> Detections:
    """The answer for one image on a grid of `size`.

    Args:
        candidates: of the image.
        rule: thresholds.
        size: height and width of the grid that masks are drawn on; the image is stretched to it.
        dropped_labels: classes left out.
    """
    if dropped_labels:
        candidates = candidates[~torch.isin(candidates.labels, torch.tensor(dropped_labels))]
    kept = candidates[
        select(
            candidates.boxes,
            candidates.scores,
            candidates.labels,
            score_thr=rule.score_thr,
            iou_thr=rule.iou_thr,
            max_per_image=rule.max_per_image,
        )
    ]
    stretch = np.array([size[1] / kept.size[1], size[0] / kept.size[0]] * 2)
    boxes = kept.boxes.double().numpy() * stretch
    taken: dict[int, np.ndarray] = {}
    labels, scores, masks = [], [], []
    for box, label, score, mask in zip(
        boxes, kept.labels.tolist(), kept.scores.tolist(), kept.masks.numpy(), strict=True
    ):
        crop, x0, y0 = paste(mask, box, size=size, mask_thr=rule.mask_thr)
        if rule.suppress_overlaps:
            canvas = taken.setdefault(label, np.zeros(size, dtype=bool))
            window = canvas[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
            crop = crop & ~window
            window |= crop
        if np.count_nonzero(crop) < rule.min_area:
            continue
        runs = rle.crop_to_runs(crop, x0=x0, y0=y0, height=size[0])
        labels.append(label)
        scores.append(score)
        masks.append(rle.runs_to_coco(runs, height=size[0], width=size[1]))
    return Detections(candidates.image_id, labels, scores, masks)


def paste(mask: np.ndarray, box: np.ndarray, *, size: Size, mask_thr: float) -> tuple[np.ndarray, int, int]:
    """A mask drawn on its box: the pixels whose centres have at least the threshold's probability.

    Bilinear between the centres of the grid's cells, zero outside, as Mask R-CNN does it.

    Args:
        mask: float32 (M, M), probabilities on a grid over the box.
        box: (4,), in pixels of the frame.
        size: height and width of the frame.
        mask_thr: the threshold.

    Returns:
        bool (h, w) window, and x and y of its corner in the frame.
    """
    x0, y0, x1, y1 = box
    left, right = _pixels(x0, x1, size[1])
    top, bottom = _pixels(y0, y1, size[0])
    framed = np.pad(mask, 1)
    rows, row_share = _cells(np.arange(top, bottom), y0, y1, mask.shape[0])
    columns, column_share = _cells(np.arange(left, right), x0, x1, mask.shape[1])
    by_row = framed[rows] * (1 - row_share)[:, None] + framed[rows + 1] * row_share[:, None]
    drawn = by_row[:, columns] * (1 - column_share) + by_row[:, columns + 1] * column_share
    return drawn >= mask_thr, left, top


def _pixels(low: float, high: float, edge: int) -> tuple[int, int]:
    """The pixels that a side of a box touches, inside the frame."""
    first = min(max(int(np.floor(low)), 0), edge)
    return first, max(first, min(int(np.ceil(high)), edge))


def _cells(pixels: np.ndarray, low: float, high: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel's centre the cell before it on the grid padded by one, and the share of the cell after it."""
    position = (pixels + 0.5 - low) / max(high - low, 1e-6) * cells + 0.5
    position = np.clip(position, 0, cells + 1 - 1e-6)
    before = position.astype(np.int64)
    return before, (position - before).astype(np.float32)
