"""CSV files as Kaggle writes them, packed or not, within limits."""

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
_ALWAYS_ALLOWED = 1 << 20  # bytes that a packed CSV may have, however small it is packed


_UNREADABLE = (UnicodeError, csv.Error, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)


_NO_ARCHIVE = (RuntimeError, struct.error, ValueError, LookupError, OSError, OverflowError)  # of damaged zip files too


@contextmanager
def open_csv(path: Path) -> Iterator[Iterator[str]]:
    """The CSV's lines, unpacked on the way; faults of the packing, the encoding or the size become UserErrors."""
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
            "as CSV in UTF-8, or give the right one"
        ) from error
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a readable CSV file ({error}). Write or download it again") from error


def read_rows(path: Path, description: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and values of the header, which may be empty, and of each row that is not.

    Progress is shown on a terminal, for a file that takes a while. Raises UserError as `open_csv` does.
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
    """The one CSV of an archive."""
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
            f"{path}: unpacks to {size} bytes or more, {packed} packed: refused, as no CSV of masks is packed more "
            f"than {MOST_PACKING} times. Unpack it, if it is meant"
        )


def _lines(path: Path, stream: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
    """Lines as text, within limits."""
    is_packed = path.suffix in (".zip", ".gz")
    try:
        text, size = io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), 0
        for number in range(1, MOST_LINES + 2):
            if not (line := text.readline(LONGEST_LINE + 1)):
                return
            if len(line) > LONGEST_LINE or number > MOST_LINES:
                raise UserError(
                    f"{path}: line {number}: refused, lines of at most {LONGEST_LINE} characters and at most "
                    f"{MOST_LINES} lines expected. Give a CSV with a mask a row"
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
        except (*_UNREADABLE, *_NO_ARCHIVE):
            return None
    return None if path.suffix == ".gz" else path.stat().st_size


def _only_csv(archive: zipfile.ZipFile, path: Path) -> str:
    names = [n for n in archive.namelist() if n.endswith(".csv") and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(f"{path}: holds {len(names)} CSV files ({archive.namelist()[:5]}), expected one")
    return names[0]


def parse_csv(path: Path, parse: Callable[[Sequence[Mapping[str, str]]], T]) -> T:
    """Read a small table that this software wrote.

    Args:
        path: of the CSV file, UTF-8 and not packed.
        parse: makes values of the rows (column -> text); it may raise KeyError, ValueError or TypeError.

    Raises:
        UserError: the file is not a CSV file in UTF-8, or `parse` fails.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return parse(list(csv.DictReader(stream)))
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not as this software writes it ({error!r}). Write it again, or remove it") from error
