"""Draw the data set page's charts from the statistics."""

import numpy as np
from markupsafe import Markup

from fashion_hydra.data.augment import Augment
from fashion_hydra.formats.submission import SUBMISSION_SIZE
from fashion_hydra.report.dataset.charts import draw_histogram, draw_size_map
from fashion_hydra.report.dataset.statistics import SMALL, TINY, Statistics, percent, submission_areas
from fashion_hydra.report.svg import Axis, Curve, Mark, counting_axis, draw_curves, log_axis

_MEDIUM = 96**2  # COCO's limit between medium and large objects, in pixels
_MOST_BARS = 40
_ASPECTS = ((1 / 3, "1:3"), (1 / 2, "1:2"), (2 / 3, "2:3"), (1.0, "1:1"), (3 / 2, "3:2"), (2.0, "2:1"), (3.0, "3:1"))


def draw_charts(
    statistics: Statistics, categories_per_image: np.ndarray, augment: Augment, augment_name: str
) -> list[tuple[str, str, Markup]]:
    """Draw all charts.

    Args:
        statistics: statistics of the data set.
        categories_per_image: int (I,), number of distinct categories in each image.
        augment: training augmentation to compare sizes with.
        augment_name: name of the augmentation in the config.

    Returns:
        (title, explanation, chart) per chart.
    """
    low, high = augment.short_edge
    scale = np.median(statistics.training_scale(augment, (low + high) / 2))
    edges = f"Lines: the edge lengths that augment={augment_name} scales to."
    if statistics.sizes.max() < low:
        edges = f"augment={augment_name} enlarges every photo."
    sizes = f"{edges} In the middle of its range, the median photo is scaled by {scale:.2f}."
    upright = f"{percent(float((statistics.sizes[:, 0] > statistics.sizes[:, 1]).mean()))} of the photos are upright."
    limit = f"{TINY / SUBMISSION_SIZE**2 * 100:.2g} %"
    area = f"Left of {limit}, a mask covers fewer than {TINY} pixels of the submission's grid."
    by_scale = "Share of masks that are smaller. Lines: COCO’s limits for small (32²) and large (96²)."
    return [
        ("Masks per image", "All masks, of any category.", _per_image_chart(statistics.per_image, "masks")),
        ("Categories per image", "Attributes are ignored.", _per_image_chart(categories_per_image, "categories")),
        ("Photo sizes", sizes, _sizes_chart(statistics, augment)),
        ("Aspect ratios", upright, _aspects_chart(statistics)),
        ("Mask area", area, _shares_chart(statistics)),
        ("Object size by scale", by_scale, _object_sizes_chart(statistics, augment)),
    ]


def _per_image_chart(counts: np.ndarray, unit: str) -> Markup:
    """Draw a histogram of masks or categories per image.

    Args:
        counts: int (I,), count per image.
        unit: name of the counted things, such as `masks`.
    """
    most = int(counts.max(initial=1))
    step = -(-(most + 1) // _MOST_BARS)
    edges = np.arange(0, most + step + 1, step)
    found = np.histogram(counts, edges)[0]
    shift = 0.5 if step == 1 else 0.0  # put the tick under the middle of a bar that stands for a single number
    ticks = [(value + shift, text) for value, text in counting_axis("", most, steps=6).ticks if value <= most]
    x = Axis(f"{unit} per image", 0, float(edges[-1]), ticks)
    median = float(np.median(counts)) if len(counts) else 0.0
    label = f"Histogram of {unit} per image: median {median:g}, maximum {most}."
    marks = [Mark(median + shift, f"median {median:g}")]
    return draw_histogram(edges.tolist(), found.tolist(), x, unit="images", label=label, marks=marks)


def _sizes_chart(statistics: Statistics, augment: Augment) -> Markup:
    """Draw photo height over width."""
    height, width = np.median(statistics.sizes, axis=0)
    label = f"Heights and widths of the photos: medians {height:.0f} and {width:.0f} pixels."
    return draw_size_map(statistics.sizes, sorted(set(augment.short_edge)), augment.long_edge, label=label)


def _aspects_chart(statistics: Statistics) -> Markup:
    """Draw a histogram of aspect ratios (width / height)."""
    aspects = statistics.sizes[:, 1] / statistics.sizes[:, 0]
    x = Axis("width : height", 1 / 4, 4, _ASPECTS, log=True)
    edges = np.geomspace(x.low, x.high, 34)
    counts = np.histogram(np.clip(aspects, x.low * 1.0001, x.high * 0.9999), edges)[0]
    median = float(np.median(aspects))
    label = f"Histogram of aspect ratios: median width over height {median:.2f}."
    return draw_histogram(
        edges.tolist(), counts.tolist(), x, unit="images", label=label, marks=[Mark(median, f"median {median:.2f}")]
    )


def _shares_chart(statistics: Statistics) -> Markup:
    """Draw a logarithmic histogram of the share of the image that each mask covers."""
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
    return draw_histogram(edges.tolist(), counts.tolist(), x, unit="masks", label=label, marks=marks)


def _object_sizes_chart(statistics: Statistics, augment: Augment) -> Markup:
    """Draw the share of masks below a size on the photo, in training and on the submission's grid."""
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
    return draw_curves(lines, x, y, label=label, marks=marks)
