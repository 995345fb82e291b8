"""Read masks from submissions and train.csv, and write submissions.

Masks of a submission are on the image resized to 512x512, whatever the photo's shape (the competition's evaluation
page). Every file is read to this frame, so that ground truth and submissions can be compared.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fashion_hydra.formats.csv_files import read_rows
from fashion_hydra.formats.kaggle_rows import (
    ATTRIBUTES,
    CLASS_ID,
    CORRECTED,
    HEIGHT,
    PIXELS,
    SUBMISSION_COLUMNS,
    SUBMISSION_COLUMNS_2020,
    TRAIN_COLUMNS,
    WIDTH,
    Header,
    KaggleRow,
    parse_row,
    read_header,
)
from fashion_hydra.structures.rle import (
    CocoRLE,
    Runs,
    check_runs_inside,
    coco_to_runs,
    resize_runs,
    runs_to_coco,
    runs_to_kaggle,
)
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.limits import MOST_MASKS
from fashion_hydra.utils.text import shorten

SUBMISSION_SIZE = 512
SUBMISSION_GRID = (SUBMISSION_SIZE, SUBMISSION_SIZE)
EMPTY_CLASS_ID = "23"  # ClassId of rows with empty EncodedPixels in Kaggle's sample_submission.csv


MaskRow = tuple[str, Runs | CocoRLE]
"""ClassId and mask."""


MaskTable = dict[str, dict[str, list[CocoRLE]]]
"""ImageId -> ClassId -> masks."""


def read_masks(path: str | Path, *, size: int = SUBMISSION_SIZE) -> MaskTable:
    """Read the masks of a submission or a train.csv (.csv, .csv.gz, .csv.zip), size x size pixels each.

    Args:
        path: the file. Without the columns Height and Width, its masks must already have this size; with them, each
            mask is resized (nearest neighbour), and omitted if no pixel remains.
        size: height and width of the masks.

    Returns:
        The masks of every image, including images with empty EncodedPixels only. Attributes of the 2020 schema are
        part of the ClassId, in the form of 2019: `6_28_77`.

    Raises:
        UserError: the header or a row is invalid; the message names file, line, image and value.
    """
    path = Path(path)
    masks: MaskTable = {}
    rows = read_rows(path, path.name)
    header = _read_header(next(rows)[1], path)
    for line, values in rows:
        row = parse_row(line, values, header, frame=(size, size))
        try:
            _refuse_unusable(row, header, size)
            _add_row(masks, row, size=size)
        except UserError as error:
            image = shorten(row.image_id, 80) or "(no ImageId)"
            raise UserError(f"{path}: line {line}, image {image}: {error}") from None
    return masks


def _read_header(names: Sequence[str], path: Path) -> Header:
    required = TRAIN_COLUMNS if {HEIGHT, WIDTH} & set(names) else SUBMISSION_COLUMNS
    header = read_header(names, required=required, optional=(ATTRIBUTES,))
    if header.missing or header.others:
        advice = f"Write {','.join(SUBMISSION_COLUMNS)} for a submission; Kaggle's train.csv also has {HEIGHT},{WIDTH}"
        advice += f" and may have {ATTRIBUTES}"
        raise UserError(f"{path}: line 1: {header.explain(advice)}")
    return header


def _refuse_unusable(row: KaggleRow, header: Header, size: int) -> None:
    ignored = (CLASS_ID, HEIGHT) if row.is_empty else ()
    for problem in row.problems:
        if problem.kind in CORRECTED or problem.column in ignored:
            continue
        if problem.column != PIXELS:
            raise UserError(problem.message)
        frame = "the row's Height and Width" if header.has_size else f"{size}x{size}, not the photo's size"
        advice = f"Encode the mask column by column, pixels counted from 1, on {frame}"
        raise UserError(f"{problem.message}. {advice}")


def _add_row(masks: MaskTable, row: KaggleRow, *, size: int) -> None:
    image = masks.setdefault(row.image_id, {})
    if row.runs is None or row.size is None:
        return
    runs, (height, width) = row.runs, row.size
    if (height, width) != (size, size):
        runs = resize_runs(runs, height=height, width=width, new_height=size, new_width=size)
    if len(runs):
        if sum(map(len, image.values())) >= MOST_MASKS:
            raise UserError(f"more than {MOST_MASKS} masks of one image. Leave out those with the lowest scores")
        image.setdefault(row.class_id, []).append(runs_to_coco(runs, height=size, width=size))


def write_submission(
    path: str | Path,
    images: Mapping[str, Iterable[MaskRow]] | Iterable[tuple[str, Iterable[MaskRow]]],
    *,
    attributes_apart: bool = False,
) -> int:
    """Write a submission atomically, with all given images and masks in the given order.

    Masks are runs or COCO encodings on the 512x512 frame. Empty masks are omitted. An image without masks gets the
    row that Kaggle requires: `image,,23`.

    Args:
        path: the file, `.csv`.
        images: ImageId -> masks, or an iterator of pairs, which keeps only one image's masks in memory.
        attributes_apart: whether to write attributes to a separate column, as in 2020.

    Returns:
        The number of masks written.

    Raises:
        UserError: a mask exceeds the frame, or an image is given twice.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise UserError(f"{path}: a submission is written as plain text; choose a name that ends with .csv")
    written, seen = 0, set[str]()
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUBMISSION_COLUMNS_2020 if attributes_apart else SUBMISSION_COLUMNS)
        for image, masks in images.items() if isinstance(images, Mapping) else images:
            if image in seen:
                raise UserError(f"image {image}: given twice; give all its masks together")
            seen.add(image)
            encoded = [(class_id, _submission_runs(mask, image)) for class_id, mask in masks]
            rows = [
                (image, runs_to_kaggle(runs), *_class_columns(class_id, attributes_apart))
                for class_id, runs in encoded
                if len(runs)
            ]
            writer.writerows(rows or [(image, "", *_class_columns(EMPTY_CLASS_ID, attributes_apart))])
            written += len(rows)
    return written


def _class_columns(class_id: str, attributes_apart: bool) -> tuple[str, ...]:
    """Return a row's values of ClassId and, if they are apart, AttributesIds."""
    if not attributes_apart:
        return (class_id,)
    category, _, attributes = class_id.partition("_")
    return category, attributes.replace("_", ",")


def write_truth(path: str | Path, truth: Mapping[str, Mapping[str, Sequence[CocoRLE]]]) -> None:
    """Write ground-truth masks (ImageId -> ClassId -> masks) on the 512x512 frame, for `fashion-hydra score`."""
    rows = (
        (image, [(c, mask) for c, masks in by_class.items() for mask in masks]) for image, by_class in truth.items()
    )
    write_submission(path, rows)


def _submission_runs(mask: Runs | CocoRLE, image: str) -> Runs:
    if isinstance(mask, dict):
        if list(mask["size"]) != [SUBMISSION_SIZE, SUBMISSION_SIZE]:
            raise UserError(f"image {image}: mask size {mask['size']}, must be {SUBMISSION_SIZE} in both dimensions")
        return coco_to_runs(mask)
    try:
        check_runs_inside(mask, height=SUBMISSION_SIZE, width=SUBMISSION_SIZE)
    except UserError as error:
        raise UserError(f"image {image}: {error}. Resize masks to {SUBMISSION_SIZE} in both dimensions") from None
    return mask
