"""Tables of the accuracy of predicted attributes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from fashion_hydra.evaluation.attribute_scores import AttributeScores
from fashion_hydra.report.results.analysis import Analysis

OTHER = "other"
"""Group name of attributes whose group is unknown."""


@dataclass(frozen=True)
class AttributeRow:
    """Counts of an attribute, or of all attributes of a group, on matched masks; see `AttributeScores`.

    Args:
        name: name of the attribute or group.
        group: group of the attribute.
        hits: pairs with the attribute in both masks.
        false_positives: pairs with the attribute in the predicted mask only.
        misses: pairs with the attribute in the true mask only.
        ap: COCO's AP of the masks predicted with the attribute; NaN if unknown.
        swapped: for a group, number of misses where another attribute of the group was predicted.
    """

    name: str
    group: str
    hits: int
    false_positives: int
    misses: int
    ap: float = float("nan")
    swapped: int = 0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return 2 * self.hits / (2 * self.hits + self.false_positives + self.misses)


@dataclass(frozen=True)
class CountRow:
    """Pairs whose true mask has `count` attributes: their number, and how many predict exactly these attributes."""

    count: int
    pairs: int
    right: int


@dataclass(frozen=True)
class AttributeTable:
    """Content of the page's section on attributes.

    Args:
        rows: one row per attribute, the most frequent first.
        groups: one row per group of attributes, the most frequent first; empty if no group is known.
        mixed: (true, predicted, count) per confusion of two attributes of a group, the most frequent first.
        by_count: one row per number of attributes.
        mean_f1: mean F1 over the attributes of the truth.
        pairs: number of pairs of masks matched by category.
        with_some: number of these pairs with attributes in truth or prediction.
        right: number of pairs in `with_some` whose sets of attributes are equal.
    """

    rows: Sequence[AttributeRow]
    groups: Sequence[AttributeRow]
    mixed: Sequence[tuple[str, str, int]]
    by_count: Sequence[CountRow]
    mean_f1: float
    pairs: int
    with_some: int
    right: int


def attribute_table(analysis: Analysis, names: Mapping[int, str], groups: Mapping[int, str]) -> AttributeTable | None:
    """Return the tables; None if the prediction has no attributes on matched masks.

    Args:
        analysis: analysis of a prediction.
        names: attribute id -> name, as far as known.
        groups: attribute id -> group, as far as known.
    """
    scores = analysis.attributes
    if not scores.hits and not scores.false_positives:
        return None
    order = sorted(scores.attributes, key=lambda a: (-scores.hits[a] - scores.misses[a], a))
    named = {a: names.get(a) or f"attribute {a}" for a in order}
    rows = [
        AttributeRow(
            named[a],
            groups.get(a, OTHER),
            hits=scores.hits[a],
            false_positives=scores.false_positives[a],
            misses=scores.misses[a],
            ap=analysis.attribute_ap.get(a, float("nan")),
        )
        for a in order
    ]
    by_count = [
        CountRow(count, *scores.sets_right(count=count)) for count in sorted({count for _, count in scores.sets})
    ]
    swaps = _swaps(scores, groups)
    return AttributeTable(
        rows,
        _group_rows(rows, swaps, groups) if any(a in groups for a in order) else [],
        [(named[true], named[answered], count) for (true, answered), count in swaps.most_common()],
        by_count,
        scores.mean_f1(),
        sum(row.pairs for row in by_count),
        scores.with_some,
        scores.right_with_some,
    )


def _swaps(scores: AttributeScores, groups: Mapping[int, str]) -> Counter[tuple[int, int]]:
    """Count the masks on which one attribute was predicted instead of another of its group: (true, predicted)."""
    swaps: Counter[tuple[int, int]] = Counter()
    for (missed, wrong), count in scores.mistakes.items():
        for true, answered in product(sorted(missed), sorted(wrong)):
            if true in groups and groups[true] == groups.get(answered):
                swaps[true, answered] += count
    return swaps


def _group_rows(
    rows: Sequence[AttributeRow], swaps: Counter[tuple[int, int]], groups: Mapping[int, str]
) -> list[AttributeRow]:
    swapped: Counter[str] = Counter()
    for (true, _), count in swaps.items():
        swapped[groups[true]] += count
    members: dict[str, list[AttributeRow]] = {}
    for row in rows:
        members.setdefault(row.group, []).append(row)
    made = [
        AttributeRow(
            group,
            group,
            hits=sum(row.hits for row in of_group),
            false_positives=sum(row.false_positives for row in of_group),
            misses=sum(row.misses for row in of_group),
            swapped=swapped[group],
        )
        for group, of_group in members.items()
    ]
    return sorted(made, key=lambda row: -(row.hits + row.misses))
