"""Compare rle.py with pycocotools and with brute force over pixels."""

import csv
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from fashion_hydra.structures.rle import (
    bitmap_to_runs,
    coco_to_runs,
    crop_to_runs,
    kaggle_to_runs,
    measure,
    normalise_runs,
    resize_runs,
    runs_area,
    runs_to_bitmap,
    runs_to_box,
    runs_to_coco,
    runs_to_crop,
    runs_to_kaggle,
)
from fashion_hydra.utils.errors import UserError
from tests import SHARED

SAMPLE = SHARED / "imat2020_sample" / "train.csv"


@st.composite
def bitmaps(draw):
    """Draw small random masks enlarged by integer factors: short and long runs, thin and wide images."""
    shape = st.tuples(st.integers(1, 7), st.integers(1, 7))
    small = draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
    factor = np.ones((draw(st.integers(1, 40)), draw(st.integers(1, 40))), np.uint8)
    return np.kron(small, factor)


@st.composite
def bitmaps_with_box(draw):
    """Draw a mask and a half-open box (x0, y0, x1, y1) inside its frame, possibly empty."""
    bitmap = draw(bitmaps())
    height, width = bitmap.shape
    y0, y1 = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    x0, x1 = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    return bitmap, (x0, y0, x1, y1)


def runs_by_brute_force(bitmap):
    """Encode runs by visiting the pixels column by column."""
    runs, previous = [], 0
    for index, value in enumerate(bitmap.flatten(order="F").tolist()):
        if value and not previous:
            runs.append([index, 0])
        if value:
            runs[-1][1] += 1
        previous = value
    return np.array(runs, np.int64).reshape(-1, 2)


def test_runs_of_a_mask_worked_by_hand():
    bitmap = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)  # columns: 01, 11, 10
    runs = bitmap_to_runs(bitmap)
    assert runs.tolist() == [[1, 4]]
    assert runs_to_kaggle(runs) == "2 4"
    assert runs_to_box(runs, height=2) == (0, 0, 3, 2)
    assert runs_area(runs) == 4


@given(bitmaps())
def test_bitmap_to_runs_equals_brute_force_and_returns(bitmap):
    runs = bitmap_to_runs(bitmap)
    np.testing.assert_array_equal(runs, runs_by_brute_force(bitmap))
    assert runs.dtype == np.int64
    decoded = runs_to_bitmap(runs, height=bitmap.shape[0], width=bitmap.shape[1])
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, bitmap)


@given(bitmaps())
def test_coco_form_equals_pycocotools(bitmap):
    height, width = bitmap.shape
    theirs = coco_mask.encode(np.asfortranarray(bitmap))
    ours = runs_to_coco(bitmap_to_runs(bitmap), height=height, width=width)
    assert ours == theirs
    np.testing.assert_array_equal(coco_to_runs(theirs), runs_by_brute_force(bitmap))


@given(st.lists(st.integers(0, 1 << 24), min_size=1, max_size=30))
def test_coco_counts_of_any_size_decode(counts):
    theirs = coco_mask.frPyObjects({"size": [1, sum(counts)], "counts": counts}, 1, sum(counts))
    ends = np.cumsum(counts)
    spans = [(ends[i] - counts[i], counts[i]) for i in range(1, len(counts), 2)]
    expected = normalise_runs(np.array(spans, np.int64).reshape(-1, 2))
    np.testing.assert_array_equal(coco_to_runs(theirs), expected)
    as_text = coco_to_runs({"size": theirs["size"], "counts": theirs["counts"].decode()})
    np.testing.assert_array_equal(as_text, expected)


@given(bitmaps())
def test_area_and_box_equal_brute_force(bitmap):
    runs = bitmap_to_runs(bitmap)
    assert runs_area(runs) == bitmap.sum()
    rows, columns = np.nonzero(bitmap)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
    assert runs_to_box(runs, height=bitmap.shape[0]) == box


@given(bitmaps_with_box())
def test_crop_equals_slice_of_the_bitmap(bitmap_and_box):
    bitmap, (x0, y0, x1, y1) = bitmap_and_box
    height = bitmap.shape[0]
    crop = runs_to_crop(bitmap_to_runs(bitmap), height=height, box=(x0, y0, x1, y1))
    np.testing.assert_array_equal(crop, bitmap[y0:y1, x0:x1])
    pasted = np.zeros_like(bitmap)
    pasted[y0:y1, x0:x1] = crop
    np.testing.assert_array_equal(crop_to_runs(crop, x0=x0, y0=y0, height=height), runs_by_brute_force(pasted))


def test_crop_of_a_huge_image_needs_only_the_box():
    """The image has 10^12 pixels, too many to decode in memory."""
    height = 10**6
    runs = np.array([[height * 999_999 + 5, 3]], np.int64)
    box = runs_to_box(runs, height=height)
    assert box == (999_999, 5, 1_000_000, 8)
    assert runs_to_crop(runs, height=height, box=box).tolist() == [[1], [1], [1]]


@given(bitmaps(), st.integers(1, 60), st.integers(1, 60))
def test_resize_samples_the_floor_index(bitmap, new_height, new_width):
    height, width = bitmap.shape
    rows = [i * height // new_height for i in range(new_height)]
    columns = [j * width // new_width for j in range(new_width)]
    resized = resize_runs(
        bitmap_to_runs(bitmap), height=height, width=width, new_height=new_height, new_width=new_width
    )
    np.testing.assert_array_equal(resized, runs_by_brute_force(bitmap[rows][:, columns]))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12))
