"""Decode, augment, resize and flip images, and collate samples into padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.augment import Augment, Geometric, Photometric, draw_window, scaled_size
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.copy_paste import choose_objects, paste_objects
from fashion_hydra.data.frame import Frame
from fashion_hydra.data.image_files import read_pixels
from fashion_hydra.data.image_list import ImageList
from fashion_hydra.data.isolate import choose_group, draw_background, enlarge
from fashion_hydra.data.targets import make_targets, targets_of_bitmaps
from fashion_hydra.structures.batch import PAD_DIVISOR, Batch, ScaledImage, Size, Targets
from fashion_hydra.utils.errors import UserError

_GEOMETRIC = 1  # XORed with the photometric seed, this gives the geometric seed
_PASTED = 1  # appended to a sample's key, this gives the key of what is pasted


@dataclass(frozen=True)
class Sample:
    """One image with its objects; `image` is uint8 (3, H, W), RGB."""

    image: torch.Tensor
    original_size: Size
    image_id: str
    targets: Targets


def read_image(annotations: Annotations, image: int) -> np.ndarray:
    """Decode an image, oriented like its masks: uint8 (H, W, 3), RGB.

    Raises:
        UserError: the file cannot be decoded, or its decoded size differs from the annotated size.
    """
    height, width = (int(edge) for edge in annotations.sizes[image])
    path = annotations.folder / str(annotations.files[image])
    return read_pixels(path, size=(height, width), orientation=int(annotations.orientation[image]))


class TrainDataset(Dataset):
    """Augmented samples, determined by (seed, epoch, image): identical in every process, worker and resumed run."""

    def __init__(
        self, annotations: Annotations, images: np.ndarray, classes: ClassSet, augment: Augment, *, seed: int
    ) -> None:
        self.annotations, self.images, self.augment, self.seed = annotations, images, augment, seed
        self.classes = classes
        self.photometric = Photometric(augment.photometric)
        self.geometric = Geometric(augment.geometric)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, key: tuple[int, ...], old: Size) -> tuple[Frame, int]:
        """Draw the augmentation of an image of size `old`.

        Returns:
            The image's frame, and the seed of the photometric transforms.
        """
        augment = self.augment
        rng = np.random.default_rng((self.seed, *key))
        low, high = augment.short_edge
        short_edge, flip = int(rng.integers(low, high + 1)), bool(rng.random() < augment.flip)
        photometric_seed = int(rng.integers(2**31))
        new = scaled_size(old, short_edge=short_edge, long_edge=augment.long_edge)
        window = None if augment.crop is None else draw_window(new, augment.crop, rng)
        return Frame(old, new, window, flip, augment.mask_sampling), photometric_seed

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        image = int(self.images[key[1]])
        pixels = read_image(self.annotations, image)
        old = (pixels.shape[0], pixels.shape[1])
        frame, seed = self.draw(key, old)
        rng = np.random.default_rng((self.seed, *key, _PASTED))
        group: list[int] = []
        if rng.random() < self.augment.isolate:
            group = choose_group(self.annotations, image, self.classes, rng)
        if group:
            pixels, targets = self._alone(pixels, group, frame, seed, rng)
        else:
            pixels, targets = self._on_frame(pixels, self.annotations.instances(image), frame, seed)
            if rng.random() < self.augment.copy_paste:
                pixels, targets = self._paste(pixels, targets, key, rng)
        if self.geometric:
            # Derive a different seed without drawing one, so that the frame's random numbers stay the same.
            pixels, masks = self.geometric(pixels, targets.masks.bitmaps().numpy(), seed ^ _GEOMETRIC)
            targets = targets_of_bitmaps(masks, targets.labels, targets.attributes)
        return Sample(_to_tensor(pixels), old, str(self.annotations.image_ids[image]), targets)

    def _on_frame(
        self, pixels: np.ndarray, objects: Sequence[int], frame: Frame, seed: int
    ) -> tuple[np.ndarray, Targets]:
        """Return a decoded image on its frame, after the photometric transforms, with some of its objects."""
        if self.augment.photometric_on == "original":
            pixels = self.photometric(pixels, seed)
        pixels = frame.resize(pixels)
        if self.augment.photometric_on == "resized":
            pixels = self.photometric(pixels, seed)
        if frame.flip:
            pixels = pixels[:, ::-1]
        return pixels, make_targets(self.annotations, objects, self.classes, frame, keeps=self.augment.crop_keeps)

    def _alone(
        self, pixels: np.ndarray, group: Sequence[int], frame: Frame, seed: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Targets]:
        """Return an image of the frame's size that shows only the objects of a group, on a plain background."""
        inner = enlarge(frame, self.annotations.boxes[group[0]], rng)
        donor, objects = self._on_frame(pixels, group, inner, seed)
        background, nothing = draw_background(frame.size, rng), objects.none(frame.size)
        everything = np.ones(len(objects), dtype=bool)
        return paste_objects(background, nothing, donor, objects, everything, rng, keeps=self.augment.crop_keeps)

    def _paste(
        self, pixels: np.ndarray, targets: Targets, key: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[np.ndarray, Targets]:
        """Paste objects of another training image over an image."""
        other = int(self.images[rng.integers(len(self.images))])
        donor = read_image(self.annotations, other)
        frame, seed = self.draw((*key, _PASTED), (donor.shape[0], donor.shape[1]))
        donor, objects = self._on_frame(donor, self.annotations.instances(other), frame, seed)
        chosen = choose_objects(objects.masks.bitmaps().numpy(), rng)
        return paste_objects(pixels, targets, donor, objects, chosen, rng, keeps=self.augment.crop_keeps)


class EvalDataset(Dataset):
    """Samples at one fixed scale, without augmentation."""

    def __init__(
        self, annotations: Annotations, images: np.ndarray, classes: ClassSet, *, short_edge: int, long_edge: int
    ) -> None:
        self.annotations, self.images = annotations, images
        self.short_edge, self.long_edge = short_edge, long_edge
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = int(self.images[index])
        pixels = read_image(self.annotations, image)
        old = (pixels.shape[0], pixels.shape[1])
        new = scaled_size(old, short_edge=self.short_edge, long_edge=self.long_edge)
        pixels = cv2.resize(pixels, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
        objects = self.annotations.instances(image)
        targets = make_targets(self.annotations, objects, self.classes, Frame(old, new))
        return Sample(_to_tensor(pixels), old, str(self.annotations.image_ids[image]), targets)


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def collate(samples: Sequence[Sample]) -> Batch:
    """Batch samples, padding their images on the right and bottom to one size divisible by 32."""
    sizes = tuple((s.image.shape[1], s.image.shape[2]) for s in samples)
    height, width = (-(-max(edge) // PAD_DIVISOR) * PAD_DIVISOR for edge in zip(*sizes, strict=True))
    images = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
    for canvas, sample, (h, w) in zip(images, samples, sizes, strict=True):
        canvas[:, :h, :w] = sample.image
    return Batch(
        images,
        sizes,
        tuple(s.original_size for s in samples),
        tuple(s.image_id for s in samples),
        tuple(s.targets for s in samples),
    )


class PredictDataset(Dataset):
    """Images at every scale; an unreadable file yields a sample with an error message.

    Args:
        image_list: the images.
        scales: (short edge, maximum long edge) of each scale, in pixels.
    """

    def __init__(self, image_list: ImageList, scales: Sequence[tuple[int, int]]) -> None:
        self.image_list, self.scales = image_list, tuple((int(short), int(long)) for short, long in scales)

    def __len__(self) -> int:
        return len(self.image_list)

    def __getitem__(self, index: int) -> ScaledImage:
        image_id = self.image_list.image_ids[index]
        try:
            pixels = self.image_list.read(index)
        except UserError as error:
            return ScaledImage(image_id, (1, 1), (), str(error))
        return scaled_image(image_id, pixels, self.scales)


def scaled_image(image_id: str, pixels: np.ndarray, scales: Sequence[tuple[int, int]]) -> ScaledImage:
    """Resize an image to every scale.

    Args:
        image_id: id of the image.
        pixels: uint8 (H, W, 3), RGB.
        scales: (short edge, maximum long edge) of each scale, in pixels.
    """
    size = (pixels.shape[0], pixels.shape[1])
    images = []
    for short_edge, long_edge in scales:
        new = scaled_size(size, short_edge=short_edge, long_edge=long_edge)
        resized = cv2.resize(pixels, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
        images.append(torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))))
    return ScaledImage(image_id, size, tuple(images))
