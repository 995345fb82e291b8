"""Hold-out and k-fold splits, stratified by the categories in each image."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from fashion_hydra.formats.csv_files import open_csv
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.text import shorten

UNUSED = -1
"""Fold of an image that is used neither for training nor for validation."""


def stratified_folds(category_table: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Assign every image to a fold so that each fold has its share of every category.

    Args:
        category_table: (I, C), 1 where the image has the category.
        folds: number of folds, at least 2.
        seed: seed of the shuffle.

    Returns:
        int64 (I,), fold of each image.

    Raises:
        UserError: `folds` or `seed` is out of range; at least one image per fold is required.
    """
    images = len(category_table)
    if not 2 <= folds <= images:
        raise UserError(f"data.folds={folds}: must be between 2 and the number of images ({images})")
    if category_table.shape[1] < 2:  # the splitter needs two columns to see a table of categories
        has_any = category_table.any(axis=1, keepdims=True).astype(np.uint8)
        category_table = np.hstack([has_any, 1 - has_any])
    fold_of = np.empty(images, dtype=np.int64)
    if not 0 <= seed < 2**32:
        raise UserError(f"data.split_seed={seed}: must be between 0 and {2**32 - 1}")
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(images), category_table)):
        fold_of[held_out] = fold
    return fold_of


def write_split(path: Path, image_ids: Sequence[str] | np.ndarray, fold_of: np.ndarray) -> None:
    """Write each image's fold to a CSV, which users can edit and `read_split` reads.

    Args:
        path: output file.
        image_ids: (I,), image ids.
        fold_of: (I,), see `stratified_folds`.
    """
    with atomic_write(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(["ImageId", "fold"])
        writer.writerows((i, f if f != UNUSED else "") for i, f in zip(image_ids, fold_of.tolist(), strict=True))


def read_split(path: Path, image_ids: Sequence[str] | np.ndarray, *, left_out: frozenset[str]) -> np.ndarray:
    """Read a split. Images without a row or without a fold are not used.

    Args:
        path: a CSV with the columns ImageId and fold.
        image_ids: (I,), image ids of the data.
        left_out: ids of images that were left out of the data because of a fault.

    Returns:
        int64 (I,), fold of each image or `UNUSED`.

    Raises:
        UserError: the file is missing or has an invalid row.
    """
    if not path.is_file():
        raise UserError(f"data.split_file={path}: no such file. `fashion-hydra split` writes one")
    index = {str(image_id): i for i, image_id in enumerate(image_ids)}
    fold_of = np.full(len(index), UNUSED, dtype=np.int64)
    with open_csv(path) as stream:
        reader = csv.DictReader(stream)
        if not {"ImageId", "fold"} <= set(reader.fieldnames or ()):
            raise UserError(
                f"{path}: must have the columns ImageId and fold, got {shorten(','.join(reader.fieldnames or ()), 80)}"
            )
        seen: set[str] = set()
        for line in reader:
            image_id, fold = line["ImageId"] or "", (line["fold"] or "").strip()
            where = f"{path}, row {reader.line_num}"
            if image_id in seen:
                raise UserError(f"{where}: duplicate image {shorten(image_id, 80)}")
            if image_id not in index and image_id not in left_out:
                raise UserError(f"{where}: the data has no image {shorten(image_id, 80)}")
            if fold and not re.fullmatch("[0-9]{1,4}", fold):
                raise UserError(
                    f"{where}: fold {shorten(fold, 80)!r}: give a number from 0, or nothing to leave the image out"
                )
            seen.add(image_id)
            if image_id in index and fold:
                fold_of[index[image_id]] = int(fold)
    return fold_of


@dataclass(frozen=True)
class Deviation:
    """Difference between the class frequencies of validation and training images.

    The deviation of a class is |share of validation images with it / share of training images with it - 1|. It is
    defined for classes in at least one training image.

    Args:
        worst: largest deviation of a class.
        worst_class: column of that class in the table.
        mean: mean deviation over the classes.
    """

    worst: float
    worst_class: int
    mean: float


def deviation(category_table: np.ndarray, validation: np.ndarray) -> Deviation | None:
    """Measure the deviation of a split; None if no training image has a class or there are no validation images.

    Args:
        category_table: (I, C), 1 where the image has the category.
        validation: bool (I,), whether the image is used for validation.
    """
    if not category_table[~validation].any() or not validation.any():
        return None
    train, val = (category_table[chosen].mean(axis=0) for chosen in (~validation, validation))
    able = np.flatnonzero(train > 0)
    relative = np.abs(val[able] / train[able] - 1)
    worst = int(relative.argmax())
    return Deviation(float(relative[worst]), int(able[worst]), float(relative.mean()))


def unbalanced(category_table: np.ndarray, fold_of: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the categories that no split could balance, and the folds without any object.

    Args:
        category_table: (I, C), 1 where the image has the category.
        fold_of: (I,), see `stratified_folds`.

    Returns:
        Columns of the categories that occur, but in fewer images than there are folds; folds without any object.
    """
    folds = int(fold_of.max(initial=UNUSED)) + 1
    images = category_table[fold_of != UNUSED].sum(axis=0)
    empty = [fold for fold in range(folds) if not category_table[fold_of == fold].any()]
    return np.flatnonzero((images > 0) & (images < folds)).tolist(), empty


def random_deviation(
    category_table: np.ndarray, validation: np.ndarray, *, seed: int, draws: int = 50
) -> Deviation | None:
    """Return the median deviation of random splits of the same size; None if none of them can be measured."""
    rng = np.random.default_rng(seed)
    every = [deviation(category_table, rng.permutation(validation)) for _ in range(draws)]
    drawn = [found for found in every if found is not None]
    if not drawn:
        return None
    typical = sorted(drawn, key=lambda d: d.worst)[len(drawn) // 2]
    return Deviation(typical.worst, typical.worst_class, float(np.median([d.mean for d in drawn])))
