"""Copy-paste: put objects of one training image on another (Ghiasi et al., CVPR 2021, arXiv:2012.07177).

Clothes overlap: a pocket lies on a jacket, a tie on a shirt. An object that lies on another is pasted together with it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask

from fashion_hydra.data.targets import targets_of_bitmaps
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import Targets

_LIES_ON = 0.5
"""An object lies on a larger one that covers at least this share of its pixels."""

_CHOSEN = 0.5
"""Probability that an object which lies on no other is pasted, with everything that lies on it."""


def choose_objects(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the objects to paste: each object that lies on no other, and all that lie on it, with probability 1/2.

    Args:
        masks: uint8 (N, H, W).
        rng: random generator; N numbers are drawn.

    Returns:
        bool (N,).
    """
    encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    return (rng.random(len(masks)) < _CHOSEN)[lowest_below(encoded)]


def lowest_below(encoded: Sequence[rle.CocoRLE]) -> np.ndarray:
    """Return the index of the lowest of N masks below each mask, or its own if it lies on no other: int64 (N,)."""
    if not encoded:
        return np.zeros(0, dtype=np.int64)
    areas = coco_mask.area(encoded)
    covered = coco_mask.iou(encoded, encoded, [1] * len(encoded))  # [i, j]: the share of mask i's pixels that j covers
    covered[areas[:, None] >= areas[None, :]] = 0
    below = np.where(covered.max(axis=1) >= _LIES_ON, covered.argmax(axis=1), np.arange(len(encoded)))
    while (lower := below[below]).tolist() != below.tolist():  # ends, because each step leads to a larger mask
        below = lower
    return below


def paste_objects(
    image: np.ndarray,
    targets: Targets,
    donor: np.ndarray,
    donor_targets: Targets,
    chosen: np.ndarray,
    rng: np.random.Generator,
    *,
    keeps: float,
) -> tuple[np.ndarray, Targets]:
    """Paste objects of a donor image at a random place of an image.

    The pixels of the chosen objects are pasted, with the masks of all objects that these pixels show. They hide what is
    below them. Objects are dropped of which less than the share `keeps` of their pixels is visible in the result.

    Args:
        image: uint8 (H, W, 3).
        targets: objects of the image.
        donor: uint8 (h, w, 3), of any size.
        donor_targets: objects of the donor image.
        chosen: which of them to paste, bool (N,).
        rng: random generator.
        keeps: minimum share of an object's pixels.

    Returns:
        A new image; the image's remaining objects, and the pasted ones.
    """
    above = donor_targets.masks.bitmaps().numpy()
    region = np.asarray(above[chosen].any(axis=0))
    rows, columns = (_overlap(whole, part, rng) for whole, part in zip(image.shape[:2], donor.shape[:2], strict=True))
    hidden = np.zeros(image.shape[:2], dtype=bool)
    hidden[rows[0], columns[0]] = region[rows[1], columns[1]]
    result = image.copy()
    result[hidden] = donor[rows[1], columns[1]][hidden[rows[0], columns[0]]]
    below = targets.masks.bitmaps().numpy()
    pasted = np.zeros((len(above), *image.shape[:2]), dtype=np.uint8)
    pasted[:, rows[0], columns[0]] = above[:, rows[1], columns[1]]
    objects = np.concatenate([below * ~hidden, pasted * hidden])
    before = np.concatenate([below.sum(axis=(1, 2)), above.sum(axis=(1, 2))])
    objects[objects.sum(axis=(1, 2)) < keeps * before] = 0
    attributes = None
    if targets.attributes is not None and donor_targets.attributes is not None:
        attributes = torch.cat([targets.attributes, donor_targets.attributes])
    return result, targets_of_bitmaps(objects, torch.cat([targets.labels, donor_targets.labels]), attributes)


def _overlap(whole: int, part: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Place a line of `part` pixels at random inside `whole` pixels, or around them if it is longer.

    Returns:
        The pixels that both share, counted along each of them.
    """
    start = int(rng.integers(min(0, whole - part), max(0, whole - part) + 1))
    low, high = max(0, start), min(whole, start + part)
    return slice(low, high), slice(low - start, high - start)
