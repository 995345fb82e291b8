"""Tables as Kaggle writes them: CSV files, packed or not, and the ClassId of both schemas."""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fashion_hydra.errors import UserError

_CLASS_ID = re.compile(r"[0-9]+(_[0-9]+)*")
_ATTRIBUTES = re.compile(r"([0-9]+(,[0-9]+)*)?")


@contextmanager
def open_csv(path: Path) -> Iterator[TextIO]:
    """The CSV as text, unpacked on the way; faults of the packing or the encoding become UserErrors."""
    csv.field_size_limit(2**31 - 1)  # a mask of a large photo exceeds csv's 128 KiB
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_csv(archive, path)) as packed:
                yield io.TextIOWrapper(packed, encoding="utf-8-sig", newline="")
        elif path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start} is not UTF-8 ({error.object[error.start : error.start + 1]!r}). Save the file "
            "as CSV in UTF-8, or give the right one"
        ) from error
    except (
        csv.Error,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
    ) as error:
        raise UserError(f"{path}: not a readable CSV file ({error}). Write or download it again") from error


def separator_hint(header: str) -> str:
    """What to do about a header whose columns are not separated by commas; empty where they are."""
    if "," in header:
        return ""
    found = next((name for mark, name in ((";", "semicolons"), ("\t", "tabs")) if mark in header), None)
    return f". Its columns are separated by {found}: save it as CSV separated by commas" if found else ""


def unpacked_size(path: Path) -> int | None:
    """Bytes of the CSV once unpacked, where the packing tells."""
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.getinfo(_only_csv(archive, path)).file_size
        except zipfile.BadZipFile:
            return None
    return None if path.suffix == ".gz" else path.stat().st_size


def _only_csv(archive: zipfile.ZipFile, path: Path) -> str:
    names = [n for n in archive.namelist() if n.endswith(".csv") and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(f"{path}: holds {len(names)} CSV files ({archive.namelist()[:5]}), expected one")
    return names[0]


def category_of(class_id: str) -> int:
    """`6` of `6_28_77`."""
    return int(class_id.partition("_")[0])


def full_class_id(class_id: str, attributes: str | None) -> str:
    """A row's class with its attributes, ascending, as the 2019 schema writes it: `6_28_77`.

    Args:
        class_id: the column ClassId.
        attributes: the 2020 schema's column AttributesIds, such as `77,28`; empty or None for none.

    Raises:
        UserError: either is not of its form.
    """
    if not _CLASS_ID.fullmatch(class_id):
        raise UserError(f"ClassId {class_id!r} is not of the form 6 or 6_28_77: write whole numbers")
    listed = (attributes or "").replace(" ", "")
    if not _ATTRIBUTES.fullmatch(listed):
        raise UserError(f"AttributesIds {listed!r} is not of the form 115,136: write whole numbers")
    return "_".join([class_id, *sorted(listed.split(","), key=int)]) if listed else class_id
