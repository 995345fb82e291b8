"""Two annotation files of one data set, one to train on and one to validate with, read as one."""

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
    """A data set in parts, each with a reader of its own; images are called by their files below a common folder.

    Args:
        parts: subset, `val` or `train` -> its reader. An image that several parts have belongs to the first.

    Raises:
        UserError: a category has another name in another part.
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
                        f"{shorten(known, 40)!r} in the other. Both files need the same categories"
                    )
        self._places: dict[str, str] = {}

    def key(self) -> Mapping[str, str]:
        """The keys of the parts."""
        return {f"{subset}.{k}": v for subset, reader in self.parts.items() for k, v in reader.key().items()}

    def files(self) -> Sequence[Path]:
        """The annotation files of the parts."""
        return [file for reader in self.parts.values() for file in reader.files()]

    def categories(self) -> Mapping[int, str]:
        """The categories of the parts together."""
        return self.names

    def attribute_names(self) -> Mapping[int, str]:
        """The attributes of the parts together."""
        named = [attribute_names(reader) for reader in self.parts.values()]
        return {number: name for names in named for number, name in names.items()}

    def file_of(self, image_id: str) -> str:
        """Images are called by their files."""
        return image_id

    def place_of(self, image_id: str) -> str:
        """Where the image's part first names it."""
        return self._places.get(image_id, "")

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read the parts one after the other."""
        for subset, reader in self.parts.items():
            part = _Part(builder, reader, subset, prefix=os.path.relpath(reader.folder.absolute(), self.folder))
            own: list[DataFault] = []
            reader.scan(part, own)  # type: ignore[arg-type] # the methods that readers use
            self._places |= {part.name(image_id): reader.place_of(image_id) for image_id in part.image_ids}
            faults += [_renamed(fault, part) for fault in own]
            faults += [DataFault("in-two-parts", name, "", f"in {subset} too", "not used there") for name in part.twice]


class _Part:
    """A builder as a part's reader sees it: with the reader's own names of images."""

    def __init__(self, builder: AnnotationsBuilder, reader: AnnotationReader, subset: str, *, prefix: str) -> None:
        self.builder, self.reader, self.subset = builder, reader, subset
        self.prefix = "" if prefix == "." else f"{Path(prefix).as_posix()}/"
        self.image_ids: list[str] = []
        self.twice = list[str]()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._before = frozenset(builder.image_ids)

    def name(self, image_id: str) -> str:
        """What an image is called in the whole."""
        return self.prefix + self.reader.file_of(image_id)

    def image(self, image_id: str, size: tuple[int, int], **about: Any) -> tuple[int, int]:
        """As `AnnotationsBuilder.image`."""
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
        """As `AnnotationsBuilder.add`."""
        name = self.name(image_id)
        return name in self._before or self.builder.add(name, class_id, runs, **about)

    def add_crowd(self, image_id: str, category: int, runs: np.ndarray, **about: Any) -> None:
        """As `AnnotationsBuilder.add_crowd`."""
        if (name := self.name(image_id)) not in self._before:
            self.builder.add_crowd(name, category, runs, **about)


def _renamed(fault: DataFault, part: _Part) -> DataFault:
    known = fault.image_id in part._sizes
    return DataFault(
        fault.kind, part.name(fault.image_id) if known else fault.image_id, fault.place, fault.value, fault.action
    )
