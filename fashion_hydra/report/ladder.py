"""The ladder as a picture: the winner's scores on the leaderboard beside ours."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fashion_hydra.files import whole
from fashion_hydra.ladder import Rung

_INK, _QUIET, _OURS, _THEIRS = "#1b1f24", "#8a919a", "#1f77b4", "#d98c21"


def draw_ladder(path: Path, rungs: Sequence[Rung], *, title: str) -> None:
    """Draw scores with their intervals, rung by rung.

    Args:
        path: the PNG.
        rungs: in their order.
        title: above the picture.
    """
    figure = Figure(figsize=(9.5, 0.62 * len(rungs) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rungs))
    scores = [rung.score.value for rung in rungs]
    below = [rung.score.value - rung.score.low for rung in rungs]
    above = [rung.score.high - rung.score.value for rung in rungs]
    axes.errorbar(scores, places, xerr=[below, above], fmt="o-", color=_OURS, capsize=3, linewidth=1.2, label="here")
    for place, score in zip(places, scores, strict=True):
        _label(axes, score, place, f"{score:.3f}", _OURS, 9)
    theirs = [(rung.recipe.leaderboard, i) for i, rung in enumerate(rungs) if rung.recipe.leaderboard is not None]
    if theirs:
        axes.plot(*zip(*theirs, strict=True), "s--", color=_THEIRS, markersize=5, linewidth=1.2,
                  label="the winner's model on iMaterialist (private leaderboard)")  # fmt: skip
        for value, place in theirs:
            _label(axes, value, place, f"{value:.3f}", _THEIRS, -15)
    axes.set_yticks(places, [f"{i}  {rung.recipe.title}" for i, rung in enumerate(rungs, 1)], color=_INK)
    axes.invert_yaxis()
    axes.margins(y=0.09)
    axes.set_xlim(left=0)
    axes.set_xlabel("score, with 95% intervals over images", color=_INK)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower right", frameon=False, fontsize=9, ncols=2)
    figure.suptitle(title, color=_INK, x=0.01, ha="left")
    with whole(path, "wb") as stream:
        FigureCanvasAgg(figure).print_png(stream)


def _label(axes: Axes, x: float, y: float, text: str, colour: str, offset: int) -> None:
    axes.annotate(text, (x, y), xytext=(0, offset), textcoords="offset points", ha="center", color=colour, fontsize=8)
