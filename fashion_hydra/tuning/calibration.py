"""Calibrate a detector's scores: fit per-class hit probabilities that do not decrease with the score."""

import numpy as np
from sklearn.isotonic import IsotonicRegression

from fashion_hydra.postprocess.expected_score import Calibration
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.score_table import ScoreTable
from fashion_hydra.utils.types import FloatArray

KNOTS = np.round(np.arange(0, 1.0001, 0.025), 3)
_DIGITS = 6  # decimals of a calibration, so that writing and reading a file does not change it
_FAINT = 1e-3  # weight of the common curve at each knot, for score ranges without detections of the class


def fit_calibration(score_table: ScoreTable, rule: Postprocess, *, weight: float) -> Calibration:
    """Fit isotonic regressions to the detections of a rule on the score table's images.

    The detections of all classes give a common curve per IoU threshold. The curve of a class is fitted to its
    detections and to the common curve's values at their scores. These values weigh as much as `weight` detections, so
    rare classes stay near the common curve. (Zadrozny, Elkan: Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates, KDD 2002.)

    Args:
        score_table: images with truth.
        rule: a rule without calibration.
        weight: weight of the common curve, in detections.
    """
    found = score_table.answered(rule)
    hits = np.zeros((score_table.classes, len(KNOTS), 10))
    for threshold in range(10):
        hit = (found.hits > threshold).astype(np.float64)
        common = _isotonic(found.score, hit, np.ones(len(hit)), KNOTS)
        for label in range(score_table.classes):
            own = np.flatnonzero(found.label == label)
            expected = np.interp(found.score[own], KNOTS, common)
            hits[label, :, threshold] = _isotonic(
                np.concatenate([found.score[own], found.score[own], KNOTS]),
                np.concatenate([hit[own], expected, common]),
                np.repeat([1.0, weight / max(1, len(own)), _FAINT], [len(own), len(own), len(KNOTS)]),
                KNOTS,
            )
    hits = np.clip(np.round(hits, _DIGITS), 0, 1)
    hits = np.maximum.accumulate(np.minimum.accumulate(hits, axis=2), axis=1)
    return Calibration(
        KNOTS, hits, _missed(score_table, rule, weight), round(float(score_table.other_classes.mean()), _DIGITS)
    )


def _isotonic(scores: FloatArray, hit: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
    """Fit the non-decreasing curve with the least weighted squared error and return its values at the scores `at`."""
    if not len(scores):
        return np.zeros(len(at))
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
    return curve.fit(scores, hit, sample_weight=weights).predict(at)


def _missed(score_table: ScoreTable, rule: Postprocess, weight: float) -> FloatArray:
    """Return the mean number of true masks of each class without a detection, see `Calibration`: (C, 2)."""
    groups, shape = score_table.groups(rule, by_category=True), (len(score_table), score_table.classes)
    true, detected, hit = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(true, (score_table.truth_image, score_table.truth_label), 1)
    place = (groups.of.image, groups.of.label)
    hit[place] = groups.hits[:, 0]
    detected[place] = groups.masks - true[place]
    left, seen = true - hit, detected > 0
    without = (left * ~seen).sum(axis=0) / np.maximum(1, (~seen).sum(axis=0))
    common = (left * seen).sum() / max(1, seen.sum())
    beside = ((left * seen).sum(axis=0) + weight * common) / (seen.sum(axis=0) + weight) if weight else common
    return np.round(np.stack([without, np.broadcast_to(beside, without.shape)], axis=1), _DIGITS)
