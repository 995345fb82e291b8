"""Plot tuning results: heat maps, curves, gains per class."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.evaluation.bootstrap import bootstrap
from fashion_hydra.evaluation.competition_score import mean
from fashion_hydra.tuning.cross_validation import MethodResult, best_method
from fashion_hydra.tuning.grid import AXES, Grid
from fashion_hydra.tuning.score_table import ScoreTable
from fashion_hydra.tuning.summary import class_scores
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.types import FloatArray

_INK, _QUIET, _UP, _DOWN = "#1b1f24", "#8a919a", "#1f77b4", "#c44e3b"
_TURNED: dict[str, Any] = {"rotation": 30, "ha": "right"}


def draw_heat_maps(path: Path, grid: Grid, scores: FloatArray) -> None:
    """Draw a heat map for each pair of axes: the best score over all other axes, with the best cell framed.

    Args:
        path: PNG file to write.
        grid: grid of R rules.
        scores: (R,), score of each rule.
    """
    axes = _varied(grid)
    cube = scores.reshape(grid.shape)
    pairs = list(itertools.combinations(axes, 2))
    if not pairs:
        return
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.9 * rows), layout="constrained")
    for place, pair in enumerate(pairs):
        rest = tuple(i for i, axis in enumerate(AXES) if axis not in pair)
        ax = figure.add_subplot(rows, columns, place + 1)
        _heat_map(figure, ax, grid, cube.max(axis=rest), pair)
    figure.suptitle("Best score over all other thresholds", color=_INK)
    _save(figure, path)


def _heat_map(figure: Figure, ax: Axes, grid: Grid, best: FloatArray, pair: tuple[str, str]) -> None:
    rows, columns = (grid.values(axis) for axis in pair)
    shown = ax.imshow(best, cmap="viridis", aspect="auto")
    figure.colorbar(shown, ax=ax, shrink=0.85)
    ax.set_yticks(range(len(rows)), _tick_labels(grid, pair[0]))
    turned = len(columns) > 6 or isinstance(columns[0], str)
    ax.set_xticks(range(len(columns)), _tick_labels(grid, pair[1]), **(_TURNED if turned else {}))
    ax.set_ylabel(_axis_label(pair[0]))
    ax.set_xlabel(_axis_label(pair[1]))
    if best.size <= 60:
        middle = (best.min() + best.max()) / 2
        for (row, column), value in np.ndenumerate(best):
            ink = "white" if value < middle else "black"
            ax.text(column, row, f"{value:.3f}".lstrip("0"), ha="center", va="center", color=ink, fontsize=7)
    row, column = np.unravel_index(int(best.argmax()), best.shape)
    ax.add_patch(Rectangle((int(column) - 0.5, int(row) - 0.5), 1, 1, fill=False, edgecolor=_DOWN, linewidth=2))


def draw_curves(path: Path, grid: Grid, scores: FloatArray) -> None:
    """Draw the score along each axis through the grid's best point, with its bootstrap interval over images.

    Args:
        path: PNG file to write.
        grid: grid of R rules.
        scores: (R, I), score of each rule on each image.
    """
    best = np.unravel_index(int(scores.mean(axis=1).argmax()), grid.shape)
    axes = _varied(grid)
    if not axes:
        return
    figure = Figure(figsize=(3.7 * len(axes), 3.4), layout="constrained")
    plots = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for ax, axis in zip(plots, axes, strict=True):
        number, values = AXES.index(axis), grid.values(axis)
        line = [np.ravel_multi_index([*best[:number], i, *best[number + 1 :]], grid.shape) for i in range(len(values))]
        intervals = [bootstrap(scores[i], seed=0, draws=500) for i in line]
        named = isinstance(values[0], str)
        at = values if axis.endswith("thr") else list(range(len(values)))
        middle, low, high = ([getattr(v, name) for v in intervals] for name in ("value", "low", "high"))
        if named:
            ax.vlines(at, low, high, color=_UP, alpha=0.3)
        else:
            ax.fill_between(at, low, high, color=_UP, alpha=0.15, linewidth=0)
        ax.plot(at, middle, marker="o", color=_UP, linestyle=" " if named else "-")
        chosen = best[number]
        ax.plot([at[chosen]], [intervals[chosen].value], marker="o", markersize=11, fillstyle="none", color=_DOWN)
        if at is not values:
            ax.set_xticks(at, _tick_labels(grid, axis), **(_TURNED if named else {}))
        ax.set_xlabel(_axis_label(axis))
        ax.grid(alpha=0.25)
    plots[0].set_ylabel("score (95 % interval)")
    images = f"{scores.shape[1]} images"
    figure.suptitle(f"Score along each threshold through the grid's best point, {images}", color=_INK)
    _save(figure, path)


def draw_class_gains(path: Path, score_table: ScoreTable, results: Sequence[MethodResult], classes: ClassSet) -> None:
    """Draw each class's score before tuning and under the best method, the largest gain at the top.

    Args:
        path: PNG file to write.
        score_table: score table of the tuning images.
        results: results of the methods, the untuned method first.
        classes: class set of the labels.
    """
    best, first = best_method(results), results[0]
    before, after = (class_scores(score_table, v.method.rule) for v in (first, best))
    true_masks = np.bincount(score_table.truth_label, minlength=score_table.classes)
    before, after = np.nan_to_num(before), np.nan_to_num(after)
    labels = np.flatnonzero((before > 0) | (after > 0))
    labels = labels[np.argsort((after - before)[labels], kind="stable")]
    figure = Figure(figsize=(8, 1.6 + 0.27 * len(labels)), layout="constrained")
    ax = figure.add_subplot()
    rows = np.arange(len(labels))
    better = after[labels] >= before[labels]
    colours = np.where(better, _UP, _DOWN).tolist()
    ax.hlines(rows, before[labels], after[labels], color=colours, linewidth=2)
    ax.scatter(before[labels], rows, color=_QUIET, s=22, zorder=3, label=first.method.name)
    ax.scatter(after[labels], rows, color=colours, s=34, zorder=4)
    ax.scatter([], [], color=_UP, s=34, label=f"{best.method.name} (red where lower)")
    names = [f"{classes.names[i].split(',')[0]} ({true_masks[i]})" for i in labels.tolist()]
    ax.set_yticks(rows, names, fontsize=8)
    ax.set_ylim(-0.7, len(labels) - 0.3)
    ax.set_xlabel("mean score over images with the class in truth or prediction (number of true masks in parentheses)")
    ax.grid(axis="x", alpha=0.25)
    ax.legend(loc="lower right")
    ax.set_title(
        f"{first.method.name} {mean(first.method.fitted):.4f}, {best.method.name} {mean(best.method.fitted):.4f} "
        "on these images",
        fontsize=10,
    )
    _save(figure, path)


def _axis_label(axis: str) -> str:
    return "classes to drop" if axis == "drop" else axis


def _tick_labels(grid: Grid, axis: str) -> list[str]:
    """Return the values of an axis as text; for a set of classes to drop, its name and size, or "none"."""
    if axis != "drop":
        return [str(value) for value in grid.values(axis)]
    return [f"{name} ({len(labels)})" if labels else "none" for name, labels in grid.drop.items()]


def _varied(grid: Grid) -> list[str]:
    """Return the axes with more than one value."""
    return [axis for axis in AXES if len(grid.values(axis)) > 1]


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format="png", dpi=110, facecolor="white")
