"""Written files are read by other software: pycocotools, Pillow, the csv module."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fashion_hydra.formats.submission import read_masks
from fashion_hydra.formats.submission_check import find_breaches
from fashion_hydra.formats.writers import ImageAnswer, write_coco_results, write_mask_pngs, write_submission_csv
from fashion_hydra.structures.detections import Detections
from fashion_hydra.utils.errors import UserError

IDS = (13, 23, 31)
NAMES = {13: "umbrella", 23: "shoe", 31: "sleeve, long"}


def answer(image_id, size, boxes, file=None):
    """Make detections from rectangles (x0, y0, x1, y1), with labels 0, 1, 2 ... and scores 0.9, 0.8 ..."""
    bitmaps = []
    for x0, y0, x1, y1 in boxes:
        bitmap = np.zeros(size, np.uint8, order="F")
        bitmap[y0:y1, x0:x1] = 1
        bitmap[y0, x0] = 0  # makes the mask smaller than its box
        bitmaps.append(bitmap)
    labels, scores = [i % 3 for i in range(len(boxes))], [0.9 - 0.1 * i for i in range(len(boxes))]
    found = Detections(image_id, labels, scores, [coco_mask.encode(b) for b in bitmaps])
    return ImageAnswer(image_id, file or image_id, size, found, IDS), bitmaps


def test_a_submission_has_every_image_and_is_valid(tmp_path):
    one, bitmaps = answer("a.jpg", (512, 512), [(3, 4, 100, 200), (0, 0, 512, 512)])
    none, _ = answer("b.jpg", (512, 512), [])
    path = tmp_path / "new" / "submission.csv"
    assert write_submission_csv(path, iter([one, none])) == 2
    table = read_masks(path)
    assert list(table) == ["a.jpg", "b.jpg"]
    assert {c: [coco_mask.decode(m).tolist() for m in ms] for c, ms in table["a.jpg"].items()} == {
        "13": [bitmaps[0].tolist()],
        "23": [bitmaps[1].tolist()],
    }
    assert path.read_text().splitlines()[-1] == "b.jpg,,23"
    assert find_breaches(path) == []


def test_a_submission_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "submission.csv"
    one, _ = answer("a.jpg", (512, 512), [(3, 4, 100, 200)])
    write_submission_csv(path, [one])
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"image a\.jpg: given twice"):
        write_submission_csv(path, [one, one])
    with pytest.raises(UserError, match="mask size"):
        write_submission_csv(path, [answer("c.jpg", (40, 30), [(1, 1, 5, 5)])[0]])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]


def test_cocos_results_load_beside_their_images(tmp_path, capsys):
    one, bitmaps = answer("a", (40, 30), [(3, 4, 10, 20), (0, 0, 30, 40)], file="sub/a.jpg")
    none, _ = answer("b", (7, 9), [])
    two, others = answer("c", (50, 60), [(1, 2, 4, 9)])
    path = tmp_path / "results.json"
    assert write_coco_results(path, iter([one, none, two]), NAMES) == 3
    images = COCO(str(tmp_path / "results_images.json"))
    found = images.loadRes(str(path))
    assert [(i["file_name"], i["image_id"], i["height"], i["width"]) for i in found.dataset["images"]] == [
        ("sub/a.jpg", "a", 40, 30),
        ("b", "b", 7, 9),
        ("c", "c", 50, 60),
    ]
    assert [c["name"] for c in found.loadCats(found.getCatIds())] == list(NAMES.values())
    annotations = found.loadAnns(found.getAnnIds())
    for annotation, bitmap in zip(annotations, [*bitmaps, *others], strict=True):
        assert (found.annToMask(annotation) == bitmap).all()
        assert annotation["area"] == bitmap.sum()
    assert [list(a["bbox"]) for a in annotations] == [[3, 4, 7, 16], [0, 0, 30, 40], [1, 2, 3, 7]]
    assert [(a["category_id"], a["score"]) for a in annotations] == [(13, 0.9), (23, 0.8), (13, 0.9)]
    assert [a["image_id"] for a in annotations] == [1, 1, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.json", "results_images.json"]


def test_no_masks_are_an_empty_list(tmp_path):
    assert write_coco_results(tmp_path / "results.json", [answer("b", (7, 9), [])[0]]) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == []
    listed = json.loads((tmp_path / "results_images.json").read_text())
    assert [c["name"] for c in listed["categories"]] == ["13", "23", "31"]


def failing(answers):
    yield from answers
    raise RuntimeError("stopped")


def test_cocos_results_that_fail_leave_the_old_ones(tmp_path):
    one, _ = answer("a", (40, 30), [(3, 4, 10, 20)])
    write_coco_results(tmp_path / "results.json", [one])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RuntimeError):
        write_coco_results(tmp_path / "results.json", failing([answer("b", (4, 4), [(0, 0, 2, 2)])[0]]))
    wrong, _ = answer("a", (40, 30), [(3, 4, 10, 20)])
    with pytest.raises(UserError, match=r"image a: mask of size \[40, 30\], the image has \[30, 40\]"):
        write_coco_results(tmp_path / "results.json", [ImageAnswer("a", "a", (30, 40), wrong.detections, IDS)])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def index_of(folder):
    with (folder / "index.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_pngs_are_the_masks_and_the_index_tells_of_them(tmp_path):
    one, bitmaps = answer("a.jpg", (41, 30), [(3, 4, 10, 20), (0, 0, 30, 41), (5, 6, 7, 8)])
    none, _ = answer("b.jpg", (7, 9), [])
    folder = tmp_path / "masks"
    assert write_mask_pngs(folder, iter([one, none]), NAMES) == 3
    rows = index_of(folder)
    assert [row["file"] for row in rows] == [
        "a/001_umbrella_0.900.png",
        "a/002_shoe_0.800.png",
        "a/003_sleeve_0.700.png",
    ]
    for row, bitmap in zip(rows, bitmaps, strict=True):
        with Image.open(folder / row["file"]) as picture:
            assert (np.asarray(picture.convert("L")) == bitmap * 255).all()
        assert int(row["area"]) == bitmap.sum()
    assert [[int(row[edge]) for edge in ("x0", "y0", "x1", "y1")] for row in rows] == [
        [3, 4, 10, 20],
        [0, 0, 30, 41],
        [5, 6, 7, 8],
    ]
    assert (rows[2]["image"], rows[2]["category"], rows[2]["name"]) == ("a.jpg", "31", "sleeve, long")
    assert [float(row["score"]) for row in rows] == pytest.approx([0.9, 0.8, 0.7])
    assert (folder / "b").is_dir()


def test_folders_stay_inside_and_apart_whatever_images_are_called(tmp_path):
    names = ["../../x.jpg", "x.jpg", "x.png", "X.JPG", "sub/x.jpg", "..", "index.csv", "a b", "a_b"]
    answers = [answer(name, (8, 8), [(0, 0, 2, 2)])[0] for name in names]
    assert write_mask_pngs(tmp_path / "masks", answers, NAMES) == len(names)
    rows = index_of(tmp_path / "masks")
    assert [row["image"] for row in rows] == names
    assert len({row["file"].split("/")[0].lower() for row in rows}) == len(names)
    assert all((tmp_path / "masks" / row["file"]).is_file() and row["file"].count("/") == 1 for row in rows)
    assert [p.name for p in tmp_path.iterdir()] == ["masks"]


def test_an_older_folder_of_masks_is_replaced_and_nothing_else_is(tmp_path):
    folder = tmp_path / "masks"
    write_mask_pngs(folder, [answer("old.jpg", (8, 8), [(0, 0, 2, 2)])[0]], NAMES)
    with pytest.raises(RuntimeError):
        write_mask_pngs(folder, failing([answer("new.jpg", (8, 8), [(0, 0, 2, 2)])[0]]), NAMES)
    assert [row["image"] for row in index_of(folder)] == ["old.jpg"]
    write_mask_pngs(folder, [answer("new.jpg", (8, 8), [(0, 0, 2, 2)])[0]], NAMES)
    assert sorted(p.name for p in folder.iterdir()) == ["index.csv", "new"]
    assert [p.name for p in tmp_path.iterdir()] == ["masks"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "keep.txt").write_text("mine")
    with pytest.raises(UserError, match="photos: not a folder of masks"):
        write_mask_pngs(other, [], NAMES)
    assert (other / "keep.txt").read_text() == "mine"


def test_many_images_of_one_name_have_folders_of_their_own(tmp_path):
    names = ["a", "A.jpg", "_-2", *("?" * n for n in range(1, 2000))]
    answers = (ImageAnswer(name, name, (4, 5), Detections(name, [], [], []), [6]) for name in names)
    write_mask_pngs(tmp_path / "masks", answers, {6: "pants"})
    assert len({path.name.lower() for path in (tmp_path / "masks").iterdir() if path.is_dir()}) == len(names)
