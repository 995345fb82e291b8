"""What a detector found in an image, before and after thresholds: frozen, lengths checked, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pycocotools import mask as coco_mask
from torch import Tensor

from fashion_hydra.structures.batch import Size, check_lengths
from fashion_hydra.structures.rle import CocoRLE


class Refined(NamedTuple):
    """What the box stages make of the N proposals of an image.

    Args:
        boxes: (N, 4).
        probabilities: (N, C + 1), of the classes, background last.
        attributes: (N, A), probability of each attribute; None where none are learnt.
    """

    boxes: Tensor
    probabilities: Tensor
    attributes: Tensor | None = None


class Segmented(NamedTuple):
    """What the mask stages make of N boxes of an image.

    Args:
        masks: (N, M, M), mask probability on a grid over each box.
        ious: (N,), expected IoU of each mask with the object's true mask; None for a model without mask scoring.
    """

    masks: Tensor
    ious: Tensor | None = None


@dataclass(frozen=True)
class Candidates:
    """What one image may hold, before thresholds: boxes that survive NMS at any of the rules asked for.

    Args:
        image_id: as in the CSV.
        size: height and width of the original image, the frame of the boxes.
        boxes: float32 (N, 4).
        scores: float32 (N,), descending.
        labels: int64 (N,), indices into the class set.
        masks: float32 (N, M, M), mask probability on a grid over the box.
        attributes: float16 (N, A), probability of each attribute; None where none are learnt.
        mask_ious: float32 (N,), expected IoU of each mask with a true mask; None for models without mask scoring.
    """

    image_id: str
    size: Size
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    attributes: Tensor | None = None
    mask_ious: Tensor | None = None

    def __post_init__(self) -> None:
        fields = ("boxes", "scores", "labels", "masks", "attributes", "mask_ious")
        check_lengths(self, **{name: len(v) for name in fields if (v := getattr(self, name)) is not None})

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor) -> "Candidates":
        return Candidates(
            self.image_id,
            self.size,
            self.boxes[index],
            self.scores[index],
            self.labels[index],
            self.masks[index],
            None if self.attributes is None else self.attributes[index],
            None if self.mask_ious is None else self.mask_ious[index],
        )


@dataclass(frozen=True)
class Detections:
    """One image's final answer: binary masks on a grid, by descending score.

    Args:
        image_id: as in the CSV.
        labels: indices into the class set.
        scores: confidence in [0, 1].
        masks: COCO run-length encodings on one grid, as pycocotools has them.
        known_areas: pixels of each mask, where they were counted already.
        attributes: attribute ids that each is answered with, ascending; None for none.
    """

    image_id: str
    labels: Sequence[int]
    scores: Sequence[float]
    masks: Sequence[CocoRLE]
    known_areas: Sequence[int] | None = None
    attributes: Sequence[tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        names = ("labels", "scores", "masks", "known_areas", "attributes")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        check_lengths(self, **{name: len(value) for name, value in given.items()})

    @property
    def areas(self) -> list[int]:
        """Of the masks, in pixels of their grid."""
        if self.known_areas is not None:
            return list(self.known_areas)
        return [int(area) for area in coco_mask.area(list(self.masks))] if self.masks else []

    @property
    def attribute_ids(self) -> Sequence[tuple[int, ...]]:
        """Of each, empty where none are answered."""
        return self.attributes if self.attributes is not None else [()] * len(self)

    def chosen(self, places: Sequence[int]) -> "Detections":
        """Some of them, in this order."""
        names = ("labels", "scores", "masks", "known_areas", "attributes")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        return Detections(self.image_id, **{name: [value[i] for i in places] for name, value in values.items()})

    @staticmethod
    def cat(parts: Sequence["Detections"]) -> "Detections":
        """All of some on one grid, one after the other, under the first one's image id."""
        return Detections(
            parts[0].image_id,
            [label for part in parts for label in part.labels],
            [score for part in parts for score in part.scores],
            [mask for part in parts for mask in part.masks],
            attributes=[own for part in parts for own in part.attribute_ids]
            if any(part.attributes is not None for part in parts)
            else None,
        )

    def class_ids(self, ids: Sequence[int]) -> list[str]:
        """ClassId of each, attributes included, such as `6_28_77`; `ids` are the category ids of the labels."""
        pairs = zip(self.labels, self.attribute_ids, strict=True)
        return ["_".join(map(str, (ids[label], *own))) for label, own in pairs]

    def by_class_id(self, ids: Sequence[int]) -> dict[str, list[CocoRLE]]:
        """ClassId -> masks, as scoring takes them; `ids` are the category ids of the labels."""
        masks: dict[str, list[CocoRLE]] = {}
        for class_id, mask in zip(self.class_ids(ids), self.masks, strict=True):
            masks.setdefault(class_id, []).append(mask)
        return masks

    def __len__(self) -> int:
        return len(self.labels)
