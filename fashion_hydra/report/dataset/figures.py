"""The page's charts, made from the statistics."""

import numpy as np

from fashion_hydra.data.augment import Augment
from fashion_hydra.formats.submission import SUBMISSION_SIZE
from fashion_hydra.report.dataset.charts import Axis, Curve, Mark, counting_axis, curves, histogram, log_axis, size_map
from fashion_hydra.report.dataset.statistics import SMALL, TINY, Statistics, submission_areas

_MEDIUM = 96**2  # COCO calls objects from here on large
_MOST_BARS = 40
_ASPECTS = ((1 / 3, "1:3"), (1 / 2, "1:2"), (2 / 3, "2:3"), (1.0, "1:1"), (3 / 2, "3:2"), (2.0, "2:1"), (3.0, "3:1"))


def per_image_figure(counts: np.ndarray, unit: str) -> str:
    """How many images have how many masks or categories.

    Args:
        counts: int (I,), number of each image.
        unit: what was counted, such as `masks`.
    """
    most = int(counts.max(initial=1))
    step = -(-(most + 1) // _MOST_BARS)
    edges = np.arange(0, most + step + 1, step)
    found = np.histogram(counts, edges)[0]
    shift = 0.5 if step == 1 else 0.0  # a bar that stands for one number has it under its middle
    ticks = [(value + shift, text) for value, text in counting_axis("", most, steps=6).ticks if value <= most]
    x = Axis(f"{unit} on an image", 0, float(edges[-1]), ticks)
    median = float(np.median(counts)) if len(counts) else 0.0
    label = f"Histogram of {unit} per image: median {median:g}, at most {most}."
    marks = [Mark(median + shift, f"median {median:g}")]
    return histogram(edges.tolist(), found.tolist(), x, unit="images", label=label, marks=marks)


def sizes_figure(statistics: Statistics, augment: Augment) -> str:
    """Heights over widths of the photos."""
    height, width = np.median(statistics.sizes, axis=0)
    label = f"Heights and widths of the photos: medians {height:.0f} and {width:.0f} pixels."
    return size_map(statistics.sizes, sorted(set(augment.short_edge)), augment.long_edge, label=label)


def aspects_figure(statistics: Statistics) -> str:
    """Histogram of width over height."""
    aspects = statistics.sizes[:, 1] / statistics.sizes[:, 0]
    x = Axis("width : height", 1 / 4, 4, _ASPECTS, log=True)
    edges = np.geomspace(x.low, x.high, 34)
    counts = np.histogram(np.clip(aspects, x.low * 1.0001, x.high * 0.9999), edges)[0]
    median = float(np.median(aspects))
    label = f"Histogram of aspect ratios: median width over height {median:.2f}."
    return histogram(
        edges.tolist(), counts.tolist(), x, unit="images", label=label, marks=[Mark(median, f"median {median:.2f}")]
    )


def shares_figure(statistics: Statistics) -> str:
    """Histogram of the masks' shares of their images, logarithmic."""
    shares = statistics.shares
    x = log_axis("share of the image", 1e-6, 1, shares=True)
    edges = np.geomspace(x.low, x.high, 43)
    counts = np.histogram(np.clip(shares, x.low * 1.0001, x.high * 0.9999), edges)[0]
    limit = TINY / SUBMISSION_SIZE**2
    marks = [Mark(limit, f"{TINY} px of {SUBMISSION_SIZE}²")]
    median = float(np.median(shares)) if len(shares) else 0.0
    if len(shares):
        marks.append(Mark(median, f"median {median * 100:.2g} %"))
    label = f"Histogram of mask areas as shares of the image: median {median * 100:.2g} percent."
    return histogram(edges.tolist(), counts.tolist(), x, unit="masks", label=label, marks=marks)


def object_sizes_figure(statistics: Statistics, augment: Augment) -> str:
    """Which share of the masks is smaller than a size: on the photo, in training and on the submission's grid."""
    short_edge = sum(augment.short_edge) / 2
    scale = statistics.training_scale(augment, short_edge)[statistics.owners]
    areas = {
        "photo": statistics.areas,
        f"training at {short_edge:.0f}": statistics.areas * scale**2,
        f"submission, {SUBMISSION_SIZE}²": submission_areas(statistics.shares),
    }
    x = log_axis("side of a square of the mask's area (pixels)", 1, 3000)
    at = np.geomspace(x.low, x.high, 90)
    lines, total = [], max(1, len(statistics.areas))
    for name, values in areas.items():
        below = np.searchsorted(np.sort(values), at**2) / total
        lines.append(Curve(name, at, below))
    y = Axis("", 0, 1, [(k / 4, f"{k * 25} %") for k in range(5)])
    marks = [Mark(TINY**0.5, f"{TINY} px"), Mark(SMALL**0.5, "32²"), Mark(_MEDIUM**0.5, "96²")]
    label = "Share of masks below a size on the photo, at the training scale and on the submission's grid."
    return curves(lines, x, y, label=label, marks=marks)
