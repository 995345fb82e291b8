"""COCO's average precision of masks, over all sizes of objects.

As pycocotools computes it (COCO 2014, 101 recalls interpolated, IoU 0.50 to 0.95, the best 100 detections of an image
and class), but with IoU only where an image has both truth and detections of a class: that is a small part of all
detections, and the rest are false positives whatever they look like.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fashion_hydra.evaluation.competition_score import iou_matrix
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.types import BoolArray, FloatArray

_RECALLS = np.linspace(0, 1, 101)
_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # not those of the competition to the last bit, and with >=
_MOST = 100  # detections of an image and class


def mask_ap(
    truth: Mapping[str, Sequence[tuple[int, CocoRLE]]], found: Mapping[str, Detections], *, labels: int
) -> dict[str, float]:
    """AP, AP50 and AP75, averaged over the classes that the truth has; 0 where it has none.

    Args:
        truth: image id -> label and run-length encoding of each object.
        found: image id -> detections on the same frame as the image's truth.
        labels: number of classes.
    """
    return mask_ap_by_class(truth, found, labels=labels)[0]


def mask_ap_by_class(
    truth: Mapping[str, Sequence[tuple[int, CocoRLE]]], found: Mapping[str, Detections], *, labels: int
) -> tuple[dict[str, float], FloatArray]:
    """What `mask_ap` gives, and AP of each class: (labels,), NaN for classes that the truth does not have."""
    objects = np.zeros(labels, np.int64)
    scores: list[list[FloatArray]] = [[] for _ in range(labels)]
    hits: list[list[BoolArray]] = [[] for _ in range(labels)]
    for image_id, true in truth.items():
        by_label: dict[int, list[CocoRLE]] = {}
        for label, mask in true:
            by_label.setdefault(label, []).append(mask)
            objects[label] += 1
        if (detections := found.get(image_id)) is None:
            continue
        for label, members in _by_label(detections).items():
            scores[label].append(np.array([detections.scores[i] for i in members]))
            hits[label].append(_hits([detections.masks[i] for i in members], by_label.get(label, [])))
    of_threshold = np.full((labels, len(_THRESHOLDS)), np.nan)
    for label in np.flatnonzero(objects).tolist():
        of_threshold[label] = _average_precision(scores[label], hits[label], int(objects[label]))
    if not objects.any():
        return dict.fromkeys(("AP", "AP50", "AP75"), 0.0), of_threshold.mean(axis=1)
    mean = np.nanmean(of_threshold, axis=0)
    return {"AP": float(mean.mean()), "AP50": float(mean[0]), "AP75": float(mean[5])}, of_threshold.mean(axis=1)


def _by_label(detections: Detections) -> dict[int, list[int]]:
    """Which detections are of each label, the best first."""
    groups: dict[int, list[int]] = {}
    for i in np.argsort(-np.array(detections.scores, np.float64), kind="stable").tolist():
        groups.setdefault(detections.labels[i], []).append(i)
    return {label: members[:_MOST] for label, members in groups.items()}


def _hits(predicted: Sequence[CocoRLE], true: Sequence[CocoRLE]) -> BoolArray:
    """Whether each detection, the best first, takes an object that no better one took: (N, 10).

    It takes the one of those left with which its IoU is highest, the last of equal ones, if that is at the threshold.
    """
    hits = np.zeros((len(predicted), len(_THRESHOLDS)), bool)
    if not true:
        return hits
    rows = np.arange(len(_THRESHOLDS))
    left = np.ones((len(_THRESHOLDS), len(true)), bool)
    for n, overlaps in enumerate(iou_matrix(predicted, true)):
        backwards = np.where(left, overlaps, -1.0)[:, ::-1]
        best = len(true) - 1 - backwards.argmax(axis=1)
        hits[n] = backwards.max(axis=1) >= _THRESHOLDS
        left[rows[hits[n]], best[hits[n]]] = False
    return hits


def _average_precision(scores: Sequence[FloatArray], hits: Sequence[BoolArray], objects: int) -> FloatArray:
    """AP of a class at each threshold: (10,).

    Args:
        scores: of each image's detections.
        hits: (N, 10) of the same.
        objects: true ones.
    """
    if not scores:
        return np.zeros(len(_THRESHOLDS))
    hit = np.concatenate(hits)[np.argsort(-np.concatenate(scores), kind="stable")]
    found = hit.cumsum(axis=0)
    precision = found / np.arange(1, len(hit) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # what any higher recall still has
    precision = np.concatenate([precision, np.zeros((1, len(_THRESHOLDS)))])
    recall = found / objects
    at = [np.searchsorted(recall[:, t], _RECALLS, side="left") for t in range(len(_THRESHOLDS))]
    return np.array([precision[index, t].mean() for t, index in enumerate(at)])
