"""Fashionpedia's average precision, which requires correct masks and correct attributes (Jia et al., ECCV 2020).

The results equal those of the package `fashionpedia`. For classes with attributes, both the IoU and the F1 between the
attributes of the detection and the true mask must reach a threshold, from 0.50 to 0.95. The F1 is the mean of the F1 of
the attributes and the F1 of their absence. For classes without attributes, only the IoU counts.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np

from fashion_hydra.evaluation.coco_ap import (
    LEAST_IOU,
    RANGES,
    SIZES,
    THRESHOLDS,
    AveragePrecision,
    Matched,
    TrueMask,
    are_inside,
    class_matches,
    class_rates,
    mask_ap,
    mask_iou,
)
from fashion_hydra.structures.detections import Detections
from fashion_hydra.utils.types import BoolArray, FloatArray

NAMES = (
    *("AP_F1", "AP50_F1", "AP75_F1", "AP_F1_50", "AP_F1_75", "AP50_F1_50", "AP50_F1_75", "AP75_F1_50", "AP75_F1_75"),
    *("AP_F1_small", "AP_F1_medium", "AP_F1_large"),
)
"""`AP75_F1_50` is at IoU 0.75 and F1 0.50; a missing number stands for the mean over 0.50 to 0.95."""

_LEVELS = len(THRESHOLDS) ** 2
_PLACES = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}  # indices of thresholds
_LEAST = np.minimum(THRESHOLDS, 1 - 1e-10)


def attribute_f1(mine: Collection[int], theirs: Collection[int], *, vocabulary: int) -> float:
    """Return the mean of the F1 of the attributes and the F1 of their absence.

    Args:
        mine: attribute ids of a prediction.
        theirs: attribute ids of the true mask.
        vocabulary: total number of attributes.
    """
    both = len(set(mine) & set(theirs))
    wrong = len(set(mine) ^ set(theirs))
    neither = vocabulary - both - wrong
    sides = [2 * right / (2 * right + wrong) for right in (both, neither) if right or wrong]
    return float(np.mean(sides)) if sides else 1.0


def attribute_ap(
    truth: Mapping[str, Sequence[TrueMask]],
    found: Mapping[str, Detections],
    *,
    labels: int,
    vocabulary: int,
    carriers: Collection[int] | None = None,
    pixel_areas: Mapping[str, float] | None = None,
) -> AveragePrecision:
    """Compute the average precision of masks with attributes, the metrics of `NAMES`.

    Classes with attributes count once for each F1 threshold, other classes once, so in means over F1 a class with
    attributes has ten times the weight.

    Args:
        truth: image id -> its objects and crowd regions, with attributes.
        found: image id -> detections on the same frame, with attributes.
        labels: number of classes.
        vocabulary: total number of attributes.
        carriers: labels of the classes with attributes; None for the classes whose true masks have any.
        pixel_areas: see `mask_ap`.
    """
    if carriers is None:
        carriers = {one.label for objects in truth.values() for one in objects if one.attributes}
    match = partial(_match, vocabulary=vocabulary)
    plain = mask_ap(truth, found, labels=labels, pixel_areas=pixel_areas)
    shape = (len(RANGES), len(THRESHOLDS), len(THRESHOLDS))
    precision = {
        label: class_rates(matches, _LEVELS).precision.reshape(shape)
        for label, matches in class_matches(truth, found, carriers, match, pixel_areas or {}).items()
    }
    of_class: dict[str, FloatArray] = {}
    overall: dict[str, float] = {}
    for name in NAMES:
        iou, f1, size = _parts(name)
        values = np.array(plain.of_class[f"AP{iou}{size}"], np.float64)
        for label, levels in precision.items():
            values[label] = levels[list(SIZES).index(size), _PLACES[iou], _PLACES[f1]].mean()
        weights = np.ones(labels)
        if not f1:
            weights[list(precision)] = len(THRESHOLDS)
        known = ~np.isnan(values)
        of_class[name] = values
        overall[name] = float(np.average(values[known], weights=weights[known])) if known.any() else float("nan")
    return AveragePrecision(overall, of_class)


def _parts(name: str) -> tuple[str, str, str]:
    """Split a name into IoU threshold, F1 threshold and size: `AP75_F1_50` into "75", "50" and ""."""
    iou, _, rest = name.removeprefix("AP").partition("_F1")
    return (iou, rest.removeprefix("_"), "") if rest not in SIZES else (iou, "", rest)


def _match(
    detections: Detections, areas: Sequence[int], members: Sequence[int], true: Sequence[TrueMask], *, vocabulary: int
) -> Matched:
    """Match the detections of an image and class, the best first; see `ClassMatches.matched`."""
    crowd = [one.crowd for one in true]
    iou_NM = mask_iou([detections.masks[i] for i in members], [one.mask for one in true], crowd)
    f1_NM = np.array(
        [
            [attribute_f1(detections.attribute_ids[i], one.attributes, vocabulary=vocabulary) for one in true]
            for i in members
        ]
    )
    aside_RM = np.array(crowd) | ~are_inside(np.array([one.area for one in true])).T
    matching = np.flatnonzero(((iou_NM >= LEAST_IOU) & (f1_NM >= LEAST_IOU)).any(axis=1)).tolist()
    of_sizes = [_match_at_size(iou_NM[matching], f1_NM[matching], aside_M) for aside_M in aside_RM]
    matched_NRL, ignored_NRL = (np.stack(arrays, axis=1) for arrays in zip(*of_sizes, strict=True))
    return {n: (matched_NRL[i], ignored_NRL[i]) for i, n in enumerate(matching) if matched_NRL[i].any()}


def _match_at_size(iou_NM: FloatArray, f1_NM: FloatArray, aside_M: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Return whether each detection matches, and whether the match is ignored, at each pair of thresholds: 2 x (N, L).

    A detection goes through the unmatched objects, ignored ones last. It switches to each object that reaches the
    thresholds and is not worse than its current match in IoU or F1; to an ignored object only if it has no other match.
    A crowd region can be matched once, as in the package.
    """
    order = aside_M.argsort(kind="stable").tolist()
    shape = (len(THRESHOLDS), len(THRESHOLDS))
    left_M = np.ones((len(aside_M), *shape), bool)
    matched, ignored = (np.zeros((len(iou_NM), *shape), bool) for _ in range(2))
    for n, (overlaps, f1s) in enumerate(zip(iou_NM, f1_NM, strict=True)):
        taken = np.full(shape, -1)
        iou, f1 = np.repeat(_LEAST[:, None], len(_LEAST), axis=1), np.repeat(_LEAST[None], len(_LEAST), axis=0)
        for m in order:
            takes = left_M[m] & (overlaps[m] >= iou) & (f1s[m] >= f1)
            if aside_M[m]:
                takes &= ~matched[n] | ignored[n]
            taken[takes], iou[takes], f1[takes] = m, overlaps[m], f1s[m]
            matched[n] |= takes
            ignored[n] = np.where(takes, aside_M[m], ignored[n])
        for m in order:
            left_M[m] &= taken != m
    return matched.reshape(-1, _LEVELS), ignored.reshape(-1, _LEVELS)
