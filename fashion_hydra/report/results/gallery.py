"""Prepare the data of the gallery's script: the classes, and the photo, outlines and errors of each image."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pycocotools import mask as coco_mask
from tqdm import tqdm

from fashion_hydra.evaluation.error_kinds import FALSE_POSITIVES, HIT, MISSED, WRONG_CLASS, MaskResult, OneMask
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.report.html import css_colour
from fashion_hydra.report.results.analysis import AnalysedImage, Analysis, flatten_masks
from fashion_hydra.report.results.outlines import mask_path
from fashion_hydra.report.results.photos import LONGEST_EDGE, Photos
from fashion_hydra.utils.errors import UserError


@dataclass(frozen=True)
class Category:
    """A class of the legend.

    Args:
        id: category id.
        name: category name.
        colour: colour in CSS notation.
    """

    id: int
    name: str
    colour: str


def categories_of(analysis: Analysis, names: Mapping[int, str]) -> list[Category]:
    """Return the categories that occur in truth or prediction, by ascending id."""
    ids = sorted({category_of(class_id) for class_id in analysis.error_counts})
    return [Category(i, names.get(i, f"category {i}"), css_colour(i)) for i in ids]


@dataclass(frozen=True)
class GalleryImage:
    """One image as JSON-serializable values.

    Args:
        entry: values to sort and filter by, and the sizes.
        content: photo and masks; the script parses them when the image is shown.
    """

    entry: dict[str, Any]
    content: dict[str, Any]


def gallery_images(
    analysis: Analysis, photos: Photos, categories: Sequence[Category], *, desc: str
) -> Iterator[GalleryImage]:
    """Yield the images one at a time, so that only one is in memory.

    Args:
        analysis: analysed prediction.
        photos: photos of the images.
        categories: categories that masks refer to by index.
        desc: label of the progress bar.
    """
    index = {category.id: i for i, category in enumerate(categories)}
    for image in tqdm(analysis.images, desc=desc, unit=" images", disable=None):
        predicted = flatten_masks(analysis.answers.predicted[image.answer]) if image.answer is not None else []
        true = flatten_masks(analysis.answers.truth[image.name])
        masks = list(_masks("prediction", predicted, image.predicted, image.confidence, true, index))
        true_masks = list(_masks("truth", true, image.true, (None,) * len(true), predicted, index))
        masks.sort(key=lambda mask: -(mask["score"] or 0))
        true_masks.sort(key=lambda mask: -mask["area"])
        photo, fault, (height, width) = _photo(photos, image)
        entry = {
            "id": image.name,
            "score": round(image.score, 6),
            "errors": image.errors,
            "wrongAttributes": image.wrong_attributes,
            "width": width,
            "height": height,
            "classes": sorted({index[category_of(class_id)] for class_id, _ in chain(predicted, true)}),
            "kinds": _kinds(image),
            "classesByKind": _classes_by_kind(chain(masks, true_masks)),
            "true": len(true),
            "predicted": len(predicted),
        }
        yield GalleryImage(entry, {"photo": photo, "fault": fault, "masks": masks + true_masks})


def _kinds(image: AnalysedImage) -> dict[str, int]:
    """Count hits, false positives by kind, and missed true masks: kind -> number."""
    counts = Counter(result.kind for result in image.predicted)
    counts[MISSED] = sum(result.kind == MISSED for result in image.true)
    return {kind: counts[kind] for kind in (HIT, *FALSE_POSITIVES, MISSED) if counts[kind]}


def _classes_by_kind(masks: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    """Return kind -> indices of the classes with masks of that kind, predicted or true."""
    classes: dict[str, set[int]] = {}
    for mask in masks:
        classes.setdefault(mask["kind"], set()).add(mask["class"])
    return {kind: sorted(indices) for kind, indices in classes.items()}


def _masks(
    side: str,
    masks: Sequence[OneMask],
    results: Sequence[MaskResult],
    confidence: Sequence[float | None],
    others: Sequence[OneMask],
    index: Mapping[int, int],
) -> Iterator[dict[str, Any]]:
    for (class_id, mask), result, score in zip(masks, results, confidence, strict=True):
        confused = result.kind == WRONG_CLASS
        yield {
            "side": side,
            "class": index[category_of(class_id)],
            "classId": class_id,
            "kind": result.kind,
            "with": index[category_of(others[result.partner][0])] if confused else None,
            "iou": round(result.iou, 3),
            "score": None if score is None else round(score, 3),
            "area": int(coco_mask.area(mask)),
            "path": mask_path(mask),
        }


def _photo(photos: Photos, image: AnalysedImage) -> tuple[str | None, str, tuple[int, int]]:
    """Return (JPEG in base64 or None, reason if there is no JPEG, displayed height and width)."""
    fault = "photo not found"
    try:
        thumbnail = photos.thumbnail(image.answer or image.name, image.frame)
        if thumbnail is not None:
            return thumbnail.data, "", thumbnail.size
    except UserError as error:
        fault = str(error)
    height, width = image.frame or (LONGEST_EDGE, LONGEST_EDGE)
    scale = LONGEST_EDGE / max(height, width)
    return None, fault, (max(1, round(height * scale)), max(1, round(width * scale)))
