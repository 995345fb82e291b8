"""Compare two ways to train on the photos that their runs held out."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fashion_hydra.config.build import rule_options
from fashion_hydra.config.compose import compose_options
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.data.split import stratified_folds
from fashion_hydra.evaluation.annotated import true_masks
from fashion_hydra.evaluation.bootstrap import Interval, interval_of
from fashion_hydra.evaluation.boundary import boundary_iou
from fashion_hydra.evaluation.coco_ap import TrueMask, mask_iou
from fashion_hydra.evaluation.matching import choose_match, masks_to_match, reach_of_masks
from fashion_hydra.evaluation.resampled_ap import ResampledAP
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.structures.detections import Detections
from fashion_hydra.training.run_folder import LAST, RunFolder
from fashion_hydra.tuning.build import build_score_table
from fashion_hydra.tuning.grid import Grid, scores_of
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import FloatArray, IntArray
from fashion_hydra.utils.yaml_files import flat, value_at
from fashion_hydra.workflows.predict import predict_missing
from fashion_hydra.workflows.prediction_plan import PredictionPlan, data_of, plan_prediction, truth_of

METRICS = ("score", "AP", "AP50", "AP75", "boundary AP")
_TUNING_FOLDS = 5
_SELDOM = ("name", "seed", "ckpt_path", "paths", "hydra", "logger", "data.fold")
"""Keys in which runs of the same way to train may differ."""


@dataclass(frozen=True)
class Predicted:
    """Results of one way to train with one seed, on the I photos that its runs (one per fold) did not train on.

    Args:
        scores: (R, I), score of each image under each rule of the grid.
        ap: average precision over the images, by mask IoU and by boundary IoU.
        category_table: (I, C), whether each image has true masks of each class.
    """

    scores: FloatArray
    ap: tuple[ResampledAP, ResampledAP]
    category_table: np.ndarray


@dataclass(frozen=True)
class Difference:
    """A metric of both sides, and their difference with its interval.

    Args:
        metric: one of `METRICS`.
        first: value of the first side.
        second: value of the second side.
        gain: second minus first, on the same bootstrap samples.
    """

    metric: str
    first: Interval
    second: Interval
    gain: Interval

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `within noise` if the interval of the gain contains 0."""
        if self.gain.low > 0:
            return "better"
        return "worse" if self.gain.high < 0 else "within noise"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Args:
        images: number of held-out photos.
        differences: one entry per metric.
        classes: class name -> number of true masks, AP of the first side, AP of the second side.
    """

    images: int
    differences: Sequence[Difference]
    classes: Mapping[str, tuple[int, float, float]]


def find_runs(folders: Sequence[Path]) -> dict[int, list[RunFolder]]:
    """Return the training runs in or below some folders, by the fold that they held out.

    Raises:
        UserError: a folder has no training run, or a run's config has no fold.
    """
    by_fold: dict[int, list[RunFolder]] = {}
    for folder in folders:
        found = sorted(path.parents[1] for path in folder.rglob(f"checkpoints/{LAST}"))
        if not found:
            raise UserError(f"{folder}: no training run in or below it. Give folders that contain checkpoints/{LAST}")
        for run in map(RunFolder, found):
            fold = value_at(run.config(), "data.fold")
            if not isinstance(fold, int):
                raise UserError(f"{run.path}: no config with data.fold, so the held-out photos are unknown")
            by_fold.setdefault(fold, []).append(run)
    return dict(sorted(by_fold.items()))


def check_pairs(first: Mapping[int, Sequence[RunFolder]], second: Mapping[int, Sequence[RunFolder]]) -> int:
    """Return the number of runs per fold.

    Raises:
        UserError: the number differs between folds or sides.
    """
    counts = [{fold: len(runs) for fold, runs in side.items()} for side in (first, second)]
    if counts[0] != counts[1] or len(set(counts[0].values())) != 1:
        listed = [", ".join(f"fold {fold} {count}" for fold, count in of.items()) for of in counts]
        raise UserError(
            f"runs to compare: {listed[0]} on one side, {listed[1]} on the other. Train the same number of runs per "
            "fold on both sides: data.fold=0,1,2 seed=1,2"
        )
    return next(iter(counts[0].values()))


def differing_options(first: RunFolder, second: RunFolder) -> dict[str, tuple[Any, Any]]:
    """Return the options in which two runs differ, except those that identify a run, such as name, seed and folder."""
    mine, other = _options(first), _options(second)
    keys = [key for key in {**mine, **other} if not any(f"{key}.".startswith(f"{s}.") for s in _SELDOM)]
    return {key: (mine.get(key), other.get(key)) for key in keys if mine.get(key) != other.get(key)}


def _options(run: RunFolder) -> dict[str, Any]:
    """Return a run's options by full name; paths in the run's folder are relative to it."""
    options = flat(run.config())
    folder = str(options.get("paths.output_dir", ""))
    return {key: value.removeprefix(folder) if isinstance(value, str) else value for key, value in options.items()}


def compare_runs(
    sides: Sequence[Mapping[int, Sequence[RunFolder]]],
    folder: Path,
    *,
    checkpoint: str,
    words: Sequence[Sequence[str]],
    draws: int,
    seed: int,
) -> Comparison:
    """Predict the photos that each run held out, and compare the two sides on all of them.

    These are the validation images; for runs of a single fold with `data.test_fold` also those of the test fold.

    Args:
        sides: the runs of the two sides by fold, the same number per fold.
        folder: folder of the candidates; existing candidates are reused.
        checkpoint: `last` or `best`.
        words: options for predict.py of each side.
        draws: number of bootstrap samples.
        seed: seed of the bootstrap and of the folds for tuning thresholds.

    Raises:
        UserError: runs of a fold held out different photos or learnt different classes.
    """
    count = check_pairs(*sides)
    image_sets = _image_sets(sides)
    data = _data_of_folds(sides, image_sets, words[0])
    predicted: list[list[Predicted]] = [[], []]
    for side, by_fold in enumerate(sides):
        for number in range(count):
            plans = (
                _predict(
                    runs[number], folder / "ab"[side] / f"fold{fold}-{number + 1}", checkpoint, images, words[side]
                )
                for fold, runs in by_fold.items()
                for images in image_sets
            )
            predicted[side].append(_measure(plans))
    number = len(predicted[0][0].category_table)
    fold_of = stratified_folds(predicted[0][0].category_table, folds=min(_TUNING_FOLDS, number), seed=seed)
    rng = np.random.default_rng(seed)
    weights = [np.bincount(rng.integers(0, number, number), minlength=number).astype(float) for _ in range(draws)]
    numbers = [_numbers(side, fold_of, weights) for side in predicted]
    return Comparison(number, _differences(*numbers), _classes(data, image_sets, predicted))


def _image_sets(sides: Sequence[Mapping[int, Sequence[RunFolder]]]) -> list[str]:
    """Return the sets of photos that no run trained on; the test fold only once, so only for runs of one fold."""
    runs = [run for side in sides for of_fold in side.values() for run in of_fold]
    tested = [value_at(run.config(), "data.test_fold") for run in runs]
    return ["val", "test_fold"] if len(sides[0]) == 1 and None not in tested else ["val"]


def _data_of_folds(
    sides: Sequence[Mapping[int, Sequence[RunFolder]]], image_sets: Sequence[str], words: Sequence[str]
) -> dict[int, FashionDataModule]:
    """Return the data of each fold; all its runs must have held out the same photos and learnt the same classes."""
    options = compose_options("predict", "out=", *words)
    found: dict[int, FashionDataModule] = {}
    for fold, run in ((fold, run) for side in sides for fold, runs in side.items() for run in runs):
        data = data_of(run, options.data.root, "compare-runs", options.trust)
        first = found.setdefault(fold, data)
        if _held_out(data, image_sets) != _held_out(first, image_sets):
            raise UserError(
                f"{run.path}: held out other photos than the first run of fold {fold}. Train both sides with the same "
                "data.split_file, or with the same data.folds and data.split_seed"
            )
        if data.classes.by_id() != first.classes.by_id():
            raise UserError(f"{run.path}: learnt other classes than the first run of fold {fold}")
    seen = Counter(name for data in found.values() for name in _held_out(data, image_sets))
    if twice := [name for name, times in seen.items() if times > 1]:
        raise UserError(f"{len(twice)} photos were held out in two folds, first: {twice[0]}. Train with one split")
    return found


def _held_out(data: FashionDataModule, image_sets: Sequence[str]) -> list[str]:
    return [str(data.annotations.image_ids[image]) for image in _indices(data, image_sets)]


def _indices(data: FashionDataModule, image_sets: Sequence[str]) -> list[int]:
    is_in = {"val": data.is_validation, "test_fold": data.is_test}
    return [int(image) for name in image_sets for image in is_in[name].nonzero()[0]]


def _predict(run: RunFolder, folder: Path, checkpoint: str, images: str, words: Sequence[str]) -> PredictionPlan:
    """Predict candidates of a run's held-out photos, down to the score threshold of average precision."""
    folder = folder if images == "val" else folder.with_name(f"{folder.name}-{images}")
    named = [f"checkpoint={run.checkpoints / LAST}"] if checkpoint == "last" else []
    options = compose_options(
        "predict",
        *named,
        f"ensemble.run={run.path}",
        f"data.images={images}",
        f"candidates.score_floor={COCO_RULE.score_thr}",
        f"out={folder}",
        *words,
    )
    plan = plan_prediction(options)
    if not predict_missing(plan, options).is_global_zero:
        raise SystemExit(0)  # only rank 0 continues
    return plan


