"""Import of YOLO's segmentation layout: masks equal those that pycocotools draws from the same polygons in pixels."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.cli.main import main
from fashion_hydra.config.compose import compose_options
from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.yolo import YoloReader
from fashion_hydra.structures.rle import runs_to_bitmap
from fashion_hydra.utils.errors import UserError
from tests.helpers import SMALL_TRAIN

HEIGHT, WIDTH = 48, 64


def picture(path, *, exif=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    orientation = Image.Exif()
    if exif:
        orientation[0x0112] = exif
    image.save(path, exif=orientation)


def shares(points, height=HEIGHT, width=WIDTH):
    return " ".join(f"{value / (width, height)[i % 2]:.6f}" for i, value in enumerate(points))


def yolo(root, labels, *, names="[shirt, shoe]", train="images/train", val="images/val"):
    """Write a data set with one image per label file: path without suffix -> lines."""
    for name, lines in labels.items():
        picture(root / "images" / f"{name}.jpg")
        if lines is not None:
            path = root / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(f"train: {train}\nval: {val}\nnc: 2\nnames: {names}\n")
    return root


TRIANGLE = [10, 5, 40, 9, 20, 30]


def test_polygons_classes_and_parts_are_read(tmp_path):
    labels = {"train/a": [f"1 {shares(TRIANGLE)}", f"0 {shares([3, 3, 12, 3, 12, 12, 3, 12])}"], "val/b": None}
    found, faults = load_annotations(YoloReader(yolo(tmp_path, labels)))
    assert faults == []
    assert found.names == {0: "shirt", 1: "shoe"}
    assert found.image_ids.tolist() == ["images/train/a.jpg", "images/val/b.jpg"]
    assert found.subsets.tolist() == ["train", "val"]
    assert found.class_ids.tolist() == ["1", "0"]
    drawn = coco_mask.decode(coco_mask.frPyObjects([TRIANGLE], HEIGHT, WIDTH))[:, :, 0]
    assert np.array_equal(runs_to_bitmap(found.runs_of(0), height=HEIGHT, width=WIDTH), drawn)
    assert found.areas.tolist() == [int(drawn.sum()), 81]


@pytest.mark.parametrize(
    ("line", "kind", "value"),
    [
        (
            "0 0.5 0.5 0.2 0.2",
            "no-segmentation",
            "class 0: only a box; must be a polygon of three points or more",
        ),
        ("2 0.1 0.1 0.2 0.1 0.2 0.2", "unknown-class", "class 2, data.yaml has 2 names"),
        ("shoe 0.1 0.1 0.2 0.1 0.2 0.2", "unknown-class", "class shoe, data.yaml has 2 names"),
        ("0 0.1 0.1 0.2 0.1 0.2", "bad-segmentation", "5 values: must be x and y of three points or more"),
        ("0 0.1 0.1 0.2 x 0.2 0.2", "bad-segmentation", "x is not a number"),
        ("0 nan 0.1 0.2 0.1 0.2 0.2", "bad-segmentation", "a polygon with a point at nan"),
        ("0 1.1 0.1 1.2 0.1 1.2 0.2", "empty-mask", "class 0: no pixel"),
        (
            "0 20 20 40 20 40 40",
            "empty-mask",
            "class 0: no pixel (points in pixels? YOLO requires shares of the picture, from 0 to 1)",
        ),
        ("0 0.5 0.5 1.5 0.5 1.5 1 0.5 1", "outside-picture", "50% of the polygon's box"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, line, kind, value):
    good = f"1 {shares(TRIANGLE)}"
    _, faults = load_annotations(YoloReader(yolo(tmp_path, {"train/a": [good, line], "val/b": [good]})))
    assert [(f.kind, f.image_id, f.place, f.value) for f in faults] == [
        (kind, "images/train/a.jpg", "a.txt line 2", value)
    ]


def test_roboflows_folders_and_an_image_turned_by_exif(tmp_path):
    """Roboflow has one folder per split with a `../` prefix; coordinates refer to the picture as displayed."""
    for part in ("train", "valid"):
        picture(tmp_path / part / "images" / "a.jpg", exif=6)
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / "a.txt").write_text(f"0 {shares(TRIANGLE, WIDTH, HEIGHT)}\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: {0: hat}\n")
    found, faults = load_annotations(YoloReader(tmp_path))
    assert faults == []
    assert found.sizes.tolist() == [[WIDTH, HEIGHT]] * 2
    assert found.subsets.tolist() == ["train", "val"]
    drawn = coco_mask.area(coco_mask.frPyObjects([TRIANGLE], WIDTH, HEIGHT)[0])
    assert found.areas.tolist() == [drawn] * 2


def test_a_list_of_images_and_what_is_not_used(tmp_path, capsys):
    good = f"1 {shares(TRIANGLE)}"
    yolo(tmp_path, {"a": [good], "b": [good]}, train="train.txt", val="val.txt")
    (tmp_path / "train.txt").write_text("./images/a.jpg\n")
    (tmp_path / "val.txt").write_text("images/missing.jpg\n")
    (tmp_path / "labels" / "lost.txt").write_text(f"{good}\n")
    assert main(["check", str(tmp_path), "--yolo"]) == 1
    printed = capsys.readouterr().out
    for line in (
        "missing-image: images/missing.jpg",
        "labels-without-image: labels/lost.txt",
        "image-without-rows: images/b",
    ):
        assert line in printed
    assert "can be used: 1 images with 1 masks of 1 categories" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no data\.yaml \(found: nothing\)"),
        ("train: images\n", "names: None: must be a list of class names"),
        ("names: [a]\n", r"no images \(neither train nor val\)"),
        ("names: [a]\ntrain: ../../elsewhere\n", r"no images \(train: \.\./\.\./elsewhere\)"),
    ],
)
def test_what_is_no_data_set_says_so(tmp_path, content, message):
    root = tmp_path / "set"
    root.mkdir()
    if content is not None:
        (root / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        YoloReader(root)


def test_the_val_part_validates(tmp_path):
    from fashion_hydra.config.build import make_datamodule

    good = f"1 {shares(TRIANGLE)}"
    root = yolo(tmp_path / "set", {"train/a": [good], "train/b": [good], "val/c": [good], "test/d": [good]})
    with (root / "data.yaml").open("a") as stream:
        stream.write("test: images/test\n")
    for more, tested in ((["data.test_fold=1"], 1), ([], 0)):
        options = compose_options("train", *SMALL_TRAIN, "data=yolo", f"data.root={root}", "paths.output_dir=x", *more)
        data = make_datamodule(
            options.data, options.classes, options.augment, eval_scale=[80, 128], seed=1, report_dir=None
        )
        data.read()
        assert data.annotations.image_ids[data.is_validation].tolist() == ["images/val/c.jpg"]
        assert (int(data.is_training.sum()), int(data.is_test.sum())) == (2, tested)
