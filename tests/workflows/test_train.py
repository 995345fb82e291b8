"""Training from config to checkpoint: reproducible, resumable, equal on two processes, clear about user errors."""

import csv
import json
import os
import runpy
import subprocess
import sys

import pytest
import torch

from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.config.resolvers import run_dir
from fashion_hydra.model.detector import Detector
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.training import lightning_module
from fashion_hydra.training.lightning_module import SegmentationModule
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import file_sha256
from tests.helpers import SMALL_TRAIN, run_script

SMALL = (*SMALL_TRAIN, "data.num_workers=0")


def run(folder, data, *overrides, pictures=False):
    """Train in this process, and return the losses by step and the last checkpoint."""
    from fashion_hydra.workflows.train import train

    more = () if pictures else ("~callbacks.curves", "~callbacks.pictures")  # drawing takes longer than an epoch
    options = compose_options("train", *SMALL, f"data.root={data}", f"paths.output_dir={folder}", *more, *overrides)
    train(options, Command())
    return logged(folder), folder / "checkpoints" / "last.ckpt"


def logged(folder):
    """Return the logged losses by step."""
    losses = {}
    for file in sorted(folder.glob("csv/version_*/metrics.csv")):
        with file.open() as stream:
            losses |= {int(r["step"]): float(r["train/loss"]) for r in csv.DictReader(stream) if r.get("train/loss")}
    return losses


def noted_rates(monkeypatch):
    """Record the learning rate of each step during training."""
    rates = []
    plain = SegmentationModule.on_before_optimizer_step

    def note(self, optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        plain(self, optimizer)

    monkeypatch.setattr(SegmentationModule, "on_before_optimizer_step", note)
    return rates


@pytest.fixture(scope="module")
def uninterrupted(wardrobe, tmp_path_factory):
    """An uninterrupted run of two epochs."""
    return run(tmp_path_factory.mktemp("uninterrupted"), wardrobe, "schedule.epochs=2", pictures=True)


def test_the_same_seed_gives_the_same_losses_and_weights(wardrobe, tmp_path, uninterrupted):
    losses, checkpoint = run(tmp_path, wardrobe, "schedule.epochs=2")
    assert losses == uninterrupted[0]
    assert len(losses) == 2 * 4
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, uninterrupted[1])]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_resumed_run_equals_an_uninterrupted_one(wardrobe, tmp_path, uninterrupted):
    _, half = run(tmp_path, wardrobe, "schedule.epochs=2", "trainer.limit_val_batches=1", "trainer.max_steps=4")
    saved = torch.load(half, weights_only=True)
    assert saved["epoch"] == 0
    losses, checkpoint = run(tmp_path, wardrobe, "schedule.epochs=2", f"ckpt_path={half}")
    assert losses == uninterrupted[0]
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, uninterrupted[1])]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_another_seed_gives_other_losses(wardrobe, tmp_path, uninterrupted):
    losses, _ = run(tmp_path, wardrobe, "schedule.epochs=1", "seed=1")
    assert losses[0] != uninterrupted[0][0]


def test_a_checkpoint_holds_plain_data_and_the_run_its_pictures(uninterrupted):
    checkpoint = torch.load(uninterrupted[1], weights_only=True)
    assert checkpoint["classes"]["ids"]
    assert checkpoint["model"]["stage_ious"] == [0.5, 0.6, 0.7]
    folder = uninterrupted[1].parents[1]
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


def test_the_last_step_of_an_epoch_is_the_mean_of_the_batches_that_are_left(wardrobe, tmp_path, monkeypatch):
    """Lightning #19987: Lightning always divides by `accumulate_grad_batches`."""
    seen = {}
    monkeypatch.setattr(
        SegmentationModule,
        "on_before_optimizer_step",
        lambda self, _: seen.setdefault(self.trainer.accumulate_grad_batches, []).append(
            torch.cat([p.grad.flatten() for p in self.detector.net.roi_head.parameters()])
        ),
    )
    for accumulated in (1, 2):
        run(
            tmp_path / str(accumulated),
            wardrobe,
            f"schedule.lr={1e-30 / accumulated}",  # weights do not change, so that gradients are comparable
            "schedule.epochs=1",
            "trainer.limit_train_batches=3",
            f"trainer.accumulate_grad_batches={accumulated}",
            "trainer.gradient_clip_val=null",
        )
    first, second, third = seen[1]
    torch.testing.assert_close(seen[2][0], (first + second) / 2, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen[2][1], third, rtol=1e-3, atol=1e-4)


