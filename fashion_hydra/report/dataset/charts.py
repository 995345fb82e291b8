"""Charts as inline SVG: colours come from the page's style, so that they follow light and dark mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

_WIDTH, _HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 40
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True)
class Axis:
    """A horizontal or vertical axis.

    Args:
        title: what is measured, with its unit.
        low: value at the left or lower end.
        high: value at the other end.
        ticks: value -> what is written there.
        log: whether distances are those of logarithms.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie: 0 at the low end, 1 at the high one, never outside."""
        ends = np.array([self.low, self.high], dtype=float)
        given = np.asarray(values, dtype=float)
        if self.log:
            ends, given = np.log10(ends), np.log10(np.maximum(given, 1e-300))
        return np.clip((given - ends[0]) / (ends[1] - ends[0]), 0, 1)


@dataclass(frozen=True)
class Mark:
    """A vertical line at a value, with a word beside it."""

    value: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line through points, named in the chart's legend.

    Args:
        name: in the legend.
        x: (P,).
        y: (P,).
        span: (P, 2), lower and upper end of an interval at each point, drawn as a bar.
        dots: whether the points are marked.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    span: np.ndarray | None = None
    dots: bool = False


def counting_axis(title: str, largest: float, steps: int = 4) -> Axis:
    """An axis from 0 to a round number at or above `largest`, with round ticks."""
    rough = max(largest, 1) / steps
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(s for f in (1, 2, 2.5, 5, 10) if (s := power * f) >= rough and float(s).is_integer())
    top = step * np.ceil(max(largest, 1) / step)
    ticks = [(float(v), f"{v:,.0f}") for v in np.arange(0, top + step / 2, step)]
    return Axis(title, 0, float(top), ticks)


def decimal_axis(title: str, low: float, high: float, steps: int = 4) -> Axis:
    """An axis over at least `low` to `high`, both ends and all ticks round."""
    rough = max(high - low, 1e-9) / steps
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = [(float(k * step), f"{k * step:.10g}") for k in np.arange(first, max(last, first + 1) + 0.5)]
    return Axis(title, ticks[0][0], ticks[-1][0], ticks)


def log_axis(title: str, low: float, high: float, *, shares: bool = False) -> Axis:
    """A logarithmic axis with a tick at each power of ten inside; `shares` are written in percent."""
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    powers = [10.0**k for k in range(first, last + 1)]
    return Axis(title, low, high, [(p, f"{p * 100:g} %" if shares else f"{p:,g}") for p in powers], log=True)


def histogram(
    edges: Sequence[float], counts: Sequence[int], x: Axis, *, unit: str, label: str, marks: Sequence[Mark] = ()
) -> str:
    """Bars over bins.

    Args:
        edges: B + 1 ends of the bins, ascending, on the scale of `x`.
        counts: B numbers.
        x: horizontal axis.
        unit: what is counted, for the vertical axis.
        label: what the chart says, for those who cannot see it.
        marks: lines to compare with.
    """
    y = counting_axis(unit, max(counts, default=1))
    places = x.place(np.asarray(edges))
    bars = []
    for (a, b), (left, right), n in zip(pairwise(edges), pairwise(places.tolist()), counts, strict=True):
        if not n:
            continue
        width = max((right - left) * _PLOT_WIDTH - 1, 0.8)
        height = max(float(y.place(n)) * _PLOT_HEIGHT, 1)
        tip = f"{_span(a, b, x)}: {n:,} {unit}"
        bars.append(
            f'<rect class="bar" x="{_LEFT + left * _PLOT_WIDTH:.1f}" y="{_TOP + _PLOT_HEIGHT - height:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}"><title>{escape(tip)}</title></rect>'
        )
    return _chart(_grid(x, y) + "".join(bars) + _marks(marks, x), label)


def curves(lines: Sequence[Curve], x: Axis, y: Axis, *, label: str, marks: Sequence[Mark] = ()) -> str:
    """Lines with a legend above them."""
    drawn, legend, left = [], [], float(_LEFT)
    for i, line in enumerate(lines):
        across, up = x.place(line.x), y.place(line.y)
        points = " ".join(
            f"{_LEFT + a * _PLOT_WIDTH:.1f},{_TOP + (1 - b) * _PLOT_HEIGHT:.1f}"
            for a, b in zip(across, up, strict=True)
        )
        drawn.append(f'<polyline class="line c{i}" points="{points}"/>')
        if line.span is not None:
            drawn += [_bar(a, y.place(ends), i) for a, ends in zip(across.tolist(), line.span, strict=True)]
        if line.dots:
            drawn += [f'<path class="line dots c{i}" d="M{point.replace(",", " ")}h.01"/>' for point in points.split()]
        legend.append(
            f'<path class="line c{i}" d="M{left:.0f} 8h14"/><text x="{left + 18:.0f}" y="12">{escape(line.name)}</text>'
        )
        left += 30 + 6.1 * len(line.name)
    return _chart(_grid(x, y) + _marks(marks, x) + "".join(drawn) + "".join(legend), label)


def _bar(across: float, ends: np.ndarray, colour: int) -> str:
    """A vertical interval; all between 0 and 1."""
    low, high = (_TOP + (1 - float(end)) * _PLOT_HEIGHT for end in ends)
    return f'<path class="span c{colour}" d="M{_LEFT + across * _PLOT_WIDTH:.1f} {low:.1f}V{high:.1f}"/>'


def size_map(sizes: np.ndarray, short_edges: Sequence[int], long_edge: int, *, label: str) -> str:
    """Heights over widths of photos, near ones gathered into discs, with the lines of the training scale.

    Args:
        sizes: (I, 2), height and width in pixels.
        short_edges: a line is drawn where the short edge has these lengths.
        long_edge: and one where the long edge has this.
        label: what the chart says, for those who cannot see it.
    """
    largest = float(sizes.max(initial=1)) * 1.04
    ticks = [tick for tick in counting_axis("", largest).ticks if tick[0] <= largest]
    x, y = Axis("width (pixels)", 0, largest, ticks), Axis("height (pixels)", 0, largest, ticks)
    cell = max(x.high / 56, 1)
    rows, columns = (sizes // cell).astype(np.int64).T
    _, cell_of, counts = np.unique(rows * 1000 + columns, return_inverse=True, return_counts=True)
    middles = np.stack([np.bincount(cell_of, weights=sizes[:, k]) for k in (0, 1)], axis=1) / counts[:, None]
    drawn = []
    order = np.argsort(-counts, kind="stable")
    for (height, width), n in zip(middles[order].tolist(), counts[order].tolist(), strict=True):
        left, top = _LEFT + float(x.place(width)) * _PLOT_WIDTH, _TOP + (1 - float(y.place(height))) * _PLOT_HEIGHT
        radius = 2 + 8 * (n / len(sizes)) ** 0.5
        opacity = 0.2 + 0.7 * np.log1p(n) / np.log1p(counts.max())
        place = f'cx="{left:.1f}" cy="{top:.1f}" r="{radius:.1f}" opacity="{opacity:.2f}"'
        tip = f"about {height:.0f} × {width:.0f}: {n:,} {'photo' if n == 1 else 'photos'}"
        drawn.append(f'<circle class="dot" {place}><title>{tip}</title></circle>')
    drawn += [_corner(edge, x, y, inner=True, text=f"short edge {edge}") for edge in short_edges if edge < x.high]
    if long_edge < x.high:
        drawn.append(_corner(long_edge, x, y, inner=False, text=f"long edge {long_edge}"))
    return _chart(_grid(x, y) + "".join(drawn), label)


def _corner(edge: int, x: Axis, y: Axis, *, inner: bool, text: str) -> str:
    """The sizes whose short edge (`inner`) or long edge has a length: an angle of two lines."""
    across = _LEFT + float(x.place(edge)) * _PLOT_WIDTH
    down = _TOP + (1 - float(y.place(edge))) * _PLOT_HEIGHT
    bottom, right = _TOP + _PLOT_HEIGHT, _LEFT + _PLOT_WIDTH
    if inner:
        path, at, anchor = f"M{across:.1f} {_TOP}V{down:.1f}H{right}", (right - 3, down - 4), "end"
    else:
        path, at, anchor = f"M{_LEFT} {down:.1f}H{across:.1f}V{bottom}", (_LEFT + 4, down - 4), "start"
    words = f'<text class="mark" x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    return f'<path class="mark" d="{path}"/>{words}'


def _span(a: float, b: float, x: Axis) -> str:
    if x.log:
        return f"{a:.3g} to {b:.3g}" if x.high > 1 else f"{a * 100:.3g} % to {b * 100:.3g} %"
    if float(a).is_integer() and float(b).is_integer():  # bins of whole numbers
        return f"{a:,.0f}" if b - a == 1 else f"{a:,.0f} to {b - 1:,.0f}"
    return f"{a:.3g} to {b:.3g}"


def _grid(x: Axis, y: Axis) -> str:
    parts = []
    bottom, right = _TOP + _PLOT_HEIGHT, _LEFT + _PLOT_WIDTH
    for value, text in y.ticks:
        at = _TOP + (1 - float(y.place(value))) * _PLOT_HEIGHT
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in x.ticks:
        at = _LEFT + float(x.place(value)) * _PLOT_WIDTH
        parts.append(f'<path class="tick" d="M{at:.1f} {bottom}v4"/>')
        middle = min(at, _WIDTH - 3.6 * len(text))
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<text class="title" x="{right}" y="{_HEIGHT - 6}" text-anchor="end">{escape(x.title)}</text>')
    if y.title:
        parts.append(f'<text class="title" x="4" y="12">{escape(y.title)}</text>')
    return "".join(parts)


def _marks(marks: Sequence[Mark], x: Axis) -> str:
    parts = []
    for i, mark in enumerate(marks):
        at = _LEFT + float(x.place(mark.value)) * _PLOT_WIDTH
        anchor, step = ("end", -4) if at > _LEFT + 0.7 * _PLOT_WIDTH else ("start", 4)
        parts.append(f'<path class="mark" d="M{at:.1f} {_TOP}V{_TOP + _PLOT_HEIGHT}"/>')
        parts.append(
            f'<text class="mark" x="{at + step:.1f}" y="{_TOP + 10 + 13 * i}" text-anchor="{anchor}">'
            f"{escape(mark.text)}</text>"
        )
    return "".join(parts)


def _chart(body: str, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{body}</svg>'
