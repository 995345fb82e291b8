"""Find every breach of the competition's rules in a submission, row by row.

The rules (evaluation page of iMaterialist (Fashion) 2019): the columns are ImageId, EncodedPixels, ClassId, and in 2020
also AttributesIds, which were part of the ClassId before; one row per mask; masks on the 512x512 image as sorted runs
that do not overlap; masks of one image and ClassId share no pixel; every test image has a row, with empty EncodedPixels
and ClassId 23 if it has no masks.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.formats.class_id import image_stem
from fashion_hydra.formats.csv_files import open_csv, read_rows
from fashion_hydra.formats.kaggle_rows import (
    ATTRIBUTES,
    CLASS_ID,
    PIXELS,
    SUBMISSION_COLUMNS,
    SUBMISSION_COLUMNS_2020,
    Header,
    KaggleRow,
    Problem,
    parse_row,
    read_header,
)
from fashion_hydra.formats.submission import EMPTY_CLASS_ID, SUBMISSION_GRID, SUBMISSION_SIZE
from fashion_hydra.structures.rle import CocoRLE, runs_to_coco
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import MOST_FAULTS, MOST_MASKS
from fashion_hydra.utils.text import shorten

CATEGORIES = 46
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")  # without leading zeros, which would make a different ClassId


class Breach(NamedTuple):
    """A breach of the rules.

    Args:
        row: line number in the file, 1 for the header; 0 if no row is concerned.
        image: ImageId; empty if no image is concerned.
        kind: short name of the breach, such as `shared-pixels`.
        value: the invalid value, or an explanation.
    """

    row: int
    image: str
    kind: str
    value: str


@dataclass(frozen=True)
class SubmissionCheck:
    """The breaches and the counts of a submission.

    Args:
        faults: breaches by row, those without a row last.
        rows: number of rows without the header.
        images: number of images with a row.
        masks: number of rows with runs.
    """

    faults: list[Breach]
    rows: int
    images: int
    masks: int


class _Row(NamedTuple):
    """A row with its breaches; `mask` is None if EncodedPixels is empty or invalid."""

    line: int
    image: str
    class_id: str
    is_empty: bool
    mask: CocoRLE | None
    faults: list[Breach]


def find_breaches(path: str | Path, sample: str | Path | None = None) -> list[Breach]:
    """Return all breaches of the rules in a submission (.csv, .csv.gz, .csv.zip), by row; empty if it is valid.

    Args:
        path: the submission.
        sample: sample_submission.csv, or any table whose column ImageId lists the test images.

    Raises:
        UserError: a file is not a readable CSV, or the sample lists no images.
    """
    return check_submission(path, sample).faults


def check_submission(path: str | Path, sample: str | Path | None = None) -> SubmissionCheck:
    """Check a submission as `find_breaches` does, and count its rows, images and masks.

    Consecutive rows of an image are checked together, so memory holds one image's masks and all ImageIds. For images
    whose rows are not consecutive, the compressed masks are kept too.
    """
    path = Path(path)
    expected = _images_of(Path(sample)) if sample is not None else None
    header, faults = _check_header(path)
    if header.missing:
        return SubmissionCheck(faults, 0, 0, 0)
    of_images: list[Breach] = []
    blocks: Counter[str] = Counter()
    first_row: dict[str, int] = {}
    rows = masks = 0
    for image, block in _blocks(path, header, "checking"):
        blocks[image] += 1
        first_row.setdefault(image, block[0].line)
        rows += len(block)
        masks += sum(not row.is_empty for row in block)
        faults += (fault for row in block for fault in row.faults)
        of_images += _check_image(block)
        if len(faults) + len(of_images) > MOST_FAULTS:
            raise UserError(f"{path}: more than {MOST_FAULTS} faults: not a submission. Choose another file")
    scattered = {image for image, count in blocks.items() if count > 1}
    if scattered:
        gathered: dict[str, list[_Row]] = defaultdict(list)
        for image, block in _blocks(path, header, "images whose rows are apart"):
            if image in scattered:
                gathered[image] += block
        of_images = [fault for fault in of_images if fault.image not in scattered]
        of_images += (fault for block in gathered.values() for fault in _check_image(block))
    first_row.pop("", None)
    faults += of_images + _check_names(first_row, expected)
    if not rows:
        faults.append(Breach(0, "", "no-rows", "the file has only a header"))
    faults.sort(key=lambda fault: (fault.row == 0, fault.row))
    return SubmissionCheck(faults, rows, len(first_row), masks)


def _images_of(sample: Path) -> list[str]:
    """Return the images that a sample submission lists."""
    with open_csv(sample) as stream:
        reader = csv.DictReader(stream)
        images = list(dict.fromkeys(row["ImageId"] for row in reader if row.get("ImageId")))
        if not images:
            raise UserError(f"{sample}: no column ImageId, or no rows; give Kaggle's sample_submission.csv")
    return images


def _check_header(path: Path) -> tuple[Header, list[Breach]]:
    """Read the header; columns other than a submission's are a breach."""
    _, names = next(read_rows(path, "header"))
    header = read_header(names, required=SUBMISSION_COLUMNS, optional=(ATTRIBUTES,))
    if header.names in (SUBMISSION_COLUMNS, SUBMISSION_COLUMNS_2020):
        return header, []
    value = shorten(f"must be {','.join(SUBMISSION_COLUMNS)}, in 2020 with {ATTRIBUTES}, not {','.join(names)!r}")
    return header, [Breach(1, "", "wrong-header", value)]


