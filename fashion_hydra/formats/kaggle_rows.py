"""Parse one row of Kaggle's CSVs of masks: train.csv of both years, and submissions.

`parse_row` does not raise: it returns the valid values and every problem of a row. The caller decides which problems
matter, raises the first or collects all, and checks the rules that go beyond a row's form.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fashion_hydra.formats.class_id import full_class_id
from fashion_hydra.formats.csv_files import separator_hint
from fashion_hydra.structures.rle import BadRuns, Runs, check_runs_inside, kaggle_to_runs, normalise_runs
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import FRAME, LONGEST_NAME, is_frame, is_name
from fashion_hydra.utils.text import shorten

IMAGE_ID, PIXELS, CLASS_ID, HEIGHT, WIDTH = "ImageId", "EncodedPixels", "ClassId", "Height", "Width"
ATTRIBUTES = "AttributesIds"
SUBMISSION_COLUMNS = (IMAGE_ID, PIXELS, CLASS_ID)
SUBMISSION_COLUMNS_2020 = (*SUBMISSION_COLUMNS, ATTRIBUTES)
TRAIN_COLUMNS = (IMAGE_ID, PIXELS, HEIGHT, WIDTH, CLASS_ID)
CORRECTED = frozenset({"spaces", "unsorted-runs", "overlapping-runs"})
"""Kinds of problems that `parse_row` corrects, so that the row is usable."""
_COLUMNS = (IMAGE_ID, PIXELS, CLASS_ID, ATTRIBUTES, HEIGHT, WIDTH)
_SIZE = re.compile(r"\s*0*([1-9][0-9]{0,5})\s*x\s*0*([1-9][0-9]{0,5})\s*", re.ASCII)

Size = tuple[int, int]


@dataclass(frozen=True)
class Header:
    """The columns of a file.

    Args:
        names: the columns, as written.
        places: indices of ImageId, EncodedPixels, ClassId, AttributesIds, Height and Width; -1 if not used.
        missing: required columns that are missing.
        others: columns that are neither required nor optional, or are repeated.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    missing: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def has_size(self) -> bool:
        """Whether the file has the columns Height and Width."""
        return self.places[-1] >= 0

    def pick(self, values: list[str]) -> list[str]:
        """Return a row's ImageId, EncodedPixels, ClassId, AttributesIds, Height and Width; empty texts if absent."""
        padded = values + [""] * max(1, len(self.names) + 1 - len(values))  # index -1 is always empty
        return [padded[place] for place in self.places]

    def explain(self, advice: str) -> str:
        """Return what is wrong with the columns, the header, and what to do: use commas, or `advice`."""
        wrong = f"no column {', '.join(self.missing)}"
        if not self.missing:
            wrong = f"unknown or repeated columns {shorten(', '.join(self.others))}"
        written = shorten(",".join(self.names), 200)
        return f"{wrong} (header: {written or 'empty'}){separator_hint(written) or f'. {advice}'}"


class Problem(NamedTuple):
    """A problem of a row.

    Args:
        column: the invalid column, Height for Height and Width; empty if the whole row is invalid.
        kind: short name of the problem, such as `odd-runs`.
        message: what is wrong, and the value.
    """

    column: str
    kind: str
    message: str


class KaggleRow(NamedTuple):
    """The valid values and the problems of a row.

    Args:
        line: line number in the file; the header is line 1.
        image_id: ImageId without surrounding spaces.
        class_id: ClassId with ascending attributes: `6_28_77`; as written if it does not have this form.
        size: height and width of the mask's frame; None if invalid.
        is_empty: whether EncodedPixels is empty.
        runs: int64 (K, 2), K > 0, normalised and inside the frame; None if EncodedPixels is empty or invalid.
        problems: in the order of a submission's columns, with Height and Width before EncodedPixels.
    """

    line: int
    image_id: str
    class_id: str
    size: Size | None
    is_empty: bool
    runs: Runs | None
    problems: list[Problem]


