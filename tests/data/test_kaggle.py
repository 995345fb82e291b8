import gzip
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.data.kaggle import read_records
from fashion_hydra.errors import UserError
from fashion_hydra.rle import runs_to_bitmap
from fashion_hydra.tables import full_class_id

SHARED = Path(__file__).parents[3] / "shared" / "data"


def row(image="a.jpg", pixels="1 3 11 3", height=10, width=20, class_id="6", **more):
    return {"ImageId": image, "EncodedPixels": pixels, "Height": height, "Width": width, "ClassId": class_id, **more}


def test_masks_boxes_and_classes_are_read(kaggle_folder):
    rows = [row(), row(class_id="6_28_77", pixels="12 2"), row("b.jpg", "1 1", 4, 4, "23")]
    root = kaggle_folder(rows, {"a.jpg": (10, 20), "b.jpg": (4, 4)})
    records, faults = read_records(root)
    assert faults == []
    assert records.image_ids.tolist() == ["a.jpg", "b.jpg"]
    assert records.class_ids.tolist() == ["6", "6_28_77", "23"]
    assert records.categories.tolist() == [6, 6, 23]
    assert list(records.instances(1)) == [2]
    # 1-indexed, column-major, 10 rows: pixels 1-3 are the top of column 0, 11-13 of column 1.
    assert records.boxes.tolist() == [[0, 0, 2, 3], [1, 1, 2, 3], [0, 0, 1, 1]]
    drawn = runs_to_bitmap(records.runs_of(0), height=10, width=20)
    assert np.argwhere(drawn).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    table = records.category_table()
    assert table.shape == (2, 46)
    assert np.argwhere(table).tolist() == [[0, 6], [1, 23]]


def test_rows_of_an_image_may_stand_apart(kaggle_folder):
    rows = [row(), row("b.jpg", "1 1", 4, 4), row(pixels="20 1")]
    records, _ = read_records(kaggle_folder(rows, {"a.jpg": (10, 20), "b.jpg": (4, 4)}))
    assert np.diff(records.first).tolist() == [2, 1]


def test_the_2020_schema_gives_the_same_records(kaggle_folder, tmp_path):
    rows = [row("a", class_id="6", AttributesIds="77,28"), row("a", pixels="12 2", class_id="23", AttributesIds="")]
    records, faults = read_records(kaggle_folder(rows, {"a.jpg": (10, 20)}))
    assert faults == []
    assert records.files.tolist() == ["a.jpg"]
    assert records.class_ids.tolist() == ["6_28_77", "23"]


def test_attributes_ascend_by_number():
    assert full_class_id("3", "115, 20,9") == "3_9_20_115"


@pytest.mark.parametrize(
    ("faulty", "kind"),
    [
        (row(pixels="1 2 3"), "bad-runs"),
        (row(pixels="0 2"), "bad-runs"),
        (row(pixels="1 x"), "bad-runs"),
        (row(pixels="5 -1"), "bad-runs"),
        (row(pixels="199 3"), "beyond-image"),
        (row(class_id="46"), "unknown-class"),
        (row(class_id="shirt"), "unknown-class"),
        (row(class_id=""), "unknown-class"),
        (row(height="ten"), "bad-size"),
        (row(height=20, width=10), "sizes-differ-between-rows"),
    ],
)
def test_faulty_rows_are_left_out_and_named(kaggle_folder, faulty, kind):
    records, faults = read_records(kaggle_folder([row(), faulty], {"a.jpg": (10, 20)}))
    assert [(f.kind, f.row, f.image_id) for f in faults] == [(kind, 3, "a.jpg")]
    assert len(records.class_ids) == 1


@pytest.mark.parametrize(
    ("image", "size", "kind"),
    [
        ("b.jpg", (20, 10), "size-mismatch"),
        ("missing.jpg", None, "missing-image"),
        ("../label_descriptions.json", None, "outside-folder"),
    ],
)
def test_faulty_images_are_left_out_and_named(kaggle_folder, image, size, kind):
    images = {"a.jpg": (10, 20)} | ({image: size} if size else {})
    records, faults = read_records(kaggle_folder([row(), row(image)], images))
    assert [f.kind for f in faults] == [kind]
    assert records.image_ids.tolist() == ["a.jpg"]


def test_an_image_that_is_none_is_left_out(kaggle_folder):
    root = kaggle_folder([row(), row("b.jpg")], {"a.jpg": (10, 20)})
    (root / "train" / "b.jpg").write_bytes(b"not a picture")
    _, faults = read_records(root)
    assert [f.kind for f in faults] == ["unreadable-image"]


def test_a_turned_photo_is_read_in_the_frame_of_its_masks(kaggle_folder):
    root = kaggle_folder([row(height=20, width=10)], {"a.jpg": (10, 20)})
    picture = Image.open(root / "train" / "a.jpg")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(root / "train" / "a.jpg", exif=exif)
    records, faults = read_records(root)
    assert faults == []
    assert records.turned.tolist() == [True]


@pytest.mark.parametrize("packed", ["train.csv.gz", "train.csv.zip"])
def test_packed_csv(kaggle_folder, packed):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    plain = root / "train.csv"
    if packed.endswith("gz"):
        with plain.open("rb") as source, gzip.open(root / packed, "wb") as target:
            shutil.copyfileobj(source, target)
    else:
        with zipfile.ZipFile(root / packed, "w") as archive:
            archive.write(plain, "train.csv")
    plain.unlink()
    records, _ = read_records(root)
    assert len(records) == 1


def test_a_folder_without_csv_says_what_it_found(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"no train\.csv \(found: train/\)\. Put Kaggle's train\.csv there"):
        read_records(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_records(tmp_path / "nowhere")


def test_a_wrong_header_is_named(kaggle_folder):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace("ClassId", "Class"))
    with pytest.raises(UserError, match="no column ClassId"):
        read_records(root)


def test_nothing_usable_is_an_error(kaggle_folder):
    with pytest.raises(UserError, match=r"none of 1 images is usable; first: missing-image a.jpg"):
        read_records(kaggle_folder([row()], {}))


def test_the_embedded_data_set_has_just_the_two_planted_faults(wardrobe):
    records, faults = read_records(wardrobe)
    assert len(records) == 18
    assert {f.kind for f in faults} == {"size-mismatch"}
    assert len({f.image_id for f in faults}) == 2


@pytest.mark.skipif(not (SHARED / "ccp").is_dir(), reason="real photos are not at hand")
def test_real_photos_agree_with_pycocotools():
    records, faults = read_records(SHARED / "ccp")
    assert faults == []
    assert (len(records), len(records.class_ids)) == (803, 4611)
    for mask in range(0, 4611, 97):
        image = int(np.searchsorted(records.first, mask, side="right")) - 1
        height, width = records.sizes[image].tolist()
        bitmap = runs_to_bitmap(records.runs_of(mask), height=height, width=width)
        x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(bitmap)))
        assert records.boxes[mask].tolist() == [x, y, x + w, y + h]
