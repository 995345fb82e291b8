"""Augmentation: albumentations' photometric and geometric transforms; resizing, cropping and sampling of masks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # at import, it would look for updates online
import albumentations as A

from fashion_hydra.structures.batch import Size
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import import_object
from fashion_hydra.utils.text import one_line

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, half-open."""

PLACES = ("original", "resized")
SAMPLINGS = ("centre", "corner")


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images.

    Args:
        short_edge: range from which the short edge is drawn, in pixels, both ends included.
        long_edge: maximum long edge, in pixels.
        flip: probability of a horizontal flip.
        crop: short and long edge of a window at a random place in the resized image, with the long edge along the
            image's long edge; None for no window. Image edges shorter than the window's are not cut.
        crop_keeps: minimum share of an object's mask inside the window; other objects are dropped.
        copy_paste: probability that objects of another training image are pasted over the image, see
            `fashion_hydra.data.copy_paste`.
        isolate: probability that the image shows only one of its objects, on a plain background, see
            `fashion_hydra.data.isolate`.
        photometric: transforms that do not move pixels, in order. Each has the `name` of an albumentations transform,
            or as `_target_` the import path of your own, and its arguments.
        photometric_on: image to which photometric transforms are applied, `original` or `resized`.
        geometric: transforms that move image and masks together, such as albumentations' `Affine` or `Perspective`, in
            the same form, applied last. Objects without a remaining pixel are dropped; boxes are recomputed.
        mask_sampling: `centre` reads the mask under the centre of each new pixel, aligned with the image; `corner`
            under its corner, half a pixel off, like the nearest neighbour of OpenCV and therefore of mmdet.
    """

    short_edge: Sequence[int]
    long_edge: int
    flip: float = 0.5
    photometric: Sequence[Mapping[str, Any]] = field(default=())
    photometric_on: str = "original"
    mask_sampling: str = "centre"
    crop: Sequence[int] | None = None
    crop_keeps: float = 0.1
    geometric: Sequence[Mapping[str, Any]] = field(default=())
    copy_paste: float = 0.0
    isolate: float = 0.0

    def __post_init__(self) -> None:
        if len(self.short_edge) != 2:
            raise UserError(f"augment.short_edge={list(self.short_edge)}: must be two numbers, such as [600,1200]")
        low, high = self.short_edge
        if not 16 <= low <= high <= self.long_edge:
            raise UserError(
                f"augment.short_edge={list(self.short_edge)} augment.long_edge={self.long_edge}: "
                "must satisfy 16 <= low <= high <= long edge"
            )
        for name in ("flip", "copy_paste", "isolate"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"augment.{name}={value}: must be a probability between 0 and 1")
        if self.photometric_on not in PLACES:
            raise UserError(f"augment.photometric_on={self.photometric_on}: give {' or '.join(PLACES)}")
        if self.mask_sampling not in SAMPLINGS:
            raise UserError(f"augment.mask_sampling={self.mask_sampling}: give {' or '.join(SAMPLINGS)}")
        if self.crop is not None and (len(self.crop) != 2 or not 16 <= self.crop[0] <= self.crop[1]):
            raise UserError(
                f"augment.crop={list(self.crop)}: must be null, or [SHORT,LONG] in pixels, with 16 <= short <= long"
            )
        if not 0 <= self.crop_keeps <= 1:
            raise UserError(f"augment.crop_keeps={self.crop_keeps}: must be a share between 0 and 1")


class Photometric:
    """The photometric transforms of an `Augment`, with a seed for every image."""

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        kinds, what = (A.ImageOnlyTransform, A.CoarseDropout), "that does not move pixels"
        made = [_transform(spec, "photometric", kinds, what) for spec in transforms]
        self._compose = A.Compose(made) if made else None

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Transform an image, uint8 (H, W, 3), RGB. The same seed gives the same result."""
        if self._compose is None:
            return image
        self._compose.set_random_seed(seed)
        return self._compose(image=image)["image"]


