"""A model with attributes, from training to tuning and predictions in every format."""

import csv
import json
import re
import shutil

import pytest
import torch

from fashion_hydra.cli.main import main as cli
from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.formats.submission import read_masks
from fashion_hydra.utils.errors import UserError
from tests.helpers import SMALL_PREDICT, SMALL_TRAIN

SAMPLE = PROJECT_ROOT.parent / "shared" / "data" / "imat2020_sample"
TRAIN = (*SMALL_TRAIN, "data.num_workers=0", "schedule.epochs=1", "model.attributes=true")
LOW = (
    "candidates.score_floor=0.01",
    "candidates.iou_grid=[0.5]",
    "postprocess.iou_thr=0.5",
    "data.images=val",
    "data.limit=3",
)


def train(folder, data, *words):
    from fashion_hydra.workflows.train import train

    options = compose_options("train", *TRAIN, f"data.root={data}", f"paths.output_dir={folder}", *words)
    train(options, Command())
    return folder


def predict(run, out, *words):
    from fashion_hydra.workflows.predict import predict

    options = compose_options(
        "predict", *SMALL_PREDICT, f"ensemble.run={run}", f"out={out}", "postprocess=winner", *LOW,
        "postprocess.score_thr=0.01", *words,
    )  # fmt: skip
    predict(options, Command())
    return out


@pytest.fixture(scope="module")
def run(wardrobe, tmp_path_factory):
    return train(tmp_path_factory.mktemp("attributes"), wardrobe)


@pytest.fixture(scope="module")
def predicted(run, tmp_path_factory):
    return predict(run, tmp_path_factory.mktemp("predicted"), "output=[csv,csv_2020,coco]")


def class_ids(folder):
    return {c for of_image in read_masks(folder / "submission.csv").values() for c in of_image}


def test_the_checkpoint_knows_its_attributes(run, wardrobe):
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = content["classes"]["attributes"]
    with (wardrobe / "train.csv").open() as stream:
        seen = {int(a) for row in csv.DictReader(stream) for a in row["ClassId"].split("_")[1:]}
    assert set(kept["ids"]) <= seen
    assert len(kept["ids"]) > 10
    described = json.loads((wardrobe / "label_descriptions.json").read_text())["attributes"]
    named = {entry["id"]: entry["name"] for entry in described}
    assert kept["names"] == [named[i] for i in kept["ids"]]
    assert any("fc_attribute" in name for name in content["state_dict"])


def test_answers_have_attributes_in_every_format(predicted):
    answered = class_ids(predicted)
    assert any("_" in c for c in answered)
    with (predicted / "submission_2020.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    joined = ["_".join(filter(None, [r["ClassId"], r["AttributesIds"].replace(",", "_")])) for r in rows]
    with (predicted / "submission.csv").open() as stream:
        assert joined == [row["ClassId"] for row in csv.DictReader(stream)]
    for file in ("submission.csv", "submission_2020.csv"):
        assert cli(["submit-check", str(predicted / file)]) == 0
    results = json.loads((predicted / "coco_results.json").read_text())
    made = {"_".join(map(str, [r["category_id"], *r["attribute_ids"]])) for r in results}
    assert answered <= made


def test_none_answers_the_bare_category(run, predicted, tmp_path, capsys):
    predict(run, tmp_path, "postprocess.attributes=none")
    assert class_ids(tmp_path) == {c.partition("_")[0] for c in class_ids(predicted)}
    capsys.readouterr()
    truth = str(predicted / "truth.csv")
    assert cli(["score", truth, str(tmp_path / "submission.csv"), "--match", "category"]) == 0
    by_category = capsys.readouterr().out
    assert cli(["score", truth, str(predicted / "submission.csv"), "--match", "category"]) == 0
    assert capsys.readouterr().out == by_category


def test_the_mean_of_weights_answers_too(run, tmp_path):
    best, last = next((run / "checkpoints").glob("epoch*.ckpt")), run / "checkpoints" / "last.ckpt"
    predict(run, tmp_path, "ensemble=soup", f"ensemble.members=[{best},{last}]")
    assert any("_" in c for c in class_ids(tmp_path))


def test_a_picture_that_cannot_be_read_costs_no_other(run, wardrobe, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture")
    shutil.copy(next((wardrobe / "train").glob("*.jpg")), tmp_path / "in" / "b.jpg")
    predict(run, tmp_path / "out", f"data.root={tmp_path / 'in'}", "data.images=test")
    assert "a.jpg" in (tmp_path / "out" / "faults.csv").read_text()
    masks = read_masks(tmp_path / "out" / "submission.csv")
    assert masks["a.jpg"] == {}
    assert any("_" in class_id for class_id in masks["b.jpg"])


def test_going_on_without_attributes_is_refused(run, wardrobe, tmp_path):
    with pytest.raises(UserError, match=r"trained on \d+ attributes .*this run has 0 .*model\.attributes"):
        train(tmp_path, wardrobe, "model.attributes=false", f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}")


def test_starting_from_a_model_without_them_adds_the_head(run, wardrobe, tmp_path, caplog):
    caplog.set_level("INFO")
    plain = train(tmp_path / "plain", wardrobe, "model.attributes=false")
    train(
        tmp_path / "more", wardrobe, f"weights={plain / 'checkpoints' / 'last.ckpt'}", "trainer.limit_train_batches=1"
    )
    assert "6 not in the file (roi_head.bbox_head.0.fc_attribute.bias and 5 more)" in caplog.text


def test_data_without_attributes_say_so(wardrobe, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "label_descriptions.json"):
        (data / name).symlink_to(wardrobe / name)
    with (wardrobe / "train.csv").open() as stream, (data / "train.csv").open("w", newline="") as target:
        rows = list(csv.DictReader(stream))
        writer = csv.DictWriter(target, rows[0])
        writer.writeheader()
        writer.writerows({**row, "ClassId": row["ClassId"].partition("_")[0]} for row in rows)
    with pytest.raises(
        UserError, match=r"model\.attributes=true: none of the \d+ training masks of .* has an attribute"
    ):
        train(tmp_path / "run", data)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real photos are not at hand")
@pytest.mark.parametrize(("attributes", "match"), [(False, "category"), (True, "class_id")])
def test_photos_whose_every_mask_has_attributes(tmp_path, caplog, attributes, match):
    """Without attributes no ClassId can match, so the score uses categories; with attributes it uses ClassIds."""
    caplog.set_level("INFO")
    train(
        tmp_path, SAMPLE, f"model.attributes={attributes}", "data.folds=3", "trainer.limit_train_batches=1",
        "classes=present", "trainer.limit_val_batches=1",
    )  # fmt: skip
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("val/score")]
    if attributes:
        assert not told or "by ClassId" in told[0]
    else:
        assert re.search(r"by category: (\d+) of \1 true masks .* at most 0\.0000 .*score\.match=class_id", told[0])
