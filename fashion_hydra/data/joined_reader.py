"""Read the training and the validation annotation file of a data set as one data set."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_hydra.data.annotation_cache import AnnotationReader, attribute_names
from fashion_hydra.data.annotations import AnnotationsBuilder, DataFault
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import shorten


class JoinedReader:
    """Reader of a data set in parts, each with its own reader. Image ids are file paths below a common folder.

    Args:
        parts: subset, `val` or `train` -> its reader. An image in several parts belongs to the first of them.

    Raises:
        UserError: a category has different names in two parts.
    """

    def __init__(self, parts: Mapping[str, AnnotationReader]) -> None:
        self.parts = parts
        self.folder = Path(os.path.commonpath([reader.folder.absolute() for reader in parts.values()]))
        self.names: dict[int, str] = {}
        for subset, reader in parts.items():
            for number, name in reader.categories().items():
                if (known := self.names.setdefault(number, name)) != name:
                    raise UserError(
                        f"data.val_annotations: category {number} is {shorten(name, 40)!r} in the {subset} part and "
                        f"{shorten(known, 40)!r} in the other part. Both files need the same categories"
                    )
        self._places: dict[str, str] = {}

    def key(self) -> Mapping[str, str]:
        """Return the keys of all parts."""
        return {f"{subset}.{k}": v for subset, reader in self.parts.items() for k, v in reader.key().items()}

    def files(self) -> Sequence[Path]:
        """Return the annotation files of all parts."""
        return [file for reader in self.parts.values() for file in reader.files()]

    def categories(self) -> Mapping[int, str]:
        """Return the categories of all parts."""
        return self.names

    def attribute_names(self) -> Mapping[int, str]:
        """Return the attributes of all parts."""
        named = [attribute_names(reader) for reader in self.parts.values()]
        return {number: name for names in named for number, name in names.items()}

    def file_of(self, image_id: str) -> str:
        """Return the image id, which is the path of its file."""
        return image_id

    def place_of(self, image_id: str) -> str:
        """Return the place where the image's part first names it."""
        return self._places.get(image_id, "")

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read the parts one after another."""
        for subset, reader in self.parts.items():
            part = _Part(builder, reader, subset, prefix=os.path.relpath(reader.folder.absolute(), self.folder))
            own: list[DataFault] = []
            reader.scan(part, own)  # type: ignore[arg-type] # _Part has the methods that readers use
            self._places |= {part.name(image_id): reader.place_of(image_id) for image_id in part.image_ids}
            faults += [_renamed(fault, part) for fault in own]
            faults += [
                DataFault("in-two-parts", name, "", f"also in {subset}", "not used there") for name in part.twice
            ]


class _Part:
    """Builder for the reader of one part, which uses its own image ids."""

    def __init__(self, builder: AnnotationsBuilder, reader: AnnotationReader, subset: str, *, prefix: str) -> None:
        self.builder, self.reader, self.subset = builder, reader, subset
        self.prefix = "" if prefix == "." else f"{Path(prefix).as_posix()}/"
        self.image_ids: list[str] = []
        self.twice = list[str]()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._before = frozenset(builder.image_ids)

    def name(self, image_id: str) -> str:
        """Return the id of an image in the joined data set."""
        return self.prefix + self.reader.file_of(image_id)

    def image(self, image_id: str, size: tuple[int, int], **about: Any) -> tuple[int, int]:
        """Add an image, see `AnnotationsBuilder.image`."""
        if image_id in self._sizes:
            return self._sizes[image_id]
        self.image_ids.append(image_id)
        self._sizes[image_id] = size
        if (name := self.name(image_id)) in self._before:
            self.twice.append(name)
        else:
            self.builder.image(name, size, **{**about, "subset": self.subset})
        return size

    def add(self, image_id: str, class_id: str, runs: np.ndarray, **about: Any) -> bool:
        """Add a mask, see `AnnotationsBuilder.add`."""
        name = self.name(image_id)
        return name in self._before or self.builder.add(name, class_id, runs, **about)

    def add_crowd(self, image_id: str, category: int, runs: np.ndarray, **about: Any) -> None:
        """Add a crowd region, see `AnnotationsBuilder.add_crowd`."""
        if (name := self.name(image_id)) not in self._before:
            self.builder.add_crowd(name, category, runs, **about)


def _renamed(fault: DataFault, part: _Part) -> DataFault:
    known = fault.image_id in part._sizes
    return DataFault(
        fault.kind, part.name(fault.image_id) if known else fault.image_id, fault.place, fault.value, fault.action
    )
