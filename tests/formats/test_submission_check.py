"""Each kind of invalid submission is found; a file written for Kaggle is valid."""

import gzip
import re
import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fashion_hydra.cli.main import main
from fashion_hydra.formats.submission import write_submission
from fashion_hydra.formats.submission_check import find_breaches

HEADER = "ImageId,EncodedPixels,ClassId\n"
CLEAN = "a.jpg,1 3 10 2,31\na.jpg,4 2,31\na.jpg,1 3,6_28_77\nb.jpg,,23\n"
PIXELS = 512 * 512


@pytest.fixture
def check(tmp_path):
    def found(text, sample=None):
        path, names = tmp_path / "submission.csv", tmp_path / "sample.csv"
        path.write_text(text, encoding="utf-8")
        if sample is not None:
            names.write_text(sample)
        return [tuple(fault) for fault in find_breaches(path, names if sample is not None else None)]

    return found


def test_a_clean_file_is_silent(check):
    assert check(HEADER + CLEAN) == []
    assert check(HEADER + CLEAN, sample=HEADER + "b.jpg,,23\na.jpg,,23\n") == []


def test_what_was_written_for_kaggle_is_silent(tmp_path):
    rng = np.random.default_rng(0)
    images = {}
    for i in range(20):
        free, masks = np.ones((512, 512), bool), []
        for _ in range(rng.integers(0, 6)):
            y, x, h, w = rng.integers(0, 400, 4)
            mask = np.zeros((512, 512), bool)
            mask[y : y + h, x : x + w] = True
            masks.append(("31", coco_mask.encode(np.asfortranarray((mask & free).astype(np.uint8)))))
            free &= ~mask
        images[f"{i}.jpg"] = masks
    path = tmp_path / "submission.csv"
    write_submission(path, images)
    assert find_breaches(path) == []
    with gzip.open(tmp_path / "submission.csv.gz", "wb") as packed:
        packed.write(path.read_bytes())
    assert find_breaches(tmp_path / "submission.csv.gz") == []


@pytest.mark.parametrize(
    ("row", "kind", "value"),
    [
        ("c.jpg,1 2 5,6", "odd-runs", "3 values, the last 5"),
        ("c.jpg,x 2,6", "runs-not-numbers", "the start 'x'"),
        ("c.jpg,0 2,6", "start-below-1", "the start '0'"),
        (f"c.jpg,{PIXELS} 2,6", "runs-beyond-image", "ends at pixel 262145"),
        ("c.jpg,9 2 1 3,6", "unsorted-runs", "start 1 after 9"),
        ("c.jpg,1 5 3 4,6", "overlapping-runs", "3 pixels given twice"),
        ("c.jpg,1 2,46", "unknown-class", "category 46: must be 0 to 45"),
        ("c.jpg,1 2,46_3", "unknown-class", "category 46"),
        ("c.jpg,1 2,6.0", "bad-class", "'6.0'"),
        ("c.jpg,1 2,", "bad-class", "''"),
        ("c.jpg,1 2,06", "bad-class", "leading zeros"),
        (f"c.jpg,1 2,{'9' * 900}", "bad-class", "up to four digits"),
        (f"c.jpg,1 2,{'9' * 5000}", "bad-class", "of 5000 characters"),
        ("c.jpg,1 2,6_77_28", "unsorted-attributes", "'6_77_28'"),
        ("c.jpg,1 2,6_28_28", "unsorted-attributes", "must be ascending and unique"),
        ("c.jpg,,6", "empty-mask", "ClassId 6"),
        ("c.jpg,,", "bad-class", "''"),
        ("c.jpg,1 2", "bad-row", "2 values, the header has 3"),
        ("c.jpg,1 2,6,7", "bad-row", "4 values"),
        ("c.jpg ,1 2,6", "spaces", "'c.jpg '"),
        ("c.jpg,1 2, 6", "spaces", "' 6'"),
    ],
)
def test_a_row_that_is_wrong_by_itself(check, row, kind, value):
    [(line, image, found, told)] = check(HEADER + CLEAN + row + "\nd.jpg,7 3,6\n")
    assert (line, image, found) == (6, "c.jpg", kind)
    assert value in told
    assert len(told) <= 120


