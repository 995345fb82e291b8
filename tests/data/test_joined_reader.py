"""Separate annotation files for training and validation of one data set."""

import numpy as np
import pytest

from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.coco import CocoReader
from fashion_hydra.data.joined_reader import JoinedReader
from fashion_hydra.utils.errors import UserError
from tests.data.test_coco_cases import annotation, picture, write
from tests.data.test_datamodule import datamodule


def roboflow(root, *, categories=((1, "shirt"), (2, "shoe"))):
    """Write two folders with the same file names and ids but different masks."""
    for part, shade in (("train", 10), ("valid", 200)):
        for name in ("0.png", "1.png"):
            picture(root / part / name, shade)
    square = [[20, 20, 30, 20, 30, 30, 20, 30]]
    write(root / "train" / "a.json", ["0.png", "1.png"], [annotation(1, 1), annotation(2, 2)])
    valid = [annotation(1, 1, 2, square, bbox=[20, 20, 10, 10]), annotation(2, 2, 1, iscrowd=1)]
    write(root / "valid" / "a.json", ["0.png", "1.png"], valid, categories)
    return root


def test_each_file_has_its_own_photos(tmp_path):
    data = datamodule(
        roboflow(tmp_path), "data=coco", "data.annotations=train/a.json", "data.val_annotations=valid/a.json"
    )
    data.read()
    ids = data.annotations.image_ids
    assert ids[data.is_validation].tolist() == ["valid/0.png", "valid/1.png"]
    assert ids[data.is_training].tolist() == ["train/0.png", "train/1.png"]
    assert data.annotations.coco_ids.tolist() == ["1", "2", "1", "2"]
    assert data.annotations.areas.tolist() == [100, 81, 81]
    assert len(data.annotations.crowds(1)) == 1
    assert float(data.val_dataloader().dataset[0].image.float().mean()) == 200


def test_a_photo_in_both_validates_and_is_named(tmp_path):
    for name in ("0.png", "1.png"):
        picture(tmp_path / name)
    train = write(tmp_path / "train.json", ["0.png", "1.png"], [annotation(1, 1), annotation(2, 2)])
    val = write(tmp_path / "val.json", ["0.png"], [annotation(1, 1)])
    parts = {"val": CocoReader(tmp_path, str(val)), "train": CocoReader(tmp_path, str(train))}
    found, faults = load_annotations(JoinedReader(parts))
    assert list(zip(found.image_ids.tolist(), found.subsets.tolist(), strict=True)) == [
        ("0.png", "val"),
        ("1.png", "train"),
    ]
    assert np.array_equal(found.first, [0, 1, 2])
    assert [(f.kind, f.image_id, f.value) for f in faults] == [("in-two-parts", "0.png", "also in train")]


def test_categories_have_to_agree(tmp_path):
    roboflow(tmp_path, categories=((1, "hat"), (2, "shoe")))
    parts = {p: CocoReader(tmp_path, f"{f}/a.json") for p, f in (("val", "valid"), ("train", "train"))}
    with pytest.raises(UserError, match="category 1 is 'shirt' in the train part and 'hat' in the other part"):
        JoinedReader(parts)