EVALUATE = """
import json, sys
import torch
import fashion_hydra.training.lightning_module
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.workflows.train import build_training
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.command import Command

def boxes_of_the_truth(detector, batch, rules, mask_grid):
    [targets], [(height, width)], [size] = batch.targets, batch.sizes, batch.original_sizes
    boxes = targets.boxes * torch.tensor([size[1] / width, size[0] / height] * 2)
    scores = torch.linspace(0.9, 0.6, len(boxes))
    return [Candidates(batch.image_ids[0], size, boxes, scores, targets.labels, torch.ones(len(boxes), 14, 14))]

fashion_hydra.training.lightning_module.find_candidates = boxes_of_the_truth
run = build_training(compose_options("train", *sys.argv[1:]), Command())
[scores] = run.trainer.validate(run.module, run.datamodule, verbose=False)
if run.trainer.is_global_zero:
    print(json.dumps(scores))
"""


def python(tmp_path, *arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path
    )


TRAIN_IN_ROWS = """
from fashion_hydra.model.detector import Detector
from train import main

Detector.lay_channels_last = lambda detector: None
main()
"""


def test_two_processes_train_as_one(wardrobe, tmp_path, monkeypatch):
    """With equal global batches, one padded size and norms independent of the batch, only rounding differs.

    Sums are computed in a different order and differ by a few units in the last place of float32 (6e-8); a few steps
    amplify this. Channels last is off, because there an image's features depend on the batch size: new heads score
    proposals so similarly that this rounding would change their selection.
    """
    monkeypatch.setattr(Detector, "lay_channels_last", lambda detector: None)
    script = tmp_path / "train_in_rows.py"
    script.write_text(TRAIN_IN_ROWS)
    with (wardrobe / "train.csv").open() as stream:
        lies = {row["ImageId"]: int(row["Width"]) > int(row["Height"]) for row in csv.DictReader(stream)}
    split = tmp_path / "split.csv"
    split.write_text("ImageId,fold\n" + "".join(f"{name},{int(is_lying)}\n" for name, is_lying in lies.items()))
    same = [
        "schedule=winner",
        "schedule.epochs=2",
        f"data.split_file={split}",
        "augment.short_edge=[80,80]",
        "model.norm=GN",
        "model.semantic_convs=1",
        "model.attributes=true",
        "model.backbone.norm_eval=true",
    ]
    losses, checkpoint = run(tmp_path / "one", wardrobe, *same, pictures=True)
    two = ["trainer=cpu", "trainer.log_every_n_steps=1", "data.batch_size=2", f"hydra.run.dir={tmp_path / 'two'}"]
    done = python(tmp_path, script, *SMALL, *same, *two, f"data.root={wardrobe}")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("learning rate") == 1
    assert logged(tmp_path / "two") == pytest.approx(losses, rel=1e-5)
    assert len(losses) >= 2
    states = [torch.load(p, weights_only=True) for p in (checkpoint, tmp_path / "two" / "checkpoints" / "last.ckpt")]
    norms = [value for name, value in states[0]["state_dict"].items() if "backbone" in name and "running_mean" in name]
    assert norms
    assert not any(norm.any() for norm in norms), "norm_eval is not heeded"
    for name, value in states[0]["state_dict"].items():
        torch.testing.assert_close(
            states[1]["state_dict"][name], value, rtol=1e-5, atol=5e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    written = [sorted(p.name for p in (tmp_path / name).iterdir() if p.name[0] != ".") for name in ("one", "two")]
    assert [name for name in written[1] if not name.startswith("train")] == written[0]
    assert (tmp_path / "one" / "split.csv").read_text() == (tmp_path / "two" / "split.csv").read_text()


def test_a_job_of_two_tasks_trains_together(wardrobe, tmp_path):
    """The job runs as on SLURM, except for the launcher's name, which is hydra/launcher=submitit_slurm there."""
    job = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", f"hydra.sweep.dir={tmp_path}"]
    two = ["schedule.epochs=1", "trainer=cpu", "data.batch_size=2", f"data.root={wardrobe}"]
    done = python(tmp_path, PROJECT_ROOT / "train.py", *job, *SMALL, *two)
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "0" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    [table] = tmp_path.glob("sweep.csv")
    assert len(table.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"TORCHELASTIC_RUN_ID": "first"}, "torchrun-first"),
        ({"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, "slurm-77"),
        ({"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "20"),
        ({}, "20"),
    ],
)
def test_processes_of_a_job_share_a_folder(monkeypatch, environment, name):
    for key in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert run_dir("runs", "winner", None).startswith(f"runs/winner/{name}")


def test_fewer_validation_images_than_processes_are_refused(wardrobe, tmp_path):
    with pytest.raises(UserError, match=r"data\.folds=18: 1 validation images for 2 devices"):
        run(tmp_path, wardrobe, "data.folds=18", "trainer.devices=2")


def test_the_recipe_for_one_gpu_takes_a_step(wardrobe, tmp_path):
    """The step runs on any device, at a small size for CPUs, and without ImageNet weights."""
    from fashion_hydra.workflows.train import train

    own = ["experiment=ccp_r50", "name=test", f"paths.output_dir={tmp_path}", f"data.root={wardrobe}"]
    tiny = ["augment.short_edge=[64,96]", "augment.long_edge=128", "tta.scales=[[80,128]]", "data.batch_size=1"]
    short = ["schedule.epochs=1", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1", "data.folds=5"]
    quiet = ["data.num_workers=0", "callbacks.progress.refresh_rate=0", "trainer.log_every_n_steps=1"]
    options = compose_options("train", *own, *tiny, *short, *quiet, "model.backbone.weights=null")
    assert options.trainer.precision == "bf16-mixed"
    train(options, Command())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_two_processes_score_as_one(wardrobe, tmp_path, monkeypatch, capsys):
    """True boxes serve as masks, so that the score is neither 0 nor 1; the number of images is odd."""
    (tmp_path / "evaluate.py").write_text(EVALUATE)
    common = [*SMALL, f"data.root={wardrobe}", f"paths.output_dir={tmp_path}", "name=test", "data.folds=4"]
    done = python(tmp_path, "evaluate.py", *common, "trainer=cpu")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(lightning_module, "find_candidates", None)  # to be put back, the script replaces it
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *common, "trainer.devices=1"])
    capsys.readouterr()
    runpy.run_path(str(tmp_path / "evaluate.py"))
    scores, of_one = (json.loads(text.splitlines()[-1]) for text in (done.stdout, capsys.readouterr().out))
    assert all(0.1 < value < 0.9 for value in scores.values())
    assert scores == of_one


def started(folder, data, *overrides):
    """Return the module at the start of training, with its weights loaded."""
    from fashion_hydra.workflows.train import build_training

    options = compose_options("train", *SMALL, f"data.root={data}", f"paths.output_dir={folder}", *overrides)
    return build_training(options, Command()).module.detector


def test_training_starts_from_given_weights(wardrobe, tmp_path, uninterrupted, caplog):
    """The losses of the first steps show that the weights are used; a model from scratch has higher losses."""
    sum_of_file = file_sha256(uninterrupted[1])
    given = [f"weights={uninterrupted[1]}", f"weights_sha256={sum_of_file}", "model.backbone.frozen_stages=1"]
    with caplog.at_level("INFO"):
        losses, checkpoint = run(tmp_path, wardrobe, *given, "schedule.epochs=1", "+trainer.limit_train_batches=1")
    assert "the frozen layers stay random" not in caplog.text
    assert f"weights        {uninterrupted[1]}: " in caplog.text
    assert losses[0] < uninterrupted[0][0]
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (uninterrupted[1], checkpoint))
    assert torch.equal(before["detector.net.backbone.conv1.weight"], after["detector.net.backbone.conv1.weight"])


