"""kaggle_rows.py: masks written by a loop over pixels are read correctly, and each fault has its exact kind."""

from itertools import pairwise

import numpy as np
import pytest

from fashion_hydra.formats.csv_files import read_rows
from fashion_hydra.formats.kaggle_rows import (
    ATTRIBUTES,
    CORRECTED,
    SUBMISSION_COLUMNS,
    TRAIN_COLUMNS,
    parse_row,
    read_header,
)

ROW = {"ImageId": "a.jpg", "EncodedPixels": "1 3 11 3", "Height": "10", "Width": "20", "ClassId": "6"}
TRAIN = read_header(TRAIN_COLUMNS, required=TRAIN_COLUMNS)
TRAIN_2020 = read_header((*TRAIN_COLUMNS, ATTRIBUTES), required=TRAIN_COLUMNS, optional=(ATTRIBUTES,))
SUBMISSION = read_header(SUBMISSION_COLUMNS, required=SUBMISSION_COLUMNS)


def parse(header=TRAIN, frame=None, **changed):
    values = {**ROW, "AttributesIds": "", **changed}
    return parse_row(7, [values[name] for name in header.names], header, frame)


def encode(bitmap):
    """Encode a bitmap as pairs of 1-based start and length in column-major order, pixel by pixel."""
    height, width = bitmap.shape
    pairs, number = [], 0
    for x in range(width):
        for y in range(height):
            number += 1
            if bitmap[y, x] and pairs and sum(pairs[-1]) == number:
                pairs[-1][1] += 1
            elif bitmap[y, x]:
                pairs.append([number, 1])
    return pairs


def written(pairs):
    return " ".join(f"{start} {length}" for start, length in pairs)


def pairs_of(runs):
    return [[start + 1, length] for start, length in runs.tolist()]


def pixels(pairs):
    return [number for start, length in pairs for number in range(start, start + length)]


@pytest.mark.parametrize("seed", range(20))
def test_a_mask_is_read_as_it_was_written(seed):
    rng = np.random.default_rng(seed)
    bitmap = rng.random((rng.integers(1, 12), rng.integers(1, 12))) < rng.choice([0.1, 0.5, 0.9])
    height, width = bitmap.shape
    pairs = encode(bitmap)
    row = parse(EncodedPixels=written(pairs), Height=str(height), Width=str(width))
    assert (row.line, row.image_id, row.class_id, row.size) == (7, "a.jpg", "6", (height, width))
    assert row.problems == []
    assert row.is_empty == (not pairs)
    assert ([] if row.runs is None else pairs_of(row.runs)) == pairs
    assert parse(SUBMISSION, (height, width), EncodedPixels=written(pairs)).size == (height, width)


@pytest.mark.parametrize("seed", range(20))
def test_runs_out_of_order_and_pixels_given_twice_are_corrected_and_named(seed):
    rng = np.random.default_rng(seed)
    pairs = rng.integers((1, 1), (90, 9), (6, 2)).tolist()
    row = parse(EncodedPixels=written(pairs))
    numbers, starts = pixels(pairs), [start for start, _ in pairs]
    expected = ["unsorted-runs"] if starts != sorted(starts) else []
    if surplus := len(numbers) - len(set(numbers)):
        expected.append("overlapping-runs")
        assert row.problems[-1].message == f"{surplus} pixels given twice"
    assert [problem.kind for problem in row.problems] == expected
    assert set(expected) <= CORRECTED
    read = pairs_of(row.runs)
    assert pixels(read) == sorted(set(numbers))
    assert all(sum(one) < other[0] for one, other in pairwise(read))


def test_runs_that_touch_are_no_problem():
    row = parse(EncodedPixels="1 3 4 2")
    assert (row.problems, row.runs.tolist()) == ([], [[0, 5]])


