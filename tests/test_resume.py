"""A run that is stopped anywhere goes on to the last bit as one that is not; here by exceptions, in one process.

`python -m tests.faults.training` does the same with signals to real processes.
"""

import contextlib

import pytest

from fashion_hydra.callbacks import LearningCurves, ValidationScore
from fashion_hydra.module import SegmentationModule
from tests.faults.training import differences, state
from tests.test_training import run

OPTIONS = ["schedule.epochs=3", "callbacks.last.minutes=0", "data.num_workers=1", "+callbacks.curves.every=1"]


class Harm(BaseException):
    pass


def trained(folder, data, monkeypatch, harms, *options):
    """Train to the end, interrupted by each of the harms in turn: owner, method and how many of its calls succeed."""
    last = folder / "checkpoints" / "last.ckpt"
    for owner, name, calls in [*harms, (None, "", 0)]:
        with monkeypatch.context() as patched, contextlib.suppress(Harm):
            if owner is not None:
                patched.setattr(owner, name, harmed(getattr(owner, name), calls))
            run(folder, data, *OPTIONS, *options, *([f"ckpt_path={last}"] if last.is_file() else []))
            assert owner is None, "through before the harm"
    return state(last)


def harmed(whole, calls):
    count = 0

    def call(*args, **keywords):
        nonlocal count
        count += 1
        if count > calls:
            raise Harm
        return whole(*args, **keywords)

    return call


STEP = (SegmentationModule, "on_before_optimizer_step")
VALIDATION = (SegmentationModule, "validation_step")
SCORE = (ValidationScore, "on_validation_epoch_end")
DRAWN = (LearningCurves, "on_validation_end")


@pytest.fixture(scope="module")
def whole(wardrobe, tmp_path_factory):
    """What nothing stopped, by the options."""
    known = {}

    def of(*options):
        if options not in known:
            folder = tmp_path_factory.mktemp("whole")
            run(folder, wardrobe, *OPTIONS, *options)
            known[options] = state(folder / "checkpoints" / "last.ckpt")
        return known[options]

    return of


EMA = ("callbacks=ema", "callbacks.progress.refresh_rate=0")


@pytest.mark.parametrize(
    ("harms", "options"),
    [
        ([(*STEP, 2), (*STEP, 3)], EMA),
        ([(*VALIDATION, 5), (*STEP, 2)], EMA),
        ([(*SCORE, 0), (*DRAWN, 1), (*VALIDATION, 1)], EMA),
        (
            [(*STEP, 2), (*STEP, 1), (*STEP, 1)],
            ("trainer.check_val_every_n_epoch=2", "trainer.accumulate_grad_batches=2"),
        ),
    ],
    ids=["within epochs", "within a validation, then an epoch", "around scores", "rare validation, gathered gradients"],
)
def test_a_run_goes_on_to_the_last_bit(wardrobe, tmp_path, monkeypatch, whole, harms, options):
    found = differences(whole(*options), trained(tmp_path, wardrobe, monkeypatch, harms, *options))
    assert found == []
