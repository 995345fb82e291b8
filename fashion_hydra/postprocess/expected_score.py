"""Which detections of an image to answer with, so that the expected competition score is highest.

A threshold answers with every detection above it. But what a detection is worth depends on its neighbours: the score
of an image and class is TP / (TP + FP + FN), averaged over ten IoU thresholds, so a doubtful detection costs more
beside a sure one than alone, and one of a class that is surely there costs nothing beside a miss.

The model, for one class of one image. Detection i is of a true object with probability q_i, and hits it at IoU above t
with probability p_i(t) <= q_i = p_i(0.5); detections are independent of each other. U true objects that no detection
is of, Poisson with a mean known for the class, come on top. Answering with a set S of detections then scores
E[TP(t) / (|S| + X(t))], averaged over t, where X(t) counts the true objects that are not hit. Where p(t) rises with
the detection's score for every t, as a calibration's does, exchanging a detection for a better one never lowers this,
so for each size of S the best of the scores are best, and the sizes alone are tried.

The image's score is the average over the classes that it has in truth or answer. Here the ratio of the two
expectations is maximised, sum of scores to number of classes, which Dinkelbach's iteration does (On Nonlinear
Fractional Programming, Management Science 13, 1967): for a ratio r each class takes the size with the highest
E[score] - r P(present), and r becomes the ratio of what was taken, until it stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fashion_hydra.data.attribute_set import Places
from fashion_hydra.postprocess.attributes import ChosenAttributes
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import BoolArray, FloatArray, IntArray

_MOST_MISSED = 100.0  # masks of a class, on average; of more no Poisson distribution is worked out here
_TAIL = 1e-9  # of the Poisson distribution that is left out
_ROUNDS = 20  # of Dinkelbach's iteration, which takes three or four


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a detector's scores mean, for each class.

    Args:
        scores: (K,), ascending, the knots; between them probabilities are interpolated, beyond them constant.
        hits: (C, K, 10), probability that a detection of that score hits a true mask at each of the ten IoU
            thresholds; never falling along K, never rising along the last axis.
        missed: (C, 2), how many true masks of the class no detection is of, on average: in images without a
            detection of the class, and in those with one.
        others: how many classes an image has, on average, that the detector does not know.

    Raises:
        UserError: shapes or values that cannot be.
    """

    scores: FloatArray
    hits: FloatArray
    missed: FloatArray
    others: float

    def __post_init__(self) -> None:
        classes = len(self.hits)
        if self.scores.ndim != 1 or not len(self.scores):
            raise UserError(f"calibration: scores of shape {self.scores.shape}, one or more in a row expected")
        if self.hits.shape != (classes, len(self.scores), 10) or self.missed.shape != (classes, 2):
            raise UserError(
                f"calibration: shapes ({classes}, {len(self.scores)}, 10) and ({classes}, 2) expected, got "
                f"{self.hits.shape} and {self.missed.shape}"
            )
        within = (self.hits >= 0).all() and (self.hits <= 1).all() and (self.missed >= 0).all() and self.others >= 0
        monotone = (np.diff(self.hits, axis=1) >= 0).all() and (np.diff(self.hits, axis=2) <= 0).all()
        finite = np.isfinite(self.scores).all() and (self.missed <= _MOST_MISSED).all() and math.isfinite(self.others)
        if not (within and monotone and finite and (np.diff(self.scores) > 0).all()):
            raise UserError("calibration: probabilities that rise with the score and fall with the IoU expected")

    def __len__(self) -> int:
        return len(self.hits)

    def probabilities(self, scores: FloatArray, label: int) -> FloatArray:
        """Probability of a hit of detections of one class at each IoU threshold: (N, 10)."""
        place = np.clip(np.searchsorted(self.scores, scores, side="right") - 1, 0, max(0, len(self.scores) - 2))
        after = np.minimum(place + 1, len(self.scores) - 1)
        width = np.maximum(self.scores[after] - self.scores[place], 1e-12)
        share = np.clip((scores - self.scores[place]) / width, 0, 1)[:, None]
        return (1 - share) * self.hits[label, place] + share * self.hits[label, after]


@dataclass(frozen=True)
class Options:
    """What answering with the best 0, 1, ... n detections of a class gives.

    Args:
        scores: (n + 1,), expected score of the class, 0 where it is absent.
        present: (n + 1,), probability that the class counts: that it is in the truth or the answer.
    """

    scores: FloatArray
    present: FloatArray


def options(hits: FloatArray, missed: float) -> Options:
    """The expected score of each number of detections of one class.

    Args:
        hits: (n, 10), see `Calibration.probabilities`, by descending score.
        missed: how many true masks no detection is of, on average.
    """
    n = len(hits)
    real = hits[:, 0]
    unseen = _poisson(missed)
    # What the detections after the first k and the unseen add to the true masks that are not hit, for k = n ... 0.
    beyond = [unseen]
    for q in real[::-1]:
        beyond.append(np.convolve(beyond[-1], [1 - q, q]))
    beyond.reverse()
    # After k detections: P(X = x), and E[TP; X = x], at each IoU threshold, X counting the objects not hit.
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
    """Its probabilities from 0 until what is left is negligible, adding up to 1."""
    values = [math.exp(-mean)]
    while 1 - sum(values) > _TAIL and len(values) < 100:
        values.append(values[-1] * mean / len(values))
    return np.array(values) / sum(values)


def _shifted(values: FloatArray) -> FloatArray:
    moved = np.zeros_like(values)
    moved[:, 1:] = values[:, :-1]
    return moved


def best_sizes(of_classes: Sequence[Options], *, others: float) -> list[int]:
    """How many detections of each class to answer with, see the module's text; of equal ones the fewest.

    Args:
        of_classes: the options of each class.
        others: how many more classes the image has, on average, all scoring 0.
    """
    sizes = [0] * len(of_classes)
    ratio = 0.0
    for _ in range(_ROUNDS):
        sizes = [int(np.argmax(o.scores - ratio * o.present)) for o in of_classes]
        score = math.fsum(o.scores[k] for o, k in zip(of_classes, sizes, strict=True))
        count = math.fsum(o.present[k] for o, k in zip(of_classes, sizes, strict=True)) + others
        # An image without masks in truth and answer scores 1.
        new = (score + 1e-9) / (count + 1e-9)
        if new == ratio:
            break
        ratio = new
    return sizes


def choose(
    scores: FloatArray, labels: IntArray, calibration: Calibration, attributes: ChosenAttributes | None = None
) -> BoolArray:
    """Which detections of one image to answer with.

    With attributes, detections of one label and one set of them are a class of the score. One is a hit with the
    probability that its mask hits and its attributes are right; where they are wrong, the object that it is of counts
    among the classes that score 0, answered or not.

    Args:
        scores: (N,), descending.
        labels: (N,).
        calibration: of the detector, by categories.
        attributes: that the detections are answered with.
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