def test_weights_of_fewer_classes_lose_no_row_that_is_shared(wardrobe, tmp_path, uninterrupted):
    theirs = torch.load(uninterrupted[1], weights_only=True)
    ids = theirs["classes"]["ids"]
    detector = started(tmp_path, wardrobe, f"weights={uninterrupted[1]}", f"classes.train=[{ids[4]},{ids[1]}]")
    for name in ("roi_head.bbox_head.0.fc_cls.weight", "roi_head.mask_head.2.conv_logits.bias"):
        mine = detector.net.state_dict()[name]
        assert torch.equal(mine[:2], theirs["state_dict"][f"detector.net.{name}"][[4, 1]])


def test_weights_are_not_read_when_a_run_is_resumed(wardrobe, tmp_path, uninterrupted, caplog):
    detector = started(tmp_path, wardrobe, f"ckpt_path={uninterrupted[1]}", "weights=nowhere.pth")
    assert "weights=nowhere.pth is ignored: ckpt_path resumes with the checkpoint's weights" in caplog.text
    assert str(uninterrupted[1]) in detector.origin


def test_weights_take_the_place_of_the_backbones_own(wardrobe, tmp_path, uninterrupted):
    started(tmp_path, wardrobe, f"weights={uninterrupted[1]}", "model.backbone.weights=nowhere.safetensors")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["weights=nowhere.pth"], "nowhere.pth: no such file"),
        (["weights=CHECKPOINT", f"weights_sha256={'0' * 64}"], "its sha256 is .*, expected 0000"),
        (["weights=CHECKPOINT", "model.backbone.depth=34"], "weights=.* does not fit this model in 80 tensors"),
        (["weights=http://127.0.0.1:9/x.pth"], "http://127.0.0.1:9/x.pth: .*refused"),
    ],
)
def test_weights_that_cannot_be_used(wardrobe, tmp_path, uninterrupted, given, message):
    with pytest.raises(UserError, match=message):
        started(tmp_path, wardrobe, *[word.replace("CHECKPOINT", str(uninterrupted[1])) for word in given])


