"""The tables of how well attributes are answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fashion_hydra.evaluation.attribute_scores import AttributeScores


@dataclass(frozen=True)
class AttributeRow:
    """Counts of an attribute, see `AttributeScores`."""

    name: str
    f1: float
    hits: int
    false_positives: int
    misses: int


@dataclass(frozen=True)
class CountRow:
    """Pairs whose true mask has so many attributes, and those whose sets are equal."""

    count: int
    pairs: int
    right: int


@dataclass(frozen=True)
class AttributeTable:
    """What the section shows.

    Args:
        rows: the most frequent attributes first.
        by_count: by the number of attributes.
        mean_f1: over the attributes of the truth.
        pairs: masks that are found by category.
        with_some: of these, those with attributes in truth or prediction.
        right: of these, those whose sets are equal.
    """

    rows: Sequence[AttributeRow]
    by_count: Sequence[CountRow]
    mean_f1: float
    pairs: int
    with_some: int
    right: int


def attribute_table(scores: AttributeScores, names: Mapping[int, str]) -> AttributeTable | None:
    """Return the tables; None where neither truth nor prediction has attributes, or the prediction has none.

    Args:
        scores: of a prediction.
        names: attribute id -> name, as far as known.
    """
    if not scores.hits and not scores.false_positives:
        return None
    order = sorted(scores.attributes, key=lambda a: (-scores.hits[a] - scores.misses[a], a))
    rows = [
        AttributeRow(
            names.get(a) or f"attribute {a}", scores.f1(a), scores.hits[a], scores.false_positives[a], scores.misses[a]
        )
        for a in order
    ]
    by_count = [
        CountRow(count, *scores.sets_right(count=count)) for count in sorted({count for _, count in scores.sets})
    ]
    pairs = sum(row.pairs for row in by_count)
    return AttributeTable(rows, by_count, scores.mean_f1(), pairs, scores.with_some, scores.right_with_some)