def _blocks(path: Path, header: Header, description: str) -> Iterator[tuple[str, list[_Row]]]:
    """Yield each image with a block of its consecutive rows."""
    lines = read_rows(path, description)
    next(lines)
    rows = (_check_row(parse_row(line, values, header, frame=SUBMISSION_GRID)) for line, values in lines)
    for image, block in groupby(rows, key=lambda row: row.image):
        yield image, list(block)


def _check_row(row: KaggleRow) -> _Row:
    """Compress a row's mask, and list the breaches within the row."""
    mask = None if row.runs is None else runs_to_coco(row.runs, height=SUBMISSION_SIZE, width=SUBMISSION_SIZE)
    problems = [problem for problem in row.problems if problem.kind != "bad-image-id"]
    if row.size is not None and not any(problem.column == CLASS_ID for problem in problems):
        problems += _class_problems(row.class_id, is_empty=row.is_empty)
    problems.sort(key=lambda problem: problem.column == PIXELS)
    faults = [Breach(row.line, row.image_id, kind, shorten(message)) for _, kind, message in problems]
    return _Row(row.line, row.image_id, row.class_id, row.is_empty, mask, faults)


def _class_problems(class_id: str, *, is_empty: bool) -> Iterator[Problem]:
    """Yield breaches of the competition's rules in a well-formed ClassId."""
    category, *attributes = class_id.split("_")
    if not all(_NUMBER.fullmatch(number) for number in (category, *attributes)):
        message = f"must be numbers of up to four digits without leading zeros, not {class_id!r}"
        yield Problem(CLASS_ID, "bad-class", message)
    elif int(category) >= CATEGORIES:
        yield Problem(CLASS_ID, "unknown-class", f"category {category}: must be 0 to {CATEGORIES - 1}")
    elif attributes != sorted(set(attributes), key=int):
        yield Problem(CLASS_ID, "unsorted-attributes", f"ClassId {class_id!r}: attributes must be ascending and unique")
    elif is_empty and class_id != EMPTY_CLASS_ID:
        message = f"no runs, but ClassId {class_id}: an image without masks must have {EMPTY_CLASS_ID}"
        yield Problem(CLASS_ID, "empty-mask", message)


def _check_image(rows: Sequence[_Row]) -> Iterator[Breach]:
    """Yield breaches between the rows of one image: empty rows beside others, duplicate masks, shared pixels."""
    image = rows[0].image
    if not image:
        return
    if (count := sum(row.mask is not None for row in rows)) > MOST_MASKS:
        yield Breach(rows[0].line, image, "too-many-masks", f"{count} masks, must be at most {MOST_MASKS}")
        return
    for number, row in enumerate(rows):
        if row.is_empty and (number or not all(other.is_empty for other in rows)):
            other = next(o for o in rows if o is not row)
            yield Breach(row.line, image, "empty-beside-others", f"no runs, but row {other.line} is of the same image")
    by_class: dict[str, list[tuple[int, CocoRLE]]] = {}
    for row in rows:
        if row.mask is not None:
            by_class.setdefault(row.class_id, []).append((row.line, row.mask))
    for class_id, masks in by_class.items():
        rles = [mask for _, mask in masks]
        if len(masks) > 1 and coco_mask.area(coco_mask.merge(rles)) < coco_mask.area(rles).sum():
            yield from _shared_pixels(image, class_id, masks)


def _shared_pixels(image: str, class_id: str, masks: Sequence[tuple[int, CocoRLE]]) -> Iterator[Breach]:
    """Yield a breach for each mask that overlaps earlier masks of its image and class, naming the first of them."""
    what = f"ClassId {shorten(class_id)}"
    first_lines: dict[bytes | str, int] = {}
    owner = np.full(SUBMISSION_SIZE**2, len(masks))  # the first mask on each pixel
    for number, (line, mask) in enumerate(masks):
        if (again := first_lines.setdefault(mask["counts"], line)) != line:
            yield Breach(line, image, "duplicate-mask", f"{what} repeats the mask of row {again}")
            continue
        pixels = np.flatnonzero(coco_mask.decode(mask).ravel(order="F"))
        owners = owner[pixels]
        if (other := int(owners.min())) < number:
            shared, row = int((owners == other).sum()), masks[other][0]
            yield Breach(line, image, "shared-pixels", f"{what} shares {shared} pixels with row {row}")
        owner[pixels] = np.minimum(owners, number)


def _check_names(first_row: dict[str, int], expected: Iterable[str] | None) -> list[Breach]:
    """Return breaches for images that are missing, unknown or named in two ways; `first_row`: ImageId -> first row."""
    faults = []
    by_stem: dict[str, str] = {}
    for image, row in first_row.items():
        if (other := by_stem.setdefault(image_stem(image), image)) != image:
            faults.append(Breach(row, image, "image-named-twice", f"row {first_row[other]} names it {other}"))
    if expected is not None:
        known = dict.fromkeys(expected)
        faults += [
            Breach(row, image, "extra-image", "not an image of the sample") for image, row in first_row.items()
            if image not in known
        ]  # fmt: skip
        advice = f"no row; an image without masks needs {{}},,{EMPTY_CLASS_ID}"
        faults += [Breach(0, i, "missing-image", shorten(advice.format(i))) for i in known if i not in first_row]
    return faults
