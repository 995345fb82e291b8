"""Build objects from options for the rooms below, none of which sees a config."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger

from fashion_hydra.config.devices import GPU_IMAGES
from fashion_hydra.config.errors import user_error
from fashion_hydra.config.schema import AugmentConfig, ClassesConfig, DataConfig, PostprocessConfig, TrainerConfig
from fashion_hydra.data.annotation_cache import AnnotationReader
from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSpec
from fashion_hydra.data.coco import CocoReader
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.data.kaggle import KaggleReader
from fashion_hydra.data.yolo import YoloReader
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import import_object

T = TypeVar("T")
READERS: Mapping[str, Callable[[str, str | None], AnnotationReader]] = {
    "kaggle": KaggleReader,
    "coco": CocoReader,
    "yolo": YoloReader,
}
"""`data.format` -> reader of annotations."""


def make(kind: type[T], options: Any, group: str, **more: Any) -> T:
    """Make a dataclass from the options of a group that match its fields by name.

    Args:
        kind: the dataclass.
        options: options of the group; options that are not fields are ignored.
        group: name of the group, for messages.
        more: values of fields that are not options.

    Raises:
        UserError: an option is missing.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in vars(options).items() if name in names}, **more)
    except TypeError as error:
        raise UserError(f"{group}: {error}") from error


def plain(options: Any) -> Any:
    """Return options as nested dicts and lists."""
    if is_dataclass(options) and not isinstance(options, type):
        return {**asdict(options), **{k: plain(v) for k, v in vars(options).items()}}
    if isinstance(options, Mapping):
        return {key: plain(value) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return [plain(value) for value in options]
    return options


def make_object(options: Any, option: str, **more: Any) -> Any:
    """Instantiate the class that `_target_` names with its arguments, as Hydra does.

    Args:
        options: a mapping with `_target_`, or a schema that has one.
        option: name of the option, for messages.
        more: arguments that are not options.

    Raises:
        UserError: `_target_` is missing, cannot be imported, or refuses its arguments.
    """
    values = plain(options)
    if not isinstance(values, Mapping) or "_target_" not in values:
        raise UserError(f"{option}={values}: must have _target_, the import path of a class, and its arguments")
    try:
        return instantiate(OmegaConf.create(dict(values)), **more, _convert_="all")
    except InstantiationException as error:
        found = user_error(error, "", ())
        text = str(found).removeprefix("config: ")
        raise (UserError(f"{option}: {text}") if isinstance(found, UserError) else found) from error


def make_callbacks(options: Mapping[str, Any]) -> list[Callback]:
    """Make the callbacks in the given order, without those set to null."""
    return [make_object(value, f"callbacks.{name}") for name, value in options.items() if value is not None]


def make_loggers(options: Mapping[str, Any]) -> list[Logger]:
    """Make the loggers, without those set to null."""
    return [make_object(value, f"logger.{name}") for name, value in options.items() if value is not None]


def make_trainer(
    options: TrainerConfig,
    *,
    callbacks: Sequence[Callback],
    logger: Sequence[Logger] | bool,
    plugins: Sequence[Any] = (),
) -> Trainer:
    """Make Lightning's Trainer.

    Args:
        options: arguments of the Trainer; `strategy`, `profiler`, `accelerator` and entries of `plugins` may have a
            `_target_`.
        callbacks: callbacks in order; those that `enable_progress_bar=false` or `enable_checkpointing=false` switches
            off are omitted.
        logger: loggers, or False for no logger.
        plugins: plugins to use before those in `options`.

    Raises:
        UserError: Lightning refuses an argument.
    """
    given = dict(vars(options))
    own = given.pop("plugins") or []
    more = [
        make_object(p, "trainer.plugins") if isinstance(p, Mapping) else p
        for p in (own if isinstance(own, list) else [own])
    ]
    arguments = {
        name: make_object(value, f"trainer.{name}") if isinstance(value, Mapping) and "_target_" in value else value
        for name, value in given.items()
    }
    loggers = logger if isinstance(logger, bool) else list(logger)
    switches = ((ProgressBar, options.enable_progress_bar), (Checkpoint, options.enable_checkpointing))
    off = tuple(kind for kind, enabled in switches if enabled is False)
    used = [callback for callback in callbacks if not isinstance(callback, off)]
    try:
        return Trainer(**arguments, callbacks=used, logger=loggers, plugins=[*plugins, *more] or None)
    except (TypeError, ValueError) as error:
        raise UserError(f"trainer: {error}. `--cfg job` shows the given options") from error


def make_datamodule(
    data: DataConfig,
    classes: ClassesConfig,
    augment: AugmentConfig,
    *,
    eval_scale: Sequence[int],
    attributes: bool = False,
    seed: int,
    report_dir: Path | None,
) -> FashionDataModule:
    """Make the data module without reading any data.

    Args:
        data: options of the group `data`.
        classes: classes to learn.
        augment: augmentation of training images.
        eval_scale: short and long edge of validation images.
        attributes: whether the model also learns the masks' attributes.
        seed: seed of the images' order and augmentation.
        report_dir: output folder of the split and the faults; None to write nothing.
    """
    given = {field.name: getattr(data, field.name) for field in fields(DataConfig)}
    name = given.pop("format")
    given["batch_size"] = GPU_IMAGES if data.batch_size is None else data.batch_size
    given["num_workers"] = data.num_workers or 0
    reader = READERS.get(name) or (import_object(name, "data.format") if "." in name else None)
    if reader is None:
        raise UserError(f"data.format={name}: give {', '.join(READERS)}, or the import path of a reader")
    if reader is CocoReader:
        reader = partial(CocoReader, crowd=given["crowd"])
    del given["crowd"]
    short_edge, long_edge = eval_scale
    return FashionDataModule(
        **given,
        reader=reader,
        classes=make(ClassSpec, classes, "classes"),
        augment=make(Augment, augment, "augment"),
        eval_scale=(short_edge, long_edge),
        attributes=attributes,
        seed=seed,
        report_dir=report_dir,
    )


def rule_options(options: PostprocessConfig) -> dict[str, Any]:
    """Return the options of the group `postprocess` as plain values."""
    return dict(vars(options))
