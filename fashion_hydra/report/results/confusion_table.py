"""The table of which class is taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fashion_hydra.evaluation.confusion import Confusions


@dataclass(frozen=True)
class ConfusionRow:
    """A true category's row, or the last one's: what was predicted where nothing is.

    Args:
        name: of the category.
        counts: predicted as each category, and not predicted.
        total: of the row.
        diagonal: which of the counts is right; None in the last row.
    """

    name: str
    counts: Sequence[int]
    total: int
    diagonal: int | None


@dataclass(frozen=True)
class ConfusionTable:
    """Rows of true categories, those with the most masks first, and of background; columns in the same order.

    Args:
        names: of the columns but the last.
        rows: one more than names.
        most_frequent: (true, predicted, count) of the pairs of two categories, the most frequent first.
    """

    names: Sequence[str]
    rows: Sequence[ConfusionRow]
    most_frequent: Sequence[tuple[str, str, int]]


def confusion_table(confusions: Confusions, names: Mapping[int, str]) -> ConfusionTable:
    """Return the table of the categories that occur."""
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
