"""Read truth and results from COCO's JSON or CSV files, with one set of images and classes for `mask_ap`.

Two JSON files are compared on the frames of the images, as in pycocotools. A CSV has masks on the 512x512 grid of a
submission, so if either file is a CSV, masks are resized to that grid. If the frame of an image is known, a grid cell
counts as the number of pixels that it covers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from fashion_hydra.data.coco import read_coco_json
from fashion_hydra.data.coco_masks import attribute_ids, image_key, is_crowd, listed_area, own_id
from fashion_hydra.data.segmentation import read_segmentation
from fashion_hydra.evaluation.coco_ap import TrueMask
from fashion_hydra.formats.class_id import attributes_of, category_of, image_stem
from fashion_hydra.formats.loose_values import whole_number
from fashion_hydra.formats.submission import SUBMISSION_GRID, SUBMISSION_SIZE, read_masks
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE, resize_mask, runs_to_coco
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import read_json
from fashion_hydra.utils.limits import is_frame
from fashion_hydra.utils.text import one_line, shorten

_GRID_CELLS = SUBMISSION_SIZE * SUBMISSION_SIZE


@dataclass(frozen=True)
class _Mask:
    """One mask of a file: category id, mask on the image's frame, and other values from the file."""

    category: int
    mask: CocoRLE
    area: float | None = None
    crowd: bool = False
    score: float = 1.0
    attributes: tuple[int, ...] = ()


@dataclass
class _File:
    """The content of a file.

    Args:
        path: path of the file.
        names: image name without suffix -> image id in the file; in a CSV, the id is the name with its suffix.
        frames: image id -> height and width; empty for a CSV.
        masks: image id -> masks.
        categories: category id -> name; empty if the file lists none.
        attributes: listed attribute ids; empty if the file lists none.
        left_out: entries that were left out, and why.
        notes: other messages for the user.
    """

    path: Path
    names: dict[str, int | str] = field(default_factory=dict)
    frames: dict[int | str, Size] = field(default_factory=dict)
    masks: dict[int | str, list[_Mask]] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    attributes: set[int] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_csv(self) -> bool:
        """Whether masks are on the submission grid."""
        return not self.frames


@dataclass(frozen=True)
class Comparison:
    """The input of `mask_ap` from two files.

    Args:
        truth: image name -> objects.
        found: image name -> detections; images without results are missing.
        category_ids: category id of each label.
        category_names: category name of each label.
        pixel_areas: see `mask_ap`.
        left_out: entries of the files that were left out, and why.
        notes: other messages for the user.
        on_grid: whether masks are compared on the submission grid.
        vocabulary: number of attributes that the truth lists or that occur; 0 if no true mask has attributes.
    """

    truth: Mapping[str, Sequence[TrueMask]]
    found: Mapping[str, Detections]
    category_ids: Sequence[int]
    category_names: Sequence[str]
    pixel_areas: Mapping[str, float]
    left_out: Sequence[str]
    notes: Sequence[str]
    on_grid: bool
    vocabulary: int


