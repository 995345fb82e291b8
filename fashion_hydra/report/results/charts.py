"""Draw the results page's charts."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from fashion_hydra.evaluation.error_kinds import BACKGROUND, DUPLICATE, HIT, MISSED, POOR_MASK, WRONG_CLASS, ErrorCounts
from fashion_hydra.evaluation.ladder import Rung
from fashion_hydra.report.results.read_folders import TrainingRun
from fashion_hydra.report.svg import Axis, Curve, Drawing, counting_axis, decimal_axis, draw_curves

_LOSSES = ("train/loss",)
_SCORES = ("val/score", "val/AP50", "val/AP")
BAR_KINDS = (HIT, POOR_MASK, WRONG_CLASS, DUPLICATE, BACKGROUND, MISSED)
"""Kinds in the order of the stacked bars; neighbours differ in colour and brightness."""


def learning_curves(run: TrainingRun) -> list[tuple[str, Markup]]:
    """Return (title, chart) of the training loss and of the validation scores, if the run has logged them."""
    charts = []
    for title, names in (("Training loss", _LOSSES), ("Validation", _SCORES)):
        if curves := [_metric_curve(name, run.series[name]) for name in names if name in run.series]:
            charts.append((title, _training_chart(title, curves)))
    return charts


def _metric_curve(name: str, points: Sequence[tuple[int, float]]) -> Curve:
    steps, values = np.array(points, dtype=float).T
    return Curve(f"{name} {values[-1]:.4g}", steps, values, dots=len(steps) <= 60 and name.startswith("val/"))


def _training_chart(title: str, curves: Sequence[Curve]) -> Markup:
    last = float(max(curve.x.max() for curve in curves))
    x = Axis("step", 0, max(last, 1.0), [tick for tick in counting_axis("", last).ticks if tick[0] <= last])
    y = decimal_axis("", 0.0, float(max(curve.y.max() for curve in curves)))
    ends = "; ".join(f"{curve.name.rpartition(' ')[0]} from {curve.y[0]:.3g} to {curve.y[-1]:.3g}" for curve in curves)
    return draw_curves(curves, x, y, label=f"{title} over the training steps: {ends}.")


def ladder_chart(rungs: Sequence[Rung]) -> Markup:
    """Draw the scores of a ladder with their intervals, and the winner's leaderboard scores."""
    positions = np.arange(len(rungs), dtype=float)
    spans = np.array([(rung.score.low, rung.score.high) for rung in rungs])
    scores = np.array([rung.score.value for rung in rungs])
    curves = [Curve("here, 95 % interval", positions, scores, spans, dots=True)]
    if known := [(i, rung.leaderboard) for i, rung in enumerate(rungs) if rung.leaderboard]:
        at, values = np.array(known, dtype=float).T
        curves.append(Curve("winner, leaderboard", at, values, dots=True))
    drawn = np.concatenate([spans.ravel(), *(curve.y for curve in curves)])
    x = Axis("rung", -0.5, len(rungs) - 0.5, [(float(i), rung.number) for i, rung in enumerate(rungs)])
    y = decimal_axis("", min(0.0, float(drawn.min())), float(drawn.max()))
    described = ", ".join(f"rung {rung.number} {rung.score.value:.4f}" for rung in rungs)
    return draw_curves(curves, x, y, label=f"Score of each rung: {described}.")


def stacked_bar(counts: ErrorCounts, name: str) -> Markup:
    """Draw hits and each kind of false positive and miss as shares of one bar."""
    shares = {kind: counts.cost(kind) / max(1, counts.judged) for kind in BAR_KINDS if counts.cost(kind)}
    label = f"{name}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    bar, left = Drawing(100, 10, "stack", label=label, preserveAspectRatio="none"), 0.0
    for kind, share in shares.items():
        tip = f"{kind}: {counts.cost(kind)} of {counts.judged} ({share:.0%})"
        bar.add("rect", f"k-{kind.replace(' ', '-')}", x=left, width=100 * share, height=10, tip=tip)
        left += 100 * share
    return bar.markup()