def test_a_row_without_image(check):
    assert check(HEADER + CLEAN + ",1 2,6\n") == [(6, "", "no-image-id", "ImageId is empty")]


def test_a_row_can_be_wrong_in_several_ways(check):
    kinds = [kind for *_, kind, _ in check(HEADER + f"a.jpg ,9 2 1 9 {PIXELS} 2,99\n")]
    assert kinds == ["spaces", "unknown-class", "unsorted-runs", "overlapping-runs", "runs-beyond-image"]


def test_runs_that_touch_and_the_last_pixel_are_right(check):
    assert check(HEADER + f"a.jpg,1 3 4 2,6\na.jpg,{PIXELS} 1,6\nb.jpg,1 {PIXELS},45\n") == []


@pytest.mark.parametrize("between", ["", "z.jpg,1 2,6\n"])
def test_masks_of_an_image_and_class_that_share_pixels(check, between):
    """Also found if the rows of an image are not adjacent; masks of different classes or images may overlap."""
    rows = f"a.jpg,1 4,6\n{between}a.jpg,3 4,6\na.jpg,3 4,7\na.jpg,3 4,6_28\nb.jpg,3 4,6\na.jpg,20 2,6\n"
    line = 3 + bool(between)
    assert check(HEADER + rows) == [(line, "a.jpg", "shared-pixels", "ClassId 6 shares 2 pixels with row 2")]


def test_each_row_of_several_that_share_pixels_is_named_once(check):
    found = check(HEADER + "a.jpg,1 9,6\na.jpg,30 2,6\na.jpg,9 3,6\na.jpg,1 12,6\na.jpg,1 9,6\n")
    assert [(row, kind, value) for row, _, kind, value in found] == [
        (4, "shared-pixels", "ClassId 6 shares 1 pixels with row 2"),
        (5, "shared-pixels", "ClassId 6 shares 9 pixels with row 2"),
        (6, "duplicate-mask", "ClassId 6 repeats the mask of row 2"),
    ]


def test_the_same_mask_in_another_writing_is_a_duplicate(check):
    [(row, _, kind, _)] = check(HEADER + "a.jpg,1 4,6\na.jpg,1 2 3 2,6\n")
    assert (row, kind) == (3, "duplicate-mask")


def test_a_long_class_is_told_in_short(check):
    """Found by fuzzing."""
    found = check(HEADER + CLEAN + f"c.jpg,1 2,{'x' * 900}\n" * 2 + "d.jpg,7 3,6\n")
    assert {fault[2] for fault in found} >= {"bad-class"}
    assert max(len(fault[3]) for fault in found) <= 200


def test_an_empty_row_beside_others(check):
    found = check(HEADER + "a.jpg,,23\na.jpg,1 2,6\nb.jpg,,23\nb.jpg,,23\nc.jpg,,23\n")
    assert [(row, image, kind) for row, image, kind, _ in found] == [
        (2, "a.jpg", "empty-beside-others"),
        (5, "b.jpg", "empty-beside-others"),
    ]
    assert "row 3" in found[0][3]


def test_images_are_compared_with_the_sample(check):
    sample = HEADER + "a.jpg,1 1,0\nb.jpg,1 1,0\nmissing.jpg,1 1,0\n"
    rows = CLEAN + "extra.jpg,1 2,6\nextra.jpg,5 2,6\n"
    assert check(HEADER + rows, sample=sample) == [
        (6, "extra.jpg", "extra-image", "not an image of the sample"),
        (0, "missing.jpg", "missing-image", "no row; an image without masks needs missing.jpg,,23"),
    ]


def test_an_image_named_with_and_without_suffix(check):
    [(row, image, kind, value)] = check(HEADER + "a.jpg,1 2,6\na,7 2,6\n")
    assert (row, image, kind, value) == (3, "a", "image-named-twice", "row 2 names it a.jpg")


