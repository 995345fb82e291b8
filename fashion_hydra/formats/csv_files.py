"""Read CSV files in Kaggle's form, plain or compressed, within limits."""

import csv
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TypeVar

from tqdm import tqdm

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import LONGEST_LINE, MOST_LINES, MOST_PACKING

T = TypeVar("T")
PROGRESS_AFTER_S = 2.0
_ALWAYS_ALLOWED = 1 << 20  # bytes to which any compressed CSV may unpack, however small it is


_UNREADABLE = (UnicodeError, csv.Error, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)


_NO_ARCHIVE = (RuntimeError, struct.error, ValueError, LookupError, OSError, OverflowError)  # damaged zip files


@contextmanager
def open_csv(path: Path) -> Iterator[Iterator[str]]:
    """Open a CSV and iterate over its decompressed lines; errors of compression, encoding or size are UserErrors."""
    csv.field_size_limit(LONGEST_LINE)  # a mask of a large photo exceeds csv's 128 KiB
    try:
        if path.suffix == ".zip":
            with _zipped(path) as packed:
                yield _lines(path, packed)
        elif path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                yield _lines(path, file)
        else:
            with path.open("rb") as file:
                yield _lines(path, file)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start} is not UTF-8 ({error.object[error.start : error.start + 1]!r}). Save the file "
            "as CSV in UTF-8, or choose another file"
        ) from error
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a readable CSV file ({error}). Write or download it again") from error


def read_rows(path: Path, description: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and values of the header, even if it is empty, and of each row that is not empty.

    Shows a progress bar for slow files on a terminal. Raises UserError as `open_csv` does.
    """
    with open_csv(path) as stream, tqdm(
        total=unpacked_size(path), desc=description, unit="B", unit_scale=True, delay=PROGRESS_AFTER_S, disable=None
    ) as bar:  # fmt: skip
        reader = csv.reader(stream)
        yield 1, next(reader, [])
        for values in reader:
            if values:
                bar.update(sum(map(len, values)) + len(values))
                yield reader.line_num, values


@contextmanager
def _zipped(path: Path) -> Iterator[IO[bytes]]:
    """Open the only CSV of an archive."""
    with path.open("rb") as file, ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            name = _only_csv(archive, path)
            _check_size(path, archive.getinfo(name).file_size)
            packed = stack.enter_context(archive.open(name))
        except (UserError, *_UNREADABLE):
            raise
        except _NO_ARCHIVE as error:
            raise _not_unpacked(path, error) from error
        yield packed


def _not_unpacked(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be unpacked ({error}). Write or download it again")


def _check_size(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > _ALWAYS_ALLOWED + MOST_PACKING * packed:
        raise UserError(
            f"{path}: refused, its {packed} bytes unpack to {size} bytes or more, above the limit of {MOST_PACKING} "
            "times. If the file is correct, unpack it first"
        )


def _lines(path: Path, stream: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
    """Yield lines as text, within limits."""
    is_packed = path.suffix in (".zip", ".gz")
    try:
        text, size = io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), 0
        for number in range(1, MOST_LINES + 2):
            if not (line := text.readline(LONGEST_LINE + 1)):
                return
            if len(line) > LONGEST_LINE or number > MOST_LINES:
                raise UserError(
                    f"{path}: line {number}: refused, the file must have at most {MOST_LINES} lines of at most "
                    f"{LONGEST_LINE} characters. Give a CSV with one mask per row"
                )
            size += len(line)
            if is_packed:
                _check_size(path, size)
            yield line
    except (UserError, *_UNREADABLE):
        raise
    except _NO_ARCHIVE as error:
        if is_packed:
            raise _not_unpacked(path, error) from error
        raise


def separator_hint(header: str) -> str:
    """Return what to do about a header without commas; empty if there is nothing to do."""
    if "," in header:
        return ""
    found = next((name for mark, name in ((";", "semicolons"), ("\t", "tabs")) if mark in header), None)
    return f". Its columns are separated by {found}: save it as CSV separated by commas" if found else ""


def unpacked_size(path: Path) -> int | None:
    """Return the decompressed size of the CSV in bytes; None if the archive does not store it."""
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.getinfo(_only_csv(archive, path)).file_size
        except (*_UNREADABLE, *_NO_ARCHIVE):
            return None
    return None if path.suffix == ".gz" else path.stat().st_size


def _only_csv(archive: zipfile.ZipFile, path: Path) -> str:
    names = [n for n in archive.namelist() if n.endswith(".csv") and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(f"{path}: holds {len(names)} CSV files ({archive.namelist()[:5]}), expected one")
    return names[0]


def parse_csv(path: Path, parse: Callable[[Sequence[Mapping[str, str]]], T]) -> T:
    """Read a small table that fashion_hydra wrote.

    Args:
        path: the CSV file, UTF-8 and not compressed.
        parse: converts the rows (column -> text) to a value; it may raise KeyError, ValueError or TypeError.

    Raises:
        UserError: the file is not a CSV file in UTF-8, or `parse` fails.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return parse(list(csv.DictReader(stream)))
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not in fashion_hydra's format ({error!r}). Write it again, or remove it") from error
