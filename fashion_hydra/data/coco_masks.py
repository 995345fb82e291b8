"""Read the masks, categories and attributes of a COCO file's annotations, and report their faults."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from fashion_hydra.data.annotations import AnnotationsBuilder, DataFault
from fashion_hydra.data.kaggle import LARGEST_ID
from fashion_hydra.data.segmentation import read_segmentation
from fashion_hydra.formats.loose_values import is_nothing, whole_number
from fashion_hydra.structures import rle
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import LONGEST_NAME, MOST_MASKS
from fashion_hydra.utils.text import one_line, shorten

_SAME_BOX = 0.5
"""An annotation's `bbox` is reported if its IoU with the mask's box is lower."""


class MaskReader:
    """Reader that adds annotations to a builder and reports their faults.

    Args:
        builder: builder that receives the masks.
        image_of: image id in the file, see `image_key` -> image id in the builder.
        categories: category ids that annotations may have.
        crowd_trains: whether to train on each crowd region as one object.
        first_free_id: id of the first annotation without a usable id.
    """

    def __init__(
        self,
        builder: AnnotationsBuilder,
        image_of: Mapping[int | str, str],
        *,
        categories: Set[int],
        crowd_trains: bool,
        first_free_id: int,
    ) -> None:
        self.builder, self.image_of, self.categories = builder, image_of, categories
        self.crowd_trains, self.next_id = crowd_trains, first_free_id
        self.seen, self.ids = set[int](), set[int]()

    def add(self, place: int, annotation: Any) -> Iterator[DataFault]:
        """Add the annotation at index `place` of the list; yield its faults and remarks."""
        if not isinstance(annotation, dict):
            yield DataFault("bad-row", "", f"annotations[{place}]", shorten(annotation, 80), "annotation dropped")
            return
        own = own_id(annotation)
        where = f"annotations[{place}]" if own is None else f"annotation id {own}"
        key = image_key(annotation.get("image_id"))
        image_id = self.image_of.get(key) if key is not None else None
        if image_id is None:
            value = shorten(f"image_id {json.dumps(annotation.get('image_id'), default=str)}: no such image")
            yield DataFault("unknown-image", "", where, value, "annotation dropped")
            return
        for kind, value, action in self._read(annotation, image_id, own):
            yield DataFault(kind, image_id, where, value, action)

    def _read(self, annotation: Mapping[str, Any], image_id: str, own: int | None) -> Iterator[tuple[str, str, str]]:
        """Add an annotation of a known image; yield kind, value and action of each fault and remark."""
        dropped = "annotation dropped"
        category = whole_number(annotation.get("category_id"))
        if category not in self.categories:
            shown = json.dumps(annotation.get("category_id"), default=str)
            yield "unknown-class", shorten(f"category_id {shown}"), dropped
            return
        assert category is not None
        height, width = self.builder.image(image_id, (0, 0))
        segmentation = annotation.get("segmentation")
        if is_nothing(segmentation) or segmentation == []:
            has_box = not is_nothing(annotation.get("bbox"))
            yield "no-segmentation", f"category_id {category}: {'only a box' if has_box else 'no mask'}", dropped
            return
        try:
            region = read_segmentation(segmentation, height=height, width=width)
            attributes = attribute_ids(annotation.get("attribute_ids"))
        except (ValueError, UserError) as error:
            yield "bad-segmentation", one_line(error, 120), dropped
            return
        except Exception:  # pycocotools can raise any exception
            yield "bad-segmentation", shorten(f"cannot be drawn: {json.dumps(segmentation, default=str)}"), dropped
            return
        if len(region.runs) == 0:
            outside = " inside the picture" if region.outside else ""
            yield "empty-mask", f"category_id {category}: no pixel{outside}", dropped
            return
        if region.left_out:
            yield "part-left-out", region.left_out, "other parts used"
        if region.outside:
            yield "outside-picture", f"{region.outside:.0%} of the polygons' boxes, picture {height}x{width}", "cut off"
        if shown := _other_box(annotation.get("bbox"), region.runs, height):
            yield "box-disagrees", shown, "mask used"
        number = self._number(own)
        if own is not None and number != own:
            yield "annotation-id-twice", f"id {own}", f"new id {number}"
        if is_crowd(annotation.get("iscrowd")) and not self.crowd_trains:
            self.builder.add_crowd(image_id, category, region.runs, annotation_id=number)
            yield "crowd-region", f"category_id {category}", "not trained on, ignored in AP (data.crowd=train uses it)"
            return
        area = listed_area(annotation.get("area"))
        yield from self._add_mask(image_id, category, attributes, region.runs, number=number, area=area)

    def _add_mask(
        self,
        image_id: str,
        category: int,
        attributes: Sequence[int],
        runs: rle.Runs,
        *,
        number: int,
        area: float | None,
    ) -> Iterator[tuple[str, str, str]]:
        class_id = "_".join(map(str, [category, *attributes]))
        content = hash((image_id, class_id, runs.tobytes()))
        if len(class_id) > LONGEST_NAME:
            yield "unknown-class", f"category_id {category} with {len(attributes)} attributes", "annotation dropped"
        elif content in self.seen:
            yield "duplicate-row", f"category_id {category}: same mask as an earlier annotation", "annotation dropped"
        elif not self.builder.add(image_id, class_id, runs, annotation_id=number, area=area):
            yield "too-many-masks", f"more than {MOST_MASKS} masks in one image", "annotation dropped"
        self.seen.add(content)

    def _number(self, own: int | None) -> int:
        """Return the annotation's own id if it has one that is still free, else a new id."""
        if own is None or own in self.ids:
            own, self.next_id = self.next_id, self.next_id + 1
        self.ids.add(own)
        return own


