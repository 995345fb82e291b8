"""Histograms and the map of photo sizes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from fashion_hydra.report.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, Chart, Mark, counting_axis


def draw_histogram(
    edges: Sequence[float], counts: Sequence[int], x: Axis, *, unit: str, label: str, marks: Sequence[Mark] = ()
) -> Markup:
    """Draw a histogram.

    Args:
        edges: B + 1 bin edges, ascending, on the scale of `x`.
        counts: B bin counts.
        x: horizontal axis.
        unit: name of the counted things, for the vertical axis.
        label: description of the chart for screen readers.
        marks: vertical reference lines.
    """
    chart = Chart(x, counting_axis(unit, max(counts, default=1)), label=label)
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        if not count:
            continue
        left, top = chart.across(low), min(chart.down(count), BOTTOM - 1)
        width = max(chart.across(high) - left - 1, 0.8)
        tip = f"{_describe_bin(low, high, x)}: {count:,} {unit}"
        chart.add("rect", "bar", x=left, y=top, width=width, height=BOTTOM - top, tip=tip)
    chart.add_marks(marks)
    return chart.markup()


def draw_size_map(sizes: np.ndarray, short_edges: Sequence[int], long_edge: int, *, label: str) -> Markup:
    """Draw photo height over width, one disc per group of similar sizes, with lines at training's edge lengths.

    Args:
        sizes: (I, 2), height and width in pixels.
        short_edges: short-edge lengths to draw a line at.
        long_edge: long-edge length to draw a line at.
        label: description of the chart for screen readers.
    """
    largest = float(sizes.max(initial=1)) * 1.04
    ticks = [tick for tick in counting_axis("", largest).ticks if tick[0] <= largest]
    chart = Chart(Axis("width (pixels)", 0, largest, ticks), Axis("height (pixels)", 0, largest, ticks), label=label)
    rows, columns = (sizes // max(largest / 56, 1)).astype(np.int64).T
    _, cell_of, counts = np.unique(rows * 1000 + columns, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(cell_of, weights=sizes[:, k]) for k in (0, 1)], axis=1) / counts[:, None]
    for cell in np.argsort(-counts, kind="stable"):
        (height, width), count = means[cell], int(counts[cell])
        radius = 2 + 8 * (count / len(sizes)) ** 0.5
        opacity = 0.2 + 0.7 * np.log1p(count) / np.log1p(counts.max())
        tip = f"about {height:.0f} × {width:.0f}: {count:,} {'photo' if count == 1 else 'photos'}"
        chart.add("circle", "dot", cx=chart.across(width), cy=chart.down(height), r=radius, opacity=opacity, tip=tip)
    for edge in (edge for edge in short_edges if edge < largest):
        across, down = chart.across(edge), chart.down(edge)
        chart.add("path", "mark", d=f"M{across:.1f} {TOP}V{down:.1f}H{RIGHT}")
        chart.add("text", "mark", text=f"short edge {edge}", x=RIGHT - 3, y=down - 4, text_anchor="end")
    if long_edge < largest:
        across, down = chart.across(long_edge), chart.down(long_edge)
        chart.add("path", "mark", d=f"M{LEFT} {down:.1f}H{across:.1f}V{BOTTOM}")
        chart.add("text", "mark", text=f"long edge {long_edge}", x=LEFT + 4, y=down - 4, text_anchor="start")
    return chart.markup()


def _describe_bin(low: float, high: float, x: Axis) -> str:
    if x.log:
        return f"{low:.3g} to {high:.3g}" if x.high > 1 else f"{low * 100:.3g} % to {high * 100:.3g} %"
    if float(low).is_integer() and float(high).is_integer():  # integer bins
        return f"{low:,.0f}" if high - low == 1 else f"{low:,.0f} to {high - 1:,.0f}"
    return f"{low:.3g} to {high:.3g}"
