"""Choose the set of an image's detections with the highest expected competition score.

A threshold keeps every detection above it. But the value of a detection depends on the other detections: the score of
an image and class is TP / (TP + FP + FN), averaged over ten IoU thresholds. A doubtful detection therefore costs more
next to a certain one than alone, and costs nothing if its class is certainly present but would otherwise be missed.

The model for one class of one image: detection i shows a true object with probability q_i and hits it at IoU above t
with probability p_i(t) <= q_i = p_i(0.5). Detections are independent. In addition, U true objects have no detection; U
is Poisson with a known mean for the class. A set S of detections then scores E[TP(t) / (|S| + X(t))], averaged over t,
where X(t) is the number of true objects that are not hit. If p(t) rises with the detection's score for every t, as it
does for a calibration, replacing a detection by a better one never lowers this expectation. So for each size of S the
detections with the highest scores are optimal, and only the sizes have to be tried.

The image's score is the average over the classes that occur in its truth or its detections. This module maximises the
ratio of two expectations, sum of class scores to number of classes, by Dinkelbach's iteration (On Nonlinear Fractional
Programming, Management Science 13, 1967): for a given ratio r, each class takes the size with the highest
E[score] - r P(present); r is then set to the ratio of the chosen sizes, until it no longer changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fashion_hydra.data.attribute_set import Places
from fashion_hydra.postprocess.attributes import ChosenAttributes
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import BoolArray, FloatArray, IntArray

_MOST_MISSED = 100.0  # largest mean number of missed masks per class that `_poisson` is computed for
_TAIL = 1e-9  # probability of the omitted tail of the Poisson distribution
_ROUNDS = 20  # maximum number of Dinkelbach iterations; three or four suffice


@dataclass(frozen=True, eq=False)
class Calibration:
    """Per-class hit probabilities as a function of a detector's scores.

    Args:
        scores: (K,), knots, ascending; probabilities are interpolated between the knots and constant outside.
        hits: (C, K, 10), probability that a detection with the knot's score hits a true mask at each of the ten IoU
            thresholds; non-decreasing along K, non-increasing along the last axis.
        missed: (C, 2), mean number of the class's true masks without a detection: per image without any detection of
            the class, and per image with one.
        others: mean number of classes per image that the detector has not learnt.

    Raises:
        UserError: invalid shapes or values.
    """

    scores: FloatArray
    hits: FloatArray
    missed: FloatArray
    others: float

    def __post_init__(self) -> None:
        classes = len(self.hits)
        if self.scores.ndim != 1 or not len(self.scores):
            raise UserError(f"calibration: expected scores of shape (K,), K >= 1, got {self.scores.shape}")
        if self.hits.shape != (classes, len(self.scores), 10) or self.missed.shape != (classes, 2):
            raise UserError(
                f"calibration: expected hits of shape ({classes}, {len(self.scores)}, 10) and missed of shape "
                f"({classes}, 2), got {self.hits.shape} and {self.missed.shape}"
            )
        within = (self.hits >= 0).all() and (self.hits <= 1).all() and (self.missed >= 0).all() and self.others >= 0
        monotone = (np.diff(self.hits, axis=1) >= 0).all() and (np.diff(self.hits, axis=2) <= 0).all()
        finite = np.isfinite(self.scores).all() and (self.missed <= _MOST_MISSED).all() and math.isfinite(self.others)
        if not (within and monotone and finite and (np.diff(self.scores) > 0).all()):
            raise UserError("calibration: invalid values; hits must not fall with the score or rise with the IoU")

    def __len__(self) -> int:
        return len(self.hits)

    def probabilities(self, scores: FloatArray, label: int) -> FloatArray:
        """Return the hit probabilities of N detections of one class at each IoU threshold: (N, 10)."""
        place = np.clip(np.searchsorted(self.scores, scores, side="right") - 1, 0, max(0, len(self.scores) - 2))
        after = np.minimum(place + 1, len(self.scores) - 1)
        width = np.maximum(self.scores[after] - self.scores[place], 1e-12)
        share = np.clip((scores - self.scores[place]) / width, 0, 1)[:, None]
        return (1 - share) * self.hits[label, place] + share * self.hits[label, after]


@dataclass(frozen=True)
class Options:
    """Results of keeping the best 0, 1, ... n detections of a class.

    Args:
        scores: (n + 1,), expected score of the class, 0 if it is absent.
        present: (n + 1,), probability that the class counts, i.e. occurs in the truth or the kept detections.
    """

    scores: FloatArray
    present: FloatArray


def options(hits: FloatArray, missed: float) -> Options:
    """Return the expected score for each number of kept detections of one class.

    Args:
        hits: (n, 10), hit probabilities, see `Calibration.probabilities`, by descending score.
        missed: mean number of true masks without a detection.
    """
    n = len(hits)
    real = hits[:, 0]
    unseen = _poisson(missed)
    # Distribution of the number of true objects without a kept detection, if the best k are kept, for k = n ... 0.
    beyond = [unseen]
    for q in real[::-1]:
        beyond.append(np.convolve(beyond[-1], [1 - q, q]))
    beyond.reverse()
    # After k detections, at each IoU threshold: P(X = x) and E[TP; X = x], where X is the number of objects not hit.
    chance = np.zeros((10, n + 1))
    hit = np.zeros((10, n + 1))
    chance[:, 0] = 1.0
    scores = np.zeros(n + 1)
    for k in range(1, n + 1):
        p, poor = hits[k - 1][:, None], (real[k - 1] - hits[k - 1])[:, None]
        hit = (1 - poor) * hit + p * chance + poor * _shifted(hit)
        chance = (1 - poor) * chance + poor * _shifted(chance)
        y = np.arange(len(beyond[k]))
        shares = (beyond[k] / (k + np.arange(k + 1)[:, None] + y)).sum(axis=1)
        scores[k] = (hit[:, : k + 1] @ shares).mean()
    present = np.ones(n + 1)
    present[0] = 1 - beyond[0][0]
    return Options(scores, present)


def _poisson(mean: float) -> FloatArray:
    """Return the Poisson probabilities of 0, 1, ... without the negligible tail, normalised to sum 1."""
    values = [math.exp(-mean)]
    while 1 - sum(values) > _TAIL and len(values) < 100:
        values.append(values[-1] * mean / len(values))
    return np.array(values) / sum(values)


def _shifted(values: FloatArray) -> FloatArray:
    moved = np.zeros_like(values)
    moved[:, 1:] = values[:, :-1]
    return moved


def best_sizes(of_classes: Sequence[Options], *, others: float) -> list[int]:
    """Return how many detections to keep of each class, see the module docstring; among equals the fewest.

    Args:
        of_classes: the options of each class.
        others: mean number of further classes in the image, which all score 0.
    """
    sizes = [0] * len(of_classes)
    ratio = 0.0
    for _ in range(_ROUNDS):
        sizes = [int(np.argmax(o.scores - ratio * o.present)) for o in of_classes]
        score = math.fsum(o.scores[k] for o, k in zip(of_classes, sizes, strict=True))
        count = math.fsum(o.present[k] for o, k in zip(of_classes, sizes, strict=True)) + others
        # An image without true masks and without detections scores 1.
        new = (score + 1e-9) / (count + 1e-9)
        if new == ratio:
            break
        ratio = new
    return sizes


def choose(
    scores: FloatArray, labels: IntArray, calibration: Calibration, attributes: ChosenAttributes | None = None
) -> BoolArray:
    """Return a mask (N,) of the detections of one image to keep.

    With attributes, detections with the same label and the same attributes form one class of the score. A detection is
    a hit with the probability that its mask hits and its attributes are right. If the attributes are wrong, its object
    counts among the classes that score 0, whether the detection is kept or not.

    Args:
        scores: (N,), descending.
        labels: (N,).
        calibration: the detector's calibration by category.
        attributes: the attributes chosen for the N detections.
    """
    of_classes, members = [], []
    found = np.bincount(labels, minlength=len(calibration)) > 0
    unpredictable = calibration.others + float((1 - np.exp(-calibration.missed[~found, 0])).sum())
    for label in np.flatnonzero(found).tolist():
        of_label = np.flatnonzero(labels == label)
        hits = calibration.probabilities(scores[of_label], label)
        missed = float(calibration.missed[label, 1])
        if attributes is None:
            members.append(of_label)
            of_classes.append(options(hits, missed))
            continue
        chances = attributes.chances[of_label, None]
        unpredictable += float((hits[:, :1] * (1 - chances)).sum())
        hits = hits * chances
        groups: dict[Places, list[int]] = {}
        for i in np.argsort(-hits[:, 0], kind="stable").tolist():
            groups.setdefault(attributes.places[of_label[i]], []).append(i)
        for own in groups.values():
            members.append(of_label[own])
            of_classes.append(options(hits[own], missed * float(attributes.usual[members[-1][0]])))
    kept = np.zeros(len(scores), bool)
    for chosen, size in zip(members, best_sizes(of_classes, others=unpredictable), strict=True):
        kept[chosen[:size]] = True
    return kept
