"""Mask probabilities on a grid over a box -> binary masks in a frame, touching only the pixels of the box."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError

_BLOCK = 2**16  # pixels drawn at a time: what is worked on stays in the processor's cache
_MOST_LEVELS = 255  # a level is a byte
_FINEST = 2**12


class MaskWindow(NamedTuple):
    """A mask in a frame, as the pixels of a window.

    Args:
        pixels: bool (h, w), column-major in memory as run-lengths want it; uint8 where they are `Levels`.
        x0: column of the window's corner in the frame.
        y0: row of it.
        candidate: which of an image's candidates it was drawn from; -1 where that is not known.
    """

    pixels: np.ndarray
    x0: int
    y0: int
    candidate: int = -1

    def windows_shared_with(self, other: "MaskWindow") -> tuple[np.ndarray, np.ndarray] | None:
        """Views of both masks where their windows overlap, if they do."""
        left, right = max(self.x0, other.x0), min(self.x0 + self.pixels.shape[1], other.x0 + other.pixels.shape[1])
        top, bottom = max(self.y0, other.y0), min(self.y0 + self.pixels.shape[0], other.y0 + other.pixels.shape[0])
        if left >= right or top >= bottom:
            return None
        mine = self.pixels[top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0]
        return mine, other.pixels[top - other.y0 : bottom - other.y0, left - other.x0 : right - other.x0]

    def encoded(self, size: Size) -> CocoRLE:
        """COCO's run-length encoding in a frame of that size, straight from the window."""
        height, width = self.pixels.shape
        # A zero before the window and after each column, so that every run begins and ends inside its column.
        flat = np.zeros(1 + width * (height + 1), bool)
        flat[1:].reshape(width, height + 1)[:, :height] = self.pixels.T
        borders = np.flatnonzero(flat[1:] != flat[:-1])
        column = borders[::2] // (height + 1)
        borders += np.repeat(column * (size[0] - height - 1), 2) + self.x0 * size[0] + self.y0
        if height == size[0]:  # a run that goes on in the next column is one
            goes_on = borders[1:-1:2] == borders[2::2]
            borders = np.delete(borders, np.flatnonzero(np.repeat(goes_on, 2)) + 1)
        ends = np.append(borders, size[0] * size[1])
        counts = ends if len(ends) == 1 or ends[-1] != ends[-2] else ends[:-1]
        counts[1:] -= counts[:-1].copy()
        encoded = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
        return {"size": list(size), "counts": encoded["counts"]}


ScoredMask = tuple[MaskWindow, int, float]
"""A mask on the answer's grid, its label and its score."""


def mask_iou(one: MaskWindow, other: MaskWindow, area: int, other_area: int, *, up_to: float = 0.0) -> float:
    """Pixels that two masks share / pixels of either; 0 where one has none.

    Args:
        one: a mask.
        other: a mask of the same frame.
        area: pixels of the one.
        other_area: pixels of the other.
        up_to: 0 is given, without a look at the pixels, where the areas alone show that IoU is not above this.
    """
    low, high = sorted((area, other_area))
    if low == 0 or low / high <= up_to or (views := one.windows_shared_with(other)) is None:
        return 0.0
    shared = int(np.count_nonzero(views[0] & views[1]))
    return shared / (low + high - shared)


def paste(mask: np.ndarray, box: np.ndarray, *, size: Size, mask_thr: float) -> MaskWindow:
    """A mask drawn on its box: the pixels whose centres have at least the threshold's probability.

    Bilinear between the centres of the grid's cells, zero outside, as Mask R-CNN does it.

    Args:
        mask: float32 (M, M), probabilities on a grid over the box.
        box: (4,), in pixels of the frame.
        size: height and width of the frame.
        mask_thr: the threshold.
    """
    return _draw(mask, box, size, np.bool_, lambda values, drawn: np.greater_equal(values, mask_thr, out=drawn))


class Levels:
    """Mask thresholds taken together: a pixel's level is how many of them its probability reaches.

    So at the k-th threshold, counted from 0, a mask has the pixels of levels above k: one drawing answers for all.

    Args:
        thresholds: ascending, between 0 and 1, at most 255, compared in float32 as `paste` does.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        values = np.array(thresholds, np.float32)
        apart = np.diff(values)
        if not 1 <= len(values) <= _MOST_LEVELS or (apart < 1 / _FINEST).any() or values[0] < 0 or values[-1] > 1:
            raise UserError(
                f"mask_thr={list(thresholds)}: 1 to {_MOST_LEVELS} ascending thresholds between 0 and 1 expected, "
                f"at least 1/{_FINEST} apart"
            )
        # Each bin of probabilities holds one threshold at most, so its lower end's level is right or one too low.
        self._bins = 2 ** math.ceil(math.log2(max(256.0, 1 / apart.min(initial=1.0))) + 1)
        ends = np.arange(self._bins + 1, dtype=np.float32) / np.float32(self._bins)
        self._level = np.searchsorted(values, ends, side="right").astype(np.uint8)
        self._next = np.append(values, np.float32(np.inf))[self._level]

    def of(self, probabilities: np.ndarray, out: np.ndarray) -> None:
        """The level of each probability, float32 (...), into uint8 (...)."""
        bins = (probabilities * np.float32(self._bins)).astype(np.int32)
        np.add(self._level[bins], probabilities >= self._next[bins], out=out)


def paste_levels(mask: np.ndarray, box: np.ndarray, *, size: Size, levels: Levels) -> MaskWindow:
    """A mask drawn as `paste` does it, for many thresholds at once: the pixels, uint8, are levels."""
    return _draw(mask, box, size, np.uint8, levels.of)


def _draw(
    mask: np.ndarray, box: np.ndarray, size: Size, kind: type, decide: Callable[[np.ndarray, np.ndarray], object]
) -> MaskWindow:
    """See `paste`; `decide` makes pixels of the given kind of probabilities, into its second argument."""
    x0, y0, x1, y1 = box.tolist()
    left, right = _pixels(x0, x1, size[1])
    top, bottom = _pixels(y0, y1, size[0])
    cells = mask.shape[0]
    framed = np.zeros((cells + 2, cells + 2), np.float32)
    framed[1:-1, 1:-1] = mask
    rows, row_share = _cells(top, bottom, y0, y1, cells)
    columns, column_share = _cells(left, right, x0, x1, cells)
    by_row = framed[rows] * (1 - row_share)[:, None] + framed[rows + 1] * row_share[:, None]
    by_column = np.ascontiguousarray(by_row.T)  # (M + 2, h)
    drawn: np.ndarray = np.empty((right - left, bottom - top), kind)
    step = max(1, _BLOCK // max(1, bottom - top))
    for begin in range(0, right - left, step):
        before, share = columns[begin : begin + step], column_share[begin : begin + step, None]
        values = by_column[before]
        values *= 1 - share
        after = by_column[before + 1]
        after *= share
        values += after
        decide(values, drawn[begin : begin + step])
    return MaskWindow(drawn.T, left, top)


def _pixels(low: float, high: float, edge: int) -> tuple[int, int]:
    """The pixels that a side of a box touches, inside the frame."""
    first = min(max(math.floor(low), 0), edge)
    return first, max(first, min(math.ceil(high), edge))


def _cells(first: int, end: int, low: float, high: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel's centre the cell before it on the grid padded by one, and the share of the cell after it."""
    position = (np.arange(first, end) + 0.5 - low) / max(high - low, 1e-6) * cells + 0.5
    position = np.minimum(np.maximum(position, 0), cells + 1 - 1e-6)
    before = position.astype(np.int64)
    return before, (position - before).astype(np.float32)
