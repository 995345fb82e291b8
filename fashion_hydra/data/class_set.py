"""Label spaces: which categories a model is trained on and which are left out of a submission."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.utils.errors import UserError

Entry = int | str
"""A category by id or by name."""


@dataclass(frozen=True)
class ClassSet:
    """The categories behind a model's outputs, in their order.

    Args:
        ids: category id of each output.
        names: category name of each output.
        drop: category ids that a submission leaves out.
        attributes: that are learnt too; none in most models.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    drop: tuple[int, ...] = ()
    attributes: AttributeSet = field(default_factory=AttributeSet)

    def __len__(self) -> int:
        return len(self.ids)

    def by_id(self) -> dict[int, str]:
        """Category id -> name, in the order of the outputs."""
        return dict(zip(self.ids, self.names, strict=True))

    def label_of(self) -> dict[int, int]:
        """Category id -> output index."""
        return {category: label for label, category in enumerate(self.ids)}

    def can_answer(self, class_id: str) -> bool:
        """Whether a submission may have this ClassId, attributes included."""
        category = category_of(class_id)
        if category not in self.ids or category in self.drop:
            return False
        known = self.attributes.of_label[self.ids.index(category)] if self.attributes else ()
        return all(self.attributes.place_of.get(attribute) in known for attribute in attributes_of(class_id))

    def dropped_labels(self) -> tuple[int, ...]:
        """Output indices of the categories that a submission leaves out."""
        labels = self.label_of()
        return tuple(labels[category] for category in self.drop if category in labels)


@dataclass(frozen=True)
class ClassSpec:
    """A class set as the config writes it; `resolve` makes it definite.

    Args:
        name: shown to people.
        train: `all` categories of the data set, those `present` in its annotations, or a list of ids or names.
        drop: ids or names left out of a submission.
    """

    name: str
    train: str | Sequence[Entry]
    drop: Sequence[Entry] = ()

    def resolve(self, categories: Mapping[int, str], present: Iterable[int]) -> ClassSet:
        """The class set for a data set.

        Args:
            categories: id -> name, from label_descriptions.json.
            present: category ids that occur in the annotations.

        Raises:
            UserError: an id or a name that the data set does not have, or an empty set.
        """
        if isinstance(self.train, str):
            if self.train not in ("all", "present"):
                raise UserError(f"classes.train={self.train}: give all, present, or a list of ids or names")
            ids = sorted(categories) if self.train == "all" else sorted(set(present) & set(categories))
        else:
            ids = [find_category(entry, categories, "classes.train") for entry in self.train]
        if not ids or len(set(ids)) != len(ids):
            raise UserError(f"classes.train={self.train}: one or more categories expected, each once")
        drop = tuple(find_category(entry, categories, "classes.drop") for entry in self.drop)
        return ClassSet(tuple(ids), tuple(categories[i] for i in ids), drop)


def find_category(entry: Entry, categories: Mapping[int, str], option: str) -> int:
    """The id of a category given by id or name.

    Raises:
        UserError: no such category; the nearest names are suggested.
    """
    if isinstance(entry, int):
        if entry in categories:
            return entry
        raise UserError(f"{option}: no category {entry}; ids are {min(categories)} to {max(categories)}")
    by_name = {name.lower(): category for category, name in categories.items()}
    if entry.lower() in by_name:
        return by_name[entry.lower()]
    near = difflib.get_close_matches(entry.lower(), by_name, n=3, cutoff=0.4)
    some = ", ".join(map(repr, list(categories.values())[:6])) + (", ..." if len(categories) > 6 else "")
    hint = f"; nearest: {', '.join(map(repr, near))}" if near else f"; there are {some}"
    raise UserError(f"{option}: no category named {entry!r}{hint}")


def named_categories(entries: Sequence[int | str], classes: ClassSet, option: str) -> tuple[int, ...]:
    """Categories by id or name; an id may be of a category that these classes do not have.

    Raises:
        UserError: no such name.
    """
    names = classes.by_id()
    return tuple(entry if isinstance(entry, int) else find_category(entry, names, option) for entry in entries)
