"""Kaggle's folder (train.csv, train/, label_descriptions.json) -> records, with every fault told."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fashion_hydra import rle
from fashion_hydra.errors import UserError
from fashion_hydra.tables import full_class_id, open_csv

CSV_NAMES = ("train.csv", "train.csv.zip", "train.csv.gz")
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


@dataclass(frozen=True)
class Fault:
    """Something wrong with the data: what, where, and what is done about it."""

    kind: str
    image_id: str
    row: int
    value: str
    action: str


@dataclass(frozen=True)
class Records:
    """Images and their masks as flat arrays: shared by workers without a copy.

    Args:
        folder: where the image files are.
        image_ids: (I,) as in the CSV.
        files: (I,) file names below `folder`.
        sizes: int32 (I, 2), height and width of the frame that the masks are drawn in.
        turned: bool (I,), whether EXIF's orientation has to be applied to arrive at that frame.
        first: int64 (I + 1,), masks of image i are `first[i]:first[i + 1]`.
        class_ids: (M,) ClassId strings with attributes, such as `6_28_77`.
        categories: int16 (M,).
        boxes: int32 (M, 4).
        run_first: int64 (M + 1,), runs of mask m are `run_first[m]:run_first[m + 1]`.
        runs: int32 (R, 2), 0-indexed start and length, column-major.
        names: category id -> name.
    """

    folder: Path
    image_ids: np.ndarray
    files: np.ndarray
    sizes: np.ndarray
    turned: np.ndarray
    first: np.ndarray
    class_ids: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    run_first: np.ndarray
    runs: np.ndarray
    names: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.image_ids)

    def instances(self, image: int) -> range:
        """Indices of the masks of one image."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def runs_of(self, mask: int) -> np.ndarray:
        """The runs of one mask: int64 (K, 2)."""
        return self.runs[self.run_first[mask] : self.run_first[mask + 1]].astype(np.int64)

    def category_table(self) -> np.ndarray:
        """Which categories each image has: uint8 (I, C), columns in the order of `names`."""
        table = np.zeros((len(self), len(self.names)), dtype=np.uint8)
        column = {category: i for i, category in enumerate(self.names)}
        owner = np.repeat(np.arange(len(self)), np.diff(self.first))
        table[owner, [column[int(c)] for c in self.categories]] = 1
        return table


@dataclass
class _Image:
    """An image while the CSV is read: its rows may stand anywhere."""

    height: int
    width: int
    row: int
    class_ids: list[str] = field(default_factory=list)
    runs: list[np.ndarray] = field(default_factory=list)


