"""COCO's average precision and recall of masks: overall, by size and by class, with crowd regions.

The results equal those of pycocotools (COCO 2014, 101 interpolated recalls, IoU 0.50 to 0.95, the best 100 detections
per image and class). IoU is computed only if an image has both truth and detections of a class, which is a small part
of all detections; the rest are false positives in any case.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.types import BoolArray, FloatArray

SIZES = {"": (0.0, 1e10), "_small": (0.0, 32.0**2), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}
"""Suffix of a metric's name -> minimum and maximum area in pixels, both inclusive."""
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
"""Names of the metrics, in the order in which pycocotools prints them."""

Overlap = Callable[[Sequence[CocoRLE], Sequence[CocoRLE], Sequence[bool]], FloatArray]
"""Detections, true masks, whether each true mask is a crowd region -> overlaps (N, M)."""

Matched = dict[int, tuple[BoolArray, BoolArray]]
"""See `ClassMatches.matched`."""

LEAST_IOU = 0.5
"""Minimum IoU of a match."""

THRESHOLDS = np.linspace(LEAST_IOU, 0.95, 10)
"""IoU thresholds, compared with >=; in the last bit they differ from the competition's."""

RANGES = np.array(list(SIZES.values()))
"""Minimum and maximum area of each size, (R, 2)."""

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision is averaged."""

_MOST = 100  # detections per image and class
_R, _T = np.ogrid[: len(RANGES), : len(THRESHOLDS)]


@dataclass(frozen=True)
class TrueMask:
    """A true object, or a crowd region: any number of objects that were not annotated separately.

    Args:
        label: label of the class.
        mask: mask on the frame of the image's detections.
        area: area in pixels, which determines the size.
        crowd: whether this is a crowd region; a detection on it without a better match is ignored.
        attributes: attribute ids, which only `attribute_ap` uses.
    """

    label: int
    mask: CocoRLE
    area: float
    crowd: bool = False
    attributes: tuple[int, ...] = ()


Matcher = Callable[[Detections, Sequence[int], Sequence[int], Sequence[TrueMask]], Matched]
"""See `class_matches`."""


@dataclass(frozen=True)
class AveragePrecision:
    """The metrics of `NAMES`.

    Args:
        overall: name -> mean over the classes in the truth; NaN if there are no objects of the size, but AP, AP50 and
            AP75 are then 0, so that a number can be logged.
        of_class: name -> (labels,); NaN for classes without true objects of the size.
    """

    overall: Mapping[str, float]
    of_class: Mapping[str, FloatArray]


@dataclass
class ClassMatches:
    """The matches of a class's detections over all images; R sizes, T thresholds or pairs of thresholds.

    Args:
        true_areas: area of each true object.
        scores: score of each detection.
        ranks: rank of each detection in its image.
        areas: area of each detection.
        matched: detection -> whether it matches an object or crowd region (R, T), whether this match is ignored, for a
            crowd region or an object of another size (R, T); only detections with a match.
    """

    true_areas: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    matched: Matched = field(default_factory=dict)

    def add(self, scores: Sequence[float], areas: Sequence[float]) -> int:
        """Add an image's detections, the best first; return the index of the first."""
        first = len(self.scores)
        self.scores += scores
        self.ranks += range(len(scores))
        self.areas += areas
        return first


def mask_iou(predicted: Sequence[CocoRLE], true: Sequence[CocoRLE], crowd: Sequence[bool]) -> FloatArray:
    """Return the IoU of detections and true masks, (N, M); for crowd regions, the share of the detection on them."""
    if not predicted or not true:
        return np.zeros((len(predicted), len(true)))
    return np.asarray(coco_mask.iou(list(predicted), list(true), [int(c) for c in crowd]))


def mask_ap(
    truth: Mapping[str, Sequence[TrueMask]],
    found: Mapping[str, Detections],
    *,
    labels: int,
    pixel_areas: Mapping[str, float] | None = None,
    overlap: Overlap = mask_iou,
) -> AveragePrecision:
    """Compute the average precision and recall of detections.

    Args:
        truth: image id -> its objects and crowd regions.
        found: image id -> detections on the same frame as the image's truth.
        labels: number of classes.
        pixel_areas: image id -> area of a mask pixel, for the size of detections; 1 if missing.
        overlap: function that computes the overlaps of detections with true masks.
    """
    classes = class_matches(truth, found, range(labels), matcher(overlap), pixel_areas or {})
    return _summarise([class_rates(one, len(THRESHOLDS)) for one in classes.values()])


