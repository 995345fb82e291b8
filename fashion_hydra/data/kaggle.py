"""Read Kaggle's folder: train.csv in either schema, train/, label_descriptions.json."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.annotations import Annotations, AnnotationsBuilder, DataFault, refuse_too_many
from fashion_hydra.data.image_files import IMAGE_SUFFIXES, has_file, is_inside
from fashion_hydra.data.imaterialist import label_descriptions
from fashion_hydra.formats.csv_files import read_rows
from fashion_hydra.formats.kaggle_rows import (
    ATTRIBUTES,
    CLASS_ID,
    HEIGHT,
    IMAGE_ID,
    PIXELS,
    TRAIN_COLUMNS,
    Header,
    KaggleRow,
    parse_row,
    read_header,
)
from fashion_hydra.formats.loose_values import is_nothing, whole_number
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import read_json
from fashion_hydra.utils.limits import MOST_MASKS, is_name
from fashion_hydra.utils.text import shorten

LABELS = "label_descriptions.json"
CSV_NAMES = ("train.csv", "train.csv.zip", "train.csv.gz")
LARGEST_ID = 10**6
"""Exclusive upper bound of category and attribute ids."""
log = logging.getLogger(__name__)
_CORRECTIONS = {"unsorted-runs": "runs sorted", "overlapping-runs": "runs merged"}


def read_annotations(
    root: Path, *, csv_name: str | None = None, decode: bool = False
) -> tuple[Annotations, list[DataFault]]:
    """Read a folder in Kaggle's layout, see `fashion_hydra.data.annotation_cache.load_annotations`.

    Args:
        root: the folder.
        csv_name: annotation file below the folder, if not train.csv.
        decode: decode every image.
    """
    return load_annotations(KaggleReader(root, csv_name), decode=decode)


def find_csv(root: Path, name: str | None = None) -> Path:
    """Return the annotation file of a folder.

    Raises:
        UserError: the folder or file does not exist; the message lists the content of the folder.
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


def read_labels(root: Path) -> tuple[dict[int, str], dict[int, str] | None]:
    """Read category id -> name, and attribute id -> name (None if there are none), from label_descriptions.json.

    Without this file, they are those of iMaterialist 2019.

    Raises:
        UserError: the file is not in Kaggle's format.
    """
    path = root / LABELS
    try:
        described = _descriptions(path)
        attributes = {int(a["id"]): str(a.get("name", "")) for a in described.get("attributes", ())}
        names = {int(c["id"]): str(c["name"]) for c in described["categories"]}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a list of categories with id and name ({error!r}). Put Kaggle's there") from error
    if wrong := [
        f"{i} {shorten(name, 40)!r}" for i, name in names.items() if not 0 <= i < LARGEST_ID or not is_name(name)
    ]:
        raise UserError(
            f"{path}: category {wrong[0]}: must have an id from 0 to {LARGEST_ID - 1} and a name of one line"
        )
    return names, attributes or None


def _descriptions(path: Path) -> Any:
    """Read a label_descriptions.json; if it does not exist, return the content of iMaterialist 2019's."""
    return read_json(path) if path.is_file() else label_descriptions()


def read_attribute_groups(root: Path) -> dict[int, str]:
    """Read attribute id -> supercategory, such as `length`, from a label_descriptions.json checked by `read_labels`."""
    attributes = _descriptions(root / LABELS).get("attributes", ())
    return {int(a["id"]): str(a["supercategory"]) for a in attributes if a.get("supercategory")}


def file_of(folder: Path, image_id: str) -> str:
    """Return the file of an image below a folder; an id without a suffix gets that of the existing file."""
    if not is_inside(image_id) or has_file(folder, image_id):
        return image_id
    for suffix in IMAGE_SUFFIXES:
        for written in (suffix, suffix.upper()):
            if has_file(folder, image_id + written):
                return image_id + written
    return image_id if Path(image_id).suffix.lower() in IMAGE_SUFFIXES else f"{image_id}.jpg"


