"""The confusion matrix of categories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fashion_hydra.evaluation.confusion import Confusions


@dataclass(frozen=True)
class ConfusionRow:
    """The row of a true category, or the last row: predictions on background.

    Args:
        name: name of the category.
        counts: number of masks predicted as each category, and number not predicted.
        total: sum of the row.
        diagonal: index of the correct count; None in the last row.
    """

    name: str
    counts: Sequence[int]
    total: int
    diagonal: int | None


@dataclass(frozen=True)
class ConfusionTable:
    """Rows of true categories, those with the most masks first, then background; columns in the same order.

    Args:
        names: names of all columns except the last.
        rows: one row per name, and one for background.
        most_frequent: (true, predicted, count) per pair of different categories, the most frequent first.
    """

    names: Sequence[str]
    rows: Sequence[ConfusionRow]
    most_frequent: Sequence[tuple[str, str, int]]


def confusion_table(confusions: Confusions, names: Mapping[int, str]) -> ConfusionTable:
    """Return the confusion matrix of the categories that occur."""
    totals: dict[int, int] = {}
    for (true, predicted), count in confusions.items():
        for category, weight in ((true, count), (predicted, 0)):
            if category is not None:
                totals[category] = totals.get(category, 0) + weight
    order = sorted(totals, key=lambda category: (-totals[category], category))
    named = {category: names.get(category, f"category {category}") for category in order}
    columns: list[int | None] = [*order, None]
    rows = []
    for place, true in enumerate(columns):
        counts = [confusions[true, predicted] for predicted in columns]
        name = "background" if true is None else named[true]
        rows.append(ConfusionRow(name, counts, sum(counts), None if true is None else place))
    mixed = [
        (named[true], named[predicted], count)
        for (true, predicted), count in confusions.most_common()
        if true is not None and predicted is not None and true != predicted
    ]
    return ConfusionTable([named[category] for category in order], rows, mixed)
