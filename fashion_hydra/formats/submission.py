"""Submissions and train.csv: reading masks and writing a submission.

A mask in a submission lies on the 512x512 image, whatever the photo's shape (the competition's evaluation
page). Here every file is read to that frame, so that truth and submission can be compared.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from fashion_hydra.formats.class_id import full_class_id
from fashion_hydra.formats.csv_files import open_csv, separator_hint
from fashion_hydra.structures.rle import (
    CocoRLE,
    Runs,
    check_runs_inside,
    coco_to_runs,
    kaggle_to_runs,
    normalise_runs,
    resize_runs,
    runs_to_coco,
    runs_to_kaggle,
)
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.limits import FRAME, LONGEST_NAME, MOST_MASKS, is_frame, is_name

SUBMISSION_SIZE = 512


SUBMISSION_GRID = (SUBMISSION_SIZE, SUBMISSION_SIZE)


EMPTY_CLASS_ID = "23"  # what Kaggle's sample_submission.csv writes beside an empty EncodedPixels


COLUMNS = ("ImageId", "EncodedPixels", "ClassId")


MaskRow = tuple[str, Runs | CocoRLE]
"""ClassId and mask."""


MaskTable = dict[str, dict[str, list[CocoRLE]]]
"""ImageId -> ClassId -> masks."""


_SIZES = ("Height", "Width")


_ATTRIBUTES = "AttributesIds"


_PROGRESS_AFTER_S = 2.0


def read_masks(path: str | Path, *, size: int = SUBMISSION_SIZE) -> MaskTable:
    """Read a submission or a train.csv (.csv, .csv.gz, .csv.zip) to masks of size x size.

    Without the columns Height and Width the masks are on that frame already; with them each is resized to it
    (nearest neighbour), and left out where no pixel remains. Attributes of the 2020 schema (`AttributesIds`)
    are joined to the class in ascending order, as 2019 writes it: `6_28_77`. A row with empty EncodedPixels
    says that the image exists. Raises UserError naming file, line, image and value for anything else.
    """
    path = Path(path)
    masks: MaskTable = {}
    with open_csv(path) as file:
        reader = csv.DictReader(file)
        _check_header(reader.fieldnames, path)
        # Shown on a terminal, and there only for a file that takes a while.
        for row in tqdm(reader, desc=path.name, unit=" rows", delay=_PROGRESS_AFTER_S, disable=None):
            try:
                _add_row(masks, row, size=size)
            except UserError as error:
                image = (row.get("ImageId") or "(no ImageId)")[:80]
                raise UserError(f"{path}: line {reader.line_num}, image {image}: {error}") from None
    return masks


def _add_row(masks: MaskTable, row: Mapping[str | None, str | None], *, size: int) -> None:
    if None in row or None in row.values():
        raise UserError("the line has not as many values as the header; quote values that contain commas")
    name = _required_value(row, "ImageId")
    if not is_name(name):
        raise UserError(f"ImageId {name[:40]!r}: at most {LONGEST_NAME} characters of one line expected")
    image = masks.setdefault(name, {})
    text = (row["EncodedPixels"] or "").strip()
    if not text:
        return
    class_id = full_class_id(_required_value(row, "ClassId"), row.get(_ATTRIBUTES))
    height, width = (_positive(row, column) for column in _SIZES) if "Height" in row else (size, size)
    if not is_frame(height, width):
        raise UserError(f"an image of {height}x{width}: {FRAME}")
    try:
        runs = normalise_runs(kaggle_to_runs(text))
        check_runs_inside(runs, height=height, width=width)
    except UserError as error:
        frame = "the row's Height and Width" if "Height" in row else f"{size}x{size}, not the photo's size"
        advice = f"Encode the mask column by column, pixels counted from 1, on {frame}"
        raise UserError(f"{error}. {advice}") from None
    if (height, width) != (size, size):
        runs = resize_runs(runs, height=height, width=width, new_height=size, new_width=size)
    if len(runs):
        if sum(map(len, image.values())) >= MOST_MASKS:
            raise UserError(f"more than {MOST_MASKS} masks of one image. Leave the least sure ones out")
        image.setdefault(class_id, []).append(runs_to_coco(runs, height=size, width=size))


def _required_value(row: Mapping[str | None, str | None], column: str) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise UserError(f"{column} is empty: every row needs one")
    return value


def _positive(row: Mapping[str | None, str | None], column: str) -> int:
    value = _required_value(row, column)
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", value):
        raise UserError(f"{column} {value[:40]!r} is not a number of pixels: write a positive whole number")
    return int(value)


def _check_header(fieldnames: Sequence[str] | None, path: Path) -> None:
    found = list(fieldnames or ())
    missing = [c for c in COLUMNS if c not in found]
    if any(c in found for c in _SIZES):
        missing += [c for c in _SIZES if c not in found]
    unknown = [c for c in found if c not in (*COLUMNS, *_SIZES, _ATTRIBUTES)]
    if missing or unknown or len(set(found)) < len(found):
        complaint = f"lacks {', '.join(missing)}" if missing else f"unknown or repeated: {unknown or found}"
        raise UserError(
            f"{path}: line 1: header {','.join(found)!r} ({complaint}){separator_hint(','.join(found))}. Write "
            f"{','.join(COLUMNS)} for a submission; Kaggle's train.csv has {','.join(_SIZES)} and perhaps "
            f"{_ATTRIBUTES} besides"
        )


def write_submission(
    path: str | Path, images: Mapping[str, Iterable[MaskRow]] | Iterable[tuple[str, Iterable[MaskRow]]]
) -> int:
    """Write a submission: every image given, its (ClassId, mask) in the order given.

    Masks are runs or COCO encodings on the 512x512 frame. Empty ones are left out, and an image without a
    mask gets the row that Kaggle wants, `image,,23`. The file appears at once and whole, or not at all.

    Args:
        path: the file, `.csv`.
        images: ImageId -> masks, or pairs of them one by one: only one image's masks are held at a time.

    Returns:
        How many masks were written.

    Raises:
        UserError: a mask beyond the frame, or an image given twice.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise UserError(f"{path}: a submission is written as plain text; name it with .csv")
    written, seen = 0, set[str]()
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image, masks in images.items() if isinstance(images, Mapping) else images:
            if image in seen:
                raise UserError(f"image {image}: given twice; its masks must come together")
            seen.add(image)
            encoded = [(class_id, _submission_runs(mask, image)) for class_id, mask in masks]
            rows = [(image, runs_to_kaggle(runs), class_id) for class_id, runs in encoded if len(runs)]
            writer.writerows(rows or [(image, "", EMPTY_CLASS_ID)])
            written += len(rows)
    return written


def write_truth(path: str | Path, truth: Mapping[str, Mapping[str, Sequence[CocoRLE]]]) -> None:
    """Write true masks on the submission's grid (ImageId -> ClassId -> masks), for `fashion-hydra score`."""
    rows = (
        (image, [(c, mask) for c, masks in by_class.items() for mask in masks]) for image, by_class in truth.items()
    )
    write_submission(path, rows)


def _submission_runs(mask: Runs | CocoRLE, image: str) -> Runs:
    if isinstance(mask, dict):
        if list(mask["size"]) != [SUBMISSION_SIZE, SUBMISSION_SIZE]:
            raise UserError(f"image {image}: mask size {mask['size']}, must be {SUBMISSION_SIZE} both ways")
        return coco_to_runs(mask)
    try:
        check_runs_inside(mask, height=SUBMISSION_SIZE, width=SUBMISSION_SIZE)
    except UserError as error:
        raise UserError(f"image {image}: {error}. Resize masks to {SUBMISSION_SIZE} both ways") from None
    return mask
