"""Hold-out and k-fold splits, stratified over the categories that each image has."""

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
"""Fold of an image that neither trains nor validates."""


def stratified_folds(category_table: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Assign every image to a fold so that each fold has its share of every category.

    Args:
        category_table: (I, C), 1 where the image has the category.
        folds: number of folds, at least 2.
        seed: of the shuffling.

    Returns:
        int64 (I,), fold of each image.

    Raises:
        UserError: fewer images than folds.
    """
    images = len(category_table)
    if not 2 <= folds <= images:
        raise UserError(f"data.folds={folds}: between 2 and the number of images ({images}) expected")
    if category_table.shape[1] < 2:  # a single column would not be taken for a table of categories
        has_any = category_table.any(axis=1, keepdims=True).astype(np.uint8)
        category_table = np.hstack([has_any, 1 - has_any])
    fold_of = np.empty(images, dtype=np.int64)
    if not 0 <= seed < 2**32:
        raise UserError(f"data.split_seed={seed}: between 0 and {2**32 - 1} expected")
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(images), category_table)):
        fold_of[held_out] = fold
    return fold_of


def write_split(path: Path, image_ids: Sequence[str] | np.ndarray, fold_of: np.ndarray) -> None:
    """Write each image's fold as a CSV that a person can edit and `read_split` reads.

    Args:
        path: the CSV.
        image_ids: (I,).
        fold_of: (I,), see `stratified_folds`.
    """
    with atomic_write(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(["ImageId", "fold"])
        writer.writerows((i, f if f != UNUSED else "") for i, f in zip(image_ids, fold_of.tolist(), strict=True))


def read_split(path: Path, image_ids: Sequence[str] | np.ndarray, *, left_out: frozenset[str]) -> np.ndarray:
    """Read a split; images that it does not name, or names without a fold, are not used.

    Args:
        path: a CSV with the columns ImageId and fold.
        image_ids: (I,) of the data.
        left_out: images that the data names but that are left out for a fault.

    Returns:
        int64 (I,), fold of each image or `UNUSED`.

    Raises:
        UserError: the file is missing or has a row that cannot be meant.
    """
    if not path.is_file():
        raise UserError(f"data.split_file={path}: no such file. `fashion-hydra split` writes one")
    index = {str(image_id): i for i, image_id in enumerate(image_ids)}
    fold_of = np.full(len(index), UNUSED, dtype=np.int64)
    with open_csv(path) as stream:
        reader = csv.DictReader(stream)
        if not {"ImageId", "fold"} <= set(reader.fieldnames or ()):
            raise UserError(
                f"{path}: columns ImageId and fold expected, got {shorten(','.join(reader.fieldnames or ()), 80)}"
            )
        seen: set[str] = set()
        for line in reader:
            image_id, fold = line["ImageId"] or "", (line["fold"] or "").strip()
            where = f"{path}, row {reader.line_num}"
            if image_id in seen:
                raise UserError(f"{where}: {shorten(image_id, 80)} a second time")
            if image_id not in index and image_id not in left_out:
                raise UserError(f"{where}: the data has no image {shorten(image_id, 80)}")
            if fold and not re.fullmatch("[0-9]{1,4}", fold):
                raise UserError(
                    f"{where}: fold {shorten(fold, 80)!r}: a number from 0, or nothing for an image not to be used"
                )
            seen.add(image_id)
            if image_id in index and fold:
                fold_of[index[image_id]] = int(fold)
    return fold_of


@dataclass(frozen=True)
class Deviation:
    """How far the classes' shares of images differ between validation and training.

    A class's deviation is |share of validation images that have it / share of training images that have it - 1|,
    over the classes that some training image has.

    Args:
        worst: the largest.
        worst_class: its column in the table.
        mean: over the classes.
    """

    worst: float
    worst_class: int
    mean: float


def deviation(category_table: np.ndarray, validation: np.ndarray) -> Deviation | None:
    """Measure a split; None where no training image has any class, or there is nothing to validate with.

    Args:
        category_table: (I, C), 1 where the image has the category.
        validation: bool (I,).
    """
    if not category_table[~validation].any() or not validation.any():
        return None
    train, val = (category_table[chosen].mean(axis=0) for chosen in (~validation, validation))
    able = np.flatnonzero(train > 0)
    relative = np.abs(val[able] / train[able] - 1)
    worst = int(relative.argmax())
    return Deviation(float(relative[worst]), int(able[worst]), float(relative.mean()))


def unbalanced(category_table: np.ndarray, fold_of: np.ndarray) -> tuple[list[int], list[int]]:
    """What no split into so many folds could make even.

    Args:
        category_table: (I, C), 1 where the image has the category.
        fold_of: (I,), see `stratified_folds`.

    Returns:
        Columns of the categories that some image has, but fewer images than there are folds; folds without any object.
    """
    folds = int(fold_of.max(initial=UNUSED)) + 1
    images = category_table[fold_of != UNUSED].sum(axis=0)
    empty = [fold for fold in range(folds) if not category_table[fold_of == fold].any()]
    return np.flatnonzero((images > 0) & (images < folds)).tolist(), empty


def random_deviation(
    category_table: np.ndarray, validation: np.ndarray, *, seed: int, draws: int = 50
) -> Deviation | None:
    """The same measures of random splits of that size: the medians over those draws that can be measured."""
    rng = np.random.default_rng(seed)
    every = [deviation(category_table, rng.permutation(validation)) for _ in range(draws)]
    drawn = [found for found in every if found is not None]
    if not drawn:
        return None
    typical = sorted(drawn, key=lambda d: d.worst)[len(drawn) // 2]
    return Deviation(typical.worst, typical.worst_class, float(np.median([d.mean for d in drawn])))
