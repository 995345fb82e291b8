"""Write the wardrobe atomically to a folder in Kaggle's layout of iMaterialist (Fashion) 2019."""

import csv
import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from fashion_hydra.data.imaterialist import label_descriptions
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_kaggle
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import folder_beside
from fashion_hydra.wardrobe.scene import Picture, draw_picture

SPLITS = ("train", "test")
TRAIN_COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")
SUBMISSION_COLUMNS = ("ImageId", "EncodedPixels", "ClassId")
EMPTY_CLASS = 23  # ClassId that the competition uses in the row of an image without masks
NUM_SWAPPED = 2  # images with swapped Height and Width in train.csv, because the real file has two wrong sizes
MIN_TRAIN, MIN_TEST = 8, 1
MIN_SIZE, MAX_SIZE = 96, 2048
JPEG_QUALITY = 92
# Below this number, starting worker processes costs more time than they save.
MIN_IMAGES_FOR_POOL = 24
PARAMETERS_FILE = "wardrobe.json"
# Increment the version when the drawing changes, so that older folders are not mistaken for the same wardrobe.
ART_VERSION = 2


@dataclass(frozen=True)
class Summary:
    """Numbers of images and masks per split, and of masks per category id; `written` is False if the folder existed."""

    images: dict[str, int]
    masks: dict[str, int]
    masks_per_category: dict[int, int]
    written: bool


@dataclass(frozen=True)
class _Job:
    folder: str
    split: str
    index: int
    size: int
    seed: int


@dataclass(frozen=True)
class _Drawn:
    """An image on disk and its (EncodedPixels, ClassId) rows."""

    image_id: str
    height: int
    width: int
    rows: tuple[tuple[str, str], ...]


def write_wardrobe(folder: str | Path, *, train: int, test: int, size: int, seed: int) -> Summary:
    """Draw `train` + `test` images with a long edge of `size` pixels into `folder`.

    Writes train/ and test/ (JPEG), train.csv, test_truth.csv, label_descriptions.json, sample_submission.csv and
    wardrobe.json. At the same size, image i of a split depends only on (seed, split, i), so a larger wardrobe extends a
    smaller one.

    Raises:
        UserError: a value is out of range, or `folder` holds anything except this wardrobe.
    """
    folder = Path(folder)
    parameters = {"train": train, "test": test, "size": size, "seed": seed, "version": ART_VERSION}
    _check(train=train, test=test, size=size, seed=seed)
    if _is_there(folder, parameters):
        return _summary(folder, written=False)
    with folder_beside(folder) as temporary:
        jobs = [
            _Job(str(temporary), split, i, size, seed)
            for split, n in zip(SPLITS, (train, test), strict=True)
            for i in range(n)
        ]
        for split in SPLITS:
            (temporary / split).mkdir()
        drawn = list(tqdm(_draw_all(jobs), total=len(jobs), desc="drawing", unit="image"))
        _write_tables(temporary, drawn[:train], drawn[train:])
        (temporary / PARAMETERS_FILE).write_text(json.dumps(parameters) + "\n")
        os.replace(temporary, folder)
    return _summary(folder, written=True)


def draw_image(*, seed: int, split: str, index: int, size: int) -> Picture:
    """Draw picture number `index` of a split, independently of all other pictures."""
    return draw_picture(np.random.default_rng([seed, SPLITS.index(split), index]), size=size)


def _check(*, train: int, test: int, size: int, seed: int) -> None:
    if train < MIN_TRAIN:
        raise UserError(f"--train {train}: give at least {MIN_TRAIN} training images")
    if test < MIN_TEST:
        raise UserError(f"--test {test}: give at least {MIN_TEST} test image")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"--size {size}: the long edge must have {MIN_SIZE} to {MAX_SIZE} pixels")
    if seed < 0:
        raise UserError(f"--seed {seed}: must not be negative")


def _is_there(folder: Path, parameters: dict[str, int]) -> bool:
    """Return whether `folder` holds the requested wardrobe; raise `UserError` if it holds something else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file. Give a folder that does not exist yet")
    if not any(folder.iterdir()):
        return False
    if not (folder / PARAMETERS_FILE).is_file():
        raise UserError(f"{folder}: is not empty and is not a wardrobe. Give another folder, or empty this one")
    found = json.loads((folder / PARAMETERS_FILE).read_text())
    if found != parameters:
        differ = ", ".join(f"{k} {found.get(k)} instead of {v}" for k, v in parameters.items() if found.get(k) != v)
        raise UserError(f"{folder}: holds a different wardrobe ({differ}). Give another folder, or delete this one")
    return True


def _draw_all(jobs: list[_Job]) -> Iterable[_Drawn]:
    workers = min(len(os.sched_getaffinity(0)), 16) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers == 1 or len(jobs) < MIN_IMAGES_FOR_POOL:
        yield from map(_draw, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(_draw, jobs, chunksize=4)


def _draw(job: _Job) -> _Drawn:
    picture = draw_image(seed=job.seed, split=job.split, index=job.index, size=job.size)
    # Kaggle's file names have 32 hexadecimal digits.
    name = hashlib.md5(f"{job.seed}/{job.split}/{job.index}".encode()).hexdigest() + ".jpg"
    Image.fromarray(picture.rgb).save(Path(job.folder, job.split, name), quality=JPEG_QUALITY)
    rows = tuple(
        (runs_to_kaggle(bitmap_to_runs(t.mask)), "_".join(map(str, (t.category, *t.attributes)))) for t in picture.truth
    )
    height, width = picture.rgb.shape[:2]
    return _Drawn(name, height, width, rows)


def _write_tables(folder: Path, train: list[_Drawn], test: list[_Drawn]) -> None:
    # The first images have correct sizes, because users look at them first.
    swapped = {d.image_id for d in train[2 : 2 + NUM_SWAPPED]}
    _write_csv(folder / "train.csv", TRAIN_COLUMNS, _truth_rows(train, swapped))
    _write_csv(folder / "test_truth.csv", TRAIN_COLUMNS, _truth_rows(test, set()))
    empty = ((d.image_id, "", EMPTY_CLASS) for d in test)
    _write_csv(folder / "sample_submission.csv", SUBMISSION_COLUMNS, empty)
    (folder / "label_descriptions.json").write_text(json.dumps(label_descriptions(), indent=1) + "\n")


def _truth_rows(images: Iterable[_Drawn], swapped: set[str]) -> Iterator[tuple]:
    for image in images:
        size = (image.height, image.width)
        if image.image_id in swapped:
            size = size[::-1]
        for encoded, class_id in image.rows or (("", str(EMPTY_CLASS)),):
            yield image.image_id, encoded, *size, class_id


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _summary(folder: Path, *, written: bool) -> Summary:
    csv.field_size_limit(2**31 - 1)
    masks: dict[str, int] = {}
    categories: Counter[int] = Counter()
    for split, table in zip(SPLITS, ("train.csv", "test_truth.csv"), strict=True):
        with (folder / table).open(newline="") as file:
            classes = [row["ClassId"] for row in csv.DictReader(file) if row["EncodedPixels"]]
        masks[split] = len(classes)
        categories.update(map(category_of, classes))
    images = {split: sum(1 for _ in (folder / split).iterdir()) for split in SPLITS}
    return Summary(images, masks, dict(sorted(categories.items())), written)
