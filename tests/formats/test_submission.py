"""submission.py: files as Kaggle ships them, common mistakes, and a write followed by a read."""

import gzip
import re
import zipfile

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fashion_hydra.evaluation.score_submission import find_overlaps, score_files
from fashion_hydra.formats.submission import read_masks, write_submission
from fashion_hydra.utils.errors import UserError
from tests import SHARED

SAMPLE = SHARED / "imat2020_sample"
HEADER = "ImageId,EncodedPixels,ClassId\n"
TRAIN_HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"


@pytest.fixture
def write(tmp_path):
    def write_text(text, name="file.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def bitmaps(table):
    """Return the table with masks decoded to nested lists, which compare with ==."""
    return {
        image: {c: [coco_mask.decode(rle).tolist() for rle in rles] for c, rles in by_class.items()}
        for image, by_class in table.items()
    }


def test_submission_is_read_on_its_frame(write):
    path = write(HEADER + "a.jpg,1 3 6 1,6_28\na.jpg,9 2,31\nb.jpg,,23\n")
    assert bitmaps(read_masks(path, size=4)) == {
        "a.jpg": {
            "6_28": [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]],
            "31": [[[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]],
        },
        "b.jpg": {},
    }


def test_default_frame_is_512(write):
    table = read_masks(write(HEADER + f"a,{512 * 512} 1,3\n"))
    decoded = coco_mask.decode(table["a"]["3"][0])
    assert decoded.shape == (512, 512)
    assert decoded.sum() == decoded[511, 511] == 1


def test_unsorted_and_touching_runs_are_the_same_mask(write):
    one, other = write(HEADER + "a,7 2 1 3 4 1,6\n", "1.csv"), write(HEADER + "a,1 4 7 2,6\n", "2.csv")
    assert read_masks(one) == read_masks(other)


def test_train_masks_are_resized_to_the_nearest_pixel(write):
    """Resizing 2x8 to 4x4 doubles rows and keeps columns 0, 2, 4, 6; a mask in column 1 alone disappears."""
    table = read_masks(write(TRAIN_HEADER + "a.jpg,1 1 3 2 9 2,2,8,6\na.jpg,3 2,2,8,7\n"), size=4)
    assert bitmaps(table) == {"a.jpg": {"6": [[[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]]]}}


def test_train_masks_of_the_right_size_stay(write):
    train = write(TRAIN_HEADER + "a.jpg,5 3,4,4,6\n", "train.csv")
    assert read_masks(train, size=4) == read_masks(write(HEADER + "a.jpg,5 3,6\n"), size=4)


def test_attributes_of_2020_are_part_of_the_class(write):
    header = TRAIN_HEADER.strip() + ",AttributesIds\n"
    rows = 'a,1 1,4,4,6,"115,36,143"\na,2 1,4,4,6,\n'
    assert list(read_masks(write(header + rows), size=4)["a"]) == ["6_36_115_143", "6"]


def test_an_empty_row_needs_neither_class_nor_size(write):
    assert read_masks(write(TRAIN_HEADER + "a.jpg,,,,\nb.jpg,,x,4,shoe\n")) == {"a.jpg": {}, "b.jpg": {}}


def test_packed_files_read_like_plain_ones(write, tmp_path):
    text = "\ufeff" + HEADER + "a,1 1,6\n"
    plain = read_masks(write(text))
    with gzip.open(tmp_path / "file.csv.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    with zipfile.ZipFile(tmp_path / "file.csv.zip", "w") as archive:
        archive.writestr("__MACOSX/._file.csv", b"\x00")
        archive.writestr("file.csv", text)
    assert read_masks(tmp_path / "file.csv.gz") == read_masks(tmp_path / "file.csv.zip") == plain
    assert list(plain) == ["a"]


def test_a_field_longer_than_csv_allows_by_default(write):
    text = " ".join(f"{start} 1" for start in range(1, 512 * 512, 4))
    assert len(text) > 131_072
    mask = read_masks(write(HEADER + f"a,{text},6\n"))["a"]["6"][0]
    assert coco_mask.area(mask) == 512 * 512 // 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column ImageId, EncodedPixels, ClassId (header: empty). Write ImageId,EncodedPixels,ClassId"),
        ("image,rle\na,1 1\n", "line 1: no column ImageId, EncodedPixels, ClassId (header: image,rle)"),
        ("ImageId,EncodedPixels,Height,ClassId\n", "no column Width"),
        (
            "index," + HEADER,
            "unknown or repeated columns index (header: index,ImageId,EncodedPixels,ClassId). Write Im",
        ),
        (HEADER + "a,1 1,6\nb,1 1\n", "line 3, image b: 2 values, the header has 3"),
        (HEADER + ",1 1,6\n", "line 2, image (no ImageId): ImageId is empty"),
        (HEADER + "b,1 1,\n", "line 2, image b: ClassId '' is not of the form 6 or 6_28_77"),
        (HEADER + "b,9 1 1 1 5,6\n", "line 2, image b: run-length encoding has 5 values"),
        (
            HEADER + "b,262140 6,6\n",
            "line 2, image b: run 262140 6 ends at pixel 262145, but a mask of height 512 and width 512 has "
            "262144. Encode the mask column by column, pixels counted from 1, on 512x512, not the photo's",
        ),
        (HEADER + "b,262143 1 262141 6,6\n", "line 2, image b: run 262141 6 ends at pixel 262146, but"),
        (
            TRAIN_HEADER + "b,12 2,3,4,6\n",
            "run 12 2 ends at pixel 13, but a mask of height 3 and width 4 has 12. Encode the mask column by column, "
            "pixels counted from 1, on the row's Height and Width",
        ),
        (TRAIN_HEADER + "b,1 2,0,4,6\n", "line 2, image b: 0x4 (height x width): must be whole numbers from 1"),
        ("ImageId,EncodedPixels,ClassId,AttributesIds\nb,1 2,3,x\n", "AttributesIds 'x' is not of the form"),
    ],
)
def test_mistakes_in_a_file_are_named(write, text, message):
    path = write(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_masks(path)
    assert str(caught.value).startswith(f"{path}: line ")


def test_unreadable_files_are_named(tmp_path):
    for name, content in [
        ("a.csv.zip", b"no"),
        ("a.csv.gz", b"no"),
        ("a.csv", b"\xff\xfe\x00"),
        ("b.csv.gz", b""),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
            read_masks(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as archive:
        archive.writestr("a.csv", HEADER)
        archive.writestr("b.csv", HEADER)
    with pytest.raises(UserError, match="holds 2 CSV files"):
        read_masks(tmp_path / "two.csv.zip")
    with pytest.raises(FileNotFoundError):
        read_masks(tmp_path / "absent.csv")


def test_written_submission_is_what_kaggle_wants(tmp_path):
    bitmap = np.zeros((512, 512), np.uint8, order="F")
    bitmap[510:, 0] = 1
    bitmap[0, 1] = 1
    nothing = coco_mask.encode(np.zeros((512, 512), np.uint8, order="F"))
    path = tmp_path / "submission.csv"
    write_submission(
        path,
        {
            "a.jpg": [("31", coco_mask.encode(bitmap)), ("6_28", np.array([[0, 2], [9, 1]]))],
            "b.jpg": [],
            "c.jpg": [("4", nothing), ("5", np.empty((0, 2), np.int64))],
            "d.jpg": [("4", nothing), ("5", np.array([[4, 1]]))],
        },
    )
    assert path.read_bytes() == (
        b"ImageId,EncodedPixels,ClassId\na.jpg,511 3,31\na.jpg,1 2 10 1,6_28\nb.jpg,,23\nc.jpg,,23\nd.jpg,5 1,5\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]
    table = read_masks(path)
    assert bitmaps(table)["a.jpg"]["31"] == [bitmap.tolist()]
    assert table["b.jpg"] == table["c.jpg"] == {}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "submission.csv"
    write_submission(path, {"a": []})
    before = path.read_bytes()
    with pytest.raises(UserError, match="image c: run 262144 2 ends at pixel 262145"):
        write_submission(path, {"b": [], "c": [("1", np.array([[512 * 512 - 1, 2]]))]})
    with pytest.raises(UserError, match=r"image c: mask size \[4, 4\]"):
        write_submission(path, {"c": [("1", coco_mask.encode(np.ones((4, 4), np.uint8, order="F")))]})
    with pytest.raises(UserError, match="choose a name that ends with"):
        write_submission(tmp_path / "submission.csv.gz", {"a": []})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]


def test_overlaps_are_found_within_a_class_only(write):
    rows = "a,1 4,6\na,4 2,6\na,9 1,6\nb,1 4,6\nb,1 4,7\nc,1 4,6\nc,5 4,6\n"
    assert find_overlaps(read_masks(write(HEADER + rows))) == [("a", "6")]


def test_scoring_matches_images_with_and_without_suffix(write):
    truth = write(HEADER + "a.jpg,1 10,6\nb.JPG,1 10,6\nc,5 5,7\nd.png,,23\n", "truth.csv")
    predicted = write(HEADER + "a,1 10,6\nc.jpg,5 5,7\n", "submission.csv")
    score, missing = score_files(truth, predicted)
    assert missing == ["b.JPG", "d.png"]
    assert score.per_image == {"a.jpg": 1.0, "b.JPG": 0.0, "c": 1.0, "d.png": 1.0}
    assert score.value == 0.75


def test_images_unknown_to_the_truth_are_refused(write):
    truth = write(HEADER + "a.jpg,1 10,6\n", "truth.csv")
    predicted = write(HEADER + "a.jpg,,23\nx.jpg,1 2,3\ny.jpg,,23\n", "submission.csv")
    with pytest.raises(UserError, match=r"2 of 3 predicted images are not in the truth, the first x\.jpg"):
        score_files(truth, predicted)
    twice = write(HEADER + "a.jpg,,23\na,1 2,3\n", "twice.csv")
    with pytest.raises(UserError, match=r"images a\.jpg and a are in one file"):
        score_files(truth, twice)


def test_the_rows_of_both_pooling_modes(write):
    """Class 6 is perfect, class 7 (two masks) is missed: (1 + 0) / 2 by class; pooled, 1 hit of 3 masks."""
    truth = write(HEADER + "a,1 10,6\na,21 10,7\na,41 10,7\n", "truth.csv")
    predicted = write(HEADER + "a,1 10,6\n", "submission.csv")
    assert score_files(truth, predicted)[0].value == 0.5
    assert score_files(truth, predicted, pooling="image")[0].value == pytest.approx(1 / 3)


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"real annotations not found in {SAMPLE}")
def test_real_annotations_agree_in_both_schemas(tmp_path):
    old, new = read_masks(SAMPLE / "train_2019_schema.csv"), read_masks(SAMPLE / "train.csv")
    assert [name.removesuffix(".jpg") for name in old] == list(new)
    for old_classes, new_classes in zip(old.values(), new.values(), strict=True):
        # Attribute ids were renumbered between the years; category ids were not.
        flat_old, flat_new = (
            sorted((c.split("_")[0], rle["counts"]) for c, rles in classes.items() for rle in rles)
            for classes in (old_classes, new_classes)
        )
        assert flat_old == flat_new
    path = tmp_path / "copy.csv"
    rows = {image: [(c, m) for c, ms in masks.items() for m in ms] for image, masks in old.items()}
    write_submission(path, rows)
    assert read_masks(path) == old
    for pooling in ["class", "image"]:
        score, missing = score_files(SAMPLE / "train_2019_schema.csv", path, pooling=pooling)
        assert (score.value, missing) == (1.0, [])


def test_a_long_value_is_told_in_short(tmp_path):
    """Found by fuzzing."""
    path = tmp_path / "train.csv"
    path.write_text(f"ImageId,EncodedPixels,Height,Width,ClassId\na.jpg,1 2,{'9' * 5000},8,6\n")
    with pytest.raises(UserError, match=r"line 2, image a\.jpg: 9{17}\.\.\.x8 \(height x width\)") as told:
        read_masks(path)
    assert len(str(told.value)) < 1000
