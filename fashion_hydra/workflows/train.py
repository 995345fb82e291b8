"""Config -> objects -> a trained model, and what to tell the person about it."""

import logging
import re
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from fashion_hydra.config.allowed_targets import instantiate
from fashion_hydra.config.build import build
from fashion_hydra.config.devices import check_devices, device_count
from fashion_hydra.data.annotation_cache import cache_folder
from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSet, ClassSpec
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.model.checkpoint import LAST, newest_intact, read_checkpoint
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.weights.load import load_weights
from fashion_hydra.postprocess.rule_options import build_postprocess
from fashion_hydra.training.callbacks import AtomicCheckpointIO, ProcessWatch
from fashion_hydra.training.lightning_module import SegmentationModule
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.utils.download import locate
from fashion_hydra.utils.errors import StopRequested, UserError

log = logging.getLogger(__name__)


log_rank_zero, warn_rank_zero = rank_zero_only(log.info), rank_zero_only(log.warning)


_NOISE = (
    ".*LeafSpec.*is deprecated",
    ".*does not have many workers",
    ".*Grad strides do not match bucket view strides",
    ".*The number of training batches .* is smaller than the logging interval",
    ".*Checkpoint directory .* exists and is not empty",
    ".*predict returned None",
    "TPU available",
    ".*litlogger",
    "Loading `train_dataloader` to estimate",
    "You're resuming from a checkpoint that ended before the epoch ended",  # our data module knows where it was
    "generated new fontManager",
)


@dataclass(frozen=True)
class TrainingSetup:
    """What a training run is made of."""

    datamodule: FashionDataModule
    module: SegmentationModule
    trainer: pl.Trainer
    watch: ProcessWatch
    ckpt_path: Path | None


