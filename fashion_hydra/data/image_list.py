"""Which images are to be predicted: a test set, a fold of a data set, or any folder of pictures."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.image_files import IMAGE_SUFFIXES, QUARTER_TURNS, examine, has_file, read_pixels
from fashion_hydra.data.kaggle import file_of
from fashion_hydra.formats.csv_files import open_csv
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import is_name
from fashion_hydra.utils.text import shorten

BY_EXIF = 0
"""Orientation of a file that is turned as its EXIF says, as viewers show it."""


@dataclass(frozen=True)
class ImageList:
    """Images to predict.

    Args:
        folder: where the files are.
        image_ids: as the answer names them.
        files: below the folder, one an image.
        orientation: EXIF's code of the turn to apply, `BY_EXIF` where the file itself says; one an image.
        coco_ids: of each image in COCO's files, as JSON text; empty to number them.
    """

    folder: Path
    image_ids: tuple[str, ...]
    files: tuple[str, ...]
    orientation: tuple[int, ...]
    coco_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: Sequence[int]) -> "ImageList":
        def chosen(values: Sequence) -> tuple:
            return tuple(values[i] for i in index)

        ids = chosen(self.coco_ids) if self.coco_ids else ()
        return ImageList(self.folder, chosen(self.image_ids), chosen(self.files), chosen(self.orientation), ids)

    def read(self, index: int) -> np.ndarray:
        """Decode an image: uint8 (H, W, 3), RGB.

        Raises:
            UserError: the file is missing, cut short, or none that can be decoded.
        """
        facts = examine(self.folder, self.files[index], decode=False)
        if facts.fault:
            raise UserError(f"{facts.fault}: {facts.value}")
        orientation = self.orientation[index]
        orientation = facts.orientation if orientation == BY_EXIF else orientation
        stored = (facts.height, facts.width)
        size = stored[::-1] if orientation in QUARTER_TURNS else stored
        return read_pixels(self.folder / self.files[index], size=size, orientation=orientation)

    def fingerprint(self) -> list[tuple[str, int]]:
        """Each image with its file's size in bytes (-1 without a file): what tells this set of images from another."""
        return [
            (image_id, (self.folder / file).stat().st_size if has_file(self.folder, file) else -1)
            for image_id, file in zip(self.image_ids, self.files, strict=True)
        ]


def list_folder(root: Path) -> ImageList:
    """The images that a folder asks to be predicted.

    In a folder with sample_submission.csv those that it names, in its order, from `test/`; with a folder `test`
    alone, all in it; else all images in the folder itself.

    Raises:
        UserError: there are none.
    """
    if not root.is_dir():
        what = "is a file" if root.is_file() else "no such folder"
        raise UserError(f"data.root={root}: {what}. Give a folder of pictures, or one with test/")
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
        ids = files = tuple(sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES))
    if wrong := next((name for name in ids if not is_name(name)), None):
        raise UserError(
            f"{sample if sample.is_file() else folder}: {shorten(wrong, 80)!r} cannot name an image. Rename it"
        )
    if not ids:
        raise UserError(f"{folder}: no images. Give data.root=FOLDER with pictures in it, or in its folder test/")
    return ImageList(folder, ids, files, (BY_EXIF,) * len(ids))


def list_annotated(annotations: Annotations, chosen: np.ndarray) -> ImageList:
    """Images of a data set: `chosen` are their indices."""
    names, files, turns, ids = (
        tuple(values[chosen].tolist())
        for values in (annotations.image_ids, annotations.files, annotations.orientation, annotations.coco_ids)
    )
    return ImageList(annotations.folder, names, files, turns, ids)
