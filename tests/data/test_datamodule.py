"""The data module, from command-line options to split and batched images."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_hydra.cli.main import main
from fashion_hydra.config.build import make_datamodule
from fashion_hydra.config.compose import compose_options
from fashion_hydra.utils.errors import UserError


def datamodule(root, *overrides, folder="unused"):
    common = ["experiment=demo", "data.batch_size=4", "name=test"]
    words = [*common, f"data.root={root}", f"paths.output_dir={folder}", *overrides]
    options = compose_options("train", *words)
    return make_datamodule(
        options.data,
        options.classes,
        options.augment,
        eval_scale=options.tta.scales[0],
        seed=options.seed,
        report_dir=Path(folder),
    )


def ids(data, chosen):
    return set(data.annotations.image_ids[chosen].tolist())


def test_a_split_on_file_decides(wardrobe, tmp_path):
    plain = datamodule(wardrobe)
    plain.read()
    first, second, third = plain.annotations.image_ids[:3].tolist()
    (tmp_path / "mine.csv").write_text(f"ImageId,fold\n{first},0\n{second},1\n{third},\n")
    data = datamodule(wardrobe, f"data.split_file={tmp_path / 'mine.csv'}", "data.fold=1")
    data.read()
    assert (ids(data, data.is_training), ids(data, data.is_validation)) == ({first}, {second})
    assert "16 images not used" in data.describe()


def test_a_runs_split_can_be_used_again(wardrobe, tmp_path):
    data = datamodule(wardrobe, "data.folds=4", "data.fold=2", folder=tmp_path)
    data.prepare_data()
    again = datamodule(wardrobe, f"data.split_file={tmp_path / 'split.csv'}", "data.fold=2", "data.split_seed=1")
    again.read()
    assert ids(again, again.is_validation) == ids(data, data.is_validation)
    with (tmp_path / "faults.csv").open() as stream:
        assert [row["kind"] for row in csv.DictReader(stream)] == ["size-mismatch"] * 2


def test_a_fold_that_nothing_is_in_is_refused(wardrobe, tmp_path):
    data = datamodule(wardrobe, "data.folds=2")
    data.read()
    name = data.annotations.image_ids[0]
    (tmp_path / "mine.csv").write_text(f"ImageId,fold\n{name},0\n")
    with pytest.raises(UserError, match="0 images to train on and 1 to validate with"):
        datamodule(wardrobe, f"data.split_file={tmp_path / 'mine.csv'}").read()


def test_a_fold_kept_to_test_neither_trains_nor_validates(wardrobe):
    plain, data = (datamodule(wardrobe, "data.folds=4", *words) for words in ([], ["data.test_fold=2"]))
    plain.read()
    data.read()
    kept = ids(data, data.fold_of == 2)
    assert kept == ids(data, data.is_test) == ids(plain, plain.is_training) - ids(data, data.is_training)
    assert ids(data, data.is_validation) == ids(plain, plain.is_validation)
    assert not plain.is_test.any()
    assert f"{len(kept)} test images (data.test_fold)" in data.describe()
    assert "not used" not in data.describe()
    for fold in (0, 4):
        message = rf"data\.test_fold={fold}: must be null, or between 0 and 3 and not data\.fold=0"
        with pytest.raises(UserError, match=message):
            datamodule(wardrobe, "data.folds=4", f"data.test_fold={fold}")


def test_faults_stop_the_run_if_asked_to(wardrobe):
    with pytest.raises(UserError, match=r"2 faults, the first size-mismatch: \S+ row \d+: .*data\.on_fault=drop"):
        datamodule(wardrobe, "data.on_fault=error").read()


def test_cocos_format_feeds_the_same_samples(wardrobe, tmp_path, capsys):
    assert main(["export-coco", str(wardrobe), str(tmp_path / "all.json")]) == 0
    one = datamodule(wardrobe)
    other = datamodule(wardrobe, "data=coco", f"data.annotations={tmp_path / 'all.json'}", "data.batch_size=4")
    assert one.read() == other.read()
    for mine, its in zip(one.train_dataloader(), other.train_dataloader(), strict=True):
        assert mine.image_ids == its.image_ids
        assert torch.equal(mine.images, its.images)
        for a, b in zip(mine.targets, its.targets, strict=True):
            assert torch.equal(a.boxes, b.boxes)
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.masks.bitmaps(), b.masks.bitmaps())


def test_classes_by_id_and_name(wardrobe):
    data = datamodule(wardrobe, "classes.train=[shoe,13]", "classes.drop=[shoe]", "data.folds=2")
    classes = data.read()
    assert classes.ids == (23, 13)
    assert classes.dropped_labels() == (0,)
    labels = np.concatenate([t.labels.numpy() for batch in data.train_dataloader() for t in batch.targets])
    assert set(labels.tolist()) <= {0, 1}
    with pytest.raises(UserError, match="nearest: 'shoe'"):
        datamodule(wardrobe, "classes.train=[shoes]").read()
