"""Train a model from options: build data, model and trainer, fit, and report the results."""

import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from fashion_hydra.config.build import (
    make,
    make_callbacks,
    make_datamodule,
    make_loggers,
    make_object,
    make_trainer,
    plain,
    rule_options,
)
from fashion_hydra.config.command import Command
from fashion_hydra.config.devices import check_devices, device_count, share_images
from fashion_hydra.config.released import find_released
from fashion_hydra.config.schema import TrainConfig
from fashion_hydra.data.augment import checked_scales
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.model.builder import build_detector
from fashion_hydra.model.checkpoint import read_checkpoint
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.weights.catalogue import locate_model
from fashion_hydra.model.weights.load import load_weights
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.training.callbacks import AtomicCheckpointIO, ProcessWatch
from fashion_hydra.training.console import log_rank_zero, silence_library_noise, warn_rank_zero
from fashion_hydra.training.lightning_module import SegmentationModule
from fashion_hydra.training.run_folder import LAST, RunFolder
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.training.trackers import end_records
from fashion_hydra.utils.errors import StopRequested, UserError
from fashion_hydra.utils.yaml_files import flat

log = logging.getLogger(__name__)
_TOLD = 8  # maximum number of options that a warning names


@dataclass(frozen=True)
class TrainingSetup:
    """A training run, ready to start.

    Args:
        datamodule: the data, already read.
        module: the model with its losses, optimizer and schedule.
        trainer: Lightning's trainer.
        watch: ends the run when a rank is lost.
        folder: output folder.
        ckpt_path: checkpoint to resume from; None to start from scratch.
        command: the command that started the run.
    """

    datamodule: FashionDataModule
    module: SegmentationModule
    trainer: pl.Trainer
    watch: ProcessWatch
    folder: RunFolder
    ckpt_path: Path | None
    command: Command

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        return again(self.command, self.folder)


def again(command: Command, folder: RunFolder, *changes: str) -> str:
    """Return the command that resumes a run; a job of a sweep is identified by its folder.

    Args:
        command: the command that started the run.
        folder: the run's folder.
        changes: options to change, to continue a finished run; these also remove limits such as `trainer.max_steps`.
    """
    where = [f"hydra.run.dir={folder.path}"] if command.is_sweep else []
    limits = ("trainer.max_time", "trainer.max_steps", "trainer.fast_dev_run") if changes else ()
    return command.with_options(*where, *changes, "ckpt_path=last", without=limits)


def train(options: TrainConfig, command: Command) -> float:
    """Train a model; return the best value of the metric that checkpoints are ranked by, by default `val/score`.

    Raises:
        UserError: an option is invalid; or devices, data, weights or a checkpoint are missing or do not fit.
        SystemExit: a signal stopped the run; the exit code is 128 + the signal's number, as in shells.
    """
    run = build_training(options, command)
    is_done = False
    try:
        score = fit(run)
        is_done = True
    finally:
        end_records(run.trainer.loggers, failed=not is_done)
    return score


def build_training(options: TrainConfig, command: Command) -> TrainingSetup:
    """Build data, model and trainer.

    Raises:
        UserError: an option is invalid; or devices, data, weights or a checkpoint are missing or do not fit.
    """
    silence_library_noise()
    check_devices(options.trainer, command)
    _check_numbers(options)
    folder = RunFolder(Path(options.paths.output_dir))
    ckpt_path = resume_from(options, folder)
    pl.seed_everything(options.seed, workers=True, verbose=False)
    devices = device_count(options.trainer) * options.trainer.num_nodes
    share_images(options, devices)
    datamodule = make_datamodule(
        options.data,
        options.classes,
        options.augment,
        eval_scale=checked_scales(options.tta.scales)[0],
        attributes=learns_attributes(options),
        seed=options.seed,
        report_dir=folder.path,
    )
    classes = datamodule.read()
    if (validated := int(datamodule.is_validation.sum())) < devices:
        raise UserError(
            f"data.folds={options.data.folds}: {validated} validation images for {devices} devices; give fewer folds, "
            "or fewer devices"
        )
    schedule = make(Schedule, options.schedule, "schedule")
    assert options.data.batch_size is not None
    batch = options.data.batch_size * devices * options.trainer.accumulate_grad_batches
    module = SegmentationModule(
        make_detector(options, classes, ckpt_path),
        classes=classes,
        model=plain(options.model),
        optimizer=make_object({**plain(options.schedule.optimizer), "_partial_": True}, "schedule.optimizer"),
        schedule=schedule,
        batch=batch,
        eval_scale=datamodule.eval_scale,
        postprocess=build_rule(rule_options(options.postprocess), classes),
        seed=options.seed,
        skip_nonfinite=options.schedule.skip_nonfinite,
    )
    watch = ProcessWatch(f"Saved checkpoints are intact. Resume with: {again(command, folder)}")
    trainer = make_trainer(
        options.trainer,
        callbacks=[watch, *make_callbacks(options.callbacks)],
        logger=make_loggers(options.logger),
        plugins=[AtomicCheckpointIO()],
    )
    config: dict[str, Any] = plain(options)
    if ckpt_path is not None:
        _tell_changes(RunFolder(ckpt_path.parents[1]).config(), config, ckpt_path)
    if trainer.is_global_zero and not options.trainer.fast_dev_run:
        folder.save_config(config)
    for logger in trainer.loggers:
        logger.log_hyperparams(config)
    log_rank_zero("data           %s", datamodule.describe())
    with_masks = int(np.isin(classes.ids, datamodule.annotations.categories).sum())
    if with_masks < len(classes) / 2:
        told = "classes        only %d of %d have masks; classes=present learns only these"
        log_rank_zero(told, with_masks, len(classes))
    parameters = sum(p.numel() for p in module.parameters()) / 1e6
    log_rank_zero("model          %s, %.1f M parameters", _model_name(config["model"]), parameters)
    log_rank_zero("weights        %s", module.detector.origin)
    log_rank_zero(
        "learning rate  %.4g = %.4g x %d/%d (batch %d = %d images x %d devices x %d accumulated)",
        *(schedule.scaled_lr(batch), schedule.lr, batch, schedule.base_batch),
        *(batch, options.data.batch_size, devices, options.trainer.accumulate_grad_batches),
    )
    return TrainingSetup(datamodule, module, trainer, watch, folder, ckpt_path, command)


