"""Convert COCO's `segmentation` (polygons, run-length encodings, or lists of either) to runs of pixels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.formats.loose_values import whole_number
from fashion_hydra.structures import rle
from fashion_hydra.utils.limits import LONGEST_EDGE, MOST_RUNS

_MOSTLY = 0.1
"""Polygons are reported if a larger share of their boxes is outside the picture."""


class Region(NamedTuple):
    """Region of a picture that a segmentation describes.

    Args:
        runs: int64 (K, 2), normalised and inside the picture.
        left_out: which parts of the segmentation were left out and why; empty if all were used.
        outside: share of the polygons' boxes that is outside the picture; 0 if at most `_MOSTLY`.
    """

    runs: rle.Runs
    left_out: str
    outside: float


def read_segmentation(segmentation: Any, *, height: int, width: int) -> Region:
    """Read a segmentation. Pixels outside the picture are cut off.

    Args:
        segmentation: a list of polygons, each `[x0, y0, x1, y1, ...]` or `[[x0, y0], [x1, y1], ...]`; one polygon; a
            run-length encoding, compressed or not; or a list of these.
        height: height of the picture.
        width: width of the picture.

    Raises:
        ValueError: the segmentation is invalid, or belongs to a picture of another size.
    """
    if not isinstance(segmentation, list):
        return Region(_encoded(segmentation, height, width), "", 0.0)
    parts: list[Any] = [segmentation] if _is_numbers(segmentation) or _is_pairs(segmentation) else segmentation
    if not parts:
        raise ValueError("no polygon")
    drawn, short, outside, shares = [], 0, [], []
    for part in parts:
        if isinstance(part, dict):
            drawn.append(rle.runs_to_coco(_encoded(part, height, width), height=height, width=width))
        elif len(points := _points(part)) < 3:
            short += 1
        else:
            outside.append(_outside(points, height, width))
            shares.append((points >= 0).all() and (points <= 1).all() and (points % 1 > 0).any())
            drawn += coco_mask.frPyObjects([points.ravel().tolist()], height, width)
    if not drawn:
        raise ValueError("a polygon needs three points or more, as pairs of x and y")
    if shares and all(shares):
        raise ValueError("points are shares of the picture, from 0 to 1; COCO requires pixels")
    runs = rle.coco_to_runs(coco_mask.merge(drawn))
    rle.check_runs_inside(runs, height=height, width=width)
    left_out = f"{short} of {len(parts)} parts with fewer than three points" if short else ""
    total = sum(area for area, _ in outside)
    share = sum(area * part for area, part in outside) / total if total else 0.0
    return Region(runs, left_out, share if share > _MOSTLY else 0.0)


def _is_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _is_pairs(values: Sequence[Any]) -> bool:
    """Return whether `values` are points (pairs of x and y); as polygons, each would have only one point."""
    return len(values) >= 3 and all(isinstance(v, list) and len(v) == 2 and _is_numbers(v) for v in values)


def _points(polygon: Any) -> np.ndarray:
    """Return the points of a polygon: float64 (P, 2). Raise ValueError if pycocotools would draw it for hours."""
    try:
        points = np.array(polygon, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError("a polygon is a list of numbers, pairs of x and y") from error
    if points.ndim == 2 and points.shape[1] == 2:
        points = points.ravel()
    if points.ndim != 1:
        raise ValueError(f"a polygon is a list of numbers, pairs of x and y; got {points.ndim} dimensions")
    if len(points) % 2:
        raise ValueError(f"a polygon of {len(points)} numbers: must be pairs of x and y")
    if not (np.abs(points) <= 2 * LONGEST_EDGE).all():
        raise ValueError(f"a polygon with a point at {points[~(np.abs(points) <= 2 * LONGEST_EDGE)][0]:g}")
    corners = points.reshape(-1, 2)
    around = np.abs(np.diff(corners, axis=0, append=corners[:1])).max(axis=1).sum() if len(corners) else 0.0
    if max(around, len(corners)) > MOST_RUNS:
        raise ValueError(
            f"a polygon of {len(corners)} points and an outline of {around:.0f} pixels: must be at most {MOST_RUNS}"
        )
    return corners


def _outside(points: np.ndarray, height: int, width: int) -> tuple[float, float]:
    """Return the area of a polygon's box, and the share of that area outside the picture."""
    low, high = points.min(axis=0), points.max(axis=0)
    area = float((high - low).prod())
    inside = np.clip(np.minimum(high, [width, height]) - np.maximum(low, 0), 0, None)
    return area, 1 - float(inside.prod()) / area if area else 0.0


def _encoded(segmentation: Any, height: int, width: int) -> rle.Runs:
    """Return the runs of a run-length encoding, compressed or not."""
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("neither polygons nor a run-length encoding with size and counts")
    size = segmentation["size"]
    if not isinstance(size, list) or [whole_number(value) for value in size] != [height, width]:
        raise ValueError(f"run-length encoding of size {size}, image {[height, width]} (height, width)")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        runs = _counted([whole_number(count) for count in counts], height * width)
    elif isinstance(counts, str) and counts.isascii():
        if counts[:2] in ("b'", 'b"'):  # text from str(bytes); encodings contain no quotation marks
            counts = counts[2:-1]
        runs = rle.coco_to_runs({"size": [height, width], "counts": counts})
    else:
        raise ValueError("counts: must be ASCII text or a list of lengths")
    rle.check_runs_inside(runs, height=height, width=width)
    return runs


def _counted(counts: list[int | None], pixels: int) -> rle.Runs:
    """Convert COCO's list of lengths, which alternate between background and object, to runs."""
    if None in counts or not 0 < len(counts) <= 2 * MOST_RUNS:
        raise ValueError(f"counts: must be 1 to {2 * MOST_RUNS} whole numbers")
    lengths = np.array(counts, dtype=np.int64)
    if lengths.min() < 0 or lengths.max() > pixels or (ends := np.cumsum(lengths))[-1] > pixels:
        raise ValueError(f"counts: must be lengths from 0 with a sum of at most {pixels}")
    if ends[-1] < pixels:  # pycocotools would fill the rest with uninitialised memory
        raise ValueError(f"counts: a sum of {ends[-1]} pixels, but the image has {pixels}")
    return rle.normalise_runs(np.stack([ends[1::2] - lengths[1::2], lengths[1::2]], axis=1))
