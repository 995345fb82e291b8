"""Label spaces: which categories a model learns and which ones a submission leaves out."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.utils.errors import UserError

Entry = int | str
"""Id or name of a category."""


@dataclass(frozen=True)
class ClassSet:
    """Categories of a model's outputs, in output order.

    Args:
        ids: category id of each output.
        names: category name of each output.
        drop: category ids that a submission leaves out.
        attributes: attributes that the model also learns; empty for most models.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    drop: tuple[int, ...] = ()
    attributes: AttributeSet = field(default_factory=AttributeSet)

    def __len__(self) -> int:
        return len(self.ids)

    def by_id(self) -> dict[int, str]:
        """Return category id -> name, in output order."""
        return dict(zip(self.ids, self.names, strict=True))

    def label_of(self) -> dict[int, int]:
        """Return category id -> output index."""
        return {category: label for label, category in enumerate(self.ids)}

    def can_answer(self, class_id: str) -> bool:
        """Return whether a submission may contain this ClassId, attributes included."""
        category = category_of(class_id)
        if category not in self.ids or category in self.drop:
            return False
        known = self.attributes.of_label[self.ids.index(category)] if self.attributes else ()
        return all(self.attributes.place_of.get(attribute) in known for attribute in attributes_of(class_id))

    def dropped_labels(self) -> tuple[int, ...]:
        """Return the output indices of the categories that a submission leaves out."""
        labels = self.label_of()
        return tuple(labels[category] for category in self.drop if category in labels)


@dataclass(frozen=True)
class ClassSpec:
    """A class set as written in the config; `resolve` applies it to a data set.

    Args:
        name: display name.
        train: `all` for every category of the data set, `present` for those in its annotations, or ids or names.
        drop: ids or names of the categories that a submission leaves out.
    """

    name: str
    train: str | Sequence[Entry]
    drop: Sequence[Entry] = ()

    def resolve(self, categories: Mapping[int, str], present: Iterable[int]) -> ClassSet:
        """Return the class set for a data set.

        Args:
            categories: id -> name, from label_descriptions.json.
            present: category ids that occur in the annotations.

        Raises:
            UserError: a category is unknown or listed twice, or the set is empty.
        """
        if isinstance(self.train, str):
            if self.train not in ("all", "present"):
                raise UserError(f"classes.train={self.train}: give all, present, or a list of ids or names")
            ids = sorted(categories) if self.train == "all" else sorted(set(present) & set(categories))
        else:
            ids = [find_category(entry, categories, "classes.train") for entry in self.train]
        if not ids or len(set(ids)) != len(ids):
            raise UserError(f"classes.train={self.train}: must be one or more categories, each once")
        drop = tuple(find_category(entry, categories, "classes.drop") for entry in self.drop)
        return ClassSet(tuple(ids), tuple(categories[i] for i in ids), drop)


def find_category(entry: Entry, categories: Mapping[int, str], option: str) -> int:
    """Return the id of a category given by id or name.

    Raises:
        UserError: the category does not exist; the message suggests similar names.
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
    """Return the ids of categories given by id or name. An id need not be one of `classes`.

    Raises:
        UserError: a name is unknown.
    """
    names = classes.by_id()
    return tuple(entry if isinstance(entry, int) else find_category(entry, names, option) for entry in entries)