def learns_attributes(options: TrainConfig) -> bool:
    """Return whether `model.attributes` is true."""
    model = plain(options.model)
    return isinstance(model, Mapping) and bool(model.get("attributes"))


def _tell_changes(before: dict[str, Any], now: dict[str, Any], ckpt_path: Path) -> None:
    """Warn about the options that differ from those the resumed run was started with, if these are known."""
    known, wanted = flat(before), flat(now)
    places = ("paths.", "ckpt_path", "traceback", "logger.", "callbacks.", "name")
    changed = [
        f"{key}={wanted[key]} (was {known[key]})"
        for key in wanted
        if key in known and known[key] != wanted[key] and not key.startswith(places)
    ]
    if changed:
        more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
        warn_rank_zero("%s resumes with other options: %s%s", ckpt_path, ", ".join(changed[:_TOLD]), more)


def _model_name(model: dict[str, Any]) -> str:
    backbone = model.get("backbone")
    if model["_target_"].startswith("fashion_hydra.") and isinstance(backbone, dict):
        return f"Hybrid Task Cascade on {backbone.get('name', backbone['type'])}"
    return str(model["_target_"])


def _check_numbers(options: TrainConfig) -> None:
    """Raise `UserError` for values that PyTorch and Lightning accept at first but fail on later."""
    if not 0 <= options.seed < 2**32:
        raise UserError(f"seed={options.seed}: must be between 0 and {2**32 - 1}")
    if options.data.val_annotations is not None and options.data.split_file is not None:
        raise UserError(
            f"data.val_annotations={options.data.val_annotations} data.split_file={options.data.split_file}: both "
            "select the validation images. Give only one of them"
        )
    if options.trainer.max_epochs not in (None, options.schedule.epochs):
        raise UserError(
            f"trainer.max_epochs={options.trainer.max_epochs} schedule.epochs={options.schedule.epochs}: the learning "
            "rate follows schedule.epochs. Give only schedule.epochs"
        )
    for name in ("accumulate_grad_batches", "max_epochs"):
        if (value := getattr(options.trainer, name)) is None or value < 1:
            raise UserError(f"trainer.{name}={value}: must be at least 1")


def make_detector(options: TrainConfig, classes: ClassSet, ckpt_path: Path | None) -> Detector:
    """Build the model with its initial weights.

    Raises:
        UserError: mmdet rejects an argument, or the weights are missing or belong to a different model.
    """
    model: dict[str, Any] = plain(options.model)
    backbone = model.get("backbone")
    if isinstance(backbone, dict) and (options.weights is not None or ckpt_path):
        backbone = {**backbone, "weights": None}  # replaced by the weights of the whole model
    given = {**model, "backbone": backbone} if "backbone" in model else model
    detector = build_detector(given, num_classes=len(classes), attributes=classes.attributes)
    if ckpt_path:
        detector.origin = f"{ckpt_path}, resumed"
        if options.weights is not None:
            warn_rank_zero("weights=%s is ignored: ckpt_path resumes with the checkpoint's weights", options.weights)
    elif options.weights is not None:
        released = find_released(options.weights)
        found = locate_model(str(released or options.weights), backbone or {}, sha256=options.weights_sha256)
        detector.origin = load_weights(detector, found.path, classes)
        if found.sha256 and not options.weights_sha256:
            log_rank_zero("downloaded     to accept only this file, add weights_sha256=%s", found.sha256)
    elif isinstance(backbone, dict) and backbone.get("weights") is None and backbone.get("frozen_stages", -1) >= 0:
        warn_rank_zero(
            "model.backbone.weights=null with frozen_stages=%d: the frozen layers stay random. Give pretrained "
            "weights, or model.backbone.frozen_stages=-1 model.backbone.norm_eval=false to train all from scratch",
            backbone["frozen_stages"],
        )
    if options.schedule.train_only:
        freeze_rest(detector, options.schedule.train_only)
        if not ckpt_path and options.weights is None:
            warn_rank_zero("schedule.train_only without weights=FILE: the frozen layers stay as they were initialised")
    return detector