def compare_files(truth_path: Path, results_path: Path, *, predicted_only: bool = False) -> Comparison:
    """Read a truth file and a results file.

    Args:
        truth_path: COCO's JSON with annotations, Kaggle's train.csv, or a CSV with a submission's columns.
        results_path: COCO's results, or a submission, which has no scores: its masks get equal scores.
        predicted_only: leave out images without results; otherwise they count as empty, as in pycocotools.

    Raises:
        UserError: a file cannot be read, or there are results for images that are not in the truth.
    """
    truth = _read_csv(truth_path) if _is_csv(truth_path) else _read_truth(truth_path)
    results = _read_csv(results_path) if _is_csv(results_path) else _read_results(results_path, truth)
    answered = {name: results.names[name] for name in results.names if name in truth.names}
    if unknown := [name for name in results.names if name not in truth.names]:
        raise UserError(
            f"{results_path}: {len(unknown)} of {len(results.names)} images are not in {truth_path}, the first "
            f"{shorten(unknown[0], 60)}. Give the truth of these images"
        )
    on_grid = truth.is_csv or results.is_csv
    notes = [*truth.notes, *results.notes]
    if results.is_csv:
        notes.append("a CSV has no scores: all masks get equal scores, so AP is one point of precision and recall")
    ids = sorted(truth.categories) or sorted({m.category for masks in truth.masks.values() for m in masks})
    label_of = {category: label for label, category in enumerate(ids)}
    chosen = sorted(answered if predicted_only else truth.names, key=lambda name: _order(truth.names[name]))
    missing = len(truth.names) - len(answered)
    if missing:
        what = "are left out (--predicted)" if predicted_only else "count as empty (--predicted leaves them out)"
        notes.append(f"{missing} of {len(truth.names)} images have no result and {what}")
    objects, found, pixels = {}, {}, {}
    foreign = 0
    for name in chosen:
        frame = truth.frames.get(truth.names[name])
        if on_grid:
            pixels[name] = frame[0] * frame[1] / _GRID_CELLS if frame else 1.0
        objects[name] = [_true(m, label_of, on_grid, pixels.get(name, 1.0)) for m in truth.masks[truth.names[name]]]
        if name not in answered:
            continue
        masks = results.masks[answered[name]]
        known = [m for m in masks if m.category in label_of]
        foreign += len(masks) - len(known)
        found[name] = Detections(
            name,
            [label_of[m.category] for m in known],
            [m.score for m in known],
            [_on_grid(m.mask) if on_grid else m.mask for m in known],
            attributes=[m.attributes for m in known],
        )
    left_out = [*truth.left_out, *results.left_out]
    if foreign:
        left_out.append(f"{results_path}: {foreign} masks of categories that are not in the truth")
    names = [truth.categories.get(i) or results.categories.get(i) or f"category {i}" for i in ids]
    return Comparison(objects, found, ids, names, pixels, left_out, notes, on_grid, _vocabulary(truth, results))


def _vocabulary(truth: _File, results: _File) -> int:
    of_truth, answered = (
        {a for masks in file.masks.values() for m in masks for a in m.attributes} for file in (truth, results)
    )
    return len(truth.attributes | of_truth | answered) if of_truth else 0


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz", ".csv.zip"))


def _order(image_id: int | str) -> tuple[bool, int, str]:
    """Return the sort key of an image. As in pycocotools, ascending ids decide between equal scores."""
    is_name = isinstance(image_id, str)
    return is_name, 0 if is_name else int(image_id), str(image_id)


def _true(one: _Mask, label_of: Mapping[int, int], on_grid: bool, pixel_area: float) -> TrueMask:
    mask = _on_grid(one.mask) if on_grid else one.mask
    area = pixel_area * float(coco_mask.area(mask)) if one.area is None else one.area
    return TrueMask(label_of[one.category], mask, area, one.crowd, one.attributes)


def _on_grid(mask: CocoRLE) -> CocoRLE:
    return resize_mask(mask, SUBMISSION_GRID)


def _read_csv(path: Path) -> _File:
    file = _File(path)
    for image_id, by_class in read_masks(path).items():
        file.names[image_stem(image_id)] = image_id
        file.masks[image_id] = [
            _Mask(category_of(i), mask, attributes=attributes_of(i)) for i, masks in by_class.items() for mask in masks
        ]
    return file


def _read_truth(path: Path) -> _File:
    content = read_coco_json(path)
    file = _File(path)
    for place, entry in enumerate(content["categories"]):
        number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
        if number is None:
            raise UserError(f"{path}: categories[{place}]: {shorten(entry, 60)}: must have an id")
        file.categories[number] = str(entry.get("name", f"category {number}"))
    listed = content.get("attributes")
    numbers = [whole_number(entry.get("id")) for entry in listed if isinstance(entry, dict)] if listed else []
    file.attributes = {number for number in numbers if number is not None}
    _read_images(content["images"], file)
    for place, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{place}]"
        key = image_key(annotation.get("image_id")) if isinstance(annotation, dict) else None
        category = whole_number(annotation.get("category_id")) if key is not None else None
        if key not in file.frames or category not in file.categories:
            file.left_out.append(f"{where}: image_id and category_id must be listed in the file")
            continue
        assert key is not None
        assert category is not None
        try:
            mask = _drawn(annotation.get("segmentation"), file.frames[key])
            attributes = attribute_ids(annotation.get("attribute_ids"))
        except (UserError, ValueError) as error:
            file.left_out.append(f"{where}: {error}")
            continue
        crowd, area = is_crowd(annotation.get("iscrowd")), listed_area(annotation.get("area"))
        file.masks[key].append(_Mask(category, mask, area, crowd, attributes=tuple(attributes)))
        if own_id(annotation) == 0:
            file.notes.append(f"{where}: id 0: pycocotools counts a detection that matches it as a false positive")
    return file


