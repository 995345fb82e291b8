import gzip
import json
import shutil
import zipfile

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fashion_hydra.data.imaterialist import CATEGORIES
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.structures.rle import runs_to_bitmap
from fashion_hydra.utils.errors import UserError
from tests import SHARED


def row(image="a.jpg", pixels="1 3 11 3", height=10, width=20, class_id="6", **more):
    return {"ImageId": image, "EncodedPixels": pixels, "Height": height, "Width": width, "ClassId": class_id, **more}


def test_masks_boxes_and_classes_are_read(kaggle_folder):
    rows = [row(), row(class_id="6_28_77", pixels="12 2"), row("b.jpg", "1 1", 4, 4, "23")]
    root = kaggle_folder(rows, {"a.jpg": (10, 20), "b.jpg": (4, 4)})
    annotations, faults = read_annotations(root)
    assert faults == []
    assert annotations.image_ids.tolist() == ["a.jpg", "b.jpg"]
    assert annotations.class_ids.tolist() == ["6", "6_28_77", "23"]
    assert annotations.categories.tolist() == [6, 6, 23]
    assert list(annotations.instances(1)) == [2]
    # 1-indexed, column-major, 10 rows: pixels 1-3 are the top of column 0, 11-13 of column 1.
    assert annotations.boxes.tolist() == [[0, 0, 2, 3], [1, 1, 2, 3], [0, 0, 1, 1]]
    drawn = runs_to_bitmap(annotations.runs_of(0), height=10, width=20)
    assert np.argwhere(drawn).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    table = annotations.category_table()
    assert table.shape == (2, 46)
    assert np.argwhere(table).tolist() == [[0, 6], [1, 23]]


def test_rows_of_an_image_may_stand_apart(kaggle_folder):
    rows = [row(), row("b.jpg", "1 1", 4, 4), row(pixels="20 1")]
    annotations, _ = read_annotations(kaggle_folder(rows, {"a.jpg": (10, 20), "b.jpg": (4, 4)}))
    assert np.diff(annotations.first).tolist() == [2, 1]


def test_the_2020_schema_gives_the_same_records(kaggle_folder, tmp_path):
    rows = [row("a", class_id="6", AttributesIds="77,28"), row("a", pixels="12 2", class_id="23", AttributesIds="")]
    annotations, faults = read_annotations(kaggle_folder(rows, {"a.jpg": (10, 20)}))
    assert faults == []
    assert annotations.files.tolist() == ["a.jpg"]
    assert annotations.class_ids.tolist() == ["6_28_77", "23"]


FAULTY_ROWS = [
    (row(pixels="1 2 3"), "odd-runs", "values, the last 3"),
    (row(pixels="1 x"), "runs-not-numbers", "the length 'x', is not an integer"),
    (row(pixels="199 3"), "runs-beyond-image", "run 199 3 ends at pixel 201"),
    (row(pixels=" "), "empty-mask", "ClassId 6"),
    (row(), "duplicate-row", "ClassId 6: same mask as an earlier row"),
    (row(class_id="46"), "unknown-class", "46"),
    (row(class_id="shirt"), "unknown-class", "shirt"),
    (row(class_id=""), "unknown-class", ""),
    (row(height="ten"), "bad-size", "tenx20"),
    (row(image=""), "bad-row", "ImageId is empty"),
    (row(pixels="199 3 11 3 1 3"), "runs-beyond-image", "run 199 3"),
    (row(height=20, width=10), "sizes-differ-between-rows", "20x10, but 10x20 in an earlier row"),
]


@pytest.mark.parametrize(("faulty", "kind", "value"), FAULTY_ROWS, ids=lambda v: v if isinstance(v, str) else "")
def test_faulty_rows_are_left_out_and_named(kaggle_folder, faulty, kind, value):
    annotations, faults = read_annotations(kaggle_folder([row(), faulty], {"a.jpg": (10, 20)}))
    assert [(f.kind, f.place, f.image_id, f.action) for f in faults] == [
        (kind, "row 3", faulty["ImageId"], "row dropped")
    ]
    assert value in faults[0].value
    assert len(annotations.class_ids) == 1


@pytest.mark.parametrize(
    ("pixels", "kinds"),
    [
        ("11 3 1 3", ["unsorted-runs"]),
        ("1 3 3 2 11 3", ["overlapping-runs"]),
        ("11 3 1 3 2 2", ["unsorted-runs", "overlapping-runs"]),
    ],
)
def test_runs_out_of_order_are_told_and_mended(kaggle_folder, pixels, kinds):
    annotations, faults = read_annotations(kaggle_folder([row(pixels=pixels)], {"a.jpg": (10, 20)}))
    assert [f.kind for f in faults] == kinds
    assert all(f.action in ("runs sorted", "runs merged") for f in faults)
    told = pixels.split()
    wanted = np.zeros(200, np.uint8)
    for start, length in zip(told[::2], told[1::2], strict=True):
        wanted[int(start) - 1 : int(start) - 1 + int(length)] = 1
    drawn = runs_to_bitmap(annotations.runs_of(0), height=10, width=20)
    assert (drawn.ravel("F") == wanted).all()


def test_runs_that_touch_are_no_fault(kaggle_folder):
    annotations, faults = read_annotations(kaggle_folder([row(pixels="1 3 4 2")], {"a.jpg": (10, 20)}))
    assert faults == []
    assert annotations.areas.tolist() == [5]


def test_a_row_without_class_and_mask_is_a_photo_of_nothing(kaggle_folder):
    images = {"a.jpg": (10, 20), "b.jpg": (4, 4)}
    annotations, faults = read_annotations(kaggle_folder([row(), row("b.jpg", "", 4, 4, "")], images))
    assert faults == []
    assert np.diff(annotations.first).tolist() == [1, 0]


