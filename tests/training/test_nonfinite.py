"""NaN and infinite losses stop a run, or their steps are skipped without any effect."""

import math

import pytest
import torch

from fashion_hydra.model.detector import Detector
from fashion_hydra.utils.errors import UserError
from tests.workflows.test_train import run

SHORT = ["schedule.epochs=1", "callbacks.last.minutes=0"]


def spoil(monkeypatch, steps, value=math.nan):
    """Replace one loss in these steps by `value`."""
    plain, count = Detector.loss, -1

    def loss(self, *args, **options):
        nonlocal count
        count += 1
        losses = plain(self, *args, **options)
        return {**losses, "s1.loss_mask": losses["s1.loss_mask"] * value} if count in steps else losses

    monkeypatch.setattr(Detector, "loss", loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_step_and_its_images_are_named(wardrobe, tmp_path, monkeypatch, value):
    spoil(monkeypatch, {2}, value)
    with pytest.raises(
        UserError, match=rf"step 2 of epoch 0: s1.loss_mask {value} on images (\w+\.jpg, ){{3}}\w+\.jpg\."
    ):
        run(tmp_path, wardrobe, *SHORT)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("optimizer", ["schedule=demo", "schedule=winner"])
def test_a_step_left_out_changes_nothing(wardrobe, tmp_path, monkeypatch, optimizer):
    """A run whose last two steps are skipped ends with the weights of a run that stops before them."""
    options = [
        optimizer,
        "schedule.decay=multistep",
        *SHORT,
        "schedule.skip_nonfinite=2",
        "model.norm=GN",
        "model.backbone.norm_eval=true",
    ]
    run(tmp_path / "short", wardrobe, *options, "+trainer.limit_train_batches=2")
    spoil(monkeypatch, {2, 3})
    with pytest.warns(UserWarning, match=r"skipped, 2 so far \(schedule.skip_nonfinite=2\)"):
        run(tmp_path / "full", wardrobe, *options)
    short, full = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("short", "full")
    )
    assert (full["global_step"], full["skipped"]) == (4, 2)
    assert all(torch.equal(value, full["state_dict"][name]) for name, value in short["state_dict"].items())


def test_the_number_of_steps_left_out_is_limited(wardrobe, tmp_path, monkeypatch):
    spoil(monkeypatch, {1, 3})
    with pytest.raises(UserError, match=r"step 3 of epoch 0: .*schedule.skip_nonfinite=11 skips up to 11 such steps"):
        run(tmp_path, wardrobe, *SHORT, "schedule.skip_nonfinite=1")


def test_norms_that_took_part_are_reported(wardrobe, tmp_path, monkeypatch):
    """Running statistics are updated in the forward pass, before the loss is known."""
    plain = Detector.loss

    def loss(self, *args, **options):
        losses = plain(self, *args, **options)
        self.net.backbone.bn1.running_mean.fill_(math.inf)
        return {name: value * math.inf for name, value in losses.items()}

    monkeypatch.setattr(Detector, "loss", loss)
    with pytest.raises(UserError, match=r"The buffer net.backbone.bn1.running_mean is no longer finite"):
        run(tmp_path, wardrobe, *SHORT, "schedule.skip_nonfinite=5")