def _read_images(entries: Sequence[Any], file: _File) -> None:
    for place, entry in enumerate(entries):
        key = image_key(entry.get("id")) if isinstance(entry, dict) else None
        size = tuple(whole_number(entry.get(edge)) or 0 for edge in ("height", "width")) if key is not None else (0, 0)
        name = entry.get("file_name", key) if isinstance(entry, dict) else None
        if key is None or not is_frame(*size):
            file.left_out.append(f"{file.path}: images[{place}]: {shorten(entry, 60)}: must have id, height and width")
            continue
        stem = image_stem(str(name))
        if stem in file.names and file.names[stem] != key:  # for example one name in two folders
            stem = f"{stem} (id {key})"
        file.names[stem] = key
        file.frames[key] = (size[0], size[1])
        file.masks.setdefault(key, [])


def _drawn(segmentation: Any, frame: Size) -> CocoRLE:
    """Draw a segmentation as a mask on the frame; raise UserError if it is invalid."""
    try:
        runs = read_segmentation(segmentation, height=frame[0], width=frame[1]).runs
    except (ValueError, UserError) as error:
        raise UserError(one_line(error, 120)) from error
    except Exception as error:  # pycocotools can raise any exception
        raise UserError(f"cannot be drawn: {shorten(segmentation, 60)}") from error
    return runs_to_coco(runs, height=frame[0], width=frame[1])


def _read_results(path: Path, truth: _File) -> _File:
    """Read results. Image ids are those of the truth or, if it is a CSV, of NAME_images.json beside the results."""
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({one_line(error, 120)})") from error
    if not isinstance(content, list):
        raise UserError(
            f"{path}: must be a list of results, each with image_id, category_id, segmentation and score. "
            "predict.py output=coco writes one"
        )
    beside = path.with_name(f"{path.stem}_images.json")
    file = _File(path)
    if truth.is_csv:
        if not beside.is_file():
            raise UserError(f"{path}: image ids cannot be resolved: {beside.name} is missing beside it")
        listed = read_coco_json(beside)
        _read_images(listed["images"], file)
    else:
        file.frames = truth.frames
        predicted = {image_key(i["id"]) for i in read_coco_json(beside)["images"]} if beside.is_file() else set()
        predicted |= {image_key(entry.get("image_id")) for entry in content if isinstance(entry, dict)}
        file.names = {name: key for name, key in truth.names.items() if key in predicted}
        file.masks = {key: [] for key in file.names.values()}
    for key, one in _results(path, content, file.frames):
        file.masks[key].append(one)
    return file


def _results(path: Path, content: Sequence[Any], frames: Mapping[int | str, Size]) -> Iterator[tuple[int | str, _Mask]]:
    for place, entry in enumerate(content):
        where = f"{path}: result {place}"
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {shorten(entry, 60)}: must be an object")
        key, category = image_key(entry.get("image_id")), whole_number(entry.get("category_id"))
        if key is None or key not in frames:
            raise UserError(
                f"{where}: image_id {shorten(entry.get('image_id'), 40)} is not in the truth. Give the truth of these "
                "images"
            )
        score = entry.get("score")
        if category is None or not isinstance(score, int | float) or not float("-inf") < score < float("inf"):
            raise UserError(f"{where}: {shorten(entry, 80)}: must have a category_id and a finite score")
        try:
            mask = _drawn(entry.get("segmentation"), frames[key])
        except UserError as error:
            raise UserError(f"{where}: segmentation: {error}") from error
        try:
            attributes = attribute_ids(entry.get("attribute_ids"))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        yield key, _Mask(category, mask, score=float(score), attributes=tuple(attributes))
