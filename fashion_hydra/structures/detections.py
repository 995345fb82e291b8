"""What a detector found in an image, before and after thresholds: frozen, lengths checked, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from pycocotools import mask as coco_mask
from torch import Tensor

from fashion_hydra.structures.batch import Size, check_lengths
from fashion_hydra.structures.rle import CocoRLE


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
    """

    image_id: str
    size: Size
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor

    def __post_init__(self) -> None:
        fields = ("boxes", "scores", "labels", "masks")
        check_lengths(self, **{name: len(getattr(self, name)) for name in fields})

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
    """

    image_id: str
    labels: Sequence[int]
    scores: Sequence[float]
    masks: Sequence[CocoRLE]
    known_areas: Sequence[int] | None = None

    def __post_init__(self) -> None:
        known = len(self) if self.known_areas is None else len(self.known_areas)
        check_lengths(self, labels=len(self.labels), scores=len(self.scores), masks=len(self.masks), known_areas=known)

    @property
    def areas(self) -> list[int]:
        """Of the masks, in pixels of their grid."""
        if self.known_areas is not None:
            return list(self.known_areas)
        return [int(area) for area in coco_mask.area(list(self.masks))] if self.masks else []

    def by_class_id(self, ids: Sequence[int]) -> dict[str, list[CocoRLE]]:
        """ClassId -> masks, as scoring takes them; `ids` are the category ids of the labels."""
        masks: dict[str, list[CocoRLE]] = {}
        for label, mask in zip(self.labels, self.masks, strict=True):
            masks.setdefault(str(ids[label]), []).append(mask)
        return masks

    def __len__(self) -> int:
        return len(self.labels)