def test_normalise_keeps_the_pixels_of_unsorted_and_overlapping_runs(spans):
    flat = np.zeros((80, 1), np.uint8)
    for start, length in spans:
        flat[start : start + length] = 1
    runs = normalise_runs(np.array(spans, np.int64).reshape(-1, 2))
    np.testing.assert_array_equal(runs, runs_by_brute_force(flat))


@given(bitmaps())
def test_kaggle_text_returns(bitmap):
    runs = bitmap_to_runs(bitmap)
    text = runs_to_kaggle(runs)
    assert text == " ".join(f"{start + 1} {length}" for start, length in runs_by_brute_force(bitmap))
    np.testing.assert_array_equal(kaggle_to_runs(text), runs)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_is_no_runs(text):
    assert kaggle_to_runs(text).shape == (0, 2)


def test_parsing_keeps_the_order_given():
    assert kaggle_to_runs(" 9 2\t1 4  3 3 ").tolist() == [[8, 2], [0, 4], [2, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "3 values, the last 3"),
        ("7", "1 values, the last 7"),
        ("1 2 x 4", "value 3 of the run-length encoding, the start 'x', is not an integer"),
        ("1 2.5", "value 2 of the run-length encoding, the length '2.5', is not an integer"),
        ("1 2 3 nan", "value 4 of the run-length encoding, the length 'nan', is not an integer"),
        ("1,2", "'1,2', is not an integer"),
        ("1_0 2", "'1_0', is not an integer"),
        ("0 5", "value 1 of the run-length encoding, the start '0', must be at least 1"),
        ("5 1 -3 2", "value 3 of the run-length encoding, the start '-3', must be at least 1"),
        ("5 0", "value 2 of the run-length encoding, the length '0', must be at least 1"),
        ("5 1 9 -2", "value 4 of the run-length encoding, the length '-2', must be at least 1"),
        ("99999999999999999999 1", "'99999999999999999999', is larger than any image"),
        ("1 " + "9" * 5000, "9...', is larger than any image"),
        ("00 1", "the start '00', must be at least 1"),
    ],
)
def test_faulty_text_is_named(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        kaggle_to_runs(text)


@pytest.mark.parametrize("function", [runs_to_coco, runs_to_bitmap])
def test_runs_beyond_the_image_are_named(function):
    runs = np.array([[0, 2], [10, 3]], np.int64)
    with pytest.raises(UserError, match="run 11 3 ends at pixel 13, but a mask of height 4 and width 3 has 12"):
        function(runs, height=4, width=3)


@settings(max_examples=20)
@given(bitmaps())
def test_results_do_not_alias_the_input(bitmap):
    runs = bitmap_to_runs(bitmap)
    before = runs.copy()
    runs_to_coco(runs, height=bitmap.shape[0], width=bitmap.shape[1])
    runs_to_kaggle(runs)
    runs_to_box(runs, height=bitmap.shape[0])
    np.testing.assert_array_equal(runs, before)


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"real masks not found at {SAMPLE}")
def test_real_masks_agree_with_pycocotools():
    csv.field_size_limit(10**9)
    with SAMPLE.open() as file:
        rows = list(csv.DictReader(file))[::12]
    for row in rows:
        height, width = int(row["Height"]), int(row["Width"])
        runs = kaggle_to_runs(row["EncodedPixels"])
        assert runs_to_kaggle(runs) == row["EncodedPixels"]
        rle = runs_to_coco(normalise_runs(runs), height=height, width=width)
        decoded = coco_mask.decode(rle)
        box = runs_to_box(runs, height=height)
        x, y, w, h = (int(v) for v in coco_mask.toBbox(rle))
        assert box == (x, y, x + w, y + h)
        crop = runs_to_crop(runs, height=height, box=box)
        np.testing.assert_array_equal(crop, decoded[y : y + h, x : x + w])
        assert runs_area(runs) == decoded.sum()
        small = resize_runs(runs, height=height, width=width, new_height=512, new_width=512)
        expected = decoded[np.arange(512) * height // 512][:, np.arange(512) * width // 512]
        np.testing.assert_array_equal(runs_to_bitmap(small, height=512, width=512), expected)


@given(st.lists(bitmaps(), min_size=1, max_size=6))
def test_many_masks_are_measured_at_once_as_one_by_one(drawn):
    kept = [bitmap for bitmap in drawn if bitmap.any()]
    runs = [bitmap_to_runs(bitmap) for bitmap in kept]
    first = np.cumsum([0, *map(len, runs)])
    joined = np.concatenate(runs) if runs else np.zeros((0, 2), np.int64)
    boxes, areas = measure(joined, first, np.array([bitmap.shape[0] for bitmap in kept], np.int64))
    assert areas.tolist() == [int(np.count_nonzero(bitmap)) for bitmap in kept]
    for box, bitmap in zip(boxes.tolist(), kept, strict=True):
        ys, xs = np.nonzero(bitmap)
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("counts", ["~~~", b"\x10", "`", "o" * 30])
def test_invalid_counts_are_refused(counts):
    with pytest.raises(UserError, match="counts"):
        coco_to_runs({"size": [4, 5], "counts": counts})
