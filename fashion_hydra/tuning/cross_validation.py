"""Cross-validate tuning methods, with bootstrap intervals of their scores and gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fashion_hydra.evaluation.bootstrap import Interval, bootstrap
from fashion_hydra.evaluation.competition_score import mean
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.methods import FixedRule, TuningMethod
from fashion_hydra.tuning.score_table import ScoreTable
from fashion_hydra.utils.types import FloatArray, IntArray


@dataclass(frozen=True)
class CrossFit:
    """A tuning method's rules and scores.

    Args:
        name: short name of the method.
        rule: the rule fitted to all images.
        fitted: (I,), score of each image under `rule`; optimistic, since the rule was fitted to the same images.
        held_out: (I,), score of each image under the rule fitted to the other folds.
        fold_rules: for each fold, the rule fitted to the other folds.
    """

    name: str
    rule: Postprocess
    fitted: FloatArray
    held_out: FloatArray
    fold_rules: tuple[Postprocess, ...]


def cross_fit(
    score_table: ScoreTable, name: str, fit: TuningMethod, fold_of: IntArray, *, pooling: str = "class"
) -> CrossFit:
    """Fit a method to all images and, for each fold, to the other folds; score each fold by the rule fitted without it.

    Args:
        score_table: all images.
        name: short name of the method.
        fit: the method.
        fold_of: (I,), fold of each image.
        pooling: pooling of the score: `class` or `image`.
    """
    rule = fit(score_table)
    fitted = score_table.image_scores(rule, pooling=pooling)
    if isinstance(fit, FixedRule):
        return CrossFit(name, rule, fitted, fitted, ())
    held_out = np.full(len(score_table), np.nan)
    rules = []
    for fold in np.unique(fold_of):
        rules.append(fit(score_table[np.flatnonzero(fold_of != fold)]))
        scored = np.flatnonzero(fold_of == fold)
        held_out[scored] = score_table[scored].image_scores(rules[-1], pooling=pooling)
    return CrossFit(name, rule, fitted, held_out, tuple(rules))


@dataclass(frozen=True)
class MethodResult:
    """A method compared with the best simpler method.

    Args:
        method: the method.
        score: the method's cross-fitted score.
        simpler: name of the best simpler method by cross-fitted score; empty for the simplest method.
        gain: mean over images of the difference of the two methods' scores; None for the simplest method.
    """

    method: CrossFit
    score: Interval
    simpler: str
    gain: Interval | None

    @property
    def beyond_noise(self) -> bool:
        """Whether the whole interval of the gain is above 0; true for the simplest method."""
        return self.gain is None or self.gain.low > 0


def compare_methods(methods: Sequence[CrossFit], *, seed: int) -> list[MethodResult]:
    """Compare each method with the best simpler method.

    Args:
        methods: the methods, the simplest first.
        seed: seed of the bootstrap.
    """
    results: list[MethodResult] = []
    best: CrossFit | None = None
    for method in methods:
        gain = bootstrap(method.held_out - best.held_out, seed=seed) if best is not None else None
        score = bootstrap(method.held_out, seed=seed)
        results.append(MethodResult(method, score, best.name if best is not None else "", gain))
        if best is None or mean(method.held_out) > mean(best.held_out):
            best = method
    return results


def best_method(results: Sequence[MethodResult]) -> MethodResult:
    """Return the result with the highest cross-fitted score; among equals the simplest method."""
    return max(results, key=lambda result: result.score.value)
