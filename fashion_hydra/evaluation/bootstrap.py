"""Confidence intervals by the bootstrap over images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fashion_hydra.evaluation.competition_score import mean
from fashion_hydra.utils.types import FloatArray

LEVEL = 0.95


DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over images and its bootstrap interval.

    Args:
        value: mean over the images.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


def bootstrap(values: FloatArray, *, seed: int, draws: int = DRAWS, level: float = LEVEL) -> Interval:
    """Return the percentile interval of the mean over images drawn with replacement.

    Source: Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        values: (I,), value of each image.
        seed: seed of the draws.
        draws: number of draws.
        level: share of the draws inside the interval.
    """
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    return interval_of(mean(values), means, level=level)


def interval_of(value: float, draws: Sequence[float] | FloatArray, *, level: float = LEVEL) -> Interval:
    """Return the percentile interval of a number.

    Args:
        value: number for all images.
        draws: number for each draw of images.
        level: share of the draws inside the interval.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
