"""Draw charts as inline SVG; colours come from the stylesheet, so charts follow light and dark mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 14, 26, HEIGHT - 40
"""Edges of the plot area."""


@dataclass(frozen=True)
class Axis:
    """A horizontal or vertical axis.

    Args:
        title: measured quantity, with its unit.
        low: value at the left or lower end.
        high: value at the right or upper end.
        ticks: (value, label) pairs.
        log: whether the axis is logarithmic.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def position(self, values: np.ndarray | float) -> np.ndarray:
        """Map values to 0 (low end) to 1 (high end), clipped."""
        ends = np.array([self.low, self.high], dtype=float)
        given = np.asarray(values, dtype=float)
        if self.log:
            ends, given = np.log10(ends), np.log10(np.maximum(given, 1e-300))
        return np.clip((given - ends[0]) / (ends[1] - ends[0]), 0, 1)


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at a value."""

    value: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line through points, named in the chart's legend.

    Args:
        name: name in the legend.
        x: (P,), horizontal values.
        y: (P,), vertical values.
        span: (P, 2), lower and upper end of an interval at each point, drawn as a bar.
        dots: whether the points are marked.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    span: np.ndarray | None = None
    dots: bool = False


def counting_axis(title: str, largest: float, steps: int = 4) -> Axis:
    """Make an axis from 0 to a round number at or above `largest`, with round ticks."""
    rough = max(largest, 1) / steps
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(s for f in (1, 2, 2.5, 5, 10) if (s := power * f) >= rough and float(s).is_integer())
    top = step * np.ceil(max(largest, 1) / step)
    ticks = [(float(v), f"{v:,.0f}") for v in np.arange(0, top + step / 2, step)]
    return Axis(title, 0, float(top), ticks)


def decimal_axis(title: str, low: float, high: float, steps: int = 4) -> Axis:
    """Make an axis that covers `low` to `high` and has round ends and ticks."""
    rough = max(high - low, 1e-9) / steps
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = [(float(k * step), f"{k * step:.10g}") for k in np.arange(first, max(last, first + 1) + 0.5)]
    return Axis(title, ticks[0][0], ticks[-1][0], ticks)


def log_axis(title: str, low: float, high: float, *, shares: bool = False) -> Axis:
    """Make a logarithmic axis with a tick at each power of ten; `shares=True` labels the ticks in percent."""
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    powers = [10.0**k for k in range(first, last + 1)]
    return Axis(title, low, high, [(p, f"{p * 100:g} %" if shares else f"{p:,g}") for p in powers], log=True)


class Drawing:
    """An SVG element to add shapes to; all text and attributes are escaped.

    Args:
        width: width of the view box.
        height: height of the view box.
        css_class: CSS class of the element.
        label: description of the drawing for screen readers.
        attributes: further attributes of the element, named as in `add`.
    """

    def __init__(self, width: int, height: int, css_class: str, *, label: str, **attributes: str) -> None:
        self._svg = ElementTree.Element("svg", {"class": css_class, "viewBox": f"0 0 {width} {height}", "role": "img"})
        self._svg.attrib |= {"aria-label": label, **attributes}

    def add(self, tag: str, css_class: str = "", *, text: str = "", tip: str = "", **attributes: str | float) -> None:
        """Add a shape.

        Args:
            tag: SVG tag of the shape.
            css_class: CSS class of the shape.
            text: text content.
            tip: tooltip.
            attributes: SVG attributes; `text_anchor` stands for `text-anchor`, and numbers are rounded.
        """
        shape = ElementTree.SubElement(self._svg, tag, {"class": css_class} if css_class else {})
        for name, value in attributes.items():
            shape.set(name.replace("_", "-"), value if isinstance(value, str) else f"{value:.2f}")
        shape.text = text or None
        if tip:
            ElementTree.SubElement(shape, "title").text = tip

    def markup(self) -> Markup:
        """Return the drawing as markup for a template."""
        return Markup(ElementTree.tostring(self._svg, encoding="unicode"))


class Chart(Drawing):
    """A drawing with two axes.

    Args:
        x: horizontal axis.
        y: vertical axis.
        label: description of the chart for screen readers.
    """

    def __init__(self, x: Axis, y: Axis, *, label: str) -> None:
        super().__init__(WIDTH, HEIGHT, "chart", label=label)
        self._x, self._y = x, y
        for value, text in y.ticks:
            down = self.down(value)
            self.add("path", "grid", d=f"M{LEFT} {down:.1f}H{RIGHT}")
            self.add("text", text=text, x=LEFT - 6, y=down + 4, text_anchor="end")
        for value, text in x.ticks:
            across = self.across(value)
            self.add("path", "tick", d=f"M{across:.1f} {BOTTOM}v4")
            middle = min(across, WIDTH - 3.6 * len(text))
            self.add("text", text=text, x=middle, y=BOTTOM + 16, text_anchor="middle")
        self.add("text", "title", text=x.title, x=RIGHT, y=HEIGHT - 6, text_anchor="end")
        if y.title:
            self.add("text", "title", text=y.title, x=4, y=12)

    def across(self, value: float) -> float:
        """Return the horizontal view-box position of a value."""
        return LEFT + float(self._x.position(value)) * (RIGHT - LEFT)

    def down(self, value: float) -> float:
        """Return the vertical view-box position of a value."""
        return BOTTOM - float(self._y.position(value)) * (BOTTOM - TOP)

    def add_marks(self, marks: Sequence[Mark]) -> None:
        """Add vertical lines, with their texts stacked to avoid overlap."""
        for i, mark in enumerate(marks):
            across = self.across(mark.value)
            anchor, step = ("end", -4) if across > LEFT + 0.7 * (RIGHT - LEFT) else ("start", 4)
            self.add("path", "mark", d=f"M{across:.1f} {TOP}V{BOTTOM}")
            self.add("text", "mark", text=mark.text, x=across + step, y=TOP + 10 + 13 * i, text_anchor=anchor)

    def add_curve(self, curve: Curve, number: int) -> None:
        """Add a curve in the colour with this number."""
        points = [(self.across(x), self.down(y)) for x, y in zip(curve.x, curve.y, strict=True)]
        self.add("polyline", f"line c{number}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
        if curve.span is not None:
            for (x, _), (low, high) in zip(points, curve.span, strict=True):
                self.add("path", f"span c{number}", d=f"M{x:.1f} {self.down(low):.1f}V{self.down(high):.1f}")
        if curve.dots:
            for x, y in points:
                self.add("path", f"line dots c{number}", d=f"M{x:.1f} {y:.1f}h.01")


def draw_curves(curves: Sequence[Curve], x: Axis, y: Axis, *, label: str, marks: Sequence[Mark] = ()) -> Markup:
    """Draw lines with a legend above them.

    Args:
        curves: up to three curves.
        x: horizontal axis.
        y: vertical axis.
        label: description of the chart for screen readers.
        marks: vertical reference lines.
    """
    chart = Chart(x, y, label=label)
    chart.add_marks(marks)
    left = float(LEFT)
    for number, curve in enumerate(curves):
        chart.add_curve(curve, number)
        chart.add("path", f"line c{number}", d=f"M{left:.0f} 8h14")
        chart.add("text", text=curve.name, x=left + 18, y=12)
        left += 30 + 6.1 * len(curve.name)
    return chart.markup()
