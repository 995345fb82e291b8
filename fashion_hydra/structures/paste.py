"""Paste mask probabilities on a grid over a box as binary masks into a frame, computing only the box's pixels."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError

_BLOCK = 2**16  # pixels drawn at a time, so that the working set fits the CPU cache
_MOST_LEVELS = 255  # a level is one byte
_FINEST = 2**12


class MaskWindow(NamedTuple):
    """A mask in a frame, stored as the pixels of a window.

    Args:
        pixels: bool (h, w), or uint8 levels (see `Levels`); column-major in memory, the order of run-lengths.
        x0: column of the window's top left corner in the frame.
        y0: row of the window's top left corner in the frame.
        candidate: index of the image's candidate that the mask was drawn from; -1 if unknown.
    """

    pixels: np.ndarray
    x0: int
    y0: int
    candidate: int = -1

    def windows_shared_with(self, other: "MaskWindow") -> tuple[np.ndarray, np.ndarray] | None:
        """Return views of both masks where their windows overlap; None if they do not."""
        left, right = max(self.x0, other.x0), min(self.x0 + self.pixels.shape[1], other.x0 + other.pixels.shape[1])
        top, bottom = max(self.y0, other.y0), min(self.y0 + self.pixels.shape[0], other.y0 + other.pixels.shape[0])
        if left >= right or top >= bottom:
            return None
        mine = self.pixels[top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0]
        return mine, other.pixels[top - other.y0 : bottom - other.y0, left - other.x0 : right - other.x0]

    def encoded(self, size: Size) -> CocoRLE:
        """Encode the mask in a frame of the given size as COCO run-lengths, directly from the window."""
        height, width = self.pixels.shape
        # Put a zero before the window and after each column, so that every run begins and ends in its column.
        flat = np.zeros(1 + width * (height + 1), bool)
        flat[1:].reshape(width, height + 1)[:, :height] = self.pixels.T
        borders = np.flatnonzero(flat[1:] != flat[:-1])
        column = borders[::2] // (height + 1)
        borders += np.repeat(column * (size[0] - height - 1), 2) + self.x0 * size[0] + self.y0
        if height == size[0]:  # merge runs that continue in the next column
            goes_on = borders[1:-1:2] == borders[2::2]
            borders = np.delete(borders, np.flatnonzero(np.repeat(goes_on, 2)) + 1)
        ends = np.append(borders, size[0] * size[1])
        counts = ends if len(ends) == 1 or ends[-1] != ends[-2] else ends[:-1]
        counts[1:] -= counts[:-1].copy()
        encoded = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
        return {"size": list(size), "counts": encoded["counts"]}


ScoredMask = tuple[MaskWindow, int, float]
"""A mask on the grid of the detections, its label and its score."""


def mask_iou(one: MaskWindow, other: MaskWindow, area: int, other_area: int, *, up_to: float = 0.0) -> float:
    """Return the IoU of two masks, 0 if either is empty.

    Args:
        one: first mask.
        other: second mask, in the same frame.
        area: number of pixels of `one`.
        other_area: number of pixels of `other`.
        up_to: return 0 without comparing pixels if the areas show that the IoU is at most this.
    """
    low, high = sorted((area, other_area))
    if low == 0 or low / high <= up_to or (views := one.windows_shared_with(other)) is None:
        return 0.0
    shared = int(np.count_nonzero(views[0] & views[1]))
    return shared / (low + high - shared)


def paste(mask: np.ndarray, box: np.ndarray, *, size: Size, mask_thr: float) -> MaskWindow:
    """Draw a mask on its box: the pixels whose centres have a probability of at least the threshold.

    Interpolates bilinearly between the centres of the grid's cells, with zero outside the grid, as in Mask R-CNN.

    Args:
        mask: float32 (M, M), probabilities on a grid over the box.
        box: (4,), in pixels of the frame.
        size: height and width of the frame.
        mask_thr: mask threshold in [0, 1].
    """
    return _draw(mask, box, size, np.bool_, lambda values, drawn: np.greater_equal(values, mask_thr, out=drawn))


class Levels:
    """Several mask thresholds at once: a pixel's level is the number of thresholds that its probability reaches.

    The mask at the k-th threshold, counted from 0, is the pixels of levels above k, so a mask is drawn only once.

    Args:
        thresholds: up to 255 ascending thresholds in [0, 1], compared in float32 as in `paste`.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        values = np.array(thresholds, np.float32)
        apart = np.diff(values)
        if not 1 <= len(values) <= _MOST_LEVELS or (apart < 1 / _FINEST).any() or values[0] < 0 or values[-1] > 1:
            raise UserError(
                f"mask_thr={list(thresholds)}: must be 1 to {_MOST_LEVELS} ascending thresholds between 0 and 1, "
                f"at least 1/{_FINEST} apart"
            )
        # Each bin of probabilities holds at most one threshold, so the level of its lower end is right or one too low.
        self._bins = 2 ** math.ceil(math.log2(max(256.0, 1 / apart.min(initial=1.0))) + 1)
        ends = np.arange(self._bins + 1, dtype=np.float32) / np.float32(self._bins)
        self._level = np.searchsorted(values, ends, side="right").astype(np.uint8)
        self._next = np.append(values, np.float32(np.inf))[self._level]

    def of(self, probabilities: np.ndarray, out: np.ndarray) -> None:
        """Write the level of each probability, float32 (...), into `out`, uint8 (...)."""
        bins = (probabilities * np.float32(self._bins)).astype(np.int32)
        np.add(self._level[bins], probabilities >= self._next[bins], out=out)


def paste_levels(mask: np.ndarray, box: np.ndarray, *, size: Size, levels: Levels) -> MaskWindow:
    """Draw a mask as `paste` does, but for several thresholds at once: its pixels are uint8 levels."""
    return _draw(mask, box, size, np.uint8, levels.of)


def _draw(
    mask: np.ndarray, box: np.ndarray, size: Size, kind: type, decide: Callable[[np.ndarray, np.ndarray], object]
) -> MaskWindow:
    """Draw a mask, see `paste`; `decide(probabilities, out)` writes pixels of dtype `kind` into `out`."""
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
    """Return the range of pixels inside the frame that a box covers along one axis."""
    first = min(max(math.floor(low), 0), edge)
    return first, max(first, min(math.ceil(high), edge))


def _cells(first: int, end: int, low: float, high: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, per pixel centre, the previous cell of the grid padded by one, and the weight of the next cell."""
    position = (np.arange(first, end) + 0.5 - low) / max(high - low, 1e-6) * cells + 0.5
    position = np.minimum(np.maximum(position, 0), cells + 1 - 1e-6)
    before = position.astype(np.int64)
    return before, (position - before).astype(np.float32)
