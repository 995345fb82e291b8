"""Convert run-length encodings, Kaggle <-> COCO <-> bitmap, without Python loops over pixels or runs.

The intermediate form is "runs": an int64 array (K, 2) of (start, length). A start counts pixels from 0 in
column-major order (top to bottom, then left to right), so pixel (y, x) of an image of height H is x * H + y.
All functions except `normalise_runs` and `kaggle_to_runs` take and return *normalised* runs: sorted by start,
not empty, and neither overlapping nor touching.
"""

import re
from typing import NoReturn, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import MOST_RUNS
from fashion_hydra.utils.text import shorten

Runs = npt.NDArray[np.int64]
Bitmap = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


class CocoRLE(TypedDict):
    """COCO's compressed run-length encoding, in pycocotools' form; size is [height, width]."""

    size: list[int]
    counts: bytes | str


class BadRuns(UserError):
    """A run-length encoding is invalid; `kind` is a short name of the fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_DIGITS = re.compile(r"[0-9\s]*", re.ASCII)
# Far above any image, and far below an overflow of start + length.
_LARGEST = 2**40
_WORD = re.compile(r"[^ \t\n\r\f\v]+")
_SHOWN = 40  # characters of a word in a message
_LONGEST_NUMBER = 8  # characters of five bits each: up to 2**40


def kaggle_to_runs(text: str) -> Runs:
    """Parse Kaggle's `start length start length ...` (starts count from 1), in the given order.

    The runs are not sorted or merged, so that a caller can check how they were written; call `normalise_runs` next.

    Raises:
        BadRuns: an odd number of values, a value that is not an integer, or a start or a length below 1; the
            message names the value and its place.
    """
    if not _DIGITS.fullmatch(text):
        _name_first_bad_value(text)
    values = np.fromstring(text, dtype=np.int64, sep=" ") if text.strip() else np.empty(0, np.int64)
    if values.size > 2 * MOST_RUNS:
        raise BadRuns(
            "too-many-runs", f"run-length encoding has {values.size // 2} runs, must have at most {MOST_RUNS}"
        )
    if values.size % 2:
        raise BadRuns(
            "odd-runs",
            f"run-length encoding has {values.size} values, the last {values[-1]}: "
            "they must come in pairs of start and length",
        )
    if values.size and (values.min() < 1 or values.max() > _LARGEST):
        _name_first_bad_value(text)
    runs = values.reshape(-1, 2)
    runs[:, 0] -= 1
    return runs


def _name_first_bad_value(text: str) -> NoReturn:
    """Raise BadRuns for the first invalid value of an encoding; slow, so call this for invalid encodings only."""
    for index, word in enumerate(match[0] for match in _WORD.finditer(text)):
        name = "length" if index % 2 else "start"
        place = f"value {index + 1} of the run-length encoding, the {name} {shorten(word, _SHOWN)!r},"
        if not re.fullmatch(r"-?[0-9]+", word):
            raise BadRuns("runs-not-numbers", f"{place} is not an integer")
        if word.startswith("-") or not word.strip("0"):
            raise BadRuns(f"{name}-below-1", f"{place} must be at least 1")
        if len(word.lstrip("0")) > 18 or int(word) > _LARGEST:  # int() itself refuses thousands of digits
            raise BadRuns("runs-beyond-image", f"{place} is larger than any image")
    raise AssertionError(f"no bad value in {text[:_SHOWN]!r}")


def runs_to_kaggle(runs: Runs) -> str:
    """Format runs as Kaggle's `start length start length ...` with starts from 1; no runs give an empty text."""
    return " ".join(map(str, (runs + np.array([1, 0])).ravel().tolist()))


def normalise_runs(runs: Runs) -> Runs:
    """Sort runs and merge runs that overlap or touch; normalised runs are returned unchanged."""
    if (runs[:, 1] > 0).all() and (runs[1:, 0] > runs[:-1, 0] + runs[:-1, 1]).all():
        return runs
    runs = runs[runs[:, 1] > 0]
    if len(runs) == 0:
        return runs
    starts, lengths = runs[np.argsort(runs[:, 0], kind="stable")].T
    # A long run may reach past later ones, hence the running maximum.
    stops = np.maximum.accumulate(starts + lengths)
    is_first = np.concatenate([[True], starts[1:] > stops[:-1]])
    first = np.flatnonzero(is_first)
    last = np.append(first[1:] - 1, len(runs) - 1)
    return np.stack([starts[first], stops[last] - starts[first]], axis=1)


