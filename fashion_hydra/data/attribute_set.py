"""The attributes that a model learns in addition to classes, and the sets of attributes that occur together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.utils.types import BoolArray

MOST_SETS = 300
"""Maximum number of sets per class; the most frequent ones are used."""

Places = tuple[int, ...]
"""Indices into `AttributeSet.ids`, ascending."""


@dataclass(frozen=True)
class AttributeSet:
    """The attributes of a model's outputs.

    Args:
        ids: attribute id of each output, ascending.
        names: attribute name of each output; empty texts if the data has no names.
        of_label: for each label, the attributes that masks of its class have in the training data.
        sets: for each label, the attribute sets of its masks in the training data and their counts, the most frequent
            first. Masks without attributes count as the empty set. Up to `MOST_SETS` per label.
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
        """Return which attributes each label can have: bool (C, A)."""
        table = np.zeros((len(self.of_label), len(self)), bool)
        for label, places in enumerate(self.of_label):
            table[label, list(places)] = True
        return table

    def frequencies(self) -> np.ndarray:
        """Return the share of masks with each attribute, among masks of classes that can have it: float64 (A,)."""
        have, can = np.zeros(len(self)), np.zeros(len(self))
        for places, sets in zip(self.of_label, self.sets, strict=True):
            can[list(places)] += sum(count for _, count in sets)
            for of_set, count in sets:
                have[list(of_set)] += count
        return have / np.maximum(1, can)

    def suffix(self, places: Iterable[int]) -> str:
        """Return the part of a ClassId after the category, such as `_28_77`."""
        return "".join(f"_{self.ids[place]}" for place in places)

    def by_id(self) -> dict[int, str]:
        """Return attribute id -> name."""
        return dict(zip(self.ids, self.names, strict=True))

    def plain(self) -> dict[str, Any]:
        """Return plain containers for checkpoints and JSON, which `from_plain` reads."""
        return {
            "ids": list(self.ids),
            "names": list(self.names),
            "of_label": [list(places) for places in self.of_label],
            "sets": [[[count, *places] for places, count in sets] for sets in self.sets],
        }

    @classmethod
    def from_plain(cls, values: Any, *, classes: int) -> "AttributeSet":
        """Restore what `plain` returned; None becomes a set without attributes.

        Args:
            values: plain containers.
            classes: number of labels.

        Raises:
            ValueError: the values are invalid.
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
            raise ValueError("attributes whose ids are not ascending whole numbers")
        if len(names) != len(ids) or not all(isinstance(name, str) for name in names):
            raise ValueError("attributes without exactly one name each")
        if len(of_label) != classes or len(sets) != classes or not all(map(are_places, of_label)):
            raise ValueError(f"attributes that are not those of {classes} classes")
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
    """Return the attributes that occur in masks.

    Args:
        class_ids: ClassId of each mask, attributes included.
        label_of: category -> label, for the classes to learn.
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