def matcher(overlap: Overlap) -> Matcher:
    """Return a function that matches detections with true masks by `overlap`, see `class_matches`."""

    def match(
        detections: Detections, areas: Sequence[int], members: Sequence[int], true: Sequence[TrueMask]
    ) -> Matched:
        return _match([(detections.masks[i], areas[i]) for i in members], true, overlap)

    return match


def class_matches(
    truth: Mapping[str, Sequence[TrueMask]],
    found: Mapping[str, Detections],
    labels: Collection[int],
    match: Matcher,
    pixel_areas: Mapping[str, float],
) -> dict[int, ClassMatches]:
    """Match the detections of classes with the truth; return label -> matches.

    Args:
        truth: see `mask_ap`.
        found: see `mask_ap`.
        labels: labels of the classes.
        match: an image's detections, their areas, indices of the detections of a class (the best first), true masks of
            that class -> matches.
        pixel_areas: see `mask_ap`.
    """
    classes = {label: ClassMatches() for label in sorted(labels)}
    for image_id, objects in truth.items():
        by_label: dict[int, list[TrueMask]] = {}
        for true in objects:
            by_label.setdefault(true.label, []).append(true)
            if not true.crowd and true.label in classes:
                classes[true.label].true_areas.append(true.area)
        if (detections := found.get(image_id)) is None:
            continue
        pixel, areas = pixel_areas.get(image_id, 1.0), detections.areas
        for label, members in _best_by_label(detections).items():
            if label not in classes:
                continue
            into = classes[label]
            first = into.add([detections.scores[i] for i in members], [pixel * areas[i] for i in members])
            if label in by_label:
                matched = match(detections, areas, members, by_label[label])
                into.matched |= {first + place: where for place, where in matched.items()}
    return classes


def are_inside(areas: FloatArray) -> BoolArray:
    """Return whether each area is of each size: bool (N, R)."""
    return (areas[:, None] >= RANGES[:, 0]) & (areas[:, None] <= RANGES[:, 1])


def _best_by_label(detections: Detections) -> dict[int, list[int]]:
    """Return the indices of each label's detections, the best first, up to `_MOST`."""
    groups: dict[int, list[int]] = {}
    for i in np.argsort(-np.array(detections.scores, np.float64), kind="stable").tolist():
        groups.setdefault(detections.labels[i], []).append(i)
    return {label: members[:_MOST] for label, members in groups.items()}


def _match(predicted: Sequence[tuple[CocoRLE, int]], true: Sequence[TrueMask], overlap: Overlap) -> Matched:
    """Match the detections of an image and class, the best first; see `ClassMatches.matched`.

    A detection matches the object of the size with the highest overlap (the last one if overlaps are equal), among
    objects that reach the threshold and were not matched by a better detection. If there is none, it matches an object
    of another size or a crowd region by the same rule and is ignored. Crowd regions can be matched several times.
    Overlaps are computed only for areas that allow a match.
    """
    crowd, masks = [one.crowd for one in true], [one.mask for one in true]
    areas = coco_mask.area(masks)
    least, most = LEAST_IOU * areas.min(), areas.max() / LEAST_IOU
    has_crowd = any(crowd)
    able_N = [n for n, (_, area) in enumerate(predicted) if has_crowd or least <= area <= most]
    overlaps = overlap([predicted[n][0] for n in able_N], masks, crowd)
    if not (matching := np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= LEAST_IOU).tolist()):
        return {}
    again_M = np.array(crowd)  # can be matched several times
    aside_RM = again_M | ~are_inside(np.array([one.area for one in true])).T
    preferred_RM = len(true) * ~aside_RM
    left_RTM = np.ones((len(RANGES), len(THRESHOLDS), len(true)), bool)
    matches = {}
    for n in matching:
        able = left_RTM & (overlaps[n] >= THRESHOLDS[:, None])
        rank_M = overlaps[n].argsort(kind="stable").argsort()
        best = np.where(able, (preferred_RM + rank_M)[:, None], -1).argmax(axis=-1)
        matched = able.any(axis=-1)
        matches[able_N[n]] = matched, matched & aside_RM[_R, best]
        left_RTM[_R, _T, best] &= ~matched | again_M[best]
    return matches


