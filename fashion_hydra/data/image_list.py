"""Lists of images to predict: a test set, a fold of a data set, or any folder of pictures."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.image_files import (
    HEIF_PLUGIN,
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    QUARTER_TURNS,
    examine,
    has_file,
    read_pixels,
)
from fashion_hydra.data.kaggle import file_of
from fashion_hydra.formats.csv_files import open_csv
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import is_name
from fashion_hydra.utils.text import shorten

BY_EXIF = 0
"""Stands for the orientation in the file's own EXIF data, as viewers show it."""


@dataclass(frozen=True)
class ImageList:
    """Images to predict.

    Args:
        folder: folder of the files.
        image_ids: image ids to write in the predictions.
        files: path of each image below the folder.
        orientation: EXIF orientation code to apply to each image; `BY_EXIF` for the code in the file.
        coco_ids: id of each image in the COCO file, as JSON text; empty to number the images.
        left_out: description of what the folder has beyond the listed images; empty if there is nothing.
    """

    folder: Path
    image_ids: tuple[str, ...]
    files: tuple[str, ...]
    orientation: tuple[int, ...]
    coco_ids: tuple[str, ...] = ()
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: Sequence[int]) -> "ImageList":
        def chosen(values: Sequence) -> tuple:
            return tuple(values[i] for i in index)

        ids = chosen(self.coco_ids) if self.coco_ids else ()
        return ImageList(
            self.folder, chosen(self.image_ids), chosen(self.files), chosen(self.orientation), ids, self.left_out
        )

    def read(self, index: int) -> np.ndarray:
        """Decode an image: uint8 (H, W, 3), RGB.

        Raises:
            UserError: the file is missing, cut short, or cannot be decoded.
        """
        facts = examine(self.folder, self.files[index], decode=False)
        if facts.fault:
            raise UserError(f"{facts.fault}: {facts.value}")
        orientation = self.orientation[index]
        orientation = facts.orientation if orientation == BY_EXIF else orientation
        stored = (facts.height, facts.width)
        size = stored[::-1] if orientation in QUARTER_TURNS else stored
        return read_pixels(self.folder / self.files[index], size=size, orientation=orientation)

    def file_sizes(self) -> dict[str, int]:
        """Return the file size of each image id in bytes; -1 if the file is missing."""
        return {
            image_id: (self.folder / file).stat().st_size if has_file(self.folder, file) else -1
            for image_id, file in zip(self.image_ids, self.files, strict=True)
        }