def build_training(cfg: DictConfig) -> TrainingSetup:
    """Build data, model and trainer from the config.

    Raises:
        UserError: devices, data, classes, weights or a checkpoint that cannot be had.
    """
    silence_library_noise()
    check_devices(cfg.trainer)
    _check_numbers(cfg)
    ckpt_path = resume_from(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = make_datamodule(cfg)
    classes = datamodule.read()
    schedule = build(Schedule, cfg.schedule, "schedule", without=("optimizer", "gradient_clip", "skip_nonfinite"))
    devices = device_count(cfg.trainer) * cfg.trainer.num_nodes
    if (validated := int(datamodule.is_validation.sum())) < devices:
        raise UserError(
            f"data.folds={cfg.data.folds}: {validated} validation images for {devices} devices; give fewer folds, or "
            "fewer devices"
        )
    batch = cfg.data.batch_size * devices * cfg.trainer.accumulate_grad_batches
    module = SegmentationModule(
        make_detector(cfg, classes, ckpt_path),
        classes=classes,
        model=OmegaConf.to_container(cfg.model, resolve=True),  # type: ignore[arg-type]
        optimizer=instantiate(cfg.schedule.optimizer),
        schedule=schedule,
        batch=batch,
        eval_scale=datamodule.eval_scale,
        postprocess=build_postprocess(cfg.postprocess, classes),
        seed=cfg.seed,
        skip_nonfinite=cfg.schedule.skip_nonfinite,
    )
    watch = ProcessWatch(f"What is saved is whole: {resume_command()} goes on")
    trainer = instantiate(
        cfg.trainer,
        callbacks=[watch, *(instantiate(c) for c in cfg.callbacks.values())],
        logger=[instantiate(c) for c in cfg.logger.values()],
        plugins=[AtomicCheckpointIO()],
    )
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
    log_rank_zero("data           %s", datamodule.describe())
    log_rank_zero(
        "model          Hybrid Task Cascade on %s, %.1f M parameters",
        *(cfg.model.backbone.type, sum(p.numel() for p in module.parameters()) / 1e6),
    )
    log_rank_zero("weights        %s", module.detector.origin)
    log_rank_zero(
        "learning rate  %.4g = %.4g x %d/%d (batch %d = %d images x %d devices x %d accumulated)",
        *(schedule.scaled_lr(batch), schedule.lr, batch, schedule.base_batch),
        *(batch, cfg.data.batch_size, devices, cfg.trainer.accumulate_grad_batches),
    )
    return TrainingSetup(datamodule, module, trainer, watch, ckpt_path)


def _check_numbers(cfg: DictConfig) -> None:
    """Refuse what PyTorch and Lightning take only to fail later."""
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: between 0 and {2**32 - 1} expected")
    for name in ("accumulate_grad_batches", "max_epochs"):
        if (value := cfg.trainer[name]) is None or value < 1:
            raise UserError(f"trainer.{name}={value}: at least 1 expected")


def make_detector(cfg: DictConfig, classes: ClassSet, ckpt_path: Path | None) -> Detector:
    """The model of a config, with the weights that it starts from.

    Raises:
        UserError: arguments that mmdet refuses; weights that cannot be had, or are of another model.
    """
    given = cfg.weights is not None
    backbone = {"backbone": {"weights": None}} if given or ckpt_path else {}  # which are of the backbone too
    detector = instantiate(cfg.model, num_classes=len(classes), _convert_="all", **backbone)
    if ckpt_path:
        detector.origin = f"{ckpt_path}, gone on with"
        if given:
            warn_rank_zero("weights=%s is not read: ckpt_path goes on from weights of its own", cfg.weights)
    elif given:
        found = locate(str(cfg.weights), folder=cache_folder() / "weights", sha256=cfg.weights_sha256)
        detector.origin = load_weights(detector, found.path, classes)
        if found.sha256 and not cfg.weights_sha256:
            log_rank_zero("downloaded     weights_sha256=%s on the command line refuses any other file", found.sha256)
    elif cfg.model.backbone.weights is None and cfg.model.backbone.frozen_stages >= 0:
        warn_rank_zero(
            "model.backbone.weights=null with frozen_stages=%d: the frozen layers stay random. Give pretrained "
            "weights, or model.backbone.frozen_stages=-1 model.backbone.norm_eval=false to train all from scratch",
            cfg.model.backbone.frozen_stages,
        )
    return detector


def make_datamodule(cfg: DictConfig) -> FashionDataModule:
    """The data module of a config, nothing read yet."""
    return instantiate(cfg.data, _partial_=True)(
        classes=build(ClassSpec, cfg.classes, "classes"),
        augment=build(Augment, cfg.augment, "augment"),
    )


def silence_library_noise() -> None:
    """Leave out what libraries say that is of no use to a user of this one."""
    for pattern in _NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    noise = re.compile("|".join(_NOISE))
    for name in ("pytorch_lightning.utilities.rank_zero", "matplotlib.font_manager"):
        logging.getLogger(name).addFilter(lambda record: not noise.match(record.getMessage()))


def train(run: TrainingSetup) -> float:
    """Fit; returns the best `val/score`.

    Raises:
        UserError: the run cannot go on.
        SystemExit: it was asked to stop; 128 + the signal's number, as shells have it.
    """
    try:
        with run.watch.explain_lost_ranks(run.trainer):
            run.trainer.fit(run.module, datamodule=run.datamodule, ckpt_path=run.ckpt_path, weights_only=True)
    except StopRequested as stopped:
        log_rank_zero("stopped        %s; %s", stopped, Path(run.trainer.default_root_dir) / "checkpoints" / LAST)
        log_rank_zero("go on          %s", resume_command())
        sys.exit(128 + stopped.number if run.trainer.is_global_zero else 0)
    return report_training(run)


def report_training(run: TrainingSetup) -> float:
    """Say where everything is and what to do next; returns the best `val/score`."""
    checkpoint = run.trainer.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    folder = Path(run.trainer.default_root_dir)
    latest = {name: float(value) for name, value in run.trainer.callback_metrics.items() if name.startswith("val/")}
    best = checkpoint.best_model_score
    log_rank_zero("validation     %s", "  ".join(f"{name} {value:.4f}" for name, value in sorted(latest.items())))
    if run.module.skipped:
        log_rank_zero("left out       %d steps whose loss was no finite number", run.module.skipped)
    log_rank_zero("best           %s", checkpoint.best_model_path)
    log_rank_zero("last           %s", folder / "checkpoints" / LAST)
    log_rank_zero("pictures       %s  %s", folder / "predictions.png", folder / "curves.png")
    log_rank_zero("more epochs    %s", resume_command(f"schedule.epochs={2 * (run.trainer.max_epochs or 1)}"))
    log_rank_zero("next           python predict.py ensemble.run=%s", shlex.quote(str(folder)))
    return float(best) if best is not None else float("nan")


def resume_command(*changes: str) -> str:
    """The command that goes on with this run, with changes to it."""
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    changed = tuple(f"{change.partition('=')[0]}=" for change in (*changes, "ckpt_path=last"))
    kept = [entry for entry in given if not entry.startswith(changed)]
    return shlex.join(["python", "train.py", *kept, *changes, "ckpt_path=last"])


def resume_from(cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from; None to start anew, which `last` does too where no run has a checkpoint yet.

    Raises:
        UserError: no such file, or no whole checkpoint.
    """
    if cfg.ckpt_path is None:
        return None
    if cfg.ckpt_path != "last":
        path = Path(cfg.ckpt_path)
        if not path.is_file():
            what = "a folder, where a file is wanted" if path.is_dir() else "no such file"
            raise UserError(f"ckpt_path={path}: {what}; leave ckpt_path out to start anew")
        read_checkpoint(path)
        return path
    folder = Path(cfg.paths.output_dir) / "checkpoints"
    if not any(folder.glob("*.ckpt")):
        log_rank_zero(
            "starts anew    ckpt_path=last: no run below %s/%s has a checkpoint yet", cfg.paths.runs, cfg.name
        )
        return None
    path, damaged = newest_intact(folder)
    for reason in damaged:
        warn_rank_zero("%s", reason)
    if damaged:
        warn_rank_zero("goes on from %s instead; what was trained after it is trained again", path)
    return path
