"""The attributes that a model learns beside its classes, and the sets of them that occur together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.utils.types import BoolArray

MOST_SETS = 300
"""Of a class, the most frequent ones are kept."""

Places = tuple[int, ...]
"""Indices into `AttributeSet.ids`, ascending."""


@dataclass(frozen=True)
class AttributeSet:
    """The attributes behind a model's outputs.

    Args:
        ids: of each output, ascending.
        names: of each output; empty texts where nothing names them.
        of_label: for each label, the attributes that masks of its class have in the training data.
        sets: for each label, the sets that its masks have there, how often each, the most frequent first; the empty
            set is among them where masks have none. At most `MOST_SETS` of a label.
    """

    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    of_label: tuple[Places, ...] = ()
    sets: tuple[tuple[tuple[Places, int], ...], ...] = field(default=(), hash=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def place_of(self) -> dict[int, int]:
        """Attribute id -> output index."""
        return {attribute: place for place, attribute in enumerate(self.ids)}

    def allowed(self) -> BoolArray:
        """Which attributes count for each label: (C, A)."""
        table = np.zeros((len(self.of_label), len(self)), bool)
        for label, places in enumerate(self.of_label):
            table[label, list(places)] = True
        return table

    def frequencies(self) -> np.ndarray:
        """Share of the masks of classes that can have an attribute which do have it: float64 (A,)."""
        have, can = np.zeros(len(self)), np.zeros(len(self))
        for places, sets in zip(self.of_label, self.sets, strict=True):
            can[list(places)] += sum(count for _, count in sets)
            for of_set, count in sets:
                have[list(of_set)] += count
        return have / np.maximum(1, can)

    def suffix(self, places: Iterable[int]) -> str:
        """What a ClassId has behind its category: `_28_77`."""
        return "".join(f"_{self.ids[place]}" for place in places)

    def by_id(self) -> dict[int, str]:
        """Attribute id -> name."""
        return dict(zip(self.ids, self.names, strict=True))

    def plain(self) -> dict[str, Any]:
        """As plain containers, for checkpoints and JSON; `from_plain` reads it."""
        return {
            "ids": list(self.ids),
            "names": list(self.names),
            "of_label": [list(places) for places in self.of_label],
            "sets": [[[count, *places] for places, count in sets] for sets in self.sets],
        }

    @classmethod
    def from_plain(cls, values: Any, *, classes: int) -> "AttributeSet":
        """What `plain` gave; None gives the set without attributes.

        Args:
            values: as plain containers.
            classes: number of labels.

        Raises:
            ValueError: they are something else.
        """
        if values is None:
            return cls()
        keys = ("ids", "names", "of_label", "sets")
        if not isinstance(values, Mapping) or any(not isinstance(values.get(key), list | tuple) for key in keys):
            raise ValueError(f"attributes without {', '.join(keys)}")
        ids, names, of_label, sets = (values[key] for key in keys)
        known = range(len(ids))

        def are_places(places: Any) -> bool:
            return (
                isinstance(places, list | tuple)
                and all(type(place) is int and place in known for place in places)
                and list(places) == sorted(set(places))
            )

        if not all(type(i) is int and i >= 0 for i in ids) or list(ids) != sorted(set(ids)):
            raise ValueError("attributes with other ids than ascending numbers")
        if len(names) != len(ids) or not all(isinstance(name, str) for name in names):
            raise ValueError("attributes without a name each")
        if len(of_label) != classes or len(sets) != classes or not all(map(are_places, of_label)):
            raise ValueError(f"attributes of other than {classes} classes")
        for places, of_class in zip(of_label, sets, strict=True):
            for entry in of_class if isinstance(of_class, list | tuple) else [()]:
                counted = isinstance(entry, list | tuple) and len(entry) > 0 and type(entry[0]) is int and entry[0] > 0
                if not counted or not are_places(entry[1:]) or not set(entry[1:]) <= set(places):
                    raise ValueError("attributes with an invalid set")
        return cls(
            tuple(ids),
            tuple(names),
            tuple(map(tuple, of_label)),
            tuple(tuple((tuple(entry[1:]), entry[0]) for entry in of_class) for of_class in sets),
        )


def attribute_set_of(class_ids: Iterable[str], label_of: Mapping[int, int], names: Mapping[int, str]) -> AttributeSet:
    """The attributes that occur in some masks.

    Args:
        class_ids: ClassId of each mask, attributes included.
        label_of: category -> label of the classes that are learnt.
        names: attribute id -> name.
    """
    counts: Sequence[Counter[tuple[int, ...]]] = [Counter() for _ in label_of]
    for class_id, count in Counter(class_ids).items():
        if (label := label_of.get(category_of(class_id))) is not None:
            counts[label][tuple(sorted(set(attributes_of(class_id))))] += count
    ids = sorted({attribute for of_label in counts for of_mask in of_label for attribute in of_mask})
    place = {attribute: i for i, attribute in enumerate(ids)}
    sets = []
    for of_label in counts:
        ranked = sorted(of_label.items(), key=lambda item: (-item[1], item[0]))[:MOST_SETS]
        sets.append(tuple((tuple(place[a] for a in of_mask), count) for of_mask, count in ranked))
    of_labels = [sorted({place[a] for of_mask in of_label for a in of_mask}) for of_label in counts]
    return AttributeSet(tuple(ids), tuple(names.get(a, "") for a in ids), tuple(map(tuple, of_labels)), tuple(sets))