def one_picture(path: Path) -> ImageList:
    """List one picture, whose image id is its file name.

    Raises:
        UserError: the file does not exist or is not a picture.
    """
    if not path.is_file():
        what = "a folder; give the files in it" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        _refuse_without_plugin([path] if _needs_plugin(path) else [], path)
        raise UserError(f"{path}: not a picture by its name ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return ImageList(path.parent, (path.name,), (path.name,), (BY_EXIF,))


def list_folder(root: Path, *, recursive: bool = False) -> ImageList:
    """List the images to predict in a folder.

    If the folder has `test/` and sample_submission.csv, lists the images of `test/` named in that file, in its order;
    with `test/` only, all images in it; otherwise all images in the folder itself. Hidden files are only counted.

    Args:
        root: a folder, or one picture.
        recursive: also list pictures in subfolders; their ids are paths below `root` or `test`.

    Raises:
        UserError: there are no images.
    """
    if root.is_file() and (root.suffix.lower() in IMAGE_SUFFIXES or _needs_plugin(root)):
        return one_picture(root)
    if not root.is_dir():
        what = "is a file, but not a picture" if root.is_file() else "no such folder"
        raise UserError(f"data.root={root}: {what}. Give a picture, a folder of pictures, or one with test/")
    left_out = ""
    folder = root / "test" if (root / "test").is_dir() else root
    sample = root / "sample_submission.csv"
    if folder != root and sample.is_file():
        with open_csv(sample) as stream:
            reader = csv.DictReader(stream)
            if "ImageId" not in (reader.fieldnames or ()):
                raise UserError(f"{sample}: no column ImageId (header: {','.join(reader.fieldnames or ())})")
            ids = tuple(dict.fromkeys(row["ImageId"] for row in reader if row["ImageId"]))
        files = tuple(file_of(folder, image_id) for image_id in ids)
    else:
        found = _look_through(folder, recursive=recursive)
        ids = files = tuple(sorted(found.pictures))
        left_out = found.describe_rest(recursive=recursive)
        if not ids:
            _refuse_without_plugin(found.unreadable, folder)
            more = f". Left out: {left_out}" if left_out else ""
            raise UserError(
                f"{folder}: no images. Give data.root=FOLDER with pictures in it, or in its folder test/{more}"
            )
    if wrong := next((name for name in ids if not is_name(name)), None):
        raise UserError(
            f"{sample if sample.is_file() else folder}: {shorten(wrong, 80)!r} is not a valid image name. Rename it"
        )
    if not ids:
        raise UserError(f"{sample}: names no images. Remove the file to predict all pictures in {folder}")
    return ImageList(folder, ids, files, (BY_EXIF,) * len(ids), left_out=left_out)


@dataclass(frozen=True)
class _FolderContent:
    """The content of a folder.

    Args:
        pictures: paths of the pictures below the folder.
        below: number of pictures in subfolders, if subfolders are not searched.
        hidden: number of files and folders whose name starts with a dot.
        unreadable: pictures that need a plugin that is not installed.
        others: number of other files.
        folders: names of folders with the suffix of a picture.
    """

    pictures: list[str]
    below: int
    hidden: int
    unreadable: list[Path]
    others: int
    folders: list[str]

    def describe_rest(self, *, recursive: bool) -> str:
        """Describe what is left out."""
        suffixes = "/".join(HEIF_SUFFIXES)
        parts = [
            (self.below, "in subfolders (data.recursive=true includes them)"),
            (len(self.unreadable), f"{suffixes} (pip install {HEIF_PLUGIN} to read them)"),
            (self.hidden, "hidden"),
            (len(self.folders), "folders named like pictures" if not recursive else ""),
            (self.others, "other files"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count and what)


def _look_through(folder: Path, *, recursive: bool) -> _FolderContent:
    content = _FolderContent([], 0, 0, [], 0, [])
    below = hidden = others = 0
    for place, folders, files in os.walk(folder):
        at_top = Path(place) == folder
        hidden += sum(name.startswith(".") for name in [*folders, *files]) if at_top or recursive else 0
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        content.folders.extend(n for n in folders if at_top and Path(n).suffix.lower() in IMAGE_SUFFIXES)
        for path in (Path(place) / name for name in files if not name.startswith(".")):
            is_picture = path.suffix.lower() in IMAGE_SUFFIXES
            if not (at_top or recursive):
                below += is_picture
            elif is_picture:
                content.pictures.append(path.relative_to(folder).as_posix())
            elif _needs_plugin(path):
                content.unreadable.append(path)
            else:
                others += 1
    return replace(content, below=below, hidden=hidden, others=others)


def _needs_plugin(path: Path) -> bool:
    return path.suffix.lower() in HEIF_SUFFIXES and HEIF_SUFFIXES[0] not in IMAGE_SUFFIXES


def _refuse_without_plugin(paths: Sequence[Path], where: Path) -> None:
    """Raise `UserError` if there are paths and all of them need Pillow's HEIF plugin, which is not installed."""
    if paths and all(map(_needs_plugin, paths)):
        raise UserError(
            f"{where}: {len(paths)} {'/'.join(HEIF_SUFFIXES)} pictures, which need Pillow's plugin: "
            f"pip install {HEIF_PLUGIN}, or save them as JPEG"
        )


def list_annotated(annotations: Annotations, chosen: np.ndarray) -> ImageList:
    """List images of a data set; `chosen` are their indices."""
    names, files, turns, ids = (
        tuple(values[chosen].tolist())
        for values in (annotations.image_ids, annotations.files, annotations.orientation, annotations.coco_ids)
    )
    return ImageList(annotations.folder, names, files, turns, ids)