def image_key(value: Any) -> int | str | None:
    """Normalise an image id: 5, 5.0 and "5" all become 5. Return None if the id is missing or invalid."""
    number = whole_number(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and not is_nothing(value) else None


def own_id(annotation: Any) -> int | None:
    """Return an annotation's id, or None unless it is a whole number from 0 to 2**62 - 1."""
    number = whole_number(annotation.get("id")) if isinstance(annotation, dict) else None
    return number if number is not None and 0 <= number < 2**62 else None


def listed_area(value: Any) -> float | None:
    """Return an annotation's `area`, or None unless it is a number between 0 and 1e12."""
    try:
        area = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        return None
    return area if 0 < area < 1e12 else None


def attribute_ids(values: Any) -> list[int]:
    """Return attribute ids in ascending order without duplicates; raise `ValueError` for invalid ids."""
    if is_nothing(values):
        return []
    if not isinstance(values, list):
        raise ValueError(f"attribute_ids {shorten(values, 40)}: must be a list of ids")
    numbers = [whole_number(value) for value in values]
    if wrong := [v for v, n in zip(values, numbers, strict=True) if n is None or not 0 <= n < LARGEST_ID]:
        raise ValueError(f"attribute_ids: {shorten(wrong[0], 40)!r}: must be an id from 0 to {LARGEST_ID - 1}")
    return sorted({number for number in numbers if number is not None})


def is_crowd(value: Any) -> bool:
    """Return whether an annotation's `iscrowd`, of any type, means true."""
    return not is_nothing(value) and bool(whole_number(value) if not isinstance(value, bool) else value)


def _other_box(bbox: Any, runs: rle.Runs, height: int) -> str:
    """Describe an annotation's box and its mask's box if they overlap little, else return an empty text."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return ""
    try:
        x, y, w, h = (float(value) for value in bbox)
    except (ValueError, TypeError):
        return ""
    if not np.isfinite([x, y, w, h]).all() or min(w, h) <= 0:
        return ""
    x0, y0, x1, y1 = rle.runs_to_box(runs, height=height)
    shared = max(0.0, min(x + w, x1) - max(x, x0)) * max(0.0, min(y + h, y1) - max(y, y0))
    union = w * h + (x1 - x0) * (y1 - y0) - shared
    if shared / union >= _SAME_BOX:
        return ""
    return f"bbox [{x:g}, {y:g}, {w:g}, {h:g}], the mask's box is [{x0}, {y0}, {x1 - x0}, {y1 - y0}]"
