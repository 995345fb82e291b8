"""Tuning methods, from the simplest to the most complex. Each sees only the score table that it gets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from fashion_hydra.evaluation.competition_score import mean
from fashion_hydra.postprocess.attributes import EXPECTED, NONE, THRESHOLD
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.tuning.calibration import fit_calibration
from fashion_hydra.tuning.grid import scores_of
from fashion_hydra.tuning.score_table import ScoreTable

N = TypeVar("N", int, float)
DROPPED = 1.0
"""Score threshold that drops all candidates."""


class TuningMethod(Protocol):
    """A method that finds a rule."""

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the best rule on the score table's images."""
        ...


@dataclass(frozen=True)
class FixedRule:
    """A fixed rule, not fitted to any image."""

    rule: Postprocess

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the fixed rule."""
        return self.rule


@dataclass(frozen=True)
class BestOnGrid:
    """The best of some rules; among equals the first."""

    rules: Sequence[Postprocess]
    pooling: str = "class"

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the best of the rules on the score table's images."""
        scores = scores_of(score_table, self.rules, pooling=self.pooling)
        return self.rules[int(np.argmax([mean(of_rule) for of_rule in scores]))]


@dataclass(frozen=True)
class BestAttributes:
    """The best options for choosing attributes, added to the rule of another method.

    Tries each `kind`, `attribute_thr` and `match_thr` with each set of dropped classes, because a class that lowers the
    score without attributes may raise it with them.

    Args:
        start: method that finds the rule to start from.
        attribute_thrs: values of `attribute_thr`, for `kind=threshold`.
        match_thrs: values of `match_thr`, for all kinds but `none`.
        dropped: sets of labels to drop.
        pooling: pooling of the score.
    """

    start: TuningMethod
    attribute_thrs: Sequence[float]
    match_thrs: Sequence[float]
    dropped: Sequence[tuple[int, ...]]
    pooling: str = "class"

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the best rule on the score table's images; among equals the first."""
        first = self.start(score_table)
        if first.attributes is None:
            return first
        kinds = [(NONE, 0.5), *((THRESHOLD, thr) for thr in self.attribute_thrs), (EXPECTED, 0.5)]
        rules = [
            replace(
                first,
                dropped_labels=dropped,
                attributes=replace(first.attributes, kind=kind, attribute_thr=thr, match_thr=match_thr),
            )
            for dropped in self.dropped
            for kind, thr in kinds
            for match_thr in (self.match_thrs if kind != NONE else [0.0])
        ]
        return BestOnGrid([first, *rules], self.pooling)(score_table)


@dataclass(frozen=True)
class Search:
    """Search with Optuna's Tree-structured Parzen Estimator, starting from the rule of another method.

    (Bergstra, Bardenet, Bengio, Kégl: Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.)

    Args:
        start: method that finds the first rule to try, so the result is never worse on the score table.
        score_thr: lowest and highest value; each range is widened to include the first rule's value.
        iou_thrs: values to choose from.
        mask_thrs: values to choose from, ascending.
        min_area: lowest and highest value, searched on a logarithmic scale.
        max_per_image: lowest and highest value.
        trials: number of rules to try.
        seed: seed of the sampler.
        pooling: pooling of the score.
    """

    start: TuningMethod
    score_thr: tuple[float, float]
    iou_thrs: Sequence[float]
    mask_thrs: Sequence[float]
    min_area: tuple[int, int]
    max_per_image: tuple[int, int]
    trials: int
    seed: int
    pooling: str = "class"

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the best rule that was tried on the score table's images."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        first = self.start(score_table)
        score_thr, areas = _with(self.score_thr, first.score_thr), _with(self.min_area, first.min_area)
        most = _with(self.max_per_image, first.max_per_image)

        def rule_of(trial: optuna.Trial) -> Postprocess:
            return replace(
                first,
                score_thr=round(trial.suggest_float("score_thr", *score_thr), 4),
                iou_thr=self.iou_thrs[trial.suggest_int("iou_thr", 0, len(self.iou_thrs) - 1)],
                mask_thr=self.mask_thrs[trial.suggest_int("mask_thr", 0, len(self.mask_thrs) - 1)],
                min_area=trial.suggest_int("min_area", *areas, log=True),
                max_per_image=trial.suggest_int("max_per_image", *most),
            )

        tried: list[Postprocess] = []

        def objective(trial: optuna.Trial) -> float:
            tried.append(rule_of(trial))
            return score_table.score(tried[-1], pooling=self.pooling)

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=self.seed))
        study.enqueue_trial(
            {
                "score_thr": first.score_thr,
                "iou_thr": self.iou_thrs.index(first.iou_thr),
                "mask_thr": self.mask_thrs.index(first.mask_thr),
                "min_area": first.min_area,
                "max_per_image": first.max_per_image,
            }
        )
        study.optimize(objective, n_trials=self.trials)
        return tried[study.best_trial.number]