def find_csv(root: Path, name: str | None = None) -> Path:
    """The annotation file of a folder.

    Raises:
        UserError: no such folder or file; what is there instead is listed.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder. Give a folder with train.csv and train/")
    wanted = (name,) if name else CSV_NAMES
    for candidate in wanted:
        if (root / candidate).is_file():
            return root / candidate
    found = ", ".join(sorted(p.name + "/" * p.is_dir() for p in root.iterdir())[:8]) or "nothing"
    raise UserError(
        f"data.root={root}: no {wanted[0]} (found: {found}). Put Kaggle's train.csv there or name it with data.csv=..."
    )


def read_categories(root: Path) -> dict[int, str]:
    """Category id -> name, from label_descriptions.json.

    Raises:
        UserError: the file is missing or is not what Kaggle gives.
    """
    path = root / "label_descriptions.json"
    if not path.is_file():
        raise UserError(f"data.root={root}: no label_descriptions.json. Put Kaggle's there: it names the categories")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return {int(c["id"]): str(c["name"]) for c in described["categories"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a list of categories with id and name ({error!r})") from error


def read_records(root: Path, *, csv_name: str | None = None) -> tuple[Records, list[Fault]]:
    """Read a folder in Kaggle's layout, either schema.

    Args:
        root: the folder.
        csv_name: annotation file below it, when it is not train.csv.

    Returns:
        What can be used, and the faults of what was left out.

    Raises:
        UserError: the folder, the CSV's header or the label descriptions are unusable.
    """
    path = find_csv(root, csv_name)
    names = read_categories(root)
    faults: list[Fault] = []
    images = _read_rows(path, names, faults)
    folder = root / "train"
    return _assemble(folder, images, names, faults), faults


def _read_rows(path: Path, names: Mapping[int, str], faults: list[Fault]) -> dict[str, _Image]:
    images: dict[str, _Image] = {}
    with open_csv(path) as stream:
        reader = csv.DictReader(stream)
        header = set(reader.fieldnames or ())
        missing = {"ImageId", "EncodedPixels", "Height", "Width", "ClassId"} - header
        if missing:
            raise UserError(
                f"{path}: no column {', '.join(sorted(missing))} (header: {','.join(reader.fieldnames or ())})"
            )
        for row, line in enumerate(tqdm(reader, desc=f"reading {path.name}", unit=" masks", disable=None), start=2):
            _add_row(images, line, row, names, faults)
    if not images:
        raise UserError(f"{path}: no rows with a usable mask")
    return images


def _add_row(
    images: dict[str, _Image],
    line: Mapping[str, str],
    row: int,
    names: Mapping[int, str],
    faults: list[Fault],
) -> None:
    image_id = line["ImageId"]

    def fault(kind: str, value: str) -> None:
        faults.append(Fault(kind, image_id, row, value[:60], "row dropped"))

    try:
        height, width = int(line["Height"]), int(line["Width"])
    except (TypeError, ValueError):
        return fault("bad-size", f"{line['Height']}x{line['Width']}")
    image = images.setdefault(image_id, _Image(height, width, row))
    if (height, width) != (image.height, image.width):
        return fault("sizes-differ-between-rows", f"{height}x{width} after {image.height}x{image.width}")
    if not (line["EncodedPixels"] or "").strip():
        return None  # an image without this mask: as in a submission
    try:
        class_id = full_class_id(line["ClassId"], line.get("AttributesIds"))
    except UserError:
        return fault("unknown-class", f"{line['ClassId']} {line.get('AttributesIds') or ''}".strip())
    if int(class_id.partition("_")[0]) not in names:
        return fault("unknown-class", class_id)
    try:
        runs = rle.normalise_runs(rle.kaggle_to_runs(line["EncodedPixels"]))
    except UserError as error:
        return fault("bad-runs", str(error))
    if runs[-1].sum() > height * width:
        return fault("beyond-image", f"pixel {runs[-1].sum()} of {height * width}")
    image.class_ids.append(class_id)
    image.runs.append(runs.astype(np.int32))
    return None


def _assemble(folder: Path, images: Mapping[str, _Image], names: Mapping[int, str], faults: list[Fault]) -> Records:
    kept: list[tuple[str, str, _Image, bool]] = []
    for image_id, image in tqdm(images.items(), desc="checking images", unit=" images", disable=None):
        file = _file_of(folder, image_id)
        kind, value, turned = _check_image(folder, file, image)
        if kind:
            faults.append(Fault(kind, image_id, image.row, value, "image dropped"))
        else:
            kept.append((image_id, file, image, turned))
    if not kept:
        first = faults[0]
        raise UserError(
            f"{folder}: none of {len(images)} images is usable; first: {first.kind} {first.image_id} {first.value}"
        )
    runs = [r for _, _, image, _ in kept for r in image.runs]
    heights = [image.height for _, _, image, _ in kept for _ in image.runs]
    class_ids = [c for _, _, image, _ in kept for c in image.class_ids]
    boxes = [rle.runs_to_box(r, height=h) for r, h in zip(runs, heights, strict=True)]
    return Records(
        folder=folder,
        image_ids=np.array([k[0] for k in kept]),
        files=np.array([k[1] for k in kept]),
        sizes=np.array([(k[2].height, k[2].width) for k in kept], dtype=np.int32),
        turned=np.array([k[3] for k in kept]),
        first=np.cumsum([0, *(len(k[2].runs) for k in kept)], dtype=np.int64),
        class_ids=np.array(class_ids, dtype=str),
        categories=np.array([int(c.partition("_")[0]) for c in class_ids], dtype=np.int16),
        boxes=np.array(boxes, dtype=np.int32).reshape(-1, 4),
        run_first=np.cumsum([0, *map(len, runs)], dtype=np.int64),
        runs=np.concatenate(runs) if runs else np.zeros((0, 2), np.int32),
        names=names,
    )


def _file_of(folder: Path, image_id: str) -> str:
    """The file of an image: the 2020 schema leaves `.jpg` out."""
    return image_id if Path(image_id).suffix or (folder / image_id).is_file() else f"{image_id}.jpg"


def _check_image(folder: Path, file: str, image: _Image) -> tuple[str, str, bool]:
    """Kind and value of the fault (empty when fine), and whether EXIF's quarter turn is part of the masks' frame."""
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        return "outside-folder", file, False
    if not path.is_file():
        return "missing-image", file, False
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # Pillow raises whatever a broken header leads to
        return "unreadable-image", repr(error)[:60], False
    if (height, width) == (image.height, image.width):
        return "", "", False
    if orientation in _QUARTER_TURNS and (width, height) == (image.height, image.width):
        return "", "", True
    return "size-mismatch", f"CSV {image.height}x{image.width}, file {height}x{width}", False
