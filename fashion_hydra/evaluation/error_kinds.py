"""Classify the errors of predicted and true masks, similar to TIDE (Bolya et al.: TIDE, ECCV 2020, section 2.2).

Predicted and true masks of an image are paired as in the score at IoU 0.5: within a ClassId (attributes included), by
descending IoU, each mask once, if the IoU is above 0.5. These are *hits*. Every other prediction is a false positive;
its kind is the first that applies:

- *duplicate*: more than half of its pixels are on a true mask of its ClassId that another prediction hits. (TIDE
  requires an IoU above 0.5. In a submission, masks of a class do not overlap, so two of them cannot both have that. The
  worse one keeps only a remainder on the true mask, which this rule detects.)
- *wrong class*: its IoU with a true mask of another ClassId is above 0.5.
- *poor mask*: its IoU with a true mask of its ClassId is above 0.1 (and then at most 0.5).
- *background*: none of the above.

Every true mask that is not hit is a miss; its kind is the first that applies:

- *wrong class*: a false positive of this kind covers it (IoU above 0.5).
- *poor mask*: a false positive of this kind covers it (IoU above 0.1, same ClassId).
- *missed*: none of the above.

So each false positive and each miss is counted once; a poor mask or a wrong class costs one of each.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from fashion_hydra.evaluation.competition_score import iou_matrix, match
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.types import FloatArray

HIT, DUPLICATE, WRONG_CLASS, POOR_MASK, BACKGROUND, MISSED = (
    "hit",
    "duplicate",
    "wrong class",
    "poor mask",
    "background",
    "missed",
)
FALSE_POSITIVES = (POOR_MASK, WRONG_CLASS, DUPLICATE, BACKGROUND)
MISSES = (POOR_MASK, WRONG_CLASS, MISSED)
HIT_IOU, NEAR_IOU = 0.5, 0.1

OneMask = tuple[str, CocoRLE]
"""ClassId and mask."""


@dataclass(frozen=True)
class MaskResult:
    """The result for one mask.

    Args:
        kind: one of the module's kinds.
        iou: IoU with the partner; for `background` and `missed` the highest IoU with any mask of the same ClassId.
        partner: index of the mask that determined the kind, a true mask for a prediction and a prediction for a true
            mask; -1 for `background` and `missed`.
    """

    kind: str
    iou: float
    partner: int = -1


def classify_errors(
    predicted: Sequence[OneMask], true: Sequence[OneMask]
) -> tuple[tuple[MaskResult, ...], tuple[MaskResult, ...]]:
    """Classify all masks of an image, which must have one size; return results of predicted (N) and true (M) masks."""
    masks, true_masks = [mask for _, mask in predicted], [mask for _, mask in true]
    iou_NM = iou_matrix(masks, true_masks)
    inside_NM = np.zeros_like(iou_NM)
    if masks and true_masks:  # for "crowds", pycocotools divides the intersection by the prediction's area
        inside_NM = np.asarray(coco_mask.iou(masks, true_masks, [1] * len(true_masks)))
    ids, true_ids = (np.array([class_id for class_id, _ in given], dtype=object) for given in (predicted, true))
    same_NM = ids[:, None] == true_ids[None, :]
    hit_of = _hits(iou_NM, ids, true_ids)
    found = [_judge_prediction(row, iou_NM, inside_NM, same_NM, hit_of) for row in range(len(masks))]
    true_of = {column: row for row, column in hit_of.items()}
    kinds = np.array([judged.kind for judged in found], dtype=object)
    lost = [_judge_truth(column, iou_NM, same_NM, kinds, true_of) for column in range(len(true_masks))]
    return tuple(found), tuple(lost)


def _hits(iou_NM: FloatArray, ids: npt.NDArray, true_ids: npt.NDArray) -> dict[int, int]:
    """Return prediction -> the true mask that it hits."""
    hit_of: dict[int, int] = {}
    for class_id in set(ids) & set(true_ids):
        rows, columns = np.flatnonzero(ids == class_id), np.flatnonzero(true_ids == class_id)
        for row, column in match(iou_NM[np.ix_(rows, columns)]):
            hit_of[int(rows[row])] = int(columns[column])
    return hit_of


def _judge_prediction(
    row: int, iou_NM: npt.NDArray, inside_NM: npt.NDArray, same_NM: npt.NDArray, hit_of: dict[int, int]
) -> MaskResult:
    if row in hit_of:
        return MaskResult(HIT, float(iou_NM[row, hit_of[row]]), hit_of[row])
    iou, inside, same = iou_NM[row], inside_NM[row], same_NM[row]
    had = np.isin(np.arange(len(iou)), list(hit_of.values()))
    for kind, able in (
        (DUPLICATE, same & had & (inside > HIT_IOU)),
        (WRONG_CLASS, ~same & (iou > HIT_IOU)),
        (POOR_MASK, same & (iou > NEAR_IOU)),
    ):
        if able.any():
            return _nearest(kind, iou, able)
    return MaskResult(BACKGROUND, float(iou[same].max(initial=0.0)))


def _judge_truth(
    column: int, iou_NM: npt.NDArray, same_NM: npt.NDArray, kinds: npt.NDArray, true_of: dict[int, int]
) -> MaskResult:
    iou, same = iou_NM[:, column], same_NM[:, column]
    if column in true_of:
        return MaskResult(HIT, float(iou[true_of[column]]), true_of[column])
    for kind, able in (
        (WRONG_CLASS, ~same & (kinds == WRONG_CLASS) & (iou > HIT_IOU)),
        (POOR_MASK, same & (kinds == POOR_MASK) & (iou > NEAR_IOU)),
    ):
        if able.any():
            return _nearest(kind, iou, able)
    return MaskResult(MISSED, float(iou[same].max(initial=0.0)))


def _nearest(kind: str, iou: npt.NDArray, able: npt.NDArray) -> MaskResult:
    """Return a result whose partner is the mask with the highest IoU among `able`."""
    partner = int(np.where(able, iou, -1.0).argmax())
    return MaskResult(kind, float(iou[partner]), partner)


@dataclass
class ErrorCounts:
    """Number of masks of each kind.

    Args:
        predicted: kind -> number of predictions.
        true: kind -> number of true masks.
    """

    predicted: Counter[str]
    true: Counter[str]

    @classmethod
    def empty(cls) -> "ErrorCounts":
        """Return counts of zero."""
        return cls(Counter(), Counter())

    @classmethod
    def total(cls, tallies: Iterable["ErrorCounts"]) -> "ErrorCounts":
        """Return the sum of counts."""
        whole = cls.empty()
        for tally in tallies:
            whole.predicted.update(tally.predicted)
            whole.true.update(tally.true)
        return whole

    @property
    def hits(self) -> int:
        """True positives at IoU 0.5."""
        return self.predicted[HIT]

    @property
    def false_positives(self) -> int:
        """Predictions that are not hits."""
        return self.predicted.total() - self.predicted[HIT]

    @property
    def misses(self) -> int:
        """True masks that are not hit."""
        return self.true.total() - self.true[HIT]

    @property
    def judged(self) -> int:
        """TP + FP + FN, the denominator of the score at IoU 0.5."""
        return self.hits + self.false_positives + self.misses

    def cost(self, kind: str) -> int:
        """Return the false positives and misses of a kind, or the hits for `HIT`; all kinds add up to `judged`."""
        return self.hits if kind == HIT else self.predicted[kind] + self.true[kind]
