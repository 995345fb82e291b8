"""Training as a whole: reproducible, resumable, the same on two processes, and clear about mistakes."""

import csv
import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir

from fashion_hydra.errors import UserError
from fashion_hydra.hydra_app import PROJECT_ROOT, register_resolvers

SMALL = [
    "experiment=demo",
    "trainer=default",
    "trainer.accelerator=cpu",
    "data.folds=5",
    "data.batch_size=4",
    "data.num_workers=0",
    "augment.short_edge=[64,96]",
    "tta.scales=[[80,128]]",
    "trainer.log_every_n_steps=1",
    "callbacks.progress.refresh_rate=0",
    "schedule.warmup_steps=2",
]


def run(folder, data, *overrides):
    """Train in this process; the losses by step, and the last checkpoint."""
    from fashion_hydra.training import assemble, train

    register_resolvers()
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[*SMALL, f"data.root={data}", f"paths.output_dir={folder}", *overrides])
    train(assemble(cfg))
    losses = {}
    for file in sorted(folder.glob("csv/version_*/metrics.csv")):
        with file.open() as stream:
            losses |= {int(r["step"]): float(r["train/loss"]) for r in csv.DictReader(stream) if r["train/loss"]}
    return losses, folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def whole(wardrobe, tmp_path_factory):
    """Two epochs without a stop."""
    return run(tmp_path_factory.mktemp("whole"), wardrobe, "schedule.epochs=2")


def test_the_same_seed_gives_the_same_losses_and_weights(wardrobe, tmp_path, whole):
    losses, checkpoint = run(tmp_path, wardrobe, "schedule.epochs=2")
    assert losses == whole[0]
    assert len(losses) == 2 * 4
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, whole[1])]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_run_stopped_after_an_epoch_and_resumed_goes_on_as_the_whole_one(wardrobe, tmp_path, whole):
    _, half = run(tmp_path, wardrobe, "schedule.epochs=2", "+trainer.limit_val_batches=1", "trainer.max_epochs=1")
    saved = torch.load(half, weights_only=True)
    assert saved["epoch"] == 0
    losses, checkpoint = run(tmp_path, wardrobe, "schedule.epochs=2", f"ckpt_path={half}")
    assert losses == whole[0]
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, whole[1])]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_another_seed_gives_other_losses(wardrobe, tmp_path, whole):
    losses, _ = run(tmp_path, wardrobe, "schedule.epochs=1", "seed=1")
    assert losses[0] != whole[0][0]


def test_a_checkpoint_holds_plain_data_and_the_run_its_pictures(whole):
    checkpoint = torch.load(whole[1], weights_only=True)
    assert checkpoint["classes"]["ids"]
    assert checkpoint["model"]["stage_ious"] == [0.5, 0.6, 0.7]
    folder = whole[1].parents[1]
    assert {p.name for p in folder.iterdir()} >= {"curves.png", "predictions.png", "split.csv", "faults.csv", "csv"}
    assert len(list((folder / "checkpoints").glob("epoch*.ckpt"))) == 2


def test_ema_and_accumulation_and_bf16_train(wardrobe, tmp_path):
    losses, _ = run(
        tmp_path,
        wardrobe,
        "schedule.epochs=1",
        "callbacks=ema",
        "callbacks.progress.refresh_rate=0",
        "trainer.accumulate_grad_batches=2",
        "trainer.precision=bf16-mixed",
        "model.gradient_checkpointing=true",
    )
    assert all(0 < loss < 100 for loss in losses.values())


def test_two_processes_train_and_score_as_one(wardrobe, tmp_path, whole):
    """Without batch norm's statistics, which are each process's own, two halves of a batch make the whole."""
    frozen = ["model.norm=null", "model.backbone.norm_eval=true", "schedule.epochs=1"]
    one, _ = run(tmp_path / "one", wardrobe, *frozen)
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), *SMALL, *frozen, f"data.root={wardrobe}"]
    command += ["trainer=cpu", "data.batch_size=2", f"hydra.run.dir={tmp_path / 'two'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("learning rate") + done.stderr.count("learning rate") == 1
    scores = []
    for name in ("one", "two"):
        with next((tmp_path / name).glob("csv/version_0/metrics.csv")).open() as stream:
            rows = [r for r in csv.DictReader(stream) if r["val/score"]]
        scores.append([float(rows[-1][k]) for k in ("val/score", "val/AP")])
    assert len(one) == 4
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def script(tmp_path, *arguments):
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["model=nope"], "Could not find 'model/nope' Available options in 'model': htc"),
        (["experiment=nope"], "Could not find 'experiment/nope'"),
        (["schedule.epoch=3"], "Could not override 'schedule.epoch'"),
        (["trainer.devices=8", "trainer.accelerator=gpu"], "trainer.devices=8: this machine has"),
        (["data.root=EMPTY"], "EMPTY: no train.csv (found: nothing). Put Kaggle's train.csv there"),
        (["ckpt_path=last"], "ckpt_path=last: no run below"),
        (["ckpt_path=missing.ckpt"], "ckpt_path=missing.ckpt: no such file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_no_traceback(tmp_path, arguments, told):
    if torch.cuda.device_count() >= 8 and "trainer.devices=8" in arguments:
        pytest.skip("this machine has eight GPUs")
    (tmp_path / "EMPTY").mkdir()
    done = script(tmp_path, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("train.py:")]) == 1


def test_debug_shows_the_traceback(tmp_path):
    done = script(tmp_path, "debug=true", "ckpt_path=missing.ckpt")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_checkpoint_of_another_class_set_is_refused(wardrobe, tmp_path, whole):
    with pytest.raises(UserError, match=r"was trained on \d+ classes .* this run has 33"):
        run(tmp_path, wardrobe, "classes=no_attributes", f"ckpt_path={whole[1]}")


def test_help_says_how(tmp_path):
    done = script(tmp_path, "--help")
    assert done.returncode == 0
    assert "python train.py experiment=demo" in done.stdout
    assert "htc_x101" in done.stdout
