"""Schemas of every option of Lightning's Trainer and of PyTorch's optimizers.

They are written out so that options can be checked before PyTorch is imported; a test compares them with the
signatures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any


@dataclass
class TrainerConfig:
    """Arguments of `pytorch_lightning.Trainer`, without `callbacks` and `logger`, which are separate groups."""

    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    precision: Any = None
    fast_dev_run: Any = False
    max_epochs: int | None = None
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    max_time: Any = None
    limit_train_batches: Any = None
    limit_val_batches: Any = None
    limit_test_batches: Any = None
    limit_predict_batches: Any = None
    overfit_batches: Any = 0.0
    val_check_interval: Any = None
    check_val_every_n_epoch: int | None = 1
    num_sanity_val_steps: int | None = None
    log_every_n_steps: int | None = None
    enable_checkpointing: bool | None = None
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    deterministic: Any = None
    benchmark: bool | None = None
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    profiler: Any = None
    detect_anomaly: bool = False
    barebones: bool = False
    plugins: Any = None
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: int = 0
    default_root_dir: str | None = None
    enable_autolog_hparams: bool = True
    model_registry: str | None = None


_COMMON: Mapping[str, Any] = {"foreach": None, "maximize": False, "differentiable": False}
_CAPTURABLE = {**_COMMON, "capturable": False}
_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **_COMMON, "fused": None},
    "Adam": {**_ADAM, "amsgrad": False, "decoupled_weight_decay": False, **_CAPTURABLE, "fused": None},
    "AdamW": {**_ADAM, "weight_decay": 0.01, "amsgrad": False, **_CAPTURABLE, "fused": None},
    "NAdam": {**_ADAM, "momentum_decay": 0.004, "decoupled_weight_decay": False, **_CAPTURABLE},
    "RAdam": {**_ADAM, "decoupled_weight_decay": False, **_CAPTURABLE},
    "Adamax": {**_ADAM, **_CAPTURABLE},
    "RMSprop": {"alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False, **_CAPTURABLE},
    "Adagrad": {
        "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10, **_COMMON, "fused": None
    },
    "Adadelta": {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.0, **_CAPTURABLE},
    "ASGD": {"lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0, **_CAPTURABLE},
    "Rprop": {"etas": [0.5, 1.2], "step_sizes": [1e-6, 50.0], **_CAPTURABLE},
}  # fmt: skip


def _schema(name: str, options: Mapping[str, Any]) -> type:
    """Return a dataclass of an optimizer's options, without the learning rate, which is `schedule.lr`."""
    fields: list[Any] = [("_target_", str, f"torch.optim.{name}"), ("_partial_", bool, True)]
    for option, default in options.items():
        if isinstance(default, list):
            fields.append((option, list[float], field(default_factory=default.copy)))
        else:
            fields.append((option, bool | None if default is None else type(default), default))
    made = make_dataclass(name, fields)
    made.__module__ = __name__
    globals()[name] = made  # unpickling a launcher's config looks it up here
    return made


OPTIMIZERS: dict[str, type] = {name.lower(): _schema(name, options) for name, options in _OPTIONS.items()}
"""`schedule/optimizer=NAME` -> schema, with PyTorch's defaults."""
