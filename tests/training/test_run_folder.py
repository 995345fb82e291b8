"""Checkpoints of a run folder: the newest, and the best by the callback's own monitor and mode."""

import os

import pytest
import torch

from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError

SCORES = {"a.ckpt": 0.2, "b.ckpt": 0.5, "c.ckpt": 0.3}


def callback(monitor, mode, kept):
    """Return the state that Lightning saves for a ModelCheckpoint, under its key."""
    key = f"ModelCheckpoint{{'monitor': {monitor!r}, 'mode': {mode!r}, 'every_n_train_steps': 0}}"
    return {key: {"best_k_models": {f"/before/{name}": torch.tensor(score) for name, score in kept.items()}}}


def run_with(folder, tiny_checkpoint, callbacks):
    for name in ("last.ckpt", *SCORES):
        tiny_checkpoint(f"{folder.name}/checkpoints/{name}")
    last = folder / "checkpoints" / "last.ckpt"
    torch.save({**torch.load(last, weights_only=True), "callbacks": callbacks}, last)
    return RunFolder(folder)


@pytest.mark.parametrize(
    ("callbacks", "best"),
    [
        (callback("val/score", "max", SCORES), ["b", "c", "a"]),
        (callback("val/loss", "min", SCORES), ["a", "c", "b"]),
        (callback(None, "min", {"a.ckpt": 9.0}) | callback("val/score", "max", SCORES), ["b", "c", "a"]),
        ({"ModelCheckpoint{'monitor': 'val/score'}": {"best_k_models": SCORES}}, ["b", "c", "a"]),
        (callback("val/score", "max", {"b.ckpt": 0.1, "c.ckpt": 0.1, "a.ckpt": 0.1}), ["a", "c", "b"]),
    ],
)
def test_the_best_by_the_monitors_own_mode(tmp_path, tiny_checkpoint, callbacks, best):
    run = run_with(tmp_path / "run", tiny_checkpoint, callbacks)
    assert [path.stem for path in run.best(3)] == best
    assert [path.stem for path in run.best(1)] == best[:1]


def test_of_two_checkpoint_callbacks_that_of_the_config_counts(tmp_path, tiny_checkpoint):
    two = callback("val/AP", "max", {"a.ckpt": 0.9}) | callback("val/score", "max", SCORES)
    run = run_with(tmp_path / "run", tiny_checkpoint, two)
    assert run.best(1)[0].stem == "a"
    run.save_config({"callbacks": {"checkpoint": {"monitor": "val/score"}}})
    assert run.best(1)[0].stem == "b"


def test_files_elsewhere_are_not_the_runs(tmp_path, tiny_checkpoint):
    """A second ModelCheckpoint saves every epoch to another folder."""
    every = {f"/elsewhere/every/{i}.ckpt": 0.9 for i in range(9)}
    two = callback("val/score", "max", SCORES) | callback(None, "max", every)
    run = run_with(tmp_path / "run", tiny_checkpoint, dict(reversed(two.items())))
    assert [path.stem for path in run.best(3)] == ["b", "c", "a"]


def test_without_a_scored_checkpoint_the_last_one_predicts(tmp_path, tiny_checkpoint, caplog):
    run = run_with(tmp_path / "run", tiny_checkpoint, callback("val/score", "max", {}))
    assert [path.name for path in run.best(1)] == ["last.ckpt"]
    assert "no checkpoint has a score; using last.ckpt" in caplog.text
    with pytest.raises(UserError, match="0 checkpoints with scores, 3 requested"):
        run.best(3)


def test_too_few_or_none_is_said(tmp_path, tiny_checkpoint):
    run = run_with(tmp_path / "run", tiny_checkpoint, callback("val/score", "max", SCORES))
    (run.checkpoints / "b.ckpt").unlink()
    with pytest.raises(UserError, match="2 checkpoints with scores, 3 requested"):
        run.best(3)
    with pytest.raises(UserError, match=r"ensemble\.count=0: must be at least 1"):
        run.best(0)
    with pytest.raises(UserError, match=r"no checkpoints/last\.ckpt there"):
        RunFolder(tmp_path / "none").best(1)


def test_the_newest_run_is_that_of_the_newest_checkpoint(tmp_path):
    assert RunFolder.newest(tmp_path) is None
    for age, name in enumerate(("second", "first")):
        path = tmp_path / "model" / name / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        os.utime(path, (1e9 - age, 1e9 - age))
    assert RunFolder.newest(tmp_path / "model").path.name == "second"
    assert RunFolder.newest(tmp_path, at_any_depth=True).path.name == "second"
    assert RunFolder.find(tmp_path / "model").path.name == "second"
    assert RunFolder.find(tmp_path / "model" / "first").path.name == "first"
    with pytest.raises(UserError, match=r"Give the folder of a training run, or of several"):
        RunFolder.find(tmp_path / "nowhere")