def runs_to_coco(runs: Runs, *, height: int, width: int) -> CocoRLE:
    """Compress runs to COCO's form, byte-identical to pycocotools' `encode` of the same pixels.

    Raises:
        UserError: the last run ends beyond the image.
    """
    check_runs_inside(runs, height=height, width=width)
    starts, stops = runs[:, 0], runs.sum(axis=1)
    gaps = np.diff(starts, prepend=0)
    gaps[1:] -= runs[:-1, 1]
    assert (gaps >= 0).all(), "runs are not normalised"
    left_over = height * width - int(stops[-1]) if len(runs) else height * width
    counts = np.stack([gaps, runs[:, 1]], axis=1).ravel()
    if left_over or not len(runs):
        counts = np.append(counts, left_over)
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"]}


def coco_to_runs(rle: CocoRLE) -> Runs:
    """Decompress COCO's `counts` to runs without decoding the bitmap.

    The format (pycocotools' maskApi.c): each character, minus '0', holds five bits of a number, low bits first;
    bit 5 is set if more characters follow; bit 4 of a number's last character is its sign. From the fourth number
    on, each is stored as the difference to the number two before it.
    """
    counts = rle["counts"]
    text = counts.encode() if isinstance(counts, str) else counts
    if not text:
        return np.empty((0, 2), np.int64)
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 0x20 == 0)
    if codes.min() < 0 or codes.max() > 0x3F or len(last) == 0 or last[-1] != len(codes) - 1:
        raise UserError(f"counts {text[:20]!r} are not a COCO run-length encoding")
    first = np.append(0, last[:-1] + 1)
    n_characters = last - first + 1
    if n_characters.max() > _LONGEST_NUMBER or len(first) > 2 * MOST_RUNS:
        raise UserError(f"counts {text[:20]!r}...: too large a number or too many runs for any image")
    place = np.arange(len(codes)) - np.repeat(first, n_characters)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * place), first)
    numbers -= np.where(codes[last] & 0x10, np.int64(1) << (5 * n_characters), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    ends = np.cumsum(numbers)
    height, width = rle["size"]
    if (numbers < 0).any() or (numbers > height * width).any() or ends[-1] > height * width:
        raise UserError(f"counts of a COCO run-length encoding do not fit its size {height}x{width}")
    lengths = numbers[1::2]
    return normalise_runs(np.stack([ends[1::2] - lengths, lengths], axis=1))


def bitmap_to_runs(bitmap_HW: npt.NDArray[np.generic]) -> Runs:
    """Return the runs of nonzero pixels in an (H, W) array of any dtype."""
    flat = (bitmap_HW != 0).T.ravel()
    padded = np.zeros(flat.size + 2, bool)
    padded[1:-1] = flat
    edges = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
    return np.stack([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1)


def runs_to_bitmap(runs: Runs, *, height: int, width: int) -> Bitmap:
    """Decode runs to a uint8 (height, width) array of 0 and 1 (column-major in memory).

    Raises:
        UserError: the last run ends beyond the image.
    """
    check_runs_inside(runs, height=height, width=width)
    return _fill(runs[:, 0], runs.sum(axis=1), height=height, width=width)


def runs_area(runs: Runs) -> int:
    """Return the number of pixels of runs."""
    return int(runs[:, 1].sum())


def runs_to_box(runs: Runs, *, height: int) -> Box:
    """Return the tightest half-open box (x0, y0, x1, y1) around runs, in pixels; (0, 0, 0, 0) without runs."""
    if len(runs) == 0:
        return 0, 0, 0, 0
    first, last = runs[:, 0], runs.sum(axis=1) - 1
    x0, x1 = int(first[0]) // height, int(last[-1]) // height + 1
    if (first // height != last // height).any():  # a run across columns covers a bottom and a top row
        return x0, 0, x1, height
    return x0, int((first % height).min()), x1, int((last % height).max()) + 1


def measure(
    runs: Runs, first: npt.NDArray[np.int64], heights: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Compute boxes and areas of many masks at once, directly from their runs.

    Args:
        runs: (R, 2), concatenated runs of all masks; each mask has at least one run, and its runs are normalised.
        first: (M + 1,), the runs of mask m are `first[m]:first[m + 1]`.
        heights: (M,), height of each mask's image.

    Returns:
        (M, 4) boxes as in `runs_to_box`, and (M,) numbers of pixels.
    """
    if len(heights) == 0:
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    begin = first[:-1]
    height = np.repeat(np.asarray(heights, dtype=np.int64), np.diff(first))
    x_start, y_start = np.divmod(runs[:, 0], height)
    x_last, y_last = np.divmod(runs[:, 0] + runs[:, 1] - 1, height)
    over = x_start != x_last  # a run across columns covers a bottom and a top row
    top = np.minimum.reduceat(np.where(over, 0, y_start), begin)
    bottom = np.maximum.reduceat(np.where(over, height - 1, y_last), begin)
    boxes = np.stack([x_start[begin], top, x_last[first[1:] - 1] + 1, bottom + 1], axis=1)
    return boxes, np.add.reduceat(runs[:, 1], begin)


def runs_to_crop(runs: Runs, *, height: int, box: Box) -> Bitmap:
    """Decode only `box` (x0, y0, x1, y1; half-open pixels, inside the image) of an image of the given height.

    Returns uint8 (y1 - y0, x1 - x0). Time and memory depend on the box, not on the image.
    """
    x0, y0, x1, y1 = box
    assert 0 <= x0 <= x1 and 0 <= y0 <= y1 <= height, f"box {box} does not fit an image of height {height}"
    begin = np.searchsorted(runs.sum(axis=1), x0 * height, side="right")
    end = np.searchsorted(runs[:, 0], x1 * height, side="left")
    x, top, bottom = _split_at_columns(runs[begin:end], height=height)
    top, bottom = np.clip(top, y0, y1), np.clip(bottom, y0, y1)
    inside = (x >= x0) & (x < x1) & (top < bottom)
    offset = (x[inside] - x0) * (y1 - y0) - y0
    return _fill(offset + top[inside], offset + bottom[inside], height=y1 - y0, width=x1 - x0)


def crop_to_runs(crop: npt.NDArray[np.generic], *, x0: int, y0: int, height: int) -> Runs:
    """Return runs, in an image of the given height, of an (h, w) crop whose top left pixel is at (x0, y0)."""
    crop_height = crop.shape[0]
    assert y0 >= 0 and x0 >= 0 and y0 + crop_height <= height, f"crop at ({x0}, {y0}) leaves the image"
    if crop_height == 0:
        return np.empty((0, 2), np.int64)
    x, top, bottom = _split_at_columns(bitmap_to_runs(crop), height=crop_height)
    return normalise_runs(np.stack([(x + x0) * height + top + y0, bottom - top], axis=1))


def resize_runs(runs: Runs, *, height: int, width: int, new_height: int, new_width: int) -> Runs:
    """Resize the (height, width) frame by nearest neighbour, using the runs only.

    Target pixel i takes source pixel floor(i * old / new), in integers; so the source pixels [a, b) become
    the target pixels [ceil(a * new / old), ceil(b * new / old)).

    Raises:
        UserError: a run ends beyond the frame.
    """
    check_runs_inside(runs, height=height, width=width)
    x, top, bottom = _split_at_columns(runs, height=height)
    top, bottom = -(-top * new_height // height), -(-bottom * new_height // height)
    left, right = -(-x * new_width // width), -(-(x + 1) * new_width // width)
    copies = np.where(top < bottom, right - left, 0)
    column = np.repeat(left, copies) + _count_up(copies)
    starts = column * new_height + np.repeat(top, copies)
    return normalise_runs(np.stack([starts, np.repeat(bottom - top, copies)], axis=1))


def resize_mask(mask: CocoRLE, size: tuple[int, int]) -> CocoRLE:
    """Resize an encoded mask to a frame of another (height, width), as `resize_runs` does."""
    height, width = mask["size"]
    if (height, width) == size:
        return mask
    runs = resize_runs(coco_to_runs(mask), height=height, width=width, new_height=size[0], new_width=size[1])
    return runs_to_coco(runs, height=size[0], width=size[1])


def check_runs_inside(runs: Runs, *, height: int, width: int) -> None:
    """Raise UserError, naming the run that reaches furthest, if it ends beyond the image."""
    if len(runs) == 0:
        return
    worst = int(runs.sum(axis=1).argmax())
    start, length = (int(v) for v in runs[worst])
    if start + length > height * width:
        raise UserError(
            f"run {start + 1} {length} ends at pixel {start + length}, but a mask of height {height} and "
            f"width {width} has {height * width}"
        )


def _split_at_columns(runs: Runs, *, height: int) -> tuple[Runs, Runs, Runs]:
    """Cut runs at the ends of columns; return x, top and bottom (half-open), each (n,)."""
    first, stop = runs[:, 0], runs.sum(axis=1)
    first_column = first // height
    n_columns = (stop - 1) // height - first_column + 1
    x = np.repeat(first_column, n_columns) + _count_up(n_columns)
    top = np.maximum(np.repeat(first, n_columns) - x * height, 0)
    bottom = np.minimum(np.repeat(stop, n_columns) - x * height, height)
    return x, top, bottom


def _count_up(counts: Runs) -> Runs:
    """Return 0, 1, ..., counts[0] - 1, 0, 1, ..., counts[1] - 1, and so on."""
    begins = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(begins, counts)


def _fill(starts: Runs, stops: Runs, *, height: int, width: int) -> Bitmap:
    """Return a column-major (height, width) array with ones from each start to its stop (sorted, not overlapping).

    `repeat` writes whole runs, ten times as fast here as a cumulative sum over the pixels.
    """
    borders = np.stack([starts, stops], axis=1).ravel()
    lengths = np.diff(borders, prepend=0, append=height * width)
    values = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.repeat(values, lengths).reshape((height, width), order="F")