@dataclass(frozen=True)
class ClassRates:
    """Precision averaged over recalls (R, T), recall (R, T), and recall of the best 1 and 10 (2, T) of a class."""

    precision: FloatArray
    recall: FloatArray
    recall_of_few: FloatArray


def class_rates(matches: ClassMatches, levels: int) -> ClassRates:
    """Compute precision and recall from matches; NaN if there is no object of the size.

    Args:
        matches: matches of a class.
        levels: number of thresholds, T.
    """
    objects = are_inside(np.array(matches.true_areas)).sum(axis=0)
    none = np.where(objects > 0, 0.0, np.nan)[:, None].repeat(levels, axis=1)
    if not matches.matched or not objects.any():
        return ClassRates(none, none, none[[0, 0]])
    # False positives after the last detection with a match do not lower any precision that counts.
    order = np.argsort(-np.array(matches.scores), kind="stable")
    place = np.argsort(order)
    order = order[: place[list(matches.matched)].max() + 1]
    # Detections of another size without a match are neither hits nor false positives.
    ignored = (~are_inside(np.array(matches.areas)[order]))[..., None].repeat(levels, axis=2)
    hits = np.zeros_like(ignored)
    for n, (matched, aside) in matches.matched.items():
        at = place[n]
        hits[at], ignored[at] = matched & ~aside, aside | (ignored[at] & ~matched)
    ranks = np.array(matches.ranks)[order]
    found, judged = hits.cumsum(axis=0, dtype=np.int32), (~ignored).cumsum(axis=0, dtype=np.int32)
    precision, known = none.copy(), np.maximum(objects, 1)
    for size in np.flatnonzero(objects).tolist():
        precision[size] = mean_precision(found[:, size], judged[:, size], known[size])
    few = np.stack([hits[ranks < most, 0].sum(axis=0) for most in (1, 10)])
    return ClassRates(precision, none + found[-1] / known[:, None], none[0] + few / known[0])


def mean_precision(found: np.ndarray, judged: np.ndarray, objects: float) -> FloatArray:
    """Return precision averaged over recalls, at each threshold: (T,).

    Args:
        found: (N, T), number of hits among the best 1, 2, ... detections.
        judged: (N, T), number of hits and false positives among the best 1, 2, ... detections.
        objects: number of true objects, more than 0.
    """
    envelope = np.maximum.accumulate((found / np.maximum(judged, 1))[::-1])[::-1]  # best at any later recall
    envelope = np.concatenate([envelope, np.zeros((1, envelope.shape[1]))])
    recall = found / objects
    at = [np.searchsorted(recall[:, level], RECALLS, side="left") for level in range(recall.shape[1])]
    return np.array([envelope[places, level].mean() for level, places in enumerate(at)])


def _summarise(classes: Sequence[ClassRates]) -> AveragePrecision:
    shape = (len(classes), len(RANGES), len(THRESHOLDS))
    precision = np.array([one.precision for one in classes]).reshape(shape)
    recall = np.array([one.recall for one in classes]).reshape(shape)
    few = np.array([one.recall_of_few for one in classes]).reshape(len(classes), 2, len(THRESHOLDS))
    of_class = {f"AP{size}": precision[:, r].mean(axis=-1) for r, size in enumerate(SIZES)}
    of_class |= {"AP50": precision[:, 0, 0], "AP75": precision[:, 0, 5]}
    of_class |= {f"AR{size or '_100'}": recall[:, r].mean(axis=-1) for r, size in enumerate(SIZES)}
    of_class |= {"AR_1": few[:, 0].mean(axis=-1), "AR_10": few[:, 1].mean(axis=-1)}
    overall = {
        name: float(known.mean()) if len(known := of_class[name][~np.isnan(of_class[name])]) else np.nan
        for name in NAMES
    }
    if np.isnan(overall["AP"]):
        overall |= dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    return AveragePrecision(overall, {name: of_class[name] for name in NAMES})
