"""Build the training targets of an image, on its frame, from the annotations."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.data.augment import source_index
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.frame import Frame
from fashion_hydra.formats.class_id import attributes_of
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import CropMasks, Targets


def crop_masks(annotations: Annotations, masks: Sequence[int], frame: Frame) -> CropMasks:
    """Return masks of one image on a frame, processing only the pixels inside their boxes.

    Args:
        annotations: data set with the masks.
        masks: indices of the masks in `annotations`.
        frame: frame of the image; a mask outside the frame's window becomes empty.
    """
    x_from, y_from, x_to, y_to = frame.cut
    rows, columns = (source_index(*edges, frame.sampling) for edges in zip(frame.old, frame.new, strict=True))
    rows, columns = rows[y_from:y_to], columns[x_from:x_to]
    pixels, windows = [], np.zeros((len(masks), 4), dtype=np.int64)
    for i, mask in enumerate(masks):
        x0, y0, x1, y1 = annotations.boxes[mask].tolist()
        crop = rle.runs_to_crop(annotations.runs_of(mask), height=frame.old[0], box=(x0, y0, x1, y1))
        top, bottom = np.searchsorted(rows, (y0, y1))
        left, right = np.searchsorted(columns, (x0, x1))
        crop = crop[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        if frame.flip:
            crop, left, right = crop[:, ::-1], frame.size[1] - right, frame.size[1] - left
        windows[i] = left, top, right, bottom
        pixels.append(crop.ravel())
    flat = np.concatenate(pixels) if pixels else np.zeros(0, np.uint8)
    return CropMasks(torch.from_numpy(flat), torch.from_numpy(windows), frame.size)


def make_targets(
    annotations: Annotations,
    objects: Iterable[int],
    classes: ClassSet,
    frame: Frame,
    *,
    keeps: float = 0.0,
) -> Targets:
    """Return objects of an image on its frame, each with box, label and mask.

    Leaves out objects of categories outside the class set, and objects of which the window has no pixel or less than
    the share `keeps`. If the window cuts an object, its box is drawn around the remaining pixels.

    Args:
        annotations: data set with the objects.
        objects: indices of the image's masks, `annotations.instances(image)` for all.
        classes: classes to learn, with their attributes.
        frame: frame of the image.
        keeps: minimum share of an object's mask inside the window.
    """
    label_of = classes.label_of()
    known = [m for m in objects if int(annotations.categories[m]) in label_of]
    masks = crop_masks(annotations, known, frame)
    is_cut = frame.is_cut(annotations.boxes[known].reshape(-1, 4))
    scale = frame.new[0] * frame.new[1] / (frame.old[0] * frame.old[1])
    left = np.array([int(np.count_nonzero(crop)) for crop in masks.crops()], dtype=np.int64)
    enough = left >= np.where(is_cut, keeps * scale * annotations.areas[known], 0)
    if not (visible := (left > 0) & enough).all():
        known = [m for m, stays in zip(known, visible, strict=True) if stays]
        masks, is_cut = crop_masks(annotations, known, frame), is_cut[visible]
    boxes = frame.boxes(annotations.boxes[known].reshape(-1, 4))
    for i in np.flatnonzero(is_cut):
        boxes[i] = _box_of(masks.crops()[i].numpy(), masks.windows[i].tolist())
    labels = [label_of[int(annotations.categories[m])] for m in known]
    return Targets(
        torch.from_numpy(boxes).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        masks,
        _attributes([str(annotations.class_ids[m]) for m in known], classes.attributes),
    )


def _attributes(class_ids: Sequence[str], attributes: AttributeSet) -> torch.Tensor | None:
    """Return which attributes the ClassIds have: bool (N, A); attributes outside `attributes` are left out."""
    if not attributes:
        return None
    table = torch.zeros((len(class_ids), len(attributes)), dtype=torch.bool)
    for row, class_id in enumerate(class_ids):
        table[row, [place for a in attributes_of(class_id) if (place := attributes.place_of.get(a)) is not None]] = True
    return table


def targets_of_bitmaps(masks: np.ndarray, labels: torch.Tensor, attributes: torch.Tensor | None = None) -> Targets:
    """Build objects from masks on the whole frame, uint8 (N, H, W), leaving out empty masks."""
    seen = np.flatnonzero(masks.any(axis=(1, 2)))
    size = (masks.shape[1], masks.shape[2])
    windows = np.array([_box_of(mask, (0, 0, size[1], size[0])) for mask in masks[seen]], np.int64).reshape(-1, 4)
    crops = [m[y0:y1, x0:x1].ravel() for m, (x0, y0, x1, y1) in zip(masks[seen], windows.tolist(), strict=True)]
    flat = torch.from_numpy(np.concatenate(crops) if crops else np.zeros(0, np.uint8))
    boxes, left = torch.from_numpy(windows.astype(np.float32)), torch.from_numpy(seen)
    crop_masks_left = CropMasks(flat, torch.from_numpy(windows), size)
    return Targets(boxes, labels[left], crop_masks_left, None if attributes is None else attributes[left])


def _box_of(crop: np.ndarray, window: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the box around the pixels of a non-empty mask."""
    columns, rows = np.flatnonzero(crop.any(0)), np.flatnonzero(crop.any(1))
    x0, y0 = window[0], window[1]
    return x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1
