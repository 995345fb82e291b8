"""Write the page about a data set."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion_hydra.data.augment import Augment
from fashion_hydra.formats.submission import SUBMISSION_SIZE
from fashion_hydra.report import html
from fashion_hydra.report.dataset.figures import draw_charts
from fashion_hydra.report.dataset.gallery import Card, Draws
from fashion_hydra.report.dataset.statistics import SMALL, TINY, Statistics, percent, stand_outs

_SECTIONS = {
    "classes": "Classes",
    "attributes": "Attributes",
    "sizes": "Sizes",
    "together": "Together",
    "samples": "Samples",
    "augmented": "Augmented",
}
_MOST_ATTRIBUTES, _MOST_CLASS_IDS = 25, 12  # rows in the tables of the most frequent attributes and ClassIds
_AREA_DECADES = 5  # range of the bars of area shares: 0.001 % to 100 %

Ranking = tuple[str, str, Sequence[tuple[str, int]]]
"""Title, heading of the first column, and (name, number of masks) rows, the most frequent first."""


@dataclass(frozen=True)
class DatasetPage:
    """Content of the page.

    Args:
        title: name of the data set.
        folder: folder of the data set.
        names: category id -> name.
        attribute_names: attribute id -> name, as far as known.
        statistics: statistics of the data set.
        categories_per_image: int (I,), number of distinct categories in each image.
        augment: training augmentation.
        augment_name: name of the augmentation in the config.
        cards: images with their masks.
        draws: augmented images.
    """

    title: str
    folder: str
    names: Mapping[int, str]
    attribute_names: Mapping[int, str]
    statistics: Statistics
    categories_per_image: np.ndarray
    augment: Augment
    augment_name: str
    cards: Sequence[Card]
    draws: Sequence[Draws]


def write_dataset_page(path: Path, page: DatasetPage) -> None:
    """Write the page atomically."""
    html.write_page(path, "dataset", _values(page))


def _values(page: DatasetPage) -> dict[str, Any]:
    """Return the template's variables."""
    statistics = page.statistics
    short = {category: _short(name) for category, name in page.names.items()}
    return {
        "page": page,
        "sections": _SECTIONS.items(),
        "statistics": statistics,
        "images": len(statistics.sizes),
        "masks": len(statistics.areas),
        "median_size": np.median(statistics.sizes, axis=0).tolist(),
        "notes": stand_outs(statistics, page.augment, page.augment_name),
        "limits": {"small": SMALL, "tiny": TINY, "grid": SUBMISSION_SIZE},
        "percent": percent,
        "log_percent": _log_percent,
        "short": short,
        "rankings": _rankings(page, short),
        "charts": draw_charts(statistics, page.categories_per_image, page.augment, page.augment_name),
        "rarest": len(statistics.categories) - len(statistics.together_ids),
        "shown": len({category for card in page.cards for category in card.masks}),
    }


def _short(name: str) -> str:
    """Return the part of a name before its first comma."""
    return name.partition(",")[0]


def _log_percent(share: float) -> int:
    """Return the position of a share on the logarithmic bar, 0 to 100."""
    return round(max(0.0, min(100.0, (math.log10(max(share, 1e-12)) / _AREA_DECADES + 1) * 100)))


def _rankings(page: DatasetPage, short: Mapping[int, str]) -> list[Ranking]:
    """Return the most frequent attributes and ClassIds with attributes."""
    found, names = page.statistics.attributes, page.attribute_names

    def describe(class_id: str) -> str:
        category, *attributes = map(int, class_id.split("_"))
        return f"{short[category]}: {', '.join(names.get(key, str(key)) for key in attributes)} ({class_id})"

    attributes: Iterable[tuple[str, int]] = (
        (f"{names.get(key, 'attribute')} ({key})", masks) for key, masks in found.counts.items()
    )
    class_ids: Iterable[tuple[str, int]] = ((describe(key), masks) for key, masks in found.class_ids.items())
    return [
        ("Most frequent attributes", "attribute", list(attributes)[:_MOST_ATTRIBUTES]),
        ("Most frequent ClassIds with attributes", "ClassId", list(class_ids)[:_MOST_CLASS_IDS]),
    ]