def test_epochs_are_the_schedules(wardrobe, tmp_path):
    with pytest.raises(UserError, match=r"trainer\.max_epochs=5 schedule\.epochs=2: the learning rate follows"):
        run(tmp_path, wardrobe, "schedule.epochs=2", "trainer.max_epochs=5")


def test_a_validation_that_never_comes_is_refused(wardrobe, tmp_path):
    with pytest.raises(UserError, match=r"trainer: `val_check_interval` \(50\) must be less than or equal"):
        run(tmp_path, wardrobe, "schedule.epochs=1", "trainer.val_check_interval=50")


def test_a_run_without_validation_says_so(wardrobe, tmp_path, caplog):
    words = ["schedule.epochs=1", "trainer.limit_val_batches=0", "trainer.limit_train_batches=2"]
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="accumulate_grad_batches=3: an epoch has 2 batches"):
        run(tmp_path, wardrobe, *words, "trainer.accumulate_grad_batches=3")
    told = [record.getMessage() for record in caplog.records]
    assert "validation     not run, so there is no best checkpoint" in told
    assert not any(line.startswith("best ") for line in told)


@pytest.mark.parametrize("limit", ["trainer.limit_val_batches=2", "trainer.overfit_batches=2"])
def test_a_score_is_of_the_images_that_were_looked_at(wardrobe, tmp_path, monkeypatch, limit):
    from fashion_hydra.evaluation.competition_score import score_images
    from fashion_hydra.training import lightning_module
    from fashion_hydra.training.callbacks import ValidationScore
    from fashion_hydra.workflows.train import build_training

    def boxes_of_the_truth(detector, batch, rules, mask_grid):
        [targets], [(height, width)], [size] = batch.targets, batch.sizes, batch.original_sizes
        boxes = targets.boxes * torch.tensor([size[1] / width, size[0] / height] * 2)
        scores = torch.linspace(0.9, 0.6, len(boxes))
        return [Candidates(batch.image_ids[0], size, boxes, scores, targets.labels, torch.ones(len(boxes), 14, 14))]

    monkeypatch.setattr(lightning_module, "find_candidates", boxes_of_the_truth)
    options = compose_options("train", *SMALL, f"data.root={wardrobe}", f"paths.output_dir={tmp_path}", limit)
    setup = build_training(options, Command())
    [logged] = setup.trainer.validate(setup.module, setup.datamodule, verbose=False)
    [callback] = [c for c in setup.trainer.callbacks if isinstance(c, ValidationScore)]
    found = {name: d.by_class_id(setup.module.classes.ids) for name, d in callback._on_grid.items()}
    truth = {name: callback._truth[0][name] for name in found}
    assert len(found) == 2 < setup.datamodule.is_validation.sum()
    assert logged["val/score"] == pytest.approx(score_images(truth, found).value)
    assert logged["val/score"] > 0.1


def test_a_few_batches_can_be_learnt_by_heart(wardrobe, tmp_path, monkeypatch):
    """Every epoch has the same images with the same augmentation."""
    seen = []
    plain = SegmentationModule.training_step

    def noted(self, batch, batch_idx):
        seen.append((batch.image_ids, float(batch.images.float().sum())))
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", noted)
    run(tmp_path, wardrobe, "schedule.epochs=3", "trainer.overfit_batches=1")
    assert len(seen) == 3
    assert len(set(seen)) == 1


@pytest.mark.parametrize("decay", ["cosine", "onecycle"])
def test_a_limit_of_steps_does_not_bend_the_schedule(wardrobe, tmp_path, monkeypatch, decay):
    rates = noted_rates(monkeypatch)
    words = ["schedule.epochs=4", "schedule.warmup_steps=0", f"schedule.decay={decay}"]
    run(tmp_path, wardrobe, *words, "trainer.max_steps=9", "trainer.limit_val_batches=1")
    whole = Schedule(4, 0.0015, 4, 0, decay=decay)
    assert rates == pytest.approx([0.0015 * whole.factor(step, 4) for step in range(9)])


def test_help_says_how(capsys):
    assert run_script("train.py", "--help") == 0
    output = capsys.readouterr().out
    assert "python train.py experiment=demo" in output
    assert "htc_x101" in output
    assert "mask_roi_size: 14  # edge of a mask head's input" in output
