"""A resumed run is bit-identical to an uninterrupted run; here exceptions stop the run, in one process.

`python -m tests.faults.training` does the same with signals to real processes.
"""

import contextlib
import errno
import os
import signal

import pytest

from fashion_hydra.model.checkpoint import read_checkpoint
from fashion_hydra.training.callbacks import LearningCurves, ResumePoint, ValidationScore
from fashion_hydra.training.lightning_module import SegmentationModule
from fashion_hydra.training.run_folder import LAST, RunFolder
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.utils.errors import UserError
from tests.faults.training import Place, differences, state
from tests.workflows.test_train import noted_rates, run

OPTIONS = ["schedule.epochs=2", "callbacks.last.minutes=0", "data.num_workers=1", "+callbacks.curves.every=1"]


class Harm(BaseException):
    pass


def trained(folder, data, monkeypatch, interruptions, *options):
    """Train to the end through all interruptions: owner, method, and number of calls that succeed before it raises."""
    last = folder / "checkpoints" / "last.ckpt"
    for owner, name, calls in [*interruptions, (None, "", 0)]:
        with monkeypatch.context() as patched, contextlib.suppress(Harm):
            if owner is not None:
                patched.setattr(owner, name, interrupted(getattr(owner, name), calls))
            more = [f"ckpt_path={last}"] if last.is_file() else []
            run(folder, data, *OPTIONS, *options, *more, pictures=True)
            assert owner is None, "through before the harm"
    return state(last)


def interrupted(uninterrupted, calls):
    count = 0

    def call(*args, **keywords):
        nonlocal count
        count += 1
        if count > calls:
            raise Harm
        return uninterrupted(*args, **keywords)

    return call


STEP = (SegmentationModule, "on_before_optimizer_step")
VALIDATION = (SegmentationModule, "validation_step")
SCORE = (ValidationScore, "on_validation_epoch_end")
DRAWN = (LearningCurves, "on_validation_end")


@pytest.fixture(scope="module")
def uninterrupted(wardrobe, tmp_path_factory):
    """Return a function that returns the final state of an uninterrupted run with given options."""
    known = {}

    def of(*options):
        if options not in known:
            folder = tmp_path_factory.mktemp("uninterrupted")
            run(folder, wardrobe, *OPTIONS, *options, pictures=True)
            known[options] = state(folder / "checkpoints" / "last.ckpt")
        return known[options]

    return of


EMA = ("callbacks=ema", "callbacks.progress.refresh_rate=0")


@pytest.mark.parametrize(
    ("interruptions", "options"),
    [
        ([(*STEP, 2), (*VALIDATION, 2), (*DRAWN, 0), (*STEP, 1), (*SCORE, 0)], EMA),
        (
            [(*STEP, 2), (*STEP, 1), (*STEP, 1)],
            ("schedule.epochs=3", "trainer.check_val_every_n_epoch=2", "trainer.accumulate_grad_batches=2"),
        ),
    ],
    ids=["within epochs and validations", "rare validation, accumulated gradients"],
)
def test_an_interrupted_run_resumes_to_the_last_bit(
    wardrobe, tmp_path, monkeypatch, uninterrupted, interruptions, options
):
    found = differences(uninterrupted(*options), trained(tmp_path, wardrobe, monkeypatch, interruptions, *options))
    assert found == []


def test_a_full_disk_costs_no_checkpoint(wardrobe, tmp_path, monkeypatch):
    """The disk is full before the second checkpoint is complete."""
    plain, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError,
        match=r"last.ckpt: not written \(.*No space left.*; \d+ MiB free\)\..*previous last.ckpt is intact",
    ):
        run(tmp_path, wardrobe, "schedule.epochs=1", "callbacks.last.minutes=0")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    newest, damaged = RunFolder(tmp_path).newest_intact()
    assert (read_checkpoint(newest)["global_step"], damaged) == (1, [])


