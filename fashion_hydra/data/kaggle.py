"""Kaggle's folder: train.csv in either schema, train/, label_descriptions.json."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.annotations import Annotations, AnnotationsBuilder, DataFault, refuse_too_many
from fashion_hydra.data.image_files import IMAGE_SUFFIXES, has_file, is_inside
from fashion_hydra.formats.class_id import full_class_id
from fashion_hydra.formats.csv_files import open_csv, separator_hint, unpacked_size
from fashion_hydra.structures import rle
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import read_json
from fashion_hydra.utils.limits import FRAME, MOST_MASKS, is_frame, is_name

CSV_NAMES = ("train.csv", "train.csv.zip", "train.csv.gz")
LARGEST_ID = 10**6
"""Of a category or an attribute, not reached."""
_COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")


def read_annotations(
    root: Path, *, csv_name: str | None = None, decode: bool = False
) -> tuple[Annotations, list[DataFault]]:
    """Read a folder in Kaggle's layout, see `fashion_hydra.data.annotation_cache.load_annotations`.

    Args:
        root: the folder.
        csv_name: annotation file below it, when it is not train.csv.
        decode: read every image to its end.
    """
    return load_annotations(KaggleReader(root, csv_name), decode=decode)


def find_csv(root: Path, name: str | None = None) -> Path:
    """The annotation file of a folder.

    Raises:
        UserError: no such folder or file; what is there instead is listed.
    """
    if not root.is_dir():
        what = "is a file" if root.is_file() else "no such folder"
        raise UserError(f"data.root={root}: {what}. Give a folder with train.csv and train/")
    wanted = (name,) if name else CSV_NAMES
    for candidate in wanted:
        if (root / candidate).is_file():
            return root / candidate
    found = ", ".join(sorted(p.name + "/" * p.is_dir() for p in root.iterdir())[:8]) or "nothing"
    raise UserError(
        f"data.root={root}: no {wanted[0]} (found: {found}). Put Kaggle's train.csv there, "
        "or name it with data.annotations=NAME (--csv NAME for fashion-hydra)"
    )


def read_labels(root: Path) -> tuple[dict[int, str], frozenset[int] | None]:
    """Category id -> name, and the attributes' ids (None where none are described), from label_descriptions.json.

    Raises:
        UserError: the file is missing or is not what Kaggle gives.
    """
    path = root / "label_descriptions.json"
    if not path.is_file():
        raise UserError(f"data.root={root}: no label_descriptions.json. Put Kaggle's there: it names the categories")
    try:
        described = read_json(path)
        attributes = frozenset(int(a["id"]) for a in described.get("attributes", ()))
        names = {int(c["id"]): str(c["name"]) for c in described["categories"]}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a list of categories with id and name ({error!r}). Put Kaggle's there") from error
    if wrong := [f"{i} {name[:40]!r}" for i, name in names.items() if not 0 <= i < LARGEST_ID or not is_name(name)]:
        raise UserError(f"{path}: category {wrong[0]}: ids from 0 to {LARGEST_ID - 1} and names of one line expected")
    return names, attributes or None


def file_of(folder: Path, image_id: str) -> str:
    """The file of an image below a folder: with the suffix that is there, where the id has none."""
    if not is_inside(image_id) or has_file(folder, image_id):
        return image_id
    for suffix in IMAGE_SUFFIXES:
        for written in (suffix, suffix.upper()):
            if has_file(folder, image_id + written):
                return image_id + written
    return image_id if Path(image_id).suffix.lower() in IMAGE_SUFFIXES else f"{image_id}.jpg"


class KaggleReader:
    """A folder in Kaggle's layout, either schema.

    Args:
        root: the folder.
        annotations: the CSV below it, when it is not train.csv.

    Raises:
        UserError: the folder, the CSV or the label descriptions are missing or unusable.
    """

    def __init__(self, root: str | Path, annotations: str | None = None) -> None:
        self.root = Path(root)
        self.path = find_csv(self.root, annotations)
        self.names, self.attributes = read_labels(self.root)
        self.folder = self.root / "train"
        self.first_rows: dict[str, int] = {}

    def key(self) -> Mapping[str, str]:
        """The folder and its annotation file."""
        return {"kaggle": str(self.path.absolute())}

    def files(self) -> Sequence[Path]:
        """The CSV and the label descriptions."""
        return (self.path, self.root / "label_descriptions.json")

    def categories(self) -> Mapping[int, str]:
        """From label_descriptions.json."""
        return self.names

    def row_of(self, image_id: str) -> int:
        """The first line of the CSV that names the image."""
        return self.first_rows[image_id]

    def file_of(self, image_id: str) -> str:
        """The image's file: the 2020 schema leaves the suffix out."""
        return file_of(self.folder, image_id)

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read the CSV row by row.

        Raises:
            UserError: a column is missing, there are no rows, or the file is no CSV.
        """
        seen: set[int] = set()
        for line, row in self._lines():
            _Row(self, line, row, builder, faults).read(seen)
            refuse_too_many(faults, self.path)
        if not builder.image_ids:
            raise UserError(f"{self.path}: no row that names an image and its size. Put Kaggle's train.csv there")

    def _lines(self) -> Iterator[tuple[dict[str, str], int]]:
        """The rows as column -> value, with their line numbers; missing values are empty."""
        with (
            open_csv(self.path) as stream,
            tqdm(total=unpacked_size(self.path), desc=f"reading {self.path.name}", unit="B", unit_scale=True,
                 disable=None) as bar,
        ):  # fmt: skip
            reader = csv.reader(stream)
            header = next(reader, [])
            if missing := sorted(set(_COLUMNS) - set(header)):
                shown = ",".join(header)[:200]
                advice = separator_hint(shown) or f". Rename the columns as Kaggle's train.csv: {','.join(_COLUMNS)}"
                raise UserError(f"{self.path}: no column {', '.join(missing)} (header: {shown or 'empty'}){advice}")
            for values in reader:
                if values:
                    bar.update(sum(map(len, values)) + len(values))
                    yield dict(zip_longest(header, values[: len(header)], fillvalue="")), reader.line_num


class _Row:
    """One row of the CSV on its way into the builder."""

    def __init__(
        self,
        source: KaggleReader,
        line: Mapping[str, str],
        row: int,
        builder: AnnotationsBuilder,
        faults: list[DataFault],
    ) -> None:
        self.source, self.line, self.row, self.builder, self.faults = source, line, row, builder, faults
        self.image_id = line["ImageId"].strip()

    def fault(self, kind: str, value: str, action: str = "row dropped") -> None:
        shown = value if len(value) <= 120 else f"{value[:117]}..."
        image_id = self.image_id if is_name(self.image_id) else ""
        self.faults.append(DataFault(kind, image_id, self.row, shown, action))

    def read(self, seen: set[int]) -> None:
        """Check the row and add its mask; `seen` holds the hashes of the rows before."""
        if (size := self._size()) is None:
            return
        content = hash(tuple(self.line.values()))
        if content in seen:
            self.fault("duplicate-row", f"ClassId {self.line['ClassId']}, the same mask as before")
            return
        seen.add(content)
        if not self.line["EncodedPixels"].strip():
            if self.line["ClassId"].strip():  # without a class it says that nothing is on the photo
                self.fault("empty-mask", f"ClassId {self.line['ClassId']}")
            return
        class_id, runs = self._class_id(), self._runs(size)
        if class_id is not None and runs is not None and not self.builder.add(self.image_id, class_id, runs):
            self.fault("too-many-masks", f"more than {MOST_MASKS} of one image")

    def _size(self) -> tuple[int, int] | None:
        """The image's size, once the image is known to the builder."""
        line = self.line
        try:
            size = int(line["Height"]), int(line["Width"])
        except ValueError:
            size = (0, 0)
        if not self.image_id:
            self.fault("bad-row", "no ImageId")
            return None
        if not is_name(self.image_id):
            self.fault("bad-row", f"ImageId {self.image_id[:40]!r}")
            return None
        if not is_frame(*size):
            self.fault("bad-size", f"{line['Height'][:20]}x{line['Width'][:20]} (height x width), {FRAME}")
            return None
        self.source.first_rows.setdefault(self.image_id, self.row)
        first = self.builder.image(self.image_id, size)
        if first != size:
            self.fault("sizes-differ-between-rows", f"{size[0]}x{size[1]} after {first[0]}x{first[1]}")
            return None
        return size

    def _class_id(self) -> str | None:
        written = f"{self.line['ClassId']} {self.line.get('AttributesIds', '')}".strip()
        try:
            category, *attributes = full_class_id(self.line["ClassId"], self.line.get("AttributesIds")).split("_")
        except UserError:
            self.fault("unknown-class", written)
            return None
        if int(category) not in self.source.names:
            self.fault("unknown-class", written)
            return None
        known = self.source.attributes
        if known is not None and (strange := [a for a in attributes if int(a) not in known]):
            self.fault("unknown-attribute", f"{','.join(strange)} in {written}", "attribute left out")
            attributes = [a for a in attributes if a not in strange]
        return "_".join([category, *attributes])

    def _runs(self, size: tuple[int, int]) -> np.ndarray | None:
        try:
            raw = rle.kaggle_to_runs(self.line["EncodedPixels"])
        except rle.BadRuns as error:
            self.fault(error.kind, str(error))
            return None
        furthest = int((raw[:, 0] + raw[:, 1]).max())
        if furthest > size[0] * size[1]:
            self.fault("runs-beyond-image", f"pixel {furthest} of {size[0] * size[1]}")
            return None
        runs = rle.normalise_runs(raw)
        if runs is not raw:
            self._tell_of_order(raw, runs)
        return runs

    def _tell_of_order(self, raw: np.ndarray, runs: np.ndarray) -> None:
        """Faults that normalising mended; that runs touch is none."""
        if len(backwards := np.flatnonzero(raw[1:, 0] < raw[:-1, 0])):
            i = int(backwards[0])
            self.fault("unsorted-runs", f"start {raw[i + 1, 0] + 1} after {raw[i, 0] + 1}", "runs sorted")
        if surplus := int(raw[:, 1].sum() - runs[:, 1].sum()):
            self.fault("overlapping-runs", f"{surplus} pixels told twice", "runs merged")
