"""Candidates -> detections: thresholds, NMS, pasting, overlaps. Pure functions of a frozen rule."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops import nms as _nms

from fashion_hydra import steps
from fashion_hydra.errors import UserError
from fashion_hydra.expected import Calibration, choose
from fashion_hydra.pasting import Found, Pasted, mask_iou, paste
from fashion_hydra.structures import Candidates, Detections, Size

NO_LIMIT = 2**31
"""`max_per_image` that leaves nothing out."""
NMS_KINDS = ("box", "mask", "soft")
LOOSE_IOU_THR = 0.7
"""Box NMS that goes before masks are computed, where the rule's own NMS is not on boxes: `survivors`."""


@dataclass(frozen=True)
class Postprocess:
    """How candidates become an answer, in label space.

    Args:
        score_thr: scores at or below are left out.
        iou_thr: within a class, boxes (or masks) that overlap a better one by more are left out.
        mask_thr: mask probability from which a pixel belongs to the object.
        max_per_image: the best so many are kept.
        min_area: masks of fewer pixels, on the grid of the answer and after overlaps, are left out.
        suppress_overlaps: within a class each mask loses the pixels that a better one has.
        label_score_thr: label -> threshold, where it is another than `score_thr`.
        dropped_labels: left out before `max_per_image` counts.
        nms: on what `iou_thr` is measured, `box` or `mask`; or `soft`, which knows no `iou_thr`, see `soft_nms`.
        soft_nms_sigma: how slowly overlap lowers scores, with `nms=soft`.
        calibration: with it, what is left after all the other rules is chosen from for the highest expected score,
            see `fashion_hydra.expected`.
        steps: names of modules in `fashion_hydra.steps`, what is done to masks before overlaps are suppressed.

    Raises:
        UserError: a value out of its range.
    """

    score_thr: float
    iou_thr: float
    mask_thr: float
    max_per_image: int
    min_area: int = 1
    suppress_overlaps: bool = True
    label_score_thr: Mapping[int, float] = field(default_factory=dict, hash=False)
    dropped_labels: tuple[int, ...] = ()
    nms: str = "box"
    soft_nms_sigma: float = 0.5
    calibration: Calibration | None = None
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("score_thr", "iou_thr", "mask_thr")}
        shares |= {f"label_score_thr[{label}]": thr for label, thr in self.label_score_thr.items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UserError(f"postprocess.{name}={value}: between 0 and 1 expected")
        if self.max_per_image < 1 or self.min_area < 1:
            raise UserError(
                f"postprocess.max_per_image={self.max_per_image} postprocess.min_area={self.min_area}: "
                "at least 1 expected"
            )
        if self.nms not in NMS_KINDS:
            raise UserError(f"postprocess.nms={self.nms}: choose one of {', '.join(NMS_KINDS)}")
        if not self.soft_nms_sigma > 0:
            raise UserError(f"postprocess.soft_nms_sigma={self.soft_nms_sigma}: more than 0 expected")

        for name in self.steps:
            steps.load(name)

    @property
    def lowest_score_thr(self) -> float:
        """No candidate at or below this is kept, whatever its label."""
        return min([self.score_thr, *self.label_score_thr.values()])

    def thresholds(self, labels: Tensor) -> Tensor:
        """The score threshold of each candidate, float32 (N,); infinite for dropped labels."""
        values = torch.full(labels.shape, self.score_thr, dtype=torch.float32, device=labels.device)
        for label, threshold in self.label_score_thr.items():
            values[labels == label] = threshold
        for label in self.dropped_labels:
            values[labels == label] = torch.inf
        return values


COCO_RULE = Postprocess(score_thr=0.001, iou_thr=0.5, mask_thr=0.5, max_per_image=100, suppress_overlaps=False)
"""What COCO average precision is measured with (mmdet's test settings of Hybrid Task Cascade)."""


def select(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score_thr: float | Tensor, iou_thr: float, max_per_image: int
) -> Tensor:
    """Greedy NMS within each class: indices of what is kept, by descending score.

    Class by class rather than with shifted coordinates, so that a box's fate depends on its class alone and not
    on what else is in the list.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: see `Postprocess`; one, or one a candidate (N,).
        iou_thr: see there.
        max_per_image: see there.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    grouped = able[labels[able].sort(stable=True).indices]
    kept = [
        members[_nms(boxes[members], scores[members], iou_thr)] if len(members) > 1 else members
        for members in grouped.split(labels[grouped].unique_consecutive(return_counts=True)[1].tolist())
    ]
    if not kept:
        return able
    index = torch.cat(kept).sort().values  # ties in score fall to the earlier candidate
    order = scores[index].sort(descending=True, stable=True).indices
    return index[order[:max_per_image]]


def survivors(boxes: Tensor, scores: Tensor, labels: Tensor, rule: Postprocess) -> Tensor:
    """Indices of what a rule may keep, by descending score, as far as can be told without masks.

    With NMS on boxes this is what the rule keeps. Mask NMS and soft-NMS choose among more: all above their
    thresholds that survive greedy NMS at `LOOSE_IOU_THR`, or at the rule's `iou_thr` if that is looser.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        rule: thresholds.
    """
    on_boxes = rule.nms == "box"
    return select(
        boxes,
        scores,
        labels,
        score_thr=rule.thresholds(labels),
        iou_thr=rule.iou_thr if on_boxes else max(LOOSE_IOU_THR, rule.iou_thr),
        max_per_image=rule.max_per_image if on_boxes else max(1, len(scores)),
    )


def top_survivors(boxes: Tensor, scores: Tensor, *, iou_thr: float, count: int) -> Tensor:
    """Indices of the best so many of what greedy NMS keeps, whatever the class, by descending score.

    NMS of the boxes down to some score keeps what NMS of all keeps down to there, so it looks at a few of the best,
    then at twice as many, until enough are kept.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        iou_thr: boxes that overlap a better one by more are left out.
        count: the best so many are kept.
    """
    order = scores.sort(descending=True, stable=True).indices
    looked_at = 2 * count
    while True:
        head = order[:looked_at]
        kept = _nms(boxes[head], scores[head], iou_thr)
        if len(kept) >= count or looked_at >= len(order):
            return head[kept[:count]]
        looked_at *= 2


def soft_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score_thr: Tensor, sigma: float, max_per_image: int
) -> tuple[Tensor, Tensor]:
    """Soft-NMS within each class, with the Gaussian penalty; in float64.

    The best box left is kept, and the score of every other box left of its class is multiplied by
    exp(-IoU² / sigma); and so on. Boxes whose score is no longer above the threshold fall out. (Bodla, Singh,
    Chellappa, Davis: Soft-NMS - Improving Object Detection With One Line of Code, ICCV 2017, equation 3; the
    authors use sigma = 0.5.) Ties in score fall to the earlier candidate.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: float32 (N,), of each candidate.
        sigma: of the penalty.
        max_per_image: the best so many are kept.

    Returns:
        Indices of what is kept, and its lowered scores, float64, descending.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    overlaps = box_iou(boxes[able].double(), boxes[able].double()).numpy()
    of_class = labels[able].numpy()
    kept_share = np.where(of_class[:, None] == of_class, np.exp(-(overlaps**2) / sigma), 1.0)
    left, floor = scores[able].double().numpy().copy(), score_thr[able].double().numpy()
    index: list[int] = []
    lowered: list[float] = []
    while len(index) < max_per_image and (left > floor).any():
        # The best of all classes is the best of its own, and what it lowers only gets lower.
        best = int(np.where(left > floor, left, -1.0).argmax())
        index.append(best)
        lowered.append(float(left[best]))
        left *= kept_share[best]
        left[best] = -1.0
    return able[index], torch.tensor(lowered, dtype=torch.float64)


def apply(candidates: Candidates, rule: Postprocess, *, size: Size) -> Detections:
    """The answer for one image on a grid of `size`.

    With `nms=mask` the masks are drawn on that grid first; by descending score a candidate is left out when the
    IoU of its mask (pixels shared / pixels of either, before overlaps are suppressed) with that of a kept one of
    its class is above `iou_thr`. A mask without pixels has IoU 0 with every other. `max_per_image` counts what is
    kept then, as it does with boxes.

    Args:
        candidates: of the image.
        rule: thresholds.
        size: height and width of the grid that masks are drawn on; the image is stretched to it.
    """
    index, scores = rank(candidates, rule)
    stretch = np.array([size[1] / candidates.size[1], size[0] / candidates.size[0]] * 2)
    boxes = candidates.boxes[index].double().numpy() * stretch
    drawn = (
        paste(mask, box, size=size, mask_thr=rule.mask_thr)
        for mask, box in zip(candidates.masks[index].numpy(), boxes, strict=True)
    )
    found: Iterable[Found] = zip(drawn, candidates.labels[index].tolist(), scores.tolist(), strict=True)
    if rule.nms == "mask":
        found = mask_nms(found, rule)
    for name in rule.steps:
        found = steps.load(name)(list(found), size)
    return _answer(candidates.image_id, found, rule, size)


def rank(candidates: Candidates, rule: Postprocess) -> tuple[Tensor, Tensor]:
    """Which candidates are drawn, the best first, and their scores (float32, with soft-NMS float64)."""
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    if rule.nms == "box":
        index = survivors(boxes, scores, labels, rule)
        return index, scores[index]
    floors = rule.thresholds(labels)
    if rule.nms == "mask":
        order = scores.sort(descending=True, stable=True).indices
        index = order[scores[order] > floors[order]]
        return index, scores[index]
    return soft_nms(
        boxes, scores, labels, score_thr=floors, sigma=rule.soft_nms_sigma, max_per_image=rule.max_per_image
    )


def mask_nms(found: Iterable[Found], rule: Postprocess) -> list[Found]:
    """Greedy NMS on masks within each class, see `apply`; `found` is by descending score."""
    kept: list[Found] = []
    rivals: dict[int, list[tuple[Pasted, int]]] = {}
    for mask, label, score in found:
        area = int(np.count_nonzero(mask.pixels))
        better = rivals.setdefault(label, [])
        if any(mask_iou(mask, other, area, its, up_to=rule.iou_thr) > rule.iou_thr for other, its in better):
            continue
        better.append((mask, area))
        kept.append((mask, label, score))
        if len(kept) == rule.max_per_image:
            break
    return kept


def _answer(image_id: str, found: Iterable[Found], rule: Postprocess, size: Size) -> Detections:
    """Overlaps suppressed, small masks left out, the rest chosen from and encoded; `found` is by descending score."""
    taken: dict[int, list[Pasted]] = {}
    left: list[Found] = []
    for mask, label, score in found:
        if rule.suppress_overlaps:
            better = taken.setdefault(label, [])
            for other in better:
                if (views := mask.windows_shared_with(other)) is not None:
                    np.greater(*views, out=views[0])  # set here and not there
            better.append(mask)
        if np.count_nonzero(mask.pixels) >= rule.min_area:
            left.append((mask, label, score))
    if rule.calibration is not None:
        scores, labels = np.array([score for *_, score in left]), np.array([label for _, label, _ in left], np.int64)
        left = [left[i] for i in np.flatnonzero(choose(scores, labels, rule.calibration))]
    masks = [mask.encoded(size) for mask, *_ in left]
    return Detections(image_id, [label for _, label, _ in left], [score for *_, score in left], masks)
