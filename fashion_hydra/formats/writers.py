"""Write predictions as a submission, as COCO results, or as one PNG per mask.

Each writer takes images one by one, keeps one image's masks in memory, and writes its output atomically.
"""

import csv
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from fashion_hydra.formats.submission import write_submission
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import coco_to_runs, runs_area, runs_to_bitmap, runs_to_box
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write

INDEX = "index.csv"
_INDEX_COLUMNS = ("image", "file", "category", "name", "score", "x0", "y0", "x1", "y1", "area", "attributes")


@dataclass(frozen=True)
class ImageAnswer:
    """The predictions of one image.

    Args:
        image_id: ImageId in a submission.
        file: path of the image's file, relative to the folder of the images.
        size: height and width of the image.
        detections: detections on the grid that the writer requires.
        ids: category id of each label.
        coco_id: the image's id in COCO files, as JSON text; None for its position among the images, from 1.
    """

    image_id: str
    file: str
    size: Size
    detections: Detections
    ids: Sequence[int]
    coco_id: str | None = None


def write_submission_csv(path: Path, answers: Iterable[ImageAnswer], *, attributes_apart: bool = False) -> int:
    """Write a submission by Kaggle's rules, see `fashion_hydra.formats.submission.write_submission`.

    Args:
        path: the file, `.csv`.
        answers: detections on the 512x512 grid; every image gets a row.
        attributes_apart: whether to write attributes to a separate column, as in 2020.

    Returns:
        The number of masks written.

    Raises:
        UserError: a mask has another size, or an image is given twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_submission(
        path,
        ((a.image_id, list(zip(a.detections.class_ids(a.ids), a.detections.masks, strict=True))) for a in answers),
        attributes_apart=attributes_apart,
    )


def write_coco_results(path: Path, answers: Iterable[ImageAnswer], names: Mapping[int, str] | None = None) -> int:
    """Write COCO results (https://cocodataset.org/#format-results), which `COCO.loadRes` of pycocotools loads.

    Image ids are those of the COCO file that the images were read from, else 1, 2, ... in the given order. Next to
    `path`, `NAME_images.json` is written, a COCO data set without annotations: id, file and size of each image, and
    the categories. `COCO(FILE).loadRes(NAME.json)` loads the results, with NAME_images.json or the original as FILE.

    Args:
        path: the file, `.json`.
        answers: detections at each image's own size.
        names: category id -> name; by default, ids are used as names.

    Returns:
        The number of masks written.

    Raises:
        UserError: a mask does not have its image's size.
    """
    count = 0
    categories: dict[int, str] = dict(names or {})
    images_path = path.with_name(f"{path.stem}_images.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(images_path) as images, atomic_write(path) as results:
        images.write('{"images": [')
        results.write("[")
        for number, answer in enumerate(answers, start=1):
            _check_size(answer)
            height, width = answer.size
            coco_id = number if answer.coco_id is None else json.loads(answer.coco_id)
            image = {"id": coco_id, "file_name": answer.file, "height": height, "width": width}
            images.write(",\n" * (number > 1) + json.dumps({**image, "image_id": answer.image_id}))
            for result in coco_results(answer.detections, answer.ids, coco_id):
                results.write(",\n" * (count > 0) + json.dumps(result))
                count += 1
            categories |= {category: str(category) for category in answer.ids if category not in categories}
        listed = [{"id": category, "name": name} for category, name in sorted(categories.items())]
        images.write(f'],\n"annotations": [],\n"categories": {json.dumps(listed)}}}\n')
        results.write("]\n")
    return count


def coco_results(found: Detections, ids: Sequence[int], coco_id: int | str) -> Iterator[dict[str, object]]:
    """Yield a COCO result for each detection, without `bbox`, whose area pycocotools would use as the mask's.

    Args:
        found: detections at the image's own size.
        ids: category id of each label.
        coco_id: the image's id in COCO files.
    """
    for label, score, mask, own in zip(found.labels, found.scores, found.masks, found.attribute_ids, strict=True):
        counts = mask["counts"]
        yield {
            "image_id": coco_id,
            "category_id": ids[label],
            "score": score,
            "segmentation": {"size": mask["size"], "counts": counts if isinstance(counts, str) else counts.decode()},
            **({} if found.attributes is None else {"attribute_ids": list(own)}),
        }


def write_mask_pngs(folder: Path, answers: Iterable[ImageAnswer], names: Mapping[int, str]) -> int:
    """Write one folder per image with a one-bit PNG per mask, white on black at the image's size, and `index.csv`.

    A mask's file name gives its rank, category and score: `photo/003_shoe_0.871.png`. The index has one row per mask:
    image, file relative to `folder`, category id, name, score, box (x0, y0, x1, y1; pixels, x1 and y1 exclusive), area,
    attribute ids.

    Args:
        folder: the output folder; an existing one with an index is replaced when the new one is complete.
        answers: detections at each image's own size, best first.
        names: category id -> name.

    Returns:
        The number of masks written.

    Raises:
        UserError: `folder` has other content, or a mask does not have its image's size.
    """
    if folder.exists() and not (folder / INDEX).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not a folder of masks (no {INDEX}), so it is not overwritten. Choose another")
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    count, taken = 0, dict[str, int]()
    part.mkdir(parents=True)
    try:
        with (part / INDEX).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_INDEX_COLUMNS)
            for answer in answers:
                _check_size(answer)
                rows = list(_draw_masks(part, _free_name(answer.image_id, answer.file, taken), answer, names))
                writer.writerows(rows)
                count += len(rows)
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return count


def _draw_masks(
    root: Path, subfolder: str, answer: ImageAnswer, names: Mapping[int, str]
) -> Iterator[tuple[object, ...]]:
    """Write an image's masks below `root`, and yield their rows of the index."""
    (root / subfolder).mkdir()
    height, width = answer.size
    found = answer.detections
    listed = zip(found.labels, found.scores, found.masks, found.attribute_ids, strict=True)
    for rank, (label, score, mask, own) in enumerate(listed, start=1):
        category = answer.ids[label]
        file = f"{subfolder}/{rank:03d}_{_file_name(names[category].split(',')[0])}_{score:.3f}.png"
        runs = coco_to_runs(mask)
        bitmap = runs_to_bitmap(runs, height=height, width=width).astype(bool)
        Image.fromarray(bitmap).save(root / file)
        box = runs_to_box(runs, height=height)
        known = ",".join(map(str, own))
        yield (answer.image_id, file, category, names[category], round(score, 6), *box, runs_area(runs), known)


def _free_name(image_id: str, file: str, taken: dict[str, int]) -> str:
    """Return an unused folder name for an image: its id without suffix, else with suffix, else with a number.

    Args:
        image_id: the image's id.
        file: the image's file, which has the suffix to remove.
        taken: used name, lowercase because some file systems ignore case -> next number to try; updated.
    """
    stem, full = _file_name(image_id.removesuffix(PurePosixPath(file).suffix)), _file_name(image_id)
    name = next((n for n in (stem, full) if n.lower() not in taken and n != INDEX), None)
    while name is None:
        number = taken.setdefault(full.lower(), 2)
        taken[full.lower()] += 1
        if (numbered := f"{full}-{number}").lower() not in taken:
            name = numbered
    taken[name.lower()] = 2
    return name


def free_path(file: str, suffix: str, taken: set[str]) -> str:
    """Return an unused path for a file's output: with another suffix, else with both suffixes, else with a number.

    Args:
        file: relative path of the file.
        suffix: suffix of the new path, such as `.jpg`.
        taken: used paths, lowercase because some file systems ignore case; updated.
    """
    stem = file[: len(file) - len(PurePosixPath(file).suffix)]
    names = itertools.chain(
        [f"{stem}{suffix}", f"{file}{suffix}"], (f"{file}-{number}{suffix}" for number in itertools.count(2))
    )
    name = next(name for name in names if name.lower() not in taken)
    taken.add(name.lower())
    return name


def _file_name(text: str) -> str:
    """Turn a text into a file name of letters, digits, underscores, dots and dashes that does not begin with a dot."""
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".").strip("_")[:100] or "_"


def _check_size(answer: ImageAnswer) -> None:
    for mask in answer.detections.masks:
        if list(mask["size"]) != list(answer.size):
            raise UserError(f"image {answer.image_id}: mask of size {mask['size']}, the image has {list(answer.size)}")
