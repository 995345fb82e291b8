"""Read and check annotations once, and cache the records, so that later runs map them from disk."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from fashion_hydra.data.annotations import (
    Annotations,
    AnnotationsBuilder,
    DataFault,
    open_annotations,
    read_faults,
    write_faults,
)
from fashion_hydra.data.image_files import IMAGE_SUFFIXES, QUARTER_TURNS, ImageFacts, ImageMemory, file_stamp
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import file_lock


class UnusableData(UserError):
    """No image of a source can be used; `faults` has the reason for each image."""

    def __init__(self, message: str, faults: Sequence[DataFault]) -> None:
        super().__init__(message)
        self.faults = faults


_VERSION = 5  # version of the cached records; other versions are read again


class AnnotationReader(Protocol):
    """Reader of annotations in some format."""

    folder: Path
    """Folder of the image files."""

    def key(self) -> Mapping[str, str]:
        """Return the paths and options that identify this source."""
        ...

    def files(self) -> Sequence[Path]:
        """Return the files with the annotations; a change to one of them invalidates the cached records."""
        ...

    def categories(self) -> Mapping[int, str]:
        """Return category id -> name."""
        ...

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read everything into the builder, and add what is left out to the faults."""
        ...

    def file_of(self, image_id: str) -> str:
        """Return the path of the image's file below the folder."""
        ...

    def place_of(self, image_id: str) -> str:
        """Return where the annotations first name the image, as in `DataFault`; empty if its file name is enough."""
        ...


def attribute_names(reader: AnnotationReader) -> Mapping[int, str]:
    """Return attribute id -> name; empty for a reader without a method `attribute_names`."""
    named = getattr(reader, "attribute_names", None)
    return {} if named is None else {int(number): str(name) for number, name in named().items()}


