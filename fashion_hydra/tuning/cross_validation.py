"""How good a tuned rule is on images that it was not tuned on, and how sure that is."""

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
    """A way to find a rule, and what it found.

    Args:
        name: short.
        rule: fitted to all images.
        fitted: (I,), scores of the images under it: too good, since it has seen them.
        held_out: (I,), scores of each image under the rule that was fitted without its fold.
        fold_rules: that rule for each fold.
    """

    name: str
    rule: Postprocess
    fitted: FloatArray
    held_out: FloatArray
    fold_rules: tuple[Postprocess, ...]


def cross_fit(
    score_table: ScoreTable, name: str, fit: TuningMethod, fold_of: IntArray, *, pooling: str = "class"
) -> CrossFit:
    """Fit to all images, and to all but each fold in turn; no fit sees the images that it is scored on.

    Args:
        score_table: all images.
        name: of the method.
        fit: finds a rule on a score table.
        fold_of: (I,), fold of each image.
        pooling: of the score.
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
    """A method beside the best of the simpler ones.

    Args:
        method: what is judged.
        score: its cross-fitted score.
        simpler: name of the best simpler method by cross-fitted score; empty for the simplest.
        gain: the difference of the two, image by image.
    """

    method: CrossFit
    score: Interval
    simpler: str
    gain: Interval | None

    @property
    def beyond_noise(self) -> bool:
        """Whether the whole interval of the gain is above 0."""
        return self.gain is None or self.gain.low > 0


def compare_methods(methods: Sequence[CrossFit], *, seed: int) -> list[MethodResult]:
    """Compare each method with the best of those before it, which are simpler.

    Args:
        methods: the simplest first.
        seed: of the bootstrap.
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
    """The highest cross-fitted score; of equal ones the simplest."""
    return max(results, key=lambda result: result.score.value)
