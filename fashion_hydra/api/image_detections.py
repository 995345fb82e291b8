"""The detections of one image, to select from, plot and convert."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Union

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.formats.writers import coco_results
from fashion_hydra.plots.overlay import overlay, overlay_size
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE, resize_mask
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import BoolArray, FloatArray, IntArray

Index = Union[int, slice, str, Sequence[int], "BoolArray", "IntArray"]


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The N objects found in an image, best first.

    `found[0]`, `found[:3]`, `found[[0, 2]]`, `found[found.scores > 0.8]` and `found["shoe"]` select objects and return
    `ImageDetections`; `for one in found` iterates over the objects.

    Args:
        image: uint8 (H, W, 3), RGB.
        detections: the detections, with masks of the image's size.
        classes: the classes of the labels.
    """

    image: np.ndarray
    detections: Detections
    classes: ClassSet

    @property
    def image_id(self) -> str:
        """Name of the image's file; `image` if there is no file."""
        return self.detections.image_id

    @property
    def size(self) -> Size:
        """Height and width of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def scores(self) -> FloatArray:
        """float64 (N,), confidence in [0, 1], descending."""
        return np.array(self.detections.scores, np.float64)

    @property
    def labels(self) -> IntArray:
        """int64 (N,), indices into the model's classes."""
        return np.array(self.detections.labels, np.int64)

    @property
    def category_ids(self) -> list[int]:
        """Category id of each object's class in the data set."""
        return [self.classes.ids[label] for label in self.detections.labels]

    @property
    def names(self) -> list[str]:
        """Name of each object's class."""
        return [self.classes.names[label] for label in self.detections.labels]

    @property
    def attributes(self) -> list[tuple[str, ...]]:
        """Names of each object's attributes; empty if the model learns none."""
        known = self.classes.attributes.by_id()
        return [tuple(known[number] or str(number) for number in own) for own in self.detections.attribute_ids]

    @property
    def rle(self) -> list[CocoRLE]:
        """COCO's run-length encoding of each mask, in the format of pycocotools."""
        return list(self.detections.masks)

    @cached_property
    def boxes(self) -> FloatArray:
        """float64 (N, 4), bounding box (x0, y0, x1, y1) of each mask in pixels; x1 and y1 are exclusive."""
        if not len(self):
            return np.zeros((0, 4))
        x0, y0, width, height = np.array(coco_mask.toBbox(self.rle), np.float64).T
        return np.stack([x0, y0, x0 + width, y0 + height], axis=1)

    @cached_property
    def masks(self) -> BoolArray:
        """bool (N, H, W), decoded on first access."""
        if not len(self):
            return np.zeros((0, *self.size), bool)
        return np.ascontiguousarray(coco_mask.decode(self.rle).transpose(2, 0, 1)).astype(bool)

    def __len__(self) -> int:
        return len(self.detections)

    def __iter__(self) -> Iterator["ImageDetections"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Index) -> "ImageDetections":
        return ImageDetections(self.image, self.detections.chosen(self._places(index)), self.classes)

    def _places(self, index: Index) -> list[int]:
        if isinstance(index, str):
            if index not in self.classes.names:
                raise KeyError(f"{index!r} is not a class of the model; it has {', '.join(self.classes.names)}")
            return [i for i, name in enumerate(self.names) if name == index]
        places = np.arange(len(self))[index]
        return np.atleast_1d(places).tolist()

    @staticmethod
    def cat(parts: Sequence["ImageDetections"]) -> "ImageDetections":
        """Concatenate detections of one image and sort them, best first.

        Raises:
            UserError: `parts` is empty, or image sizes or classes differ.
        """
        if not parts:
            raise UserError("ImageDetections.cat: no detections given")
        first = parts[0]
        for other in parts[1:]:
            if (other.size, other.classes) != (first.size, first.classes):
                raise UserError(
                    f"ImageDetections.cat: {first.image_id} of {_text(first.size)} with {len(first.classes)} classes "
                    f"and {other.image_id} of {_text(other.size)} with {len(other.classes)}: must be detections of one "
                    "image with the same classes"
                )
        together = Detections.cat([part.detections for part in parts])
        order = np.argsort(-np.array(together.scores), kind="stable").tolist()
        return ImageDetections(first.image, together.chosen(order), first.classes)

    def plot(self) -> Image.Image:
        """Draw the image with its masks and a legend, with a longest edge of up to 1200 pixels."""
        return overlay(self.image, self._on_grid(overlay_size(self.size)), self.classes.by_id())

    def to_coco(self, image_id: int | str = 1) -> list[dict[str, Any]]:
        """Return COCO results in the format of `predict.py output=coco`.

        Args:
            image_id: id of the image in the COCO data set.
        """
        return list(coco_results(self.detections, self.classes.ids, image_id))

    def to_supervision(self) -> Any:
        """Return a `supervision.Detections` with the class names in `data["class_name"]`.

        Raises:
            UserError: the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UserError(f"to_supervision: pip install supervision ({error})") from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _on_grid(self, size: Size) -> Detections:
        if size == self.size:
            return self.detections
        masks = [resize_mask(one, size) for one in self.rle]
        return Detections(self.image_id, self.detections.labels, self.detections.scores, masks)

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True))
        return f"{len(self)} on {self.image_id} ({_text(self.size)}){': ' if listed else ''}{listed}"

    def _repr_html_(self) -> str:
        """Return the plot as HTML, for notebooks."""
        stream = io.BytesIO()
        self.plot().save(stream, "JPEG", quality=88)
        picture = base64.b64encode(stream.getvalue()).decode("ascii")
        return f'<img src="data:image/jpeg;base64,{picture}" alt="{html.escape(repr(self), quote=True)}">'


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
