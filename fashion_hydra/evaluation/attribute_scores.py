"""Score predicted attributes on masks with the right category and position.

Predicted and true masks of an image and category are paired as in the score at IoU 0.5, whatever their attributes. In
each pair, an attribute of both masks is a hit, one of the prediction only a false positive, and one of the truth only
a miss; F1 is 2 TP / (2 TP + FP + FN) over all pairs.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fashion_hydra.evaluation.competition_score import ClassMasks, iou_matrix, match
from fashion_hydra.evaluation.score_submission import match_images
from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.structures.rle import CocoRLE

Attributes = frozenset[int]


@dataclass
class AttributeScores:
    """Counts over several images; `update` adds an image.

    Args:
        hits: attribute id -> pairs in which both masks have it.
        false_positives: attribute id -> pairs in which only the predicted mask has it.
        misses: attribute id -> pairs in which only the true mask has it.
        mistakes: (missed, wrong) -> pairs with these attributes of the true mask only and of the predicted mask only;
            pairs without mistakes are not counted.
        sets: (category, number of attributes of the true mask) -> pairs, and pairs with equal attribute sets.
        with_some: pairs with attributes in truth or prediction.
        right_with_some: pairs with equal attribute sets that are not empty.
    """

    hits: Counter[int] = field(default_factory=Counter)
    false_positives: Counter[int] = field(default_factory=Counter)
    misses: Counter[int] = field(default_factory=Counter)
    mistakes: Counter[tuple[Attributes, Attributes]] = field(default_factory=Counter)
    sets: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    with_some: int = 0
    right_with_some: int = 0

    def update(self, truth: ClassMasks, predicted: ClassMasks) -> int:
        """Add an image's masks; return the number of missed and wrong attributes."""
        errors = 0
        mine, theirs = _by_category(predicted), _by_category(truth)
        for category, true in theirs.items():
            found = mine.get(category, [])
            pairs = match(iou_matrix([mask for _, mask in found], [mask for _, mask in true]))
            for row, column in pairs.tolist():
                answered, right = found[row][0], true[column][0]
                self.hits.update(answered & right)
                self.false_positives.update(answered - right)
                self.misses.update(right - answered)
                if answered != right:
                    self.mistakes[right - answered, answered - right] += 1
                    errors += len(answered ^ right)
                count = self.sets[category, len(right)]
                count[0] += 1
                count[1] += answered == right
                self.with_some += bool(answered | right)
                self.right_with_some += bool(right) and answered == right
        return errors

    @property
    def attributes(self) -> list[int]:
        """Ids of the attributes in the truth or prediction of any pair, ascending."""
        return sorted({*self.hits, *self.false_positives, *self.misses})

    def f1(self, attribute: int) -> float:
        """Return the F1 of an attribute; NaN if no pair has it."""
        hits = 2 * self.hits[attribute]
        count = hits + self.false_positives[attribute] + self.misses[attribute]
        return hits / count if count else float("nan")

    def mean_f1(self) -> float:
        """Return the mean F1 over the attributes in the truth of any pair; NaN if there are none."""
        known = [a for a in self.attributes if self.hits[a] + self.misses[a]]
        return float(np.mean([self.f1(a) for a in known])) if known else float("nan")

    def sets_right(self, *, category: int | None = None, count: int | None = None) -> tuple[int, int]:
        """Count pairs, and pairs with equal sets, of a category and a number of attributes; None selects all."""
        chosen = [
            pair
            for (of_category, of_count), pair in self.sets.items()
            if category in (None, of_category) and count in (None, of_count)
        ]
        return sum(pairs for pairs, _ in chosen), sum(right for _, right in chosen)


def score_attributes(truth: Mapping[str, ClassMasks], predicted: Mapping[str, ClassMasks]) -> AttributeScores:
    """Score the attributes of all images in `truth`: ImageId -> ClassId, attributes included -> masks of one size.

    Images are matched by `fashion_hydra.evaluation.score_submission.match_images`, which lists the errors raised.
    """
    scores = AttributeScores()
    for name, answer in match_images(truth, predicted).items():
        scores.update(truth[name], predicted[answer] if answer is not None else {})
    return scores


def _by_category(masks: ClassMasks) -> dict[int, list[tuple[Attributes, CocoRLE]]]:
    found: dict[int, list[tuple[Attributes, CocoRLE]]] = {}
    for class_id, of_class in masks.items():
        attributes = frozenset(attributes_of(class_id))
        listed: Sequence[tuple[Attributes, CocoRLE]] = [(attributes, mask) for mask in of_class]
        found.setdefault(category_of(class_id), []).extend(listed)
    return found
