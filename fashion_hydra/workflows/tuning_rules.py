"""Turn the options of tune_thresholds.py into the rules to score and the tuning methods."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fashion_hydra.config.build import rule_options
from fashion_hydra.config.schema import TuneConfig
from fashion_hydra.data.class_set import ClassSet, named_categories
from fashion_hydra.evaluation.competition_score import ClassMasks
from fashion_hydra.evaluation.matching import CLASS_ID, masks_to_match
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.training.console import log_rank_zero
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.tuning.grid import Grid
from fashion_hydra.tuning.methods import (
    DROPPED,
    BestAttributes,
    BestOnGrid,
    ClassThresholds,
    ExpectedScore,
    FixedRule,
    Search,
    TuningMethod,
)
from fashion_hydra.utils.errors import UserError


@dataclass(frozen=True)
class TuningData:
    """Candidates and truth for tuning.

    Args:
        cache: the candidate cache.
        classes: the classes of the labels, with the dropped classes of `classes.drop`.
        truth: image id -> ClassId -> true masks.
        match: what has to match for a hit: `class_id` or `category`.
        run: the models' training run; None if unknown.
    """

    cache: CandidateCache
    classes: ClassSet
    truth: Mapping[str, ClassMasks]
    match: str
    run: RunFolder | None

    def truth_to_match(self) -> Mapping[str, ClassMasks]:
        """Return the truth with the keys that have to match: ClassIds or categories."""
        return masks_to_match(self.truth, self.match)


@dataclass(frozen=True)
class TuningRules:
    """Rules and values that tuning tries.

    Args:
        untuned: the rule in the options.
        winners: the winner's rule, with all and with its own classes; empty if the candidates are not exact for it.
        floor: lowest score threshold that the candidates are exact for.
        grid: the grid.
        on_grid: the rules of the grid.
        iou_thrs: IoU thresholds for the search.
        mask_thrs: mask thresholds for the search.
        match: what has to match for a hit: `class_id` or `category`.
    """

    untuned: Postprocess
    winners: Mapping[str, Postprocess]
    floor: float
    grid: Grid
    on_grid: list[Postprocess]
    iou_thrs: tuple[float, ...]
    mask_thrs: tuple[float, ...]
    match: str

    @classmethod
    def of(cls, options: TuneConfig, tuning_data: TuningData) -> "TuningRules":
        """Build the rules from options; raise `UserError` for an unknown class-removal set."""
        classes = tuning_data.classes
        untuned = build_rule(rule_options(options.postprocess), classes)
        removal = {str(name): _removed(chosen["drop"], classes, str(name)) for name, chosen in options.removal.items()}
        lists = dict(vars(options.grid))
        if unknown := [name for name in lists["drop"] if name not in removal]:
            raise UserError(f"grid.drop={unknown[0]}: no such set in removal ({', '.join(removal)})")
        # Merge sets that drop the same of these classes.
        sets: dict[tuple[int, ...], list[str]] = {}
        for name in lists["drop"]:
            sets.setdefault(removal[name], []).append(name)
        grid = Grid(**{**lists, "drop": {" = ".join(names): labels for labels, names in sets.items()}})
        if untuned.nms == "soft":
            grid = replace(grid, iou_thr=[untuned.iou_thr])
        winners = _winners(options, tuning_data, removal.get("winner", ()))
        floor = tuning_data.cache.manifest.score_floor
        iou_thrs, mask_thrs = _searched(options, tuning_data, untuned, grid)
        return cls(untuned, winners, floor, grid, grid.rules(untuned), iou_thrs, mask_thrs, tuning_data.match)

    def asked(self) -> list[Postprocess]:
        """Return all rules that the score table must support."""
        searched = [
            replace(self.untuned, score_thr=self.floor, iou_thr=iou_thr, mask_thr=mask_thr, mask_certainty_power=power)
            for iou_thr in self.iou_thrs
            for mask_thr in self.mask_thrs
            for power in self.grid.mask_certainty_power
        ]
        return [self.untuned, *self.winners.values(), *self.on_grid, *searched]

    def methods(self, options: TuneConfig) -> dict[str, TuningMethod]:
        """Return the tuning methods by name, the simplest first."""
        grid = BestOnGrid(self.on_grid, options.score.pooling)
        methods: dict[str, TuningMethod] = {"untuned": FixedRule(self.untuned)}
        methods |= {name: FixedRule(rule) for name, rule in self.winners.items()}
        methods["grid"] = grid
        start: TuningMethod = grid
        if self.untuned.attributes is not None and self.match == CLASS_ID:
            dropped = sorted({rule.dropped_labels for rule in self.on_grid}, key=len)
            lists = options.attributes
            methods["attributes"] = start = BestAttributes(
                grid, lists.attribute_thr, lists.match_thr, dropped, options.score.pooling
            )
        search = options.search
        if search.trials:
            ranges = {name: tuple(getattr(search, name)) for name in ("min_area", "max_per_image")}
            ranges["score_thr"] = (max(self.floor, search.score_thr[0]), search.score_thr[1])
            methods["search"] = Search(
                start, **ranges, iou_thrs=self.iou_thrs, mask_thrs=self.mask_thrs, trials=search.trials,
                seed=options.seed, pooling=options.score.pooling,
            )  # fmt: skip
        if options.score.pooling == "class":  # these methods maximise the average over classes
            values = [*np.round(np.arange(self.floor, 1, options.per_class.step), 4).tolist(), DROPPED]
            methods["per_class"] = ClassThresholds(start, values, options.per_class.shrinkage)
            methods["expected"] = ExpectedScore(start, self.floor, options.expected.weight)
        return methods


def check_numbers(options: TuneConfig) -> None:
    """Raise `UserError` for numbers that are out of range."""
    search, step = options.search, options.per_class.step
    if search.trials < 0 or search.mask_step <= 0:
        raise UserError(
            f"search.trials={search.trials} search.mask_step={search.mask_step}: the first must be at least 0, the "
            "second above 0"
        )
    ranges = (("score_thr", 0, 1), ("mask_thr", 0, 1), ("min_area", 1, math.inf), ("max_per_image", 1, math.inf))
    for name, least, most in ranges:
        bounds = getattr(search, name)
        if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most:
            within = f"at least {least}" if most == math.inf else f"between {least} and {most}"
            raise UserError(f"search.{name}={bounds}: must be [LOWEST,HIGHEST], {within}")
    if step <= 0 or options.per_class.shrinkage < 0 or options.expected.weight < 0:
        raise UserError(
            f"per_class.step={step} per_class.shrinkage={options.per_class.shrinkage} "
            f"expected.weight={options.expected.weight}: the first must be above 0, the others at least 0"
        )


def _winners(options: TuneConfig, tuning_data: TuningData, dropped: tuple[int, ...]) -> dict[str, Postprocess]:
    """Return the winner's rule with all classes and, if there are any, without the classes that the winner drops."""
    rule = build_rule(rule_options(options.winners), tuning_data.classes)
    try:
        tuning_data.cache.manifest.check(rule)
    except UserError as error:
        log_rank_zero("skipped        the winner's thresholds: %s", error)
        return {}
    with_classes = {"winner+classes": replace(rule, dropped_labels=dropped)} if dropped else {}
    return {"winner": rule, **with_classes}


def _removed(drop: Sequence[int | str], classes: ClassSet, name: str) -> tuple[int, ...]:
    """Return the labels that a class-removal set drops."""
    return replace(classes, drop=named_categories(drop, classes, f"removal.{name}.drop")).dropped_labels()


def _searched(
    options: TuneConfig, tuning_data: TuningData, untuned: Postprocess, grid: Grid
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the IoU and mask thresholds to search: with mask NMS only the grid's, since each needs a measurement."""
    if untuned.nms == "mask" or not options.search.trials:
        return tuple(grid.iou_thr), tuple(sorted(grid.mask_thr))
    low, high = options.search.mask_thr
    steps = np.round(np.arange(low, high + options.search.mask_step / 2, options.search.mask_step), 6).tolist()
    iou_thrs = tuning_data.cache.manifest.iou_grid if untuned.nms == "box" else grid.iou_thr
    return tuple(iou_thrs), tuple(sorted({*steps, *grid.mask_thr}))
