"""W&B and TensorBoard record config, curves, pictures with masks and thresholds, in one record per run."""

import json

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.resolvers import record_id
from tests.helpers import SMALL_TRAIN


@pytest.fixture(scope="module")
def resumed(wardrobe, tmp_path_factory):
    """A run of two epochs that was stopped after the first and resumed; thresholds are added to its record."""
    from fashion_hydra.config.command import Command
    from fashion_hydra.config.stored import StoredRun
    from fashion_hydra.training.run_folder import RunFolder
    from fashion_hydra.training.trackers import end_records, log_files, log_table
    from fashion_hydra.workflows.train import train

    folder = tmp_path_factory.mktemp("tracked") / "date"
    words = [*SMALL_TRAIN, "logger=all", "name=tracked", "schedule.epochs=2"]
    words += [f"data.root={wardrobe}", f"paths.output_dir={folder}"]
    for more in (["trainer.max_steps=4"], [f"ckpt_path={folder}/checkpoints/last.ckpt"]):
        train(compose_options("train", *words, *more), Command())
    trackers = StoredRun.read(RunFolder(folder)).trackers()
    log_table(trackers, "thresholds", ["method", "score"], [["grid", 0.25], ["none", None]])
    log_files(trackers, {"thresholds/grid": folder / "curves.png"})
    end_records(trackers)
    return folder


def test_record_ids_are_never_read_as_numbers():
    """Of 3,000 ids of hexadecimal digits alone, YAML reads 18 as a number, such as 939750e95706 as infinity."""
    ids = {record_id(f"/runs/{number}") for number in range(3000)}
    assert len(ids) == 3000
    assert all(OmegaConf.create(f"id: {one}").id == one for one in ids)


def test_tensorboard_has_one_record_of_it_all(resumed):
    record = EventAccumulator(str(resumed / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    record.Reload()
    tags = record.Tags()
    steps = [event.step for event in record.Scalars("train/loss")]
    assert steps == sorted(set(steps))
    assert len(steps) == 8
    assert len(record.Scalars("val/score")) == 2
    assert set(tags["images"]) == {"val/predictions", "thresholds/grid"}
    assert OmegaConf.load(resumed / "tensorboard" / "hparams.yaml").schedule.lr == 0.0015
    text = record.Tensors("thresholds/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines() == ["| method | score |", "| --- | --- |", "| grid | 0.2500 |", "| none |  |"]


def test_wandb_has_one_record_of_it_all(resumed):
    parts = sorted((resumed / "wandb").glob("offline-run-*"))
    assert len({part.name.rsplit("-", 1)[1] for part in parts}) == 1, "a resumed run continues its record"
    assert len(parts) == 3
    masks = list((resumed / "wandb").glob("offline-run-*/files/media/images/mask/**/*.png"))
    values = set(np.unique(np.concatenate([np.asarray(Image.open(path)).ravel() for path in masks])))
    assert len(masks) >= 2 * 4
    assert 0 in values
    assert max(values) <= 46
    [table] = (resumed / "wandb").glob("offline-run-*/files/media/table/thresholds*.json")
    assert json.loads(table.read_text())["data"] == [["grid", 0.25], ["none", None]]