class Geometric:
    """The geometric transforms of an `Augment`, with a seed for every image."""

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        what = "that moves image and masks together"
        made = [_transform(spec, "geometric", (A.DualTransform,), what) for spec in transforms]
        self._compose = A.Compose(made) if made else None

    def __bool__(self) -> bool:
        return self._compose is not None

    def __call__(self, image: np.ndarray, masks: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Transform an image, uint8 (H, W, 3), and its masks, uint8 (N, H, W). The same seed gives the same result.

        Raises:
            UserError: a transform fails, for example because its crop is larger than the image.
        """
        assert self._compose is not None
        self._compose.set_random_seed(seed)
        try:
            moved = self._compose(image=np.ascontiguousarray(image), masks=list(masks))
        except Exception as error:  # transforms, which may be the user's own, can raise any exception
            raise UserError(f"augment.geometric: {one_line(error, 200)}") from error
        return moved["image"], np.array(moved["masks"], np.uint8).reshape(-1, *moved["image"].shape[:2])


class _CoarseDropout(A.CoarseDropout):
    """CoarseDropout that limits holes to the image; albumentations fails if the smallest hole exceeds the image."""

    def calculate_hole_dimensions(self, image_shape: Any, height_range: Any, width_range: Any, size: int) -> Any:
        if height_range[1] >= 1:  # pixels, not shares of the image
            height_range, width_range = (
                tuple(min(bound, edge) for bound in bounds)
                for bounds, edge in zip((height_range, width_range), image_shape, strict=False)
            )
        return super().calculate_hole_dimensions(image_shape, height_range, width_range, size)


def _transform(spec: Mapping[str, Any], group: str, kinds: tuple[type, ...], what: str) -> A.BasicTransform:
    arguments = dict(spec)
    target, name = arguments.pop("_target_", None), arguments.pop("name", None)
    if target is not None:
        kind, name = import_object(str(target), f"augment.{group}._target_"), target
    else:
        kind = getattr(A, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise UserError(
            f"augment.{group}: {name!r} is not an albumentations transform {what}; resize, crop and flip are options "
            "of augment itself"
        )
    try:
        return (_CoarseDropout if kind is A.CoarseDropout else kind)(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"augment.{group}: {name}: {error}") from error


def scaled_size(size: Size, *, short_edge: int, long_edge: int) -> Size:
    """Return the size of an image resized to `short_edge`, or smaller if the long edge would exceed `long_edge`.

    Args:
        size: height and width in pixels.
        short_edge: target length of the short edge.
        long_edge: maximum length of the long edge.
    """
    height, width = size
    scale = min(short_edge / min(size), long_edge / max(size))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def draw_window(size: Size, crop: Sequence[int] | None, rng: np.random.Generator) -> Window:
    """Draw the window that is cut from an image.

    Args:
        size: height and width of the resized image.
        crop: short and long edge of the window, the long one along the image's long edge; None: the whole image.
        rng: random generator; not used for an edge that is not cut.

    Returns:
        x0, y0, x1, y1 in pixels of the resized image.
    """
    if crop is None:
        return 0, 0, size[1], size[0]
    short, long = crop
    height, width = (short, long) if size[1] > size[0] else (long, short)
    height, width = min(height, size[0]), min(width, size[1])
    top, left = (
        int(rng.integers(whole - part + 1)) if whole > part else 0
        for whole, part in ((size[0], height), (size[1], width))
    )
    return left, top, left + width, top + height


def checked_scales(scales: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int], ...]:
    """Return `tta.scales` as pairs of short and long edge.

    Raises:
        UserError: there are no scales, or one is not a valid pair.
    """
    if not scales or any(len(scale) != 2 or not 16 <= scale[0] <= scale[1] for scale in scales):
        raise UserError(
            f"tta.scales={[list(scale) for scale in scales or ()]}: must be one or more of [SHORT,LONG], in pixels, "
            "with 16 <= short <= long"
        )
    return tuple((int(short), int(long)) for short, long in scales)


def source_index(old: int, new: int, sampling: str = "centre") -> np.ndarray:
    """Return the index of the old pixel under the centre or corner of each new one: int64 (new,), nearest neighbour."""
    within = 1 if sampling == "centre" else 0
    return (2 * np.arange(new, dtype=np.int64) + within) * old // (2 * new)