FAULTS = [
    ({"EncodedPixels": "1 2 5"}, "odd-runs", "3 values, the last 5"),
    ({"EncodedPixels": "1"}, "odd-runs", "1 values"),
    ({"EncodedPixels": "1 x"}, "runs-not-numbers", "value 2 of the run-length encoding, the length 'x',"),
    ({"EncodedPixels": "1.5 2"}, "runs-not-numbers", "the start '1.5', is not an integer"),
    ({"EncodedPixels": "1 2\u00a0"}, "runs-not-numbers", "the length"),
    ({"EncodedPixels": "0 2"}, "start-below-1", "the start '0', must be at least 1"),
    ({"EncodedPixels": "-3 2"}, "start-below-1", "the start '-3'"),
    ({"EncodedPixels": "5 -1"}, "length-below-1", "the length '-1', must be at least 1"),
    ({"EncodedPixels": "5 0"}, "length-below-1", "the length '0'"),
    ({"EncodedPixels": "199 3"}, "runs-beyond-image", "run 199 3 ends at pixel 201, but a mask of height 10 and"),
    ({"EncodedPixels": f"1 {10**15}"}, "runs-beyond-image", "larger than any image"),
    ({"EncodedPixels": f"1 {10**30}"}, "runs-beyond-image", "larger than any image"),
    ({"ImageId": ""}, "no-image-id", "ImageId is empty"),
    ({"ImageId": "a\nb"}, "bad-image-id", r"ImageId 'a\nb': must be one line of at most 1000 characters"),
    ({"ImageId": "a" * 1001}, "bad-image-id", f"ImageId '{'a' * 37}...'"),
    ({"Height": "ten"}, "bad-size", "tenx20 (height x width): must be whole numbers"),
    ({"Height": "-10"}, "bad-size", "-10x20"),
    ({"Height": "0"}, "bad-size", "0x20"),
    ({"Width": "4.5"}, "bad-size", "10x4.5"),
    ({"Height": "5x6", "Width": ""}, "bad-size", "5x6x"),
    ({"Width": "65537"}, "bad-size", "at most 134217728 pixels and 65536 per edge"),
    ({"Height": "65536", "Width": "2049"}, "bad-size", "65536x2049"),
    ({"Height": "9" * 5000}, "bad-size", f"{'9' * 17}...x20"),
    ({"ClassId": "6.0"}, "bad-class", "ClassId '6.0' is not of the form 6 or 6_28_77: write whole numbers"),
    ({"ClassId": "-1"}, "bad-class", "'-1'"),
    ({"ClassId": "shoe"}, "bad-class", "'shoe'"),
    ({"ClassId": ""}, "bad-class", "''"),
    ({"ClassId": "6_"}, "bad-class", "'6_'"),
    ({"ClassId": "6__28"}, "bad-class", "'6__28'"),
    ({"ClassId": "x" * 900}, "bad-class", f"'{'x' * 37}...' is not of the form"),
    ({"ClassId": "9" * 5000}, "bad-class", "of 5000 characters"),
    ({"AttributesIds": "x"}, "bad-class", "AttributesIds 'x' is not of the form 115,136: write whole numbers"),
    ({"AttributesIds": "1,"}, "bad-class", "AttributesIds '1,'"),
    ({"ImageId": "a.jpg "}, "spaces", "'a.jpg ', '6'"),
    ({"ClassId": " 6"}, "spaces", "'a.jpg', ' 6'"),
]
COLUMN_OF = {
    "no-image-id": "ImageId",
    "bad-image-id": "ImageId",
    "bad-size": "Height",
    "bad-class": "ClassId",
    "spaces": "",
}


@pytest.mark.parametrize(("changed", "kind", "message"), FAULTS)
def test_each_fault_has_its_kind_and_shows_the_value(changed, kind, message):
    row = parse(TRAIN_2020, **changed)
    [problem] = row.problems
    assert (problem.kind, problem.column) == (kind, COLUMN_OF.get(kind, "EncodedPixels"))
    assert message in problem.message
    assert len(problem.message) < 200
    has_no_mask = problem.column in ("EncodedPixels", "Height")
    assert (row.runs is None) == has_no_mask
    assert (row.size is None) == (kind == "bad-size")
    if kind in CORRECTED:
        assert (row.image_id, row.class_id) == ("a.jpg", "6")


def test_a_row_can_be_wrong_in_every_column():
    row = parse(ImageId=" ", Height="x", ClassId="shoe", EncodedPixels="9 2 1 9 199 9")
    assert [problem.kind for problem in row.problems] == ["no-image-id", "spaces", "bad-size", "bad-class"]
    row = parse(SUBMISSION, (10, 20), ClassId="6_", EncodedPixels="9 2 1 9 199 9")
    assert [p.kind for p in row.problems] == ["bad-class", "unsorted-runs", "overlapping-runs", "runs-beyond-image"]


