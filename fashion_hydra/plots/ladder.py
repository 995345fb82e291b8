"""Plot a ladder: our scores beside the winner's leaderboard scores."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fashion_hydra.evaluation.ladder import Rung
from fashion_hydra.utils.files import atomic_write

_INK, _OURS, _THEIRS = "#1b1f24", "#1f77b4", "#b86e00"


def draw_ladder(path: Path, rungs: Sequence[Rung], *, title: str) -> None:
    """Draw the score of each rung with its interval.

    Args:
        path: PNG file to write.
        rungs: rungs in ladder order.
        title: title above the plot.
    """
    figure = Figure(figsize=(9.5, 0.52 * len(rungs) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rungs))
    scores = [rung.score.value for rung in rungs]
    below = [rung.score.value - rung.score.low for rung in rungs]
    above = [rung.score.high - rung.score.value for rung in rungs]
    axes.errorbar(scores, places, xerr=[below, above], fmt="o-", color=_OURS, capsize=3, linewidth=1.2, label="here")
    theirs = {i: value for i, rung in enumerate(rungs) if (value := rung.leaderboard) is not None}
    if theirs:
        axes.plot(list(theirs.values()), list(theirs), "s--", color=_THEIRS, markersize=5, linewidth=1.2,
                  label="the winner's model on iMaterialist (private leaderboard)")  # fmt: skip
    for place, score in zip(places, scores, strict=True):
        _number(axes, place, 6, f"{score:.3f}", _OURS)
        _number(axes, place, 46, f"{theirs[place]:.3f}" if place in theirs else "", _THEIRS)
    axes.set_yticks(places, [f"{rung.number}  {rung.title}" for rung in rungs], color=_INK)
    axes.invert_yaxis()
    axes.margins(x=0.04, y=0.06)
    axes.set_xlabel("score, with 95% intervals over images", color=_INK)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower right", frameon=False, fontsize=9, ncols=2)
    figure.suptitle(title, color=_INK, x=0.01, ha="left")
    with atomic_write(path, "wb") as stream:
        FigureCanvasAgg(figure).print_png(stream)


def _number(axes: Axes, place: int, points: float, text: str, colour: str) -> None:
    """Write a number to the right of the plot, at a distance in points."""
    axes.annotate(
        text,
        (1, place),
        (points, 0),
        axes.get_yaxis_transform(),
        "offset points",
        va="center",
        color=colour,
        fontsize=9,
    )