@pytest.mark.parametrize("damage", ["cut short", "a wrong byte", "empty"])
def test_the_newest_intact_checkpoint_replaces_a_damaged_one(tmp_path, tiny_checkpoint, damage):
    for name in ("epoch00-score0.3000.ckpt", "epoch01-score0.2000.ckpt", LAST):
        tiny_checkpoint(f"checkpoints/{name}")
    run = RunFolder(tmp_path)
    for age, name in enumerate(("epoch01-score0.2000.ckpt", "epoch00-score0.3000.ckpt")):
        os.utime(run.checkpoints / name, (1e9 - age, 1e9 - age))
    last = run.checkpoints / LAST
    assert run.newest_intact() == (last, [])
    content = last.read_bytes()
    middle = len(content) // 2
    wrong = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    last.write_bytes({"cut short": content[:middle], "a wrong byte": wrong, "empty": b""}[damage])
    newest, [warning] = run.newest_intact()
    assert newest.name == "epoch01-score0.2000.ckpt"
    assert str(last) in warning
    for path in run.checkpoints.glob("epoch*"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last.ckpt.*epoch01.*epoch00"):
        run.newest_intact()


def test_within_an_epoch_its_batches_must_stay(wardrobe, tmp_path, monkeypatch):
    with contextlib.suppress(Harm), monkeypatch.context() as patched:
        patched.setattr(*STEP, interrupted(getattr(*STEP), 2))
        run(tmp_path / "half", wardrobe, "schedule.epochs=1", "callbacks.last.minutes=0")
    last = tmp_path / "half" / "checkpoints" / LAST
    with pytest.raises(UserError, match=r"from within an epoch of 14 images with 4 per step; this run has 14 with 2"):
        run(tmp_path / "half", wardrobe, "schedule.epochs=1", "data.batch_size=2", f"ckpt_path={last}")


def test_a_run_that_stops_where_a_validation_is_due_makes_up_for_it(wardrobe, tmp_path, monkeypatch):
    """Lightning #20277; no validation runs twice either."""
    options = ["schedule.epochs=1", "trainer.val_check_interval=2"]
    validated, batches = [], []
    batch_end, step = ResumePoint.on_train_batch_end, SegmentationModule.validation_step
    score = ValidationScore.on_validation_epoch_end

    def asked_at_two(self, trainer, *args):
        self.asked = signal.SIGTERM if trainer.global_step == 2 and not validated else None
        batch_end(self, trainer, *args)

    def noted(self, trainer, pl_module):
        validated.append((trainer.global_step, len(batches)))
        batches.clear()
        score(self, trainer, pl_module)

    monkeypatch.setattr(ResumePoint, "on_train_batch_end", asked_at_two)
    monkeypatch.setattr(ValidationScore, "on_validation_epoch_end", noted)

    def counted(self, batch, batch_idx):
        batches.append(batch_idx)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "validation_step", counted)
    with pytest.raises(SystemExit):
        run(tmp_path, wardrobe, *options)
    assert validated == []
    run(tmp_path, wardrobe, *options, f"ckpt_path={tmp_path / 'checkpoints' / LAST}")
    assert [step for step, _ in validated] == [2, 4]
    assert len({count for _, count in validated}) == 1


@pytest.mark.parametrize("repeated", [False, True])
def test_between_epochs_batches_may_change(wardrobe, tmp_path, monkeypatch, repeated):
    """An epoch is complete after its last batch, also if it is shortened or repeats images."""
    rates = noted_rates(monkeypatch)
    shape = ["data.repeat_threshold=1.0"] if repeated else ["trainer.limit_train_batches=2"]
    run(tmp_path, wardrobe, *shape, "schedule.epochs=1")
    before = len(rates)
    last = f"ckpt_path={tmp_path / 'checkpoints' / LAST}"
    run(tmp_path, wardrobe, *shape, "schedule.epochs=2", "data.batch_size=2", last)
    after = len(rates) - before
    assert after in (2 * before - 1, 2 * before) if repeated else (before, after) == (2, 2)


def test_signals_to_a_real_process(wardrobe, tmp_path, uninterrupted):
    """A stop signal saves a checkpoint first; a run killed while saving resumes from the previous checkpoint."""
    place = Place(tmp_path, wardrobe, OPTIONS)
    done = place.command("forward pass:3:SIGTERM")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "stopped        SIGTERM after step 3" in done.stdout
    assert (place.done(), place.saved()) == (3, 3)
    done = place.command("within a checkpoint:1:SIGKILL")
    assert done.returncode == -signal.SIGKILL
    assert (place.done(), place.saved()) == (4, 3)
    last = place.last()
    run(last.parents[1], wardrobe, *OPTIONS, *EMA, f"ckpt_path={last}", pictures=True)
    assert differences(uninterrupted(*EMA), state(last)) == []
    assert not list(tmp_path.glob("runs/*/*/checkpoints/.*"))


