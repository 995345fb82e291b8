"""What the gallery's script is given: the classes, and for each image its photo, outlines and judgements."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pycocotools import mask as coco_mask
from tqdm import tqdm

from fashion_hydra.evaluation.error_kinds import FALSE_POSITIVES, HIT, MISSED, WRONG_CLASS, ImageErrors, OneMask
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.report.html import css_colour
from fashion_hydra.report.results.analysis import AnalysedImage, Analysis, listed
from fashion_hydra.report.results.outlines import mask_path
from fashion_hydra.report.results.photos import LONGEST_EDGE, Photos
from fashion_hydra.utils.errors import UserError


@dataclass(frozen=True)
class Category:
    """A class of the legend.

    Args:
        id: of the category.
        name: of it.
        colour: CSS.
    """

    id: int
    name: str
    colour: str


def categories_of(analysis: Analysis, names: Mapping[int, str]) -> list[Category]:
    """The categories that occur in truth or prediction, by id."""
    ids = sorted({category_of(class_id) for class_id in analysis.error_counts})
    return [Category(i, names.get(i, f"category {i}"), css_colour(i)) for i in ids]


@dataclass(frozen=True)
class GalleryImage:
    """One image, as plain values for JSON.

    Args:
        entry: what sorting and filtering need, and the sizes.
        content: photo and masks, read when the image is shown.
    """

    entry: dict[str, Any]
    content: dict[str, Any]


def gallery_images(
    analysis: Analysis, photos: Photos, categories: Sequence[Category], *, desc: str
) -> Iterator[GalleryImage]:
    """The images one at a time, so that no more than one is in memory.

    Args:
        analysis: of the prediction.
        photos: where they are.
        categories: that masks refer to by their place.
        desc: names the progress bar.
    """
    place = {category.id: i for i, category in enumerate(categories)}
    for image in tqdm(analysis.images, desc=desc, unit=" images", disable=None):
        predicted = listed(analysis.answers.predicted[image.answer]) if image.answer is not None else []
        true = listed(analysis.answers.truth[image.name])
        found = list(_masks("prediction", predicted, image.predicted, image.confidence, true, place))
        lost = list(_masks("truth", true, image.true, (None,) * len(true), predicted, place))
        found.sort(key=lambda mask: -(mask["score"] or 0))
        lost.sort(key=lambda mask: -mask["area"])
        photo, fault, (height, width) = _photo(photos, image)
        entry = {
            "id": image.name,
            "score": round(image.score, 6),
            "errors": image.errors,
            "width": width,
            "height": height,
            "classes": sorted({place[category_of(class_id)] for class_id, _ in chain(predicted, true)}),
            "kinds": _kinds(image),
            "where": _where(chain(found, lost)),
            "true": len(true),
            "predicted": len(predicted),
        }
        yield GalleryImage(entry, {"photo": photo, "fault": fault, "masks": found + lost})


def _kinds(image: AnalysedImage) -> dict[str, int]:
    """Kind -> number: false positives by kind, and what no prediction covers."""
    counts = Counter(judged.kind for judged in image.predicted)
    counts[MISSED] = sum(judged.kind == MISSED for judged in image.true)
    return {kind: counts[kind] for kind in (HIT, *FALSE_POSITIVES, MISSED) if counts[kind]}


def _where(masks: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    """Kind -> places of the classes that have masks of that kind, predicted or true."""
    where: dict[str, set[int]] = {}
    for mask in masks:
        where.setdefault(mask["kind"], set()).add(mask["class"])
    return {kind: sorted(places) for kind, places in where.items()}


def _masks(
    side: str,
    masks: Sequence[OneMask],
    judged: Sequence[ImageErrors],
    confidence: Sequence[float | None],
    others: Sequence[OneMask],
    place: Mapping[int, int],
) -> Iterator[dict[str, Any]]:
    for (class_id, mask), verdict, score in zip(masks, judged, confidence, strict=True):
        confused = verdict.kind == WRONG_CLASS
        yield {
            "side": side,
            "class": place[category_of(class_id)],
            "classId": class_id,
            "kind": verdict.kind,
            "with": place[category_of(others[verdict.partner][0])] if confused else None,
            "iou": round(verdict.iou, 3),
            "score": None if score is None else round(score, 3),
            "area": int(coco_mask.area(mask)),
            "path": mask_path(mask),
        }


def _photo(photos: Photos, image: AnalysedImage) -> tuple[str | None, str, tuple[int, int]]:
    """Base64 of the JPEG, why there is none, and height and width that it is shown in."""
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
