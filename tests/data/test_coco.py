"""Export to COCO's format and import again, with pycocotools as a second reader."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from fashion_hydra.cli.main import main
from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.coco import CocoReader
from fashion_hydra.data.coco_export import write_coco
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.structures.rle import runs_to_bitmap
from fashion_hydra.utils.errors import UserError


def test_out_and_in_again_is_the_same(wardrobe, tmp_path):
    annotations, _ = read_annotations(wardrobe)
    write_coco(annotations, tmp_path / "all.json", range(len(annotations)))
    again, faults = load_annotations(CocoReader(wardrobe, str(tmp_path / "all.json")))
    assert {f.kind for f in faults} == {"image-without-rows"}  # the two images skipped by the first reader
    for name in ("image_ids", "files", "sizes", "first", "class_ids", "categories", "boxes", "areas", "runs"):
        assert (getattr(again, name) == getattr(annotations, name)).all(), name
    assert again.names == annotations.names


def test_pycocotools_reads_the_same_masks(wardrobe, tmp_path, capsys):
    annotations, _ = read_annotations(wardrobe)
    write_coco(annotations, tmp_path / "some.json", [2, 5])
    coco = COCO(str(tmp_path / "some.json"))
    numbers = [int(annotations.coco_ids[image]) for image in (2, 5)]
    assert sorted(coco.imgs) == numbers
    for image, number in zip((2, 5), numbers, strict=True):
        height, width = annotations.sizes[image].tolist()
        rows = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        for annotation, mask in zip(rows, annotations.instances(image), strict=True):
            wanted = runs_to_bitmap(annotations.runs_of(mask), height=height, width=width)
            assert (coco.annToMask(annotation) == wanted).all()
            ys, xs = np.nonzero(wanted)
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation["area"] == wanted.sum()
            assert annotation["category_id"] == annotations.categories[mask]


def coco_file(tmp_path, kaggle_folder, annotations, **changes):
    root = kaggle_folder([{"ImageId": "a.jpg"}], {"a.jpg": (10, 20)})
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 10, "width": 20}],
        "categories": [{"id": 3, "name": "hat"}, {"id": 90, "name": "shoe"}],
        "annotations": [{"id": i, "image_id": 7, "category_id": 3, **a} for i, a in enumerate(annotations, 1)],
    }
    (tmp_path / "coco.json").write_text(json.dumps({**content, **changes}))
    return CocoReader(root, str(tmp_path / "coco.json"))


def test_polygons_and_both_run_lengths_are_read(tmp_path, kaggle_folder):
    square = [[2, 3, 6, 3, 6, 8, 2, 8]]
    counts = [23, 5, 5, 5, 5, 5, 5, 5, 142]  # columns 2 to 5, rows 3 to 7
    annotations = [
        {"segmentation": square},
        {"segmentation": {"size": [10, 20], "counts": counts}, "category_id": 90, "attribute_ids": [5, 2]},
        {"segmentation": square, "iscrowd": 1},
    ]
    annotations, faults = load_annotations(coco_file(tmp_path, kaggle_folder, annotations))
    assert [(f.kind, f.place, f.is_remark) for f in faults] == [("crowd-region", "annotation id 3", True)]
    assert annotations.boxes.tolist() == [[2, 3, 6, 8], [2, 3, 6, 8]]
    assert annotations.annotation_ids.tolist() == [1, 2]
    assert annotations.coco_ids.tolist() == ["7"]
    assert [annotations.crowd_runs_of(c).tolist() for c in annotations.crowds(0)] == [annotations.runs_of(0).tolist()]
    assert (annotations.crowd_categories.tolist(), annotations.crowd_ids.tolist()) == ([3], [3])
    assert annotations.class_ids.tolist() == ["3", "90_2_5"]
    assert annotations.names == {3: "hat", 90: "shoe"}


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ({"segmentation": [[1, 2, 3, 4]]}, "bad-segmentation"),
        ({"segmentation": []}, "no-segmentation"),
        ({"segmentation": {"size": [20, 10], "counts": [200]}}, "bad-segmentation"),
        ({"segmentation": {"size": [10, 20], "counts": "~~~"}}, "bad-segmentation"),
        ({"segmentation": "nonsense"}, "bad-segmentation"),
        ({}, "no-segmentation"),
        ({"segmentation": {"size": [10, 20], "counts": [200]}}, "empty-mask"),
        ({"segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]], "category_id": 4}, "unknown-class"),
        ({"segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]], "image_id": 8}, "unknown-image"),
        ({"segmentation": [[2, 3, 6, 3, 6, 8]]}, "duplicate-row"),
    ],
)
def test_faulty_annotations_are_left_out_and_named(tmp_path, kaggle_folder, annotation, kind):
    good = {"segmentation": [[2, 3, 6, 3, 6, 8]]}
    annotations, faults = load_annotations(coco_file(tmp_path, kaggle_folder, [good, annotation]))
    assert [(f.kind, f.place) for f in faults] == [(kind, "annotation id 2")]
    assert len(annotations.class_ids) == 1


def test_what_is_no_coco_file_is_refused(tmp_path, kaggle_folder):
    with pytest.raises(UserError, match="not in COCO's format"):
        coco_file(tmp_path, kaggle_folder, [], images=3)
    with pytest.raises(UserError, match="no such file, neither here nor below"):
        CocoReader(tmp_path, "nowhere.json")


def test_export_of_some_folds(wardrobe, tmp_path, capsys):
    split = tmp_path / "split.csv"
    assert main(["split", str(wardrobe), "--folds", "3", "--out", str(split)]) == 0
    assert main(["export-coco", str(wardrobe), str(tmp_path / "one.json"), "--split", str(split), "--folds", "1"]) == 0
    assert "data=coco" in capsys.readouterr().out
    exported = json.loads((tmp_path / "one.json").read_text())
    lines = split.read_text().splitlines()[1:]
    assert len(exported["images"]) == sum(line.endswith(",1") for line in lines)
    assert main(["export-coco", str(wardrobe), str(tmp_path / "two.json"), "--folds", "1"]) == 2
