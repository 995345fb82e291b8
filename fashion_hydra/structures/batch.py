"""Frozen containers of images and targets that the rooms exchange; they check their lengths and do no I/O.

Boxes are `(x0, y0, x1, y1)` in pixels, x to the right and y down; x1 and y1 are exclusive.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width in pixels."""


PAD_DIVISOR = 32
"""Images are padded to a multiple of this, the coarsest stride that a feature pyramid merges."""


def check_lengths(owner: object, **lengths: int) -> None:
    """Raise `ValueError` unless all fields of a container have the same length."""
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise ValueError(f"{type(owner).__name__}: fields must have the same length, got {given}")


@dataclass(frozen=True)
class CropMasks:
    """N binary masks on one frame, each stored as the pixels of its window only.

    Args:
        pixels: uint8 (sum of the windows' areas,), 0 or 1; the windows' row-major pixels, concatenated.
        windows: int64 (N, 4), `(x0, y0, x1, y1)` inside the frame.
        size: height and width of the frame.
    """

    pixels: Tensor
    windows: Tensor
    size: Size

    def __post_init__(self) -> None:
        if self.windows.ndim != 2 or self.windows.shape[1] != 4:
            raise ValueError(f"windows must have the shape (N, 4), got {tuple(self.windows.shape)}")
        check_lengths(self, pixels=self.pixels.numel(), window_area=int(self._areas().sum()))

    def _areas(self) -> Tensor:
        x0, y0, x1, y1 = self.windows.unbind(1)
        return (x1 - x0) * (y1 - y0)

    def __len__(self) -> int:
        return len(self.windows)

    def crops(self) -> list[Tensor]:
        """Return the masks' windows as uint8 (h, w) views."""
        parts = self.pixels.split(self._areas().tolist())
        shapes = ((y1 - y0, x1 - x0) for x0, y0, x1, y1 in self.windows.tolist())
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def bitmaps(self) -> Tensor:
        """Return all masks on the whole frame: uint8 (N, H, W)."""
        frame = torch.zeros((len(self), *self.size), dtype=torch.uint8)
        for plane, (x0, y0, x1, y1), crop in zip(frame, self.windows.tolist(), self.crops(), strict=True):
            plane[y0:y1, x0:x1] = crop
        return frame


@dataclass(frozen=True)
class Targets:
    """Ground truth of an image, in the frame of the (resized, flipped) image before padding.

    Args:
        boxes: float32 (N, 4).
        labels: int64 (N,), indices into the class set.
        masks: N masks.
        attributes: bool (N, A), the attributes of each object; None if the model does not learn attributes.
    """

    boxes: Tensor
    labels: Tensor
    masks: CropMasks
    attributes: Tensor | None = None

    def __post_init__(self) -> None:
        attributes = len(self) if self.attributes is None else len(self.attributes)
        lengths = {"boxes": len(self.boxes), "labels": len(self.labels), "masks": len(self.masks)}
        check_lengths(self, **lengths, attributes=attributes)

    def __len__(self) -> int:
        return len(self.labels)

    def none(self, size: Size) -> "Targets":
        """Return targets without objects, on a frame of this size, that fit to these."""
        masks = CropMasks(self.masks.pixels[:0], self.masks.windows[:0], size)
        attributes = None if self.attributes is None else self.attributes[:0]
        return Targets(self.boxes[:0], self.labels[:0], masks, attributes)


@dataclass(frozen=True)
class Batch:
    """Images of one step, padded at the right and at the bottom to the same size.

    Args:
        images: uint8 (B, 3, H, W), RGB.
        sizes: height and width of each image before padding.
        original_sizes: height and width of each image's file.
        image_ids: ImageIds as in the CSV.
        targets: ground truth of each image.
    """

    images: Tensor
    sizes: tuple[Size, ...]
    original_sizes: tuple[Size, ...]
    image_ids: tuple[str, ...]
    targets: tuple[Targets, ...]

    def __post_init__(self) -> None:
        fields = ("images", "sizes", "original_sizes", "image_ids", "targets")
        check_lengths(self, **{name: len(getattr(self, name)) for name in fields})

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its images on `device`; the detector moves the targets that it needs."""
        images = self.images.to(device, non_blocking=True)
        return Batch(images, self.sizes, self.original_sizes, self.image_ids, self.targets)

    def pin_memory(self) -> "Batch":
        """Return the batch with its images in page-locked memory, for the DataLoader."""
        images = self.images.pin_memory()
        return Batch(images, self.sizes, self.original_sizes, self.image_ids, self.targets)


@dataclass(frozen=True)
class ScaledImage:
    """One image to predict, at every scale.

    Args:
        image_id: ImageId as in the CSV.
        size: height and width of the file.
        images: uint8 (3, h, w) each, RGB, not padded; empty if the file is unreadable.
        fault: why the file is unreadable; empty otherwise.
    """

    image_id: str
    size: Size
    images: tuple[Tensor, ...]
    fault: str = ""