class KaggleReader:
    """Reader of a folder in Kaggle's layout, in either schema.

    Args:
        root: the folder.
        annotations: CSV below `root`, if not train.csv.

    Raises:
        UserError: the folder or the CSV is missing, or the label descriptions are unusable.
    """

    def __init__(self, root: str | Path, annotations: str | None = None) -> None:
        self.root = Path(root)
        self.path = find_csv(self.root, annotations)
        if not (self.root / LABELS).is_file():
            log.warning("%s: no %s: categories get their names of iMaterialist 2019", self.root, LABELS)
        self.names, self.attributes = read_labels(self.root)
        self.folder = self.root / "train"
        self.first_rows: dict[str, int] = {}

    def key(self) -> Mapping[str, str]:
        """Return the path of the annotation file."""
        return {"kaggle": str(self.path.absolute())}

    def files(self) -> Sequence[Path]:
        """Return the CSV and, if it exists, the file with the labels' names."""
        labels = self.root / LABELS
        return (self.path, labels) if labels.is_file() else (self.path,)

    def categories(self) -> Mapping[int, str]:
        """Return category id -> name, from label_descriptions.json."""
        return self.names

    def attribute_names(self) -> Mapping[int, str]:
        """Return attribute id -> name, from label_descriptions.json."""
        return self.attributes or {}

    def place_of(self, image_id: str) -> str:
        """Return the first row of the CSV that names the image."""
        return f"row {self.first_rows[image_id]}"

    def file_of(self, image_id: str) -> str:
        """Return the image's file; ids in the 2020 schema have no suffix."""
        return file_of(self.folder, image_id)

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read the CSV row by row.

        Raises:
            UserError: a column is missing, there are no rows, or the file is not a CSV.
        """
        rows = read_rows(self.path, f"reading {self.path.name}")
        header = read_header(next(rows)[1], required=TRAIN_COLUMNS, optional=(ATTRIBUTES,))
        if header.missing:
            advice = f"Rename the columns as Kaggle's train.csv: {','.join(TRAIN_COLUMNS)}"
            raise UserError(f"{self.path}: {header.explain(advice)}")
        columns, scan = len(header.names), _Scan(self, builder, faults)
        for line, values in rows:
            fitted = values if len(values) == columns else [*values, *[""] * columns][:columns]
            _mend_numbers(fitted, header)
            scan.add(parse_row(line, fitted, header), hash(tuple(fitted)))
            refuse_too_many(faults, self.path)
        if not builder.image_ids:
            raise UserError(f"{self.path}: no row with an image and its size. Put Kaggle's train.csv there")


def _mend_numbers(values: list[str], header: Header) -> None:
    """Restore whole numbers that pandas wrote as floats, `48.0`, and empty values that it wrote as `nan`.

    pandas converts a whole-number column with missing values to floats.

    Args:
        values: values of the row; modified in place.
        header: header of the file.
    """
    for place in header.places[1:]:
        value = values[place] if 0 <= place < len(values) else ""
        if not value or (value[-1].isdigit() and "." not in value[-6:]):
            continue
        if is_nothing(value):
            values[place] = ""
        elif (number := whole_number(value)) is not None:
            values[place] = str(number)


class _Scan:
    """Consumer of rows: adds their masks to the builder and their faults to the list."""

    def __init__(self, source: KaggleReader, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        self.source, self.builder, self.faults = source, builder, faults
        self.seen: set[int] = set()

    def add(self, row: KaggleRow, content: int) -> None:
        """Add a row; `content` is the hash of its values."""
        if not self._add_image(row):
            return
        if content in self.seen:
            self._fault(row, "duplicate-row", f"ClassId {row.class_id}: same mask as an earlier row")
            return
        self.seen.add(content)
        if row.is_empty:
            if row.class_id:  # without a class, the row states that the photo has no objects
                self._fault(row, "empty-mask", f"ClassId {row.class_id}")
            return
        class_id = self._known_class(row)
        for problem in row.problems:
            if problem.column == PIXELS and (row.runs is None) == (problem.kind not in _CORRECTIONS):
                self._fault(row, problem.kind, problem.message, _CORRECTIONS.get(problem.kind, "row dropped"))
        if class_id and row.runs is not None and not self.builder.add(row.image_id, class_id, row.runs):
            self._fault(row, "too-many-masks", f"more than {MOST_MASKS} masks in one image")

    def _add_image(self, row: KaggleRow) -> bool:
        """Add a row's image; return False if its name or size is invalid."""
        for problem in row.problems:
            if problem.column in (IMAGE_ID, HEIGHT):
                self._fault(row, "bad-row" if problem.column == IMAGE_ID else problem.kind, problem.message)
                return False
        assert row.size is not None
        self.source.first_rows.setdefault(row.image_id, row.line)
        first = self.builder.image(row.image_id, row.size)
        if first != row.size:
            value = f"{row.size[0]}x{row.size[1]}, but {first[0]}x{first[1]} in an earlier row"
            self._fault(row, "sizes-differ-between-rows", value)
        return first == row.size

    def _known_class(self, row: KaggleRow) -> str:
        """Return the ClassId without unknown attributes; empty if its category is unknown."""
        wrong = [problem.message for problem in row.problems if problem.column == CLASS_ID]
        category, *attributes = row.class_id.split("_")
        if wrong or int(category) not in self.source.names:
            self._fault(row, "unknown-class", wrong[0] if wrong else f"no category {category}: ClassId {row.class_id}")
            return ""
        known = self.source.attributes
        if known is None or not (strange := [a for a in attributes if int(a) not in known]):
            return row.class_id
        self._fault(row, "unknown-attribute", f"{','.join(strange)} in {row.class_id}", "attribute left out")
        return "_".join([category, *(a for a in attributes if a not in strange)])

    def _fault(self, row: KaggleRow, kind: str, value: str, action: str = "row dropped") -> None:
        image_id = row.image_id if is_name(row.image_id) else ""
        self.faults.append(DataFault(kind, image_id, f"row {row.line}", shorten(value), action))