def _with(bounds: tuple[N, N], value: N) -> tuple[N, N]:
    """Widen a range to include a value."""
    return min(bounds[0], value), max(bounds[1], value)


@dataclass(frozen=True)
class ClassThresholds:
    """A score threshold per class, found by coordinate ascent and shrunk toward the common threshold.

    Coordinate ascent sets one class's threshold at a time to the best of `values`, until no threshold changes. It is
    exact except that it ignores `max_per_image`, which makes classes depend on each other. Then a class with n true
    masks on the score table keeps n / (n + shrinkage) of its threshold's distance from the common threshold.

    Args:
        start: method that finds the rule to refine.
        values: thresholds to choose from; `DROPPED` drops the class.
        shrinkage: strength of the shrinkage, in true masks.
        rounds: maximum number of rounds over the classes.
    """

    start: TuningMethod
    values: Sequence[float]
    shrinkage: float
    rounds: int = 10

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the rule with a threshold for each class that has detections or true masks on the score table."""
        rule = self.start(score_table)
        common = rule.score_thr
        found = self.ascend(score_table, rule)
        true_masks = np.bincount(score_table.truth_label, minlength=score_table.classes)
        shrunk = {}
        for label, threshold in found.items():
            kept = true_masks[label] / (true_masks[label] + self.shrinkage) if self.shrinkage else 1.0
            shrunk[label] = round(float(common + kept * (threshold - common)), 4)
        return replace(rule, label_score_thr={k: v for k, v in shrunk.items() if v != round(common, 4)})

    def ascend(self, score_table: ScoreTable, rule: Postprocess) -> dict[int, float]:
        """Return the best threshold of each class, before shrinkage."""
        values = sorted({*self.values, rule.score_thr})
        loose = replace(rule, max_per_image=NO_LIMIT, label_score_thr={})
        curves = [score_table.groups(replace(loose, score_thr=value)).scores() for value in values]
        scores, present = (np.array([curve[i] for curve in curves]) for i in (0, 1))  # (V, G)
        grouping = score_table.grouping(rule)
        labels = [label for label in np.unique(grouping.label).tolist() if label not in rule.dropped_labels]
        place = {label: values.index(rule.score_thr) for label in labels}
        at = np.full(len(grouping.label), values.index(rule.score_thr))
        columns = np.arange(len(at))
        for _ in range(self.rounds):
            before = dict(place)
            for label in labels:
                own = grouping.label == label
                rest = np.where(own, 0.0, scores[at, columns]), np.where(own, False, present[at, columns])
                total, count = (np.bincount(grouping.image, w, len(score_table)) for w in rest)
                images = grouping.image[own]
                classes = count[images] + present[:, own] + score_table.other_classes[images]
                worth = np.where(classes > 0, (total[images] + scores[:, own]) / np.maximum(1, classes), 1.0).sum(
                    axis=1
                )
                best = int(np.argmax(worth))
                if worth[best] > worth[place[label]] + 1e-9:
                    place[label] = best
                    at[own] = best
            if place == before:
                break
        return {label: values[index] for label, index in place.items()}


@dataclass(frozen=True)
class ExpectedScore:
    """The set of detections with the highest expected score, see `fashion_hydra.postprocess.expected_score`.

    Args:
        start: method that finds all other options of the rule, such as NMS, mask threshold and `min_area`.
        score_floor: score threshold above which detections may be chosen.
        weight: weight of the common curve in each class's calibration, in detections.
    """

    start: TuningMethod
    score_floor: float
    weight: float

    def __call__(self, score_table: ScoreTable) -> Postprocess:
        """Return the rule with a calibration fitted to the score table."""
        rule = replace(self.start(score_table), score_thr=self.score_floor, label_score_thr={})
        return replace(rule, calibration=fit_calibration(score_table, rule, weight=self.weight))
