"""Choose each detection's attributes and estimate the probability that all of them are right.

When matching by ClassId, a detection is a hit only with exactly the attributes of the true mask, so one wrong attribute
costs as much as a wrong class. `threshold` decides each attribute on its own. `expected` chooses the most probable of
the attribute sets that masks of the class have in training, including the empty set if it occurs there. Attributes are
assumed to be independent given the image: a set's probability is the product over attributes of p or 1 - p, divided by
the sum of these products over all sets of the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fashion_hydra.data.attribute_set import AttributeSet, Places
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import FloatArray, IntArray

NONE, THRESHOLD, EXPECTED = KINDS = ("none", "threshold", "expected")
_BLOCK = 2**20  # maximum number of products in memory at a time
_CERTAIN = 1e-4  # probabilities are clipped to [_CERTAIN, 1 - _CERTAIN]


@dataclass(frozen=True)
class AttributeRule:
    """Options for choosing attributes.

    Args:
        kind: `none` (category only), `threshold` or `expected`.
        attribute_thr: with `threshold`, attributes with a probability above this are chosen.
        match_thr: detections are dropped unless score times probability of the chosen attributes is above this.
        attributes: the attributes that the model has learnt.

    Raises:
        UserError: a value is out of range.
    """

    kind: str
    attribute_thr: float
    match_thr: float
    attributes: AttributeSet = field(repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"postprocess.attributes={self.kind}: choose one of {', '.join(KINDS)}")
        for name in ("attribute_thr", "match_thr"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"postprocess.{name}={value}: must be between 0 and 1")


@dataclass(frozen=True)
class ChosenAttributes:
    """The attributes chosen for N detections.

    Args:
        places: each detection's attributes, as indices into the attribute set.
        chances: float64 (N,), probability that a detection's attributes are right if its class is right; 1 for classes
            without attributes.
        usual: float64 (N,), share of the class's training masks that have exactly these attributes.
    """

    places: Sequence[Places]
    chances: FloatArray
    usual: FloatArray

    def __getitem__(self, index: IntArray) -> "ChosenAttributes":
        return ChosenAttributes([self.places[i] for i in index.tolist()], self.chances[index], self.usual[index])


def choose_attributes(probabilities: np.ndarray, labels: IntArray, rule: AttributeRule) -> ChosenAttributes:
    """Choose each detection's attributes by a threshold or as the most probable set.

    Args:
        probabilities: (N, A), probability of each attribute.
        labels: (N,).
        rule: the options; `kind` is `threshold` or `expected`.
    """
    places: list[Places] = [()] * len(labels)
    chances, usual = np.ones(len(labels)), np.ones(len(labels))
    for label in np.unique(labels).tolist():
        if not rule.attributes.of_label[label]:
            continue
        own, columns = np.flatnonzero(labels == label), list(rule.attributes.of_label[label])
        p = np.clip(probabilities[np.ix_(own, columns)].astype(np.float64), _CERTAIN, 1 - _CERTAIN)
        table, counts = _known_sets(rule.attributes, label)
        odds = _sums(np.log(p / (1 - p)), table)  # log-odds of each set against the empty set: (N, S)
        shares = np.exp(odds - odds.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        if rule.kind == EXPECTED:
            best = shares.argmax(axis=1)
            chosen, chances[own], usual[own] = table[best], shares[np.arange(len(own)), best], counts[best]
        else:
            chosen = p > rule.attribute_thr
            chances[own] = np.where(chosen, p, 1 - p).prod(axis=1)
            same = (chosen[:, None] == table).all(axis=2)
            usual[own] = same @ counts
        for detection, row in zip(own.tolist(), chosen, strict=True):
            places[detection] = tuple(columns[i] for i in np.flatnonzero(row).tolist())
    return ChosenAttributes(places, chances, usual)


def _sums(values: FloatArray, table: np.ndarray) -> FloatArray:
    """Return `values @ table.T`, computed so that no row depends on the number of rows, as it would with BLAS."""
    step = max(1, _BLOCK // max(1, table.size))
    parts = [(values[i : i + step, None] * table).sum(axis=2) for i in range(0, len(values), step)]
    return np.concatenate([np.zeros((0, len(table))), *parts])


def _known_sets(attributes: AttributeSet, label: int) -> tuple[np.ndarray, FloatArray]:
    """Return a class's attribute sets as rows over its attributes, bool (S, A of the class), and their shares: (S,)."""
    column_of = {place: column for column, place in enumerate(attributes.of_label[label])}
    sets = attributes.sets[label]
    table = np.zeros((len(sets), len(column_of)), bool)
    for row, (places, _) in enumerate(sets):
        table[row, [column_of[place] for place in places]] = True
    counts = np.array([count for _, count in sets], np.float64)
    return table, counts / counts.sum()
