"""Report the results of tuning, on the screen and as CSV."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.evaluation.bootstrap import LEVEL
from fashion_hydra.evaluation.competition_score import mean
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.cross_validation import MethodResult, best_method
from fashion_hydra.tuning.grid import AXES, Grid
from fashion_hydra.tuning.score_table import ScoreTable
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.types import FloatArray

_FLAT = 0.001
"""Gains up to this are no reason to try values beyond the grid."""


def describe_rule(rule: Postprocess) -> str:
    """Describe a rule in one line."""
    parts = [f"score_thr={rule.score_thr:g}", f"iou_thr={rule.iou_thr:g}", f"mask_thr={rule.mask_thr:g}",
             f"min_area={rule.min_area}", f"max_per_image={rule.max_per_image}"]  # fmt: skip
    if rule.nms != "box":
        parts.insert(0, f"nms={rule.nms}")
    if rule.mask_certainty_power:
        parts.append(f"mask_certainty_power={rule.mask_certainty_power:g}")
    if rule.label_score_thr:
        parts.append(f"{len(rule.label_score_thr)} per-class thresholds")
    if rule.dropped_labels:
        parts.append(f"{len(rule.dropped_labels)} classes dropped")
    if rule.attributes is not None:
        at = f" {rule.attributes.attribute_thr:g}" if rule.attributes.kind == "threshold" else ""
        parts.append(f"attributes {rule.attributes.kind}{at}, match_thr={rule.attributes.match_thr:g}")
    if rule.calibration is not None:
        parts.append("the set with the highest expected score")
    return " ".join(parts[:5]) + "".join(f", {part}" for part in parts[5:])


def result_lines(results: Sequence[MethodResult], *, images: int, folds: int) -> Iterator[str]:
    """Yield a table of the methods that says whether each is better than the best simpler method."""
    best = best_method(results)
    yield (
        f"score of {images} images: fitted to all; cross-fitted over {folds} folds with its {LEVEL:.0%} interval; "
        "gain over the best simpler method"
    )
    width = max(len(v.method.name) for v in results)
    for v in results:
        line = f"{'*' if v is best else ' '} {v.method.name:{width}}  {mean(v.method.fitted):.4f}  "
        line += f"{v.score.value:.4f} [{v.score.low:.4f}, {v.score.high:.4f}]"
        if v.gain is not None:
            line += f"  {v.gain.value:+.4f} [{v.gain.low:+.4f}, {v.gain.high:+.4f}] over {v.simpler}"
            line += "" if v.beyond_noise else ": worse" if v.gain.high < 0 else ": within noise"
        yield line
    doubt = "" if best.beyond_noise else f"; its gain over {best.simpler} is within noise"
    yield f"* the best by cross-fitted score{doubt}"


def write_results(path: Path, results: Sequence[MethodResult]) -> None:
    """Write the table of the methods as CSV."""
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["method", "fitted", "cross_fitted", "low", "high", "simpler", "gain", "gain_low", "gain_high", "rule"]
        )
        for v in results:
            gain = ["", "", ""] if v.gain is None else [_decimals(x) for x in (v.gain.value, v.gain.low, v.gain.high)]
            numbers = [_decimals(x) for x in (mean(v.method.fitted), v.score.value, v.score.low, v.score.high)]
            writer.writerow([v.method.name, *numbers, v.simpler, *gain, describe_rule(v.method.rule)])


def write_grid(path: Path, grid: Grid, scores: FloatArray) -> None:
    """Write every combination of a grid and its score as CSV.

    Args:
        path: the CSV file.
        grid: the grid of R rules.
        scores: (R, I), score of each image under each rule.
    """
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*AXES, "score"])
        for point, of_rule in zip(grid.points(), scores, strict=True):
            writer.writerow([*point.values(), repr(mean(of_rule))])


def drop_set_lines(grid: Grid, scores: FloatArray) -> Iterator[str]:
    """Yield the score of each class-removal set at its best thresholds, on all images."""
    points = list(grid.points())
    yield "class-removal sets, each with its best thresholds on the grid"
    for name, labels in grid.drop.items():
        own = [i for i, point in enumerate(points) if point["drop"] == name]
        best = max(own, key=lambda i: mean(scores[i]))
        at = " ".join(f"{axis}={points[best][axis]}" for axis in AXES[:-1])
        yield f"  {name:{max(map(len, grid.drop))}} {len(labels):2} classes dropped  {mean(scores[best]):.4f}  {at}"


def edge_lines(grid: Grid, scores: FloatArray) -> Iterator[str]:
    """Yield a hint for each axis on which the score still rises toward the best value, the lowest or the highest."""
    means = [mean(of_rule) for of_rule in scores]
    points = list(grid.points())
    best = int(np.argmax(means))
    for axis in AXES[:-1]:
        values, value = sorted(grid.values(axis)), points[best][axis]
        if len(values) < 3 or value not in (values[0], values[-1]):
            continue
        end, beside = ("lowest", values[1]) if value == values[0] else ("highest", values[-2])
        if means[best] - means[points.index({**points[best], axis: beside})] > _FLAT:
            yield f"edge           the best {axis}={value} is the grid's {end}: add values beyond it"


def write_class_table(path: Path, score_table: ScoreTable, results: Sequence[MethodResult], classes: ClassSet) -> None:
    """Write the score of each class under each method, fitted to all images, and its `per_class` threshold.

    Args:
        path: the CSV file.
        score_table: the images.
        results: the results of the methods.
        classes: the classes of the labels.
    """
    scores = {v.method.name: class_scores(score_table, v.method.rule) for v in results}
    true_masks = np.bincount(score_table.truth_label, minlength=score_table.classes)
    thresholds = next((v.method.rule for v in results if v.method.name == "per_class"), None)
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["class", "name", "true_masks", "score_thr_of_per_class", *scores])
        for label, category in enumerate(classes.ids):
            own = "" if thresholds is None else thresholds.label_score_thr.get(label, thresholds.score_thr)
            values = [_decimals(of_method[label]) for of_method in scores.values()]
            writer.writerow([category, classes.names[label], true_masks[label], own, *values])


def class_scores(score_table: ScoreTable, rule: Postprocess) -> FloatArray:
    """Return each class's mean score over the images that have it in truth or detections: (C,), NaN without images."""
    groups = score_table.groups(rule)
    scores, present = groups.scores()
    count = np.bincount(groups.of.label[present], minlength=score_table.classes)
    total = np.bincount(groups.of.label[present], scores[present], score_table.classes)
    return np.where(count > 0, total / np.maximum(1, count), np.nan)


def _decimals(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