def cache_folder() -> Path:
    """Return the folder for records, image checks and downloads: FASHION_HYDRA_CACHE, or the user's cache folder."""
    chosen = os.environ.get("FASHION_HYDRA_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fashion_hydra"


def load_annotations(reader: AnnotationReader, *, decode: bool = False) -> tuple[Annotations, list[DataFault]]:
    """Return the records of a source, from the cache if nothing has changed since.

    Args:
        reader: reader of the source.
        decode: decode every image; if False, read only the header and look for the end mark.

    Returns:
        The usable images with their masks, and the faults.

    Raises:
        UnusableData: no image can be used.
        UserError: the source is missing or not in the reader's format.
    """
    cache = _usable(cache_folder())
    key = json.dumps({name: value for name, value in sorted(reader.key().items())})
    target = cache / f"records-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    listing = _list_images(reader.folder)
    manifest = {
        "version": _VERSION,
        "key": key,
        "files": {str(path): file_stamp(path) for path in reader.files()},
        "images": hashlib.sha256(json.dumps(sorted(listing.items())).encode()).hexdigest(),
    }
    manifest = json.loads(json.dumps(manifest))
    with file_lock(target):
        if _is_current(target, manifest, decode=decode):
            with contextlib.suppress(OSError, ValueError, KeyError):  # damaged: build them again
                return open_annotations(target), read_faults(target / "faults.csv")
        _build(reader, target, {**manifest, "decoded": decode}, listing, decode=decode)
        return open_annotations(target), read_faults(target / "faults.csv")


def _usable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:  # in a read-only home nothing stays cached: every run reads the annotations
        return Path(tempfile.mkdtemp(prefix="fashion_hydra-"))


def _list_images(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file below a folder with its size and modification time."""
    found: dict[str, tuple[int, int]] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent) / name
            if not name.startswith(".") and (stamp := file_stamp(path)):
                found[str(path.relative_to(folder))] = stamp
    return found


def _is_current(target: Path, manifest: Mapping[str, object], *, decode: bool) -> bool:
    try:
        kept = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    decoded = kept.pop("decoded", False)
    return kept == manifest and (decoded or not decode)


def _build(
    reader: AnnotationReader,
    target: Path,
    manifest: Mapping[str, object],
    listing: Mapping[str, object],
    *,
    decode: bool,
) -> None:
    """Read and check the source, then move the finished folder to its place in one step."""
    for left_over in target.parent.glob(f"{target.name}.*-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    faults: list[DataFault] = []
    builder = AnnotationsBuilder(reader.folder, reader.categories())
    reader.scan(builder, faults)
    files = [reader.file_of(image_id) for image_id in builder.image_ids]
    memory_name = hashlib.sha256(str(reader.folder.absolute()).encode()).hexdigest()[:20]
    memory = ImageMemory(target.parent / f"images{_VERSION}-{memory_name}.csv", reader.folder)
    facts = list(memory.examine_all(files, decode=decode))
    keep, orientation = _judge(reader, builder, facts, faults)
    used = set(files)
    unused = sorted(f for f in listing if f not in used and Path(f).suffix.lower() in IMAGE_SUFFIXES)
    faults[:] = [_with_hint(fault, {file.lower(): file for file in unused}) for fault in faults]
    faults += [DataFault("image-without-rows", file, "", "not in the annotations", "image not used") for file in unused]
    if not keep.any():
        first = next((fault for fault in faults if fault.action == "image dropped"), None)
        shown = f"; first: {first.kind} {first.value}" if first else ""
        advice = "Put the images there; " if first is None or first.kind == "missing-image" else ""
        raise UnusableData(
            f"{reader.folder}: none of the {len(files)} images in the annotations is usable{shown}. {advice}"
            "`fashion-hydra check` lists every fault",
            faults,
        )
    made = target.with_name(f"{target.name}.new-{os.getpid()}")
    made.mkdir()
    builder.write(made, keep=keep, files=files, orientation=orientation)
    write_faults(made / "faults.csv", faults)
    (made / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    if target.exists():
        target.rename(target.with_name(f"{target.name}.old-{os.getpid()}"))
    made.rename(target)
    shutil.rmtree(target.with_name(f"{target.name}.old-{os.getpid()}"), ignore_errors=True)


def _with_hint(fault: DataFault, unused: Mapping[str, str]) -> DataFault:
    """Add to a missing image's fault the unused file (lower case -> name) that differs only in case, if any."""
    other = unused.get(fault.value.lower()) if fault.kind == "missing-image" else None
    return fault if other is None else replace(fault, value=f"{fault.value} ({other} exists, but differs in case)")


def _judge(
    reader: AnnotationReader, builder: AnnotationsBuilder, facts: Sequence[ImageFacts], faults: list[DataFault]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images are used, and the orientation code from each file to the frame of its masks.

    Width and height decide whether the masks were drawn on the photo as stored or with its EXIF orientation applied.
    If both have the same size, the majority of the folder's other photos decides; without any, EXIF applies, as in
    viewers.
    """
    keep, orientation = np.ones(len(facts), dtype=bool), np.ones(len(facts), dtype=np.uint8)
    undecided, votes = [], Counter[bool]()
    for i, (known, size, image_id) in enumerate(zip(facts, builder.sizes, builder.image_ids, strict=True)):
        stored, turned = (known.height, known.width), (known.width, known.height)
        quarter = known.orientation in QUARTER_TURNS
        kind, value = known.fault, known.value
        if not kind and size not in ((stored, turned) if quarter else (stored,)):
            kind = "size-mismatch"
            value = f"annotations say {size[0]}x{size[1]}, file is {stored[0]}x{stored[1]} (height x width)"
            value += ": swapped?" if size == turned else ""
        if kind:
            keep[i] = False
            faults.append(DataFault(kind, image_id, reader.place_of(image_id), value, "image dropped"))
        elif known.orientation != 1 and (not quarter or stored == turned):
            undecided.append(i)
        elif quarter:
            votes[size == turned] += 1
            orientation[i] = known.orientation if size == turned else 1
    if votes[True] >= votes[False]:
        orientation[undecided] = [facts[i].orientation for i in undecided]
    return keep, orientation