@pytest.mark.parametrize(
    ("header", "rows_are_read"),
    [
        ("EncodedPixels,ImageId,ClassId\n", True),
        ("ImageId,EncodedPixels,ClassId,Score\n", True),
        ("ImageId,EncodedPixels\n", False),
        ("imageid,EncodedPixels,ClassId\n", False),
        ("ImageId,ImageId,EncodedPixels,ClassId\n", True),
        ("a.jpg,1 2,6\n", False),
        ("", False),
    ],
)
def test_a_wrong_header(check, header, rows_are_read):
    """The rows are checked if the three columns exist."""
    columns = header.strip().split(",")
    values = {"ImageId": "a.jpg", "EncodedPixels": "1 2 3", "ClassId": "6"}
    row = ",".join(values.get(column, "0") for column in columns)
    found = check(header + row + "\n")
    assert found[0][:3] == (1, "", "wrong-header")
    assert "must be ImageId,EncodedPixels,ClassId" in found[0][3]
    assert [kind for *_, kind, _ in found[1:]] == ["odd-runs"] * rows_are_read


def test_a_header_alone(check):
    [(row, image, kind, _)] = check(HEADER)
    assert (row, image, kind) == (0, "", "no-rows")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """The runs of 60 images take 10 MB in memory; those of one image take 0.2 MB."""
    runs = " ".join(f"{start} 1" for start in range(1, PIXELS, 26))
    path = tmp_path / "submission.csv"
    path.write_text(HEADER + "".join(f"{i}.jpg,{runs},6\n" for i in range(60)))
    find_breaches(path)
    tracemalloc.start()
    assert find_breaches(path) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.csv").write_text(HEADER + CLEAN)
    (tmp_path / "bad.csv").write_text(HEADER + CLEAN + "b.jpg,1 2 3,6\n,1 2,6\n")
    (tmp_path / "sample.csv").write_text(HEADER + "a.jpg,,23\nb.jpg,,23\n")
    (tmp_path / "more.csv").write_text(HEADER + "a.jpg,,23\nb.jpg,,23\nc.jpg,,23\n")
    return tmp_path


def test_the_command_says_a_line_of_a_valid_file(files, capsys):
    assert main(["submit-check", str(files / "good.csv"), "--sample", str(files / "sample.csv")]) == 0
    assert capsys.readouterr().out == f"{files}/good.csv: valid, 4 rows, 2 images, 3 masks\n"
    assert main(["submit-check", str(files / "good.csv")]) == 0
    assert "without --sample" in capsys.readouterr().out


def test_the_command_says_a_line_a_fault_then_a_summary(files, capsys):
    assert main(["submit-check", str(files / "bad.csv"), "--sample", str(files / "more.csv")]) == 1
    told, summary = capsys.readouterr().out.split("\n\n")
    assert [re.sub(r"^([^:]*: [^:]*):.*", r"\1", line) for line in told.splitlines()] == [
        "empty-beside-others: b.jpg row 5",
        "odd-runs: b.jpg row 6",
        "no-image-id: row 7",
        "missing-image: c.jpg",
    ]
    assert summary.splitlines()[0] == f"{files}/bad.csv: 4 faults; 6 rows, 2 images, 5 masks"


def test_a_mistake_of_use_is_exit_code_2(files, capsys):
    (files / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (files / "other.csv").write_text("name\na.jpg\n")
    for arguments, message in [
        ([files / "none.csv"], "none.csv"),
        ([files / "binary.csv"], "byte 0 is not UTF-8"),
        ([files / "good.csv", "--sample", files / "none.csv"], "none.csv"),
        ([files / "good.csv", "--sample", files / "other.csv"], "no column ImageId"),
    ]:
        assert main(["submit-check", *map(str, arguments)]) == 2
        output = capsys.readouterr()
        assert message in output.err
        assert output.out == ""
