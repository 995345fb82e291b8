"""Choose the images that the page shows and draw them as small JPEGs, with and without masks."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.augment import Augment, source_index
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.dataset import Sample, TrainDataset, read_image
from fashion_hydra.plots.painted_masks import Mask, paint
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import Size
from fashion_hydra.utils.errors import UserError

_HEIGHT, _WIDTH = 400, 640  # maximum size of a photo in the gallery, in pixels
_DRAW_EDGE = 300  # displayed short edge, in pixels, of an augmented sample at the largest training size
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A photo and the same photo with its masks painted on.

    Args:
        photo: plain photo, a JPEG as a data URI.
        painted: photo with masks, a JPEG as a data URI.
        size: height and width of both JPEGs in pixels.
    """

    photo: str
    painted: str
    size: Size


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Args:
        image_id: image id in the annotations.
        size: height and width of the file in pixels.
        masks: category id -> number of masks, the most frequent first.
        picture: None if the file cannot be decoded.
        fault: why the file cannot be decoded; empty if it can.
    """

    image_id: str
    size: Size
    masks: Mapping[int, int]
    picture: Picture | None
    fault: str = ""


@dataclass(frozen=True)
class Draws:
    """One image as training sees it in its first epochs.

    Args:
        image_id: image id in the annotations.
        pictures: one per epoch, all reduced by the same factor.
        sizes: height and width in training per epoch, in pixels.
        fault: why there are no pictures; empty if there are.
    """

    image_id: str
    pictures: Sequence[Picture]
    sizes: Sequence[Size]
    fault: str = ""


def choose_images(table: np.ndarray, count: int, seed: int) -> list[int]:
    """Choose images that together show as many categories as possible.

    Args:
        table: uint8 (I, C), 1 where an image has a category.
        count: number of images to choose; all images if there are fewer.
        seed: seed of the random choice between equally good images.

    Returns:
        Indices of distinct images. Each image adds as many new categories as possible; when no image adds any, the
        rest is drawn at random.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    has = table[order].astype(bool)
    missing = has.any(axis=0)
    chosen: list[int] = []
    while len(chosen) < min(count, len(table)) and missing.any():
        best = int(has[:, missing].sum(axis=1).argmax())
        chosen.append(best)
        missing &= ~has[best]
    taken = set(chosen)
    chosen += [i for i in range(len(table)) if i not in taken][: max(0, count - len(chosen))]
    return [int(order[i]) for i in chosen]


def draw_cards(annotations: Annotations, images: Sequence[int]) -> Iterator[Card]:
    """Yield one card per image; the card of an image that cannot be decoded gives the reason instead of a picture."""
    for image in images:
        masks = Counter(annotations.categories[list(annotations.instances(image))].tolist())
        height, width = (int(v) for v in annotations.sizes[image])
        about = str(annotations.image_ids[image]), (height, width), dict(masks.most_common())
        try:
            yield Card(*about, _picture(annotations, image))
        except UserError as error:
            yield Card(*about, None, str(error))


def _picture(annotations: Annotations, image: int) -> Picture:
    photo = read_image(annotations, image)
    height, width = photo.shape[:2]
    scale = min(1.0, _HEIGHT / height, _WIDTH / width)
    new = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(photo, (new[1], new[0]), interpolation=cv2.INTER_AREA)
    masks: list[Mask] = []
    for mask in annotations.instances(image):
        runs = rle.resize_runs(
            annotations.runs_of(mask), height=height, width=width, new_height=new[0], new_width=new[1]
        )
        masks.append((int(annotations.categories[mask]), rle.runs_to_bitmap(runs, height=new[0], width=new[1])))
    return Picture(_jpeg(small), _jpeg(paint(small, masks)), new)


def draw_augmented(
    annotations: Annotations, images: Sequence[int], augment: Augment, *, draws: int, seed: int
) -> Iterator[Draws]:
    """Yield the augmented images of the first epochs, reduced for display.

    Args:
        annotations: the data set.
        images: indices of the images.
        augment: training augmentation.
        draws: number of epochs.
        seed: seed of the training run.
    """
    classes = ClassSet(tuple(annotations.names), tuple(annotations.names.values()))
    dataset = TrainDataset(annotations, np.array(images), classes, augment, seed=seed)
    factor = min(1.0, _DRAW_EDGE / augment.short_edge[1])
    for index, image in enumerate(images):
        image_id = str(annotations.image_ids[image])
        try:
            samples = (dataset[epoch, index] for epoch in range(draws))  # lazy: one large image in memory at a time
            drawn = [(_sample_picture(sample, classes, factor), sample.targets.masks.size) for sample in samples]
        except UserError as error:
            yield Draws(image_id, [], [], str(error))
        else:
            yield Draws(image_id, [picture for picture, _ in drawn], [size for _, size in drawn])


def _sample_picture(sample: Sample, classes: ClassSet, factor: float) -> Picture:
    """Draw a training sample, resized by `factor`."""
    targets = sample.targets
    old = targets.masks.size
    new = max(1, round(old[0] * factor)), max(1, round(old[1] * factor))
    pixels = sample.image.numpy().transpose(1, 2, 0)
    small = cv2.resize(pixels, (new[1], new[0]), interpolation=cv2.INTER_AREA)
    rows, columns = source_index(old[0], new[0]), source_index(old[1], new[1])
    crops = zip(targets.labels.tolist(), targets.masks.windows.tolist(), targets.masks.crops(), strict=True)
    masks = [(classes.ids[label], _reduced(crop.numpy(), window, rows, columns)) for label, window, crop in crops]
    return Picture(_jpeg(small), _jpeg(paint(small, masks)), new)


def _reduced(crop: np.ndarray, window: Sequence[int], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sample a mask, cropped to `window`, onto a smaller frame with the given source `rows` and `columns`."""
    left, top, right, bottom = window
    first_row, last_row = np.searchsorted(rows, (top, bottom))
    first_column, last_column = np.searchsorted(columns, (left, right))
    bitmap = np.zeros((len(rows), len(columns)), dtype=np.uint8)
    picked = crop[np.ix_(rows[first_row:last_row] - top, columns[first_column:last_column] - left)]
    bitmap[first_row:last_row, first_column:last_column] = picked
    return bitmap


def _jpeg(pixels: np.ndarray) -> str:
    """Encode an RGB image as a JPEG data URI."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