def read_header(names: Sequence[str], *, required: Sequence[str], optional: Sequence[str] = ()) -> Header:
    """Find the columns of a file by its header; of a repeated column, the first is used.

    Args:
        names: values of the header.
        required: columns that must exist.
        optional: columns that are read if they exist; all other columns are ignored.
    """
    known = {*required, *optional}
    return Header(
        tuple(names),
        tuple(names.index(column) if column in known and column in names else -1 for column in _COLUMNS),
        tuple(column for column in required if column not in names),
        tuple(dict.fromkeys(name for name in names if name not in known or names.count(name) > 1)),
    )


def parse_row(line: int, values: list[str], header: Header, frame: Size | None = None) -> KaggleRow:
    """Parse a row.

    Args:
        line: line number in the file; the header is line 1.
        values: values of the row; if there are too few or too many, only ImageId and ClassId are read.
        header: the file's header, with all required columns.
        frame: height and width of the masks' frame, if the header has no Height and Width.
    """
    image, text, written, attributes, height, width = header.pick(values)
    image_id, class_id, is_empty = image.strip(), written.strip(), not text.strip()
    problems: list[Problem] = []
    if len(values) != len(header.names):
        message = f"{len(values)} values, the header has {len(header.names)}: quote values that contain commas"
        problems.append(Problem("", "bad-row", message))
    if not is_name(image_id):
        problems.append(_image_problem(image_id))
    if image_id != image or class_id != written:
        message = f"{image!r}, {written!r}: spaces around a value are part of it; remove them"
        problems.append(Problem("", "spaces", message))
    if len(values) != len(header.names):
        return KaggleRow(line, image_id, class_id, None, is_empty, None, problems)
    size = _parse_size(height, width) if header.has_size else frame
    if size is None:
        message = f"{shorten(height, 20)}x{shorten(width, 20)} (height x width): must be whole numbers from 1, {FRAME}"
        problems.append(Problem(HEIGHT, "bad-size", message))
    try:
        class_id = full_class_id(class_id, attributes)
    except UserError as error:
        problems.append(Problem(CLASS_ID, "bad-class", str(error)))
    runs = None if is_empty or size is None else _parse_runs(text, size, problems)
    return KaggleRow(line, image_id, class_id, size, is_empty, runs, problems)


def _image_problem(image_id: str) -> Problem:
    if not image_id:
        return Problem(IMAGE_ID, "no-image-id", "ImageId is empty")
    message = f"ImageId {shorten(image_id, 40)!r}: must be one line of at most {LONGEST_NAME} characters"
    return Problem(IMAGE_ID, "bad-image-id", message)


def _parse_size(height: str, width: str) -> Size | None:
    if (found := _SIZE.fullmatch(f"{height}x{width}")) is None:
        return None
    size = int(found[1]), int(found[2])
    return size if is_frame(*size) else None


def _parse_runs(text: str, size: Size, problems: list[Problem]) -> Runs | None:
    """Parse an EncodedPixels that is not empty, and append its faults to `problems`."""
    try:
        written = kaggle_to_runs(text)
        runs = normalise_runs(written)
        if runs is not written:
            problems += _order_problems(written, runs)
        if runs[-1, 0] + runs[-1, 1] > size[0] * size[1]:  # the last of normalised runs reaches furthest
            check_runs_inside(runs, height=size[0], width=size[1])
    except UserError as error:
        kind = error.kind if isinstance(error, BadRuns) else "runs-beyond-image"
        problems.append(Problem(PIXELS, kind, str(error)))
        return None
    return runs


def _order_problems(written: Runs, runs: Runs) -> Iterator[Problem]:
    """Yield the problems that normalising corrected; touching runs are not a problem."""
    backwards = np.flatnonzero(written[1:, 0] < written[:-1, 0])
    if len(backwards):
        i = int(backwards[0])
        yield Problem(PIXELS, "unsorted-runs", f"start {written[i + 1, 0] + 1} after {written[i, 0] + 1}")
    if surplus := int(written[:, 1].sum() - runs[:, 1].sum()):
        yield Problem(PIXELS, "overlapping-runs", f"{surplus} pixels given twice")