def _measure(plans: Iterable[PredictionPlan]) -> Predicted:
    """Measure the predictions of one seed's runs on all their photos together."""
    scores, tables = [], []
    truth: dict[str, list[TrueMask]] = {}
    found: dict[str, Detections] = {}
    labels = 0
    for plan in plans:
        on_grid = truth_of(plan)
        assert on_grid is not None
        assert plan.data is not None
        reached = reach_of_masks(on_grid, plan.classes.can_answer)
        match, rules, labels = choose_match(None, reached), _grid(plan), len(plan.classes)
        table = build_score_table(plan.cache, masks_to_match(on_grid, match), rules, match=match)
        scores.append(scores_of(table, rules, pooling="class", desc="grid"))
        tables.append(table.category_table())
        index = {str(image_id): i for i, image_id in enumerate(plan.data.annotations.image_ids)}
        for name in on_grid:
            truth[name] = list(true_masks(plan.data.annotations, index[name], plan.classes))
            candidates = plan.cache.read(name)
            found[name] = apply(candidates, COCO_RULE, size=candidates.size)
    by_mask, by_boundary = (
        ResampledAP(truth, found, labels=labels, overlap=overlap) for overlap in (mask_iou, boundary_iou)
    )
    return Predicted(np.concatenate(scores, axis=1), (by_mask, by_boundary), np.concatenate(tables))