WITHOUT_WARMUP = ("schedule.warmup_steps=0", "schedule.lr=0.001", "schedule.base_batch=4")


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ([], lambda step: 0.001 * 0.5 ** (step >= 8)),
        (["schedule.lr=0.0001", "schedule.optimizer.weight_decay=0.5"], lambda step: 0.0001 * 0.5 ** (step >= 8)),
        # Two batches per step: half as many steps, twice the rate, the same epochs between decays.
        (["trainer.accumulate_grad_batches=2"], lambda step: 0.002 * 0.5 ** (step >= 6)),
    ],
    ids=["unchanged", "another rate", "accumulated"],
)
def test_a_resumed_run_has_the_rates_that_it_asks_for(wardrobe, tmp_path, monkeypatch, caplog, more, wanted):
    rates = noted_rates(monkeypatch)
    words = [*WITHOUT_WARMUP, "schedule.decay=multistep", "schedule.milestones=[2]", "schedule.gamma=0.5"]
    run(tmp_path, wardrobe, *words, "schedule.epochs=1")
    assert rates == pytest.approx([0.001] * 4)
    rates.clear()
    last = tmp_path / "checkpoints" / LAST
    with caplog.at_level("INFO"):
        run(tmp_path, wardrobe, *words, *more, "schedule.epochs=3", f"ckpt_path={last}")
    assert rates == pytest.approx([wanted(4 + i) for i in range(len(rates))])
    assert len(rates) == (4 if "trainer.accumulate_grad_batches=2" in more else 8)
    assert ("changed        " in caplog.text) == bool(more)
    told = [record.getMessage() for record in caplog.records if "resumes with other options" in record.getMessage()]
    assert len(told) == 1
    assert f"{last} resumes with other options: " in told[0]
    assert all(f"{word} (was" in told[0] for word in ["schedule.epochs=3", *more])
    if "schedule.lr=0.0001" in more:
        assert "lr 0.001 -> 0.0001" in caplog.text
        assert "weight_decay 0.01 -> 0.5" in caplog.text
        assert read_checkpoint(last)["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.5


def test_more_epochs_of_a_cosine_go_on_where_the_longer_one_is(wardrobe, tmp_path, monkeypatch):
    rates = noted_rates(monkeypatch)
    words = [*WITHOUT_WARMUP, "schedule.decay=cosine"]
    run(tmp_path, wardrobe, *words, "schedule.epochs=1")
    rates.clear()
    run(tmp_path, wardrobe, *words, "schedule.epochs=3", f"ckpt_path={tmp_path / 'checkpoints' / LAST}")
    longer = Schedule(3, 0.001, 4, 0, decay="cosine")
    assert rates == pytest.approx([0.001 * longer.factor(step, 4) for step in range(4, 12)])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("schedule/optimizer=sgd", "schedule/optimizer: the checkpoint has AdamW, this run SGD"),
        ("schedule.decay_norms=false", "the checkpoint's optimizer has parameter groups of sizes"),
    ],
)
def test_an_optimizer_that_cannot_go_on_is_refused(wardrobe, tmp_path, more, message):
    run(tmp_path, wardrobe, "schedule.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
    with pytest.raises(UserError, match=message):
        run(tmp_path, wardrobe, more, "schedule.epochs=2", f"ckpt_path={tmp_path / 'checkpoints' / LAST}")


def test_a_run_with_early_stopping_resumes(wardrobe, tmp_path):
    words = ["callbacks=early_stopping", "callbacks.early_stopping.patience=50"]
    one = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
    last = tmp_path / "checkpoints" / LAST
    for epochs, checked in ((1, "false"), (2, "true")):
        at = f"callbacks.early_stopping.check_on_train_epoch_end={checked}"
        go_on = [f"ckpt_path={last}"] if last.is_file() else []
        run(tmp_path, wardrobe, *words, *one, at, f"schedule.epochs={epochs}", *go_on)
    assert read_checkpoint(last)["epoch"] == 1


def test_a_quick_try_keeps_nothing(wardrobe, tmp_path):
    run(tmp_path, wardrobe, "trainer.fast_dev_run=true", "schedule.epochs=1")
    assert not list(tmp_path.rglob("*.ckpt"))