def freeze_rest(detector: Detector, parts: list[str]) -> None:
    """Freeze all but some parts of a model and log how many parameters are trained."""
    detector.train_only(parts)
    counts = [(p.numel(), p.requires_grad) for p in detector.parameters()]
    trained, total = sum(n for n, is_trained in counts if is_trained), sum(n for n, _ in counts)
    log_rank_zero("train_only     %s: %d of %d parameters", ", ".join(parts), trained, total)


def fit(run: TrainingSetup) -> float:
    """Train; return the best value of the metric that checkpoints are ranked by, NaN if no checkpoint was kept.

    Raises:
        UserError: the run cannot continue.
        SystemExit: a signal stopped the run; the exit code is 128 + the signal's number, as in shells.
    """
    try:
        with run.watch.explain_lost_ranks(run.trainer):
            run.trainer.fit(run.module, datamodule=run.datamodule, ckpt_path=run.ckpt_path, weights_only=True)
    except StopRequested as stopped:
        log_rank_zero("stopped        %s; %s", stopped, run.folder.checkpoints / LAST)
        log_rank_zero("resume         %s", run.resume_command)
        sys.exit(128 + stopped.number if run.trainer.is_global_zero else 0)
    return report_training(run)


def report_training(run: TrainingSetup) -> float:
    """Log results, files and the next command; return the best value of the metric that checkpoints are ranked by."""
    latest = {name: float(value) for name, value in run.trainer.callback_metrics.items() if name.startswith("val/")}
    scores = "  ".join(f"{name} {value:.4f}" for name, value in sorted(latest.items()))
    log_rank_zero("validation     %s", scores or "not run, so there is no best checkpoint")
    if run.module.skipped:
        log_rank_zero("skipped        %d steps with a NaN or infinite loss", run.module.skipped)
    if run.trainer.fast_dev_run:  # type: ignore[attr-defined]
        log_rank_zero("fast_dev_run   passed; nothing was written")
        return float("nan")
    checkpoint = run.trainer.checkpoint_callback
    if checkpoint is None:
        log_rank_zero("no checkpoint  trainer.enable_checkpointing=false")
        return float("nan")
    best = checkpoint.best_model_score if isinstance(checkpoint, ModelCheckpoint) else None
    if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
        log_rank_zero("best           %s", checkpoint.best_model_path)
    folder = run.folder.path
    log_rank_zero("last           %s", run.folder.checkpoints / LAST)
    log_rank_zero("pictures       %s  %s", folder / "predictions.png", folder / "curves.png")
    more = f"schedule.epochs={2 * (run.trainer.max_epochs or 1)}"
    log_rank_zero("more epochs    %s", again(run.command, run.folder, more))
    where = f"ensemble.run={shlex.quote(str(folder))}"
    predict = f"{shlex.join(run.command.call('predict'))} {where}{_images_to_predict(run)}"
    if best is None:
        log_rank_zero("next           %s", predict)
    else:
        if best == 0:
            log_rank_zero("score 0        no prediction matches a true mask yet: train more epochs before tuning")
        log_rank_zero("next           %s %s", shlex.join(run.command.call("tune")), where)
        log_rank_zero("or             %s (thresholds of the winner, untuned)", predict)
    return float(best) if best is not None else float("nan")


def _images_to_predict(run: TrainingSetup) -> str:
    """Return the `data.images` option that predict.py needs for data without a folder test/."""
    if (Path(run.datamodule.root) / "test").is_dir():
        return ""
    return " data.images=test_fold" if run.datamodule.is_test.any() else " data.images=val"


def resume_from(options: TrainConfig, folder: RunFolder) -> Path | None:
    """Return the checkpoint to resume from; None to start from scratch, also for `last` if no run has a checkpoint yet.

    Raises:
        UserError: the file is missing, or no checkpoint is intact.
    """
    if options.ckpt_path is None:
        return None
    if options.ckpt_path != "last":
        path = Path(options.ckpt_path)
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else "no such file"
            raise UserError(f"ckpt_path={path}: {what}; leave ckpt_path out to start from scratch")
        read_checkpoint(path)
        return path
    if not any(folder.checkpoints.glob("*.ckpt")):
        runs = f"{options.paths.runs}/{options.name}"
        log_rank_zero("from scratch   ckpt_path=last: no run below %s has a checkpoint yet", runs)
        return None
    path, damaged = folder.newest_intact()
    for reason in damaged:
        warn_rank_zero("%s", reason)
    if damaged:
        warn_rank_zero("resumes from %s instead; the steps after it are trained again", path)
    return path