def test_an_unknown_attribute_is_told_and_left_out(kaggle_folder):
    root = kaggle_folder([row(class_id="6_28_500")], {"a.jpg": (10, 20)})
    described = json.loads((root / "label_descriptions.json").read_text())
    described["attributes"] = [{"id": i, "name": f"attribute {i}"} for i in range(92)]
    (root / "label_descriptions.json").write_text(json.dumps(described))
    annotations, faults = read_annotations(root)
    assert [(f.kind, f.value, f.action) for f in faults] == [
        ("unknown-attribute", "500 in 6_28_500", "attribute left out")
    ]
    assert annotations.class_ids.tolist() == ["6_28"]


def test_a_photo_without_rows_is_told_and_not_used(kaggle_folder):
    root = kaggle_folder([row()], {"a.jpg": (10, 20), "b.jpg": (4, 4)})
    (root / "train" / "Thumbs.db").write_text("no photo, and no fault")
    annotations, faults = read_annotations(root)
    assert [(f.kind, f.image_id) for f in faults] == [("image-without-rows", "b.jpg")]
    assert annotations.image_ids.tolist() == ["a.jpg"]


def test_a_short_row_is_a_fault_and_not_the_end(kaggle_folder):
    root = kaggle_folder([row(), row("b.jpg", "1 1", 4, 4)], {"a.jpg": (10, 20), "b.jpg": (4, 4)})
    lines = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join([lines[0], lines[1], "a.jpg,5 5", "", lines[2]]))
    annotations, faults = read_annotations(root)
    assert [(f.kind, f.place) for f in faults] == [("bad-size", "row 3")]
    assert annotations.image_ids.tolist() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("image", "size", "kind"),
    [
        ("b.jpg", (20, 10), "size-mismatch"),
        ("missing.jpg", None, "missing-image"),
        ("../label_descriptions.json", None, "outside-folder"),
        ("x/../../label_descriptions.json", None, "outside-folder"),
        ("/etc/hostname", None, "outside-folder"),
    ],
)
def test_faulty_images_are_left_out_and_named(kaggle_folder, image, size, kind):
    images = {"a.jpg": (10, 20)} | ({image: size} if size else {})
    annotations, faults = read_annotations(kaggle_folder([row(), row(image)], images))
    assert [f.kind for f in faults] == [kind]
    assert annotations.image_ids.tolist() == ["a.jpg"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"not a picture", "unreadable-image"), (b"", "unreadable-image"), ("half", "cut-short-image")],
)
def test_a_broken_image_is_left_out(kaggle_folder, content, kind):
    root = kaggle_folder([row(), row("b.jpg", "1 1", 64, 64)], {"a.jpg": (10, 20), "b.jpg": (64, 64)})
    path = root / "train" / "b.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    annotations, faults = read_annotations(root)
    assert [(f.kind, f.image_id, f.place, f.action) for f in faults] == [(kind, "b.jpg", "row 3", "image dropped")]
    assert annotations.image_ids.tolist() == ["a.jpg"]


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
    annotations, _ = read_annotations(root)
    assert len(annotations) == 1


def test_nothing_usable_is_an_error(kaggle_folder):
    with pytest.raises(UserError, match=r"none of the 1 images .* is usable; first: missing-image a.jpg"):
        read_annotations(kaggle_folder([row()], {}))


def test_the_embedded_data_set_has_just_the_two_planted_faults(wardrobe):
    annotations, faults = read_annotations(wardrobe)
    assert len(annotations) == 18
    assert {f.kind for f in faults} == {"size-mismatch"}
    assert len({f.image_id for f in faults}) == 2


@pytest.mark.skipif(not (SHARED / "ccp").is_dir(), reason="real photos are not at hand")
def test_real_photos_agree_with_pycocotools():
    annotations, faults = read_annotations(SHARED / "ccp")
    assert faults == []
    assert (len(annotations), len(annotations.class_ids)) == (803, 4611)
    for mask in range(0, 4611, 97):
        image = int(np.searchsorted(annotations.first, mask, side="right")) - 1
        height, width = annotations.sizes[image].tolist()
        bitmap = runs_to_bitmap(annotations.runs_of(mask), height=height, width=width)
        x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(bitmap)))
        assert annotations.boxes[mask].tolist() == [x, y, x + w, y + h]


@pytest.mark.skipif(not (SHARED / "imat2020_sample").is_dir(), reason="real photos are not at hand")
def test_both_schemas_of_the_same_real_photos_give_the_same_records():
    new, old = (
        read_annotations(SHARED / "imat2020_sample", csv_name=name)[0] for name in (None, "train_2019_schema.csv")
    )
    assert [i.removesuffix(".jpg") for i in old.image_ids.tolist()] == new.image_ids.tolist()
    for name in ("files", "sizes", "first", "categories", "boxes", "areas", "run_first", "runs"):
        assert (getattr(new, name) == getattr(old, name)).all(), name
    assert any("_" in class_id for class_id in new.class_ids.tolist())


def test_without_label_descriptions_categories_have_the_names_of_2019(wardrobe, tmp_path, caplog):
    for name in ("train.csv", "train"):
        (tmp_path / name).symlink_to(wardrobe / name)
    found, faults = read_annotations(tmp_path)
    with_names, same_faults = read_annotations(wardrobe)
    assert found.names == with_names.names == {c.id: c.name for c in CATEGORIES}
    assert faults == same_faults
    assert f"{tmp_path}: no label_descriptions.json" in caplog.text
    (tmp_path / "label_descriptions.json").write_text('{"categories": [{"id": 6, "name": "trousers"}]}')
    assert read_annotations(tmp_path)[0].names == {6: "trousers"}, "the cache is not used"