@pytest.mark.parametrize(
    ("values", "count", "image", "class_id"),
    [
        (["a.jpg", "1 3"], 2, "a.jpg", ""),
        (["a.jpg"], 1, "a.jpg", ""),
        (["a.jpg", "1 3", "6", "7"], 4, "a.jpg", "6"),
    ],
)
def test_a_row_of_another_length_than_the_header(values, count, image, class_id):
    row = parse_row(2, values, SUBMISSION, (10, 20))
    assert row.problems == [("", "bad-row", f"{count} values, the header has 3: quote values that contain commas")]
    assert (row.image_id, row.class_id, row.size, row.runs) == (image, class_id, None, None)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_a_row_without_pixels_is_empty(text):
    row = parse(EncodedPixels=text)
    assert (row.is_empty, row.runs, row.problems) == (True, None, [])


@pytest.mark.parametrize(
    ("attributes", "class_id"), [("", "6"), ("9", "6_9"), ("115,36,143", "6_36_115_143"), ("115, 20,9", "6_9_20_115")]
)
def test_attributes_of_2020_join_the_class_in_ascending_order(attributes, class_id):
    assert parse(TRAIN_2020, AttributesIds=attributes).class_id == class_id


def test_sizes_with_leading_zeros_and_spaces():
    assert parse(Height=" 010", Width="20 ").size == (10, 20)
    assert parse(Height="0" * 5000 + "10").size == (10, 20)


def test_columns_may_stand_in_any_order_and_others_between_them():
    names = ["Width", "index", "ClassId", "EncodedPixels", "Height", "ImageId"]
    header = read_header(names, required=TRAIN_COLUMNS, optional=(ATTRIBUTES,))
    row = parse_row(3, ["20", "0", "6_28", "5 2", "10", "b"], header)
    assert (row.image_id, row.class_id, row.size, row.runs.tolist()) == ("b", "6_28", (10, 20), [[4, 2]])
    assert (header.missing, header.others, header.has_size) == ((), ("index",), True)


@pytest.mark.parametrize(
    ("names", "missing", "others", "explained"),
    [
        ("", SUBMISSION_COLUMNS, (), "no column ImageId, EncodedPixels, ClassId (header: empty). Do this"),
        (
            "image,rle,ClassId",
            ("ImageId", "EncodedPixels"),
            ("image", "rle"),
            "no column ImageId, EncodedPixels (header: ",
        ),
        ("index,ImageId,EncodedPixels,ClassId", (), ("index",), "unknown or repeated columns index (header: index,Im"),
        ("ImageId,ImageId,EncodedPixels,ClassId", (), ("ImageId",), "unknown or repeated columns ImageId (header: "),
        (
            "ImageId;EncodedPixels;ClassId",
            SUBMISSION_COLUMNS,
            ("ImageId;EncodedPixels;ClassId",),
            "are separated by semic",
        ),
        ("ImageId\tClassId", SUBMISSION_COLUMNS, ("ImageId\tClassId",), "separated by tabs: save it as CSV"),
        ("ClassId,EncodedPixels,ImageId,AttributesIds", (), (), "(header: ClassId"),
    ],
)
def test_what_is_wrong_with_a_header(names, missing, others, explained):
    header = read_header(names.split(",") if names else [], required=SUBMISSION_COLUMNS, optional=(ATTRIBUTES,))
    assert (header.missing, header.others) == (missing, others)
    assert explained in header.explain("Do this")
    assert not header.has_size


def test_of_a_repeated_column_the_first_counts():
    header = read_header(["ImageId", "ImageId", "EncodedPixels", "ClassId"], required=SUBMISSION_COLUMNS)
    assert parse_row(2, ["a", "b", "1 2", "6"], header, (4, 4)).image_id == "a"


def test_rows_are_numbered_by_their_last_line_and_empty_ones_skipped(tmp_path):
    (tmp_path / "file.csv").write_text('a,b\n\n1,"2\n3"\n4,5')
    assert list(read_rows(tmp_path / "file.csv", "")) == [(1, ["a", "b"]), (4, ["1", "2\n3"]), (5, ["4", "5"])]
    (tmp_path / "file.csv").write_text("")
    assert list(read_rows(tmp_path / "file.csv", "")) == [(1, [])]
