"""Records -> samples: decode, augment, resize and flip; and samples -> padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.augment import Augment, Photometric, scaled_size, source_index
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.image_files import read_pixels
from fashion_hydra.data.image_list import ImageList
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import PAD_DIVISOR, Batch, CropMasks, ScaledImage, Size, Targets
from fashion_hydra.utils.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One image with its objects: `image` is uint8 (3, H, W), RGB."""

    image: torch.Tensor
    original_size: Size
    image_id: str
    targets: Targets


def read_image(annotations: Annotations, image: int) -> np.ndarray:
    """Decode an image in the frame of its masks: uint8 (H, W, 3), RGB.

    Raises:
        UserError: the file cannot be decoded, or not to the size that its header gives.
    """
    height, width = (int(edge) for edge in annotations.sizes[image])
    path = annotations.folder / str(annotations.files[image])
    return read_pixels(path, size=(height, width), orientation=int(annotations.orientation[image]))


def crop_masks(
    annotations: Annotations, masks: Sequence[int], *, old: Size, new: Size, flip: bool, sampling: str = "centre"
) -> CropMasks:
    """The masks of one image on its resized, flipped frame, touching the pixels of their boxes alone.

    Args:
        annotations: where the masks are.
        masks: indices into the records' masks.
        old: height and width of the frame that the masks are drawn in.
        new: height and width of the resized frame; nearest neighbour.
        flip: mirror left and right.
        sampling: see `fashion_hydra.data.augment.Augment`.
    """
    rows, columns = (source_index(*edges, sampling) for edges in zip(old, new, strict=True))
    pixels, windows = [], np.zeros((len(masks), 4), dtype=np.int64)
    for i, mask in enumerate(masks):
        x0, y0, x1, y1 = annotations.boxes[mask].tolist()
        crop = rle.runs_to_crop(annotations.runs_of(mask), height=old[0], box=(x0, y0, x1, y1))
        top, bottom = np.searchsorted(rows, (y0, y1))
        left, right = np.searchsorted(columns, (x0, x1))
        crop = crop[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        if flip:
            crop, left, right = crop[:, ::-1], new[1] - right, new[1] - left
        windows[i] = left, top, right, bottom
        pixels.append(crop.ravel())
    flat = np.concatenate(pixels) if pixels else np.zeros(0, np.uint8)
    return CropMasks(torch.from_numpy(flat), torch.from_numpy(windows), new)


def make_targets(
    annotations: Annotations, image: int, label_of: dict[int, int], *, new: Size, flip: bool, sampling: str = "centre"
) -> Targets:
    """The objects of an image on its resized, flipped frame.

    Objects of categories outside the class set, and those without a pixel left after resizing, are left out:
    box, label and mask together.
    """
    known = [m for m in annotations.instances(image) if int(annotations.categories[m]) in label_of]
    old = (int(annotations.sizes[image, 0]), int(annotations.sizes[image, 1]))
    masks = crop_masks(annotations, known, old=old, new=new, flip=flip, sampling=sampling)
    visible = [i for i, crop in enumerate(masks.crops()) if crop.any()]
    if len(visible) < len(known):
        known = [known[i] for i in visible]
        masks = crop_masks(annotations, known, old=old, new=new, flip=flip, sampling=sampling)
    scale_y, scale_x = new[0] / old[0], new[1] / old[1]
    boxes = annotations.boxes[known].astype(np.float32) * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    if flip:
        boxes[:, [0, 2]] = new[1] - boxes[:, [2, 0]]
    labels = [label_of[int(annotations.categories[m])] for m in known]
    return Targets(torch.from_numpy(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), masks)


class TrainDataset(Dataset):
    """Augmented samples, each decided by (seed, epoch, image): the same in any process, worker or resumed run."""

    def __init__(
        self, annotations: Annotations, images: np.ndarray, classes: ClassSet, augment: Augment, *, seed: int
    ) -> None:
        self.annotations, self.images, self.augment, self.seed = annotations, images, augment, seed
        self.label_of = classes.label_of()
        self.photometric = Photometric(augment.photometric)

    def __len__(self) -> int:
        return len(self.images)

    def drawn(self, key: tuple[int, ...]) -> tuple[int, bool, int]:
        """What chance decides of a sample: short edge, whether it is flipped, seed of the photometric transforms."""
        rng = np.random.default_rng((self.seed, *key))
        low, high = self.augment.short_edge
        return int(rng.integers(low, high + 1)), bool(rng.random() < self.augment.flip), int(rng.integers(2**31))

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        image = int(self.images[key[1]])
        short_edge, flip, photometric_seed = self.drawn(key)
        pixels = read_image(self.annotations, image)
        old = (pixels.shape[0], pixels.shape[1])
        new = scaled_size(old, short_edge=short_edge, long_edge=self.augment.long_edge)
        if self.augment.photometric_on == "original":
            pixels = self.photometric(pixels, photometric_seed)
        pixels = cv2.resize(pixels, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
        if self.augment.photometric_on == "resized":
            pixels = self.photometric(pixels, photometric_seed)
        if flip:
            pixels = pixels[:, ::-1]
        sampling = self.augment.mask_sampling
        targets = make_targets(self.annotations, image, self.label_of, new=new, flip=flip, sampling=sampling)
        return Sample(_to_tensor(pixels), old, str(self.annotations.image_ids[image]), targets)


class EvalDataset(Dataset):
    """Samples at one fixed scale, not flipped."""

    def __init__(
        self, annotations: Annotations, images: np.ndarray, classes: ClassSet, *, short_edge: int, long_edge: int
    ) -> None:
        self.annotations, self.images = annotations, images
        self.short_edge, self.long_edge = short_edge, long_edge
        self.label_of = classes.label_of()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = int(self.images[index])
        pixels = read_image(self.annotations, image)
        old = (pixels.shape[0], pixels.shape[1])
        new = scaled_size(old, short_edge=self.short_edge, long_edge=self.long_edge)
        pixels = cv2.resize(pixels, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
        targets = make_targets(self.annotations, image, self.label_of, new=new, flip=False)
        return Sample(_to_tensor(pixels), old, str(self.annotations.image_ids[image]), targets)


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad the images of some samples, at the right and below, to one size divisible by 32."""
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
    """Images at every scale; a file that cannot be read becomes a sample that says so.

    Args:
        image_list: the images.
        scales: short edge and bound of the long edge, one a scale.
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
        size = (pixels.shape[0], pixels.shape[1])
        images = []
        for short_edge, long_edge in self.scales:
            new = scaled_size(size, short_edge=short_edge, long_edge=long_edge)
            resized = cv2.resize(pixels, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
            images.append(torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))))
        return ScaledImage(image_id, size, tuple(images))
