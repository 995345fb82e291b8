"""Hold-out and k-fold splits, stratified over the categories that each image has."""

import csv
from pathlib import Path

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from fashion_hydra.errors import UserError


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
    fold_of = np.empty(images, dtype=np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(images), category_table)):
        fold_of[held_out] = fold
    return fold_of


def write_split(path: Path, image_ids: np.ndarray, validation: np.ndarray) -> None:
    """Write which images train and which validate, as a CSV that a person can edit.

    Args:
        path: the CSV.
        image_ids: (I,).
        validation: bool (I,).
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ImageId", "split"])
        writer.writerows((i, "val" if v else "train") for i, v in zip(image_ids, validation, strict=True))
