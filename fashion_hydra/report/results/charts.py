"""The page's charts as inline SVG; colours come from the page's style."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from fashion_hydra.evaluation.error_kinds import BACKGROUND, DUPLICATE, HIT, MISSED, POOR_MASK, WRONG_CLASS, ErrorCounts
from fashion_hydra.evaluation.ladder import Rung
from fashion_hydra.report.dataset.charts import Axis, Curve, counting_axis, curves, decimal_axis
from fashion_hydra.report.results.read_folders import TrainingRun

_LOSSES = ("train/loss",)
_SCORES = ("val/score", "val/AP50", "val/AP")
BAR_KINDS = (HIT, POOR_MASK, WRONG_CLASS, DUPLICATE, BACKGROUND, MISSED)
"""In the order of the stacked bars, each neighbour of another colour and brightness."""


def learning_curves(run: TrainingRun) -> list[tuple[str, Markup]]:
    """Title and chart of the training loss and of the validation scores, as far as the run has them."""
    charts = []
    for title, names in (("Training loss", _LOSSES), ("Validation", _SCORES)):
        lines = [_line(name, run.series[name]) for name in names if name in run.series]
        if lines:
            charts.append((title, _curves(title, lines)))
    return charts


def _line(name: str, points: Sequence[tuple[int, float]]) -> Curve:
    steps, values = np.array(points, dtype=float).T
    return Curve(f"{name} {values[-1]:.4g}", steps, values, dots=len(steps) <= 60 and name.startswith("val/"))


def _curves(title: str, lines: Sequence[Curve]) -> Markup:
    last = float(max(line.x.max() for line in lines))
    x = Axis("step", 0, max(last, 1.0), [tick for tick in counting_axis("", last).ticks if tick[0] <= last])
    y = decimal_axis("", 0.0, float(max(line.y.max() for line in lines)))
    told = "; ".join(f"{line.name.rpartition(' ')[0]} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    return Markup(curves(lines, x, y, label=f"{title} over the training steps: {told}."))


def ladder_chart(rungs: Sequence[Rung]) -> Markup:
    """The score from rung to rung with its interval, beside the winner's on the leaderboard."""
    places = np.arange(len(rungs), dtype=float)
    spans = np.array([(rung.score.low, rung.score.high) for rung in rungs])
    lines = [Curve("here, 95 % interval", places, np.array([rung.score.value for rung in rungs]), spans, dots=True)]
    known = [(place, rung.leaderboard) for place, rung in zip(places, rungs, strict=True) if rung.leaderboard]
    if known:
        at, values = np.array(known, dtype=float).T
        lines.append(Curve("winner, leaderboard", at, values, dots=True))
    everything = np.concatenate([spans.ravel(), *(line.y for line in lines)])
    x = Axis("rung", -0.5, len(rungs) - 0.5, [(float(p), r.number) for p, r in zip(places, rungs, strict=True)])
    y = decimal_axis("", min(0.0, float(everything.min())), float(everything.max()))
    told = ", ".join(f"rung {rung.number} {rung.score.value:.4f}" for rung in rungs)
    return Markup(curves(lines, x, y, label=f"Score from rung to rung: {told}."))


def stacked_bar(tally: ErrorCounts, name: str) -> Markup:
    """Hits, false positives and misses by kind as shares of one bar."""
    counts = [(kind, tally.cost(kind)) for kind in BAR_KINDS]
    total, left, parts = max(1, tally.judged), 0.0, []
    for kind, count in counts:
        width = 100 * count / total
        if count:
            css = kind.replace(" ", "-")
            parts.append(
                f'<rect class="k-{css}" x="{left:.2f}" width="{width:.2f}" height="10">'
                f"<title>{kind}: {count} of {total} ({count / total:.0%})</title></rect>"
            )
        left += width
    told = Markup.escape(f"{name}: " + ", ".join(f"{kind} {count / total:.0%}" for kind, count in counts if count))
    opening = f'<svg class="stack" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{told}">'
    return Markup(opening + "".join(parts) + "</svg>")
