"""The competition score: pure functions on COCO run-length encodings, without file access.

Source: the evaluation page of iMaterialist (Fashion) 2019 at FGVC6. At each IoU threshold t in 0.50, 0.55 ... 0.95, a
predicted mask is a hit if its IoU with a true mask of the same class is greater than t, and precision(t) =
TP / (TP + FP + FN). ClassIds are compared as text, attributes included: `6` never matches `6_28`.

The page does not say how the classes of an image are pooled, so both readings are available. `class` (the first-place
solution's local metric, and the default) averages precision(t) over the ten thresholds for each class in the truth or
prediction of the image, then over these classes. `image` first adds up TP, FP and FN over the classes. In both cases
the score is the mean over images, and an image without masks in truth and prediction scores 1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import FloatArray, IntArray

ClassMasks = Mapping[str, Sequence[CocoRLE]]
"""The masks of one image: ClassId (attributes included) -> masks."""

POOLINGS = ("class", "image")

# k / 20 and pycocotools' intersection / union are both the double nearest to the exact quotient. An IoU that equals a
# threshold therefore compares equal, and any other IoU differs by at least 1 / (20 * union), far more than a rounding
# error. So `iou > THRESHOLDS` is exact. np.arange in steps of 0.05 would drift.
THRESHOLDS: FloatArray = np.arange(10, 20) / 20


def precision(hits: npt.NDArray[np.integer], masks: npt.NDArray[np.integer] | int) -> FloatArray:
    """Return TP / (TP + FP + FN) averaged over the thresholds.

    Args:
        hits: (..., 10), TP at each threshold.
        masks: (...), number of true and predicted masks together, at least one.
    """
    # TP + FP + FN counts every unmatched mask once and every matched pair once.
    return np.mean(hits / (np.asarray(masks)[..., None] - hits), axis=-1)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Hits and numbers of masks of one class in one image, or sums of these."""

    true_positives: IntArray  # (10,), one for each threshold
    n_true: int
    n_predicted: int

    @property
    def score(self) -> float:
        """TP / (TP + FP + FN) averaged over the thresholds; 1 if there are no masks."""
        if self.n_true + self.n_predicted == 0:
            return 1.0
        return float(precision(self.true_positives, self.n_true + self.n_predicted))


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """One class over all images; the score is the mean over images with the class in truth or prediction."""

    score: float
    n_images: int
    n_true: int
    n_predicted: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """The competition score, overall, per image and per class."""

    value: float
    per_image: dict[str, float]
    per_class: dict[str, ClassSummary]


def iou_matrix(predicted: Sequence[CocoRLE], true: Sequence[CocoRLE]) -> FloatArray:
    """Return the IoU of every predicted with every true mask, (N, M): pixel counts, then one division of doubles.

    Raises ValueError if the masks have different sizes.
    """
    sizes = {tuple(rle["size"]) for rle in (*predicted, *true)}
    if len(sizes) > 1:
        raise ValueError(f"masks of one image must have one size, got {sorted(sizes)} (height, width)")
    if not predicted or not true:
        return np.zeros((len(predicted), len(true)))
    return np.asarray(coco_mask.iou(list(predicted), list(true), [0] * len(true)))


def true_positives(iou_NM: FloatArray) -> IntArray:
    """Count the hits at each threshold, (10,), using every predicted and every true mask at most once.

    Pairs are formed greedily by descending IoU. The pairs above a threshold come first in that order, so one pass
    serves all thresholds. If predictions do not overlap, as the rules require within a class, at most one of them has
    an IoU above 0.5 with a given true mask, so greedy pairing finds the maximum number of hits.
    """
    rows, columns = match(iou_NM).T
    return (iou_NM[rows, columns][:, None] > THRESHOLDS).sum(axis=0, dtype=np.int64)


def match(iou_NM: FloatArray) -> IntArray:
    """Return the pairs that `true_positives` counts, by descending IoU: (K, 2), predicted and true masks."""
    matched: list[tuple[int, int]] = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    rows, columns = np.nonzero(iou_NM > THRESHOLDS[0])
    for index in np.argsort(-iou_NM[rows, columns], kind="stable"):
        row, column = int(rows[index]), int(columns[index])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            matched.append((row, column))
    return np.array(matched, np.int64).reshape(-1, 2)


def count_image(truth: ClassMasks, predicted: ClassMasks) -> dict[str, Counts]:
    """Return the counts of every class in the truth or prediction of an image."""
    classes = {c: None for c, masks in (*truth.items(), *predicted.items()) if masks}  # an ordered set
    counts = {}
    for class_id in classes:
        true_masks, masks = truth.get(class_id, ()), predicted.get(class_id, ())
        hits = true_positives(iou_matrix(masks, true_masks))
        counts[class_id] = Counts(true_positives=hits, n_true=len(true_masks), n_predicted=len(masks))
    return counts


def pool_classes(counts: Mapping[str, Counts], *, pooling: str = "class") -> float:
    """Return the score of an image from the counts of its classes; see the module's docstring for `pooling`."""
    if pooling not in POOLINGS:
        raise UserError(f"pooling={pooling}: choose one of {', '.join(POOLINGS)}")
    if not counts:
        return 1.0
    if pooling == "class":
        return mean(c.score for c in counts.values())
    return Counts(
        true_positives=np.sum([c.true_positives for c in counts.values()], axis=0),
        n_true=sum(c.n_true for c in counts.values()),
        n_predicted=sum(c.n_predicted for c in counts.values()),
    ).score


def score_image(truth: ClassMasks, predicted: ClassMasks, *, pooling: str = "class") -> float:
    """Return the score of an image; all masks must have one size."""
    return pool_classes(count_image(truth, predicted), pooling=pooling)


def score_images(
    truth: Mapping[str, ClassMasks], predicted: Mapping[str, ClassMasks], *, pooling: str = "class"
) -> Score:
    """Score a set of images: ImageId -> ClassId -> masks.

    An image missing in `predicted` counts as one without predictions. Raises UserError for a predicted image missing
    in `truth`, for an empty truth, and for an unknown pooling.
    """
    unknown = [image for image in predicted if image not in truth]
    if unknown:
        raise UserError(f"{len(unknown)} predicted images are not in the truth, the first {unknown[0]}")
    counts = {image: count_image(masks, predicted.get(image, {})) for image, masks in truth.items()}
    return combine(counts, pooling=pooling)


def combine(counts: Mapping[str, Mapping[str, Counts]], *, pooling: str = "class") -> Score:
    """Return the score of images that `count_image` counted: ImageId -> ClassId -> counts.

    Raises UserError if there are no images.
    """
    if not counts:
        raise UserError("no images to score: the truth is empty")
    per_image = {image: pool_classes(by_class, pooling=pooling) for image, by_class in counts.items()}
    collected: dict[str, list[Counts]] = {}
    for by_class in counts.values():
        for class_id, class_counts in by_class.items():
            collected.setdefault(class_id, []).append(class_counts)
    per_class = {
        class_id: ClassSummary(
            score=mean(c.score for c in of_class),
            n_images=len(of_class),
            n_true=sum(c.n_true for c in of_class),
            n_predicted=sum(c.n_predicted for c in of_class),
        )
        for class_id, of_class in collected.items()
    }
    return Score(value=mean(per_image.values()), per_image=per_image, per_class=per_class)


def mean(values: Iterable[float]) -> float:
    """Return the mean, rounded once, so that the order of images and classes cannot change the last digit."""
    listed = list(values)
    return math.fsum(listed) / len(listed)