def _grid(plan: PredictionPlan) -> list[Any]:
    """Return tune_thresholds.py's grid of rules, without the axes of little effect: minimum area, dropped classes."""
    options = compose_options("tune", "out=")
    lists = vars(options.grid)
    base = build_rule(rule_options(options.postprocess), plan.classes)
    axes = {name: lists[name] for name in ("score_thr", "mask_thr", "max_per_image", "mask_certainty_power")}
    iou_thr = [thr for thr in lists["iou_thr"] if thr in plan.cache.manifest.iou_grid]
    return Grid(**axes, iou_thr=iou_thr, min_area=[20], drop={"all": ()}).rules(base)


def _numbers(
    side: Sequence[Predicted], fold_of: IntArray, weights: Sequence[FloatArray]
) -> dict[str, tuple[float, FloatArray]]:
    """Return each metric of a side, averaged over seeds: over all images, and for each bootstrap sample."""
    score = np.mean([_tuned(one.scores, fold_of) for one in side], axis=0)
    made = {"score": (float(score.mean()), np.array([w @ score / w.sum() for w in weights]))}
    everything = np.ones(len(score))
    for number, name in enumerate(("", "boundary ")):
        values = _mean_of([one.ap[number] for one in side], [everything, *weights])
        made[f"{name}AP"] = float(values[0].mean()), values[1:].mean(axis=1)
        if not name:
            made |= {key: (float(values[0, level]), values[1:, level]) for key, level in (("AP50", 0), ("AP75", 5))}
    return {metric: made[metric] for metric in METRICS}


def _mean_of(measures: Sequence[Callable[[FloatArray], FloatArray]], weights: Sequence[FloatArray]) -> FloatArray:
    """Return the mean over measures for each vector of image weights: (len(weights), 10)."""
    shown = tqdm(weights, desc="bootstrap", unit=" draws", disable=None)
    return np.array([np.mean([measure(w) for measure in measures], axis=0) for w in shown])


def _tuned(scores: FloatArray, fold_of: IntArray) -> FloatArray:
    """Return each image's score under the rule that is best on the other folds: (I,)."""
    made = np.empty(scores.shape[1])
    for fold in np.unique(fold_of):
        best = int(scores[:, fold_of != fold].mean(axis=1).argmax())
        made[fold_of == fold] = scores[best, fold_of == fold]
    return made


def _differences(
    first: Mapping[str, tuple[float, FloatArray]], second: Mapping[str, tuple[float, FloatArray]]
) -> list[Difference]:
    made = []
    for metric in METRICS:
        (value, draws), (other, others) = first[metric], second[metric]
        pairs = ((value, draws), (other, others), (other - value, others - draws))
        made.append(Difference(metric, *(interval_of(*pair) for pair in pairs)))
    return made


def _classes(
    data: Mapping[int, FashionDataModule], image_sets: Sequence[str], predicted: Sequence[Sequence[Predicted]]
) -> dict[str, tuple[int, float, float]]:
    """Return the true masks and the two sides' AP, averaged over seeds, of each class that the photos have."""
    everything = np.ones(len(predicted[0][0].category_table))
    of_sides = [np.mean([one.ap[0].of_class(everything).mean(axis=1) for one in side], axis=0) for side in predicted]
    masks: Counter[int] = Counter()
    for of_fold in data.values():
        for image in _indices(of_fold, image_sets):
            own = of_fold.annotations.instances(image)
            masks.update(int(of_fold.annotations.categories[mask]) for mask in own)
    names = next(iter(data.values())).classes.by_id()
    return {
        name: (masks[category], float(of_sides[0][label]), float(of_sides[1][label]))
        for label, (category, name) in enumerate(names.items())
        if masks[category]
    }
