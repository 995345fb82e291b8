"""Frozen containers for an image's detections before and after thresholding; they check their lengths, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pycocotools import mask as coco_mask
from torch import Tensor

from fashion_hydra.structures.batch import Size, check_lengths
from fashion_hydra.structures.rle import CocoRLE


class Refined(NamedTuple):
    """Outputs of the box stages for the N proposals of an image.

    Args:
        boxes: (N, 4).
        probabilities: (N, C + 1), class probabilities, background last.
        attributes: (N, A), attribute probabilities; None if the model does not learn attributes.
    """

    boxes: Tensor
    probabilities: Tensor
    attributes: Tensor | None = None


class Segmented(NamedTuple):
    """Output of the mask stages for N boxes of an image.

    Args:
        masks: (N, M, M), mask probability on a grid over each box.
        ious: (N,), expected IoU of each mask with the object's true mask; None for a model without mask scoring.
    """

    masks: Tensor
    ious: Tensor | None = None


@dataclass(frozen=True)
class Candidates:
    """Raw detections of one image, before thresholding: every box that survives NMS under at least one given rule.

    Args:
        image_id: ImageId as in the CSV.
        size: height and width of the original image, the frame of the boxes.
        boxes: float32 (N, 4).
        scores: float32 (N,), descending.
        labels: int64 (N,), indices into the class set.
        masks: float32 (N, M, M), mask probabilities on a grid over the box.
        attributes: float16 (N, A), attribute probabilities; None if the model does not learn attributes.
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
    """Final detections of one image: binary masks on one grid, by descending score.

    Args:
        image_id: ImageId as in the CSV.
        labels: indices into the class set.
        scores: confidences in [0, 1].
        masks: COCO run-length encodings on one grid, in pycocotools' form.
        known_areas: number of pixels of each mask; None if not counted yet.
        attributes: predicted attribute ids of each detection, ascending; None without attributes.
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
        """Areas of the masks, in pixels of their grid."""
        if self.known_areas is not None:
            return list(self.known_areas)
        return [int(area) for area in coco_mask.area(list(self.masks))] if self.masks else []

    @property
    def attribute_ids(self) -> Sequence[tuple[int, ...]]:
        """Attribute ids of each detection; empty tuples without attributes."""
        return self.attributes if self.attributes is not None else [()] * len(self)

    def chosen(self, places: Sequence[int]) -> "Detections":
        """Return the detections at these indices, in this order."""
        names = ("labels", "scores", "masks", "known_areas", "attributes")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        return Detections(self.image_id, **{name: [value[i] for i in places] for name, value in values.items()})

    @staticmethod
    def cat(parts: Sequence["Detections"]) -> "Detections":
        """Concatenate detections on one grid, under the image id of the first part."""
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
        """Return each detection's ClassId with attributes, such as `6_28_77`; `ids`: category id of each label."""
        pairs = zip(self.labels, self.attribute_ids, strict=True)
        return ["_".join(map(str, (ids[label], *own))) for label, own in pairs]

    def by_class_id(self, ids: Sequence[int]) -> dict[str, list[CocoRLE]]:
        """Return ClassId -> masks, the input of scoring; `ids`: category id of each label."""
        masks: dict[str, list[CocoRLE]] = {}
        for class_id, mask in zip(self.class_ids(ids), self.masks, strict=True):
            masks.setdefault(class_id, []).append(mask)
        return masks

    def __len__(self) -> int:
        return len(self.labels)
