"""Configs, tiny models, checkpoints and script runs shared by many tests."""

import os
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fashion_hydra.config.compose import compose_config
from fashion_hydra.config.places import PROJECT_ROOT

TINY_HEADS = ("model.neck_channels=16", "model.fc_channels=32", "model.mask_channels=16")
TINY_BACKBONE = ("model.backbone.base_channels=8", "model.backbone.channels=[8,16,32,64]")
SMALL_TRAIN = (
    "experiment=demo",
    "model=htc_tiny",
    "trainer=default",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "data.folds=5",
    "data.batch_size=4",
    "augment.short_edge=[64,96]",
    "tta.scales=[[80,128]]",
    "callbacks.progress.refresh_rate=0",
    "schedule.warmup_steps=2",
    *TINY_HEADS,
    *TINY_BACKBONE,
)
SMALL_PREDICT = ("trainer.accelerator=cpu", "data.num_workers=0", "callbacks.progress.refresh_rate=0")

CLASS_IDS, CLASS_NAMES = (6, 23, 31), ("pants", "shoe", "sleeve")
"""Categories of the model in a tiny checkpoint."""


def model_options(name: str = "htc_tiny", *overrides: object) -> dict[str, Any]:
    """Return the arguments of `build_htc` from a model's config, as plain containers."""
    model = OmegaConf.to_container(compose_config("train", f"model={name}", *overrides).model, resolve=True)
    assert isinstance(model, dict)
    return {str(key): value for key, value in model.items() if key != "_target_"}


def training_batch(
    folder: Path, categories: Iterable[int], images: int, *, attributes: bool = False, **augment: Any
) -> tuple[Any, Any]:
    """Return the classes of some categories, and a batch of the first images of a folder with their masks.

    Args:
        folder: in Kaggle's layout.
        categories: ids of the categories to learn.
        images: number of images.
        attributes: learn the attributes of the categories' masks too.
        augment: options of `Augment` in place of a short edge between 90 and 120 pixels.
    """
    from fashion_hydra.data.attribute_set import attribute_set_of
    from fashion_hydra.data.augment import Augment
    from fashion_hydra.data.class_set import ClassSpec
    from fashion_hydra.data.dataset import TrainDataset, collate
    from fashion_hydra.data.kaggle import read_annotations

    annotations, _ = read_annotations(folder)
    classes = ClassSpec("some", list(categories)).resolve(annotations.names, [])
    if attributes:
        known = attribute_set_of(map(str, annotations.class_ids), classes.label_of(), {})
        classes = replace(classes, attributes=known)
    chosen = Augment(**{"short_edge": [90, 120], "long_edge": 160, **augment})
    dataset = TrainDataset(annotations, np.arange(len(annotations)), classes, chosen, seed=0)
    return classes, collate([dataset[0, i] for i in range(images)])


def losses_without(without: Any, with_head: Any, batch: Any, part: str) -> set[str]:
    """Give a detector the weights of one that has a further part, check that the losses they share are equal, and
    return the names of the other losses."""
    missing, unexpected = without.load_state_dict(with_head.state_dict(), strict=False)
    assert not missing
    assert all(part in name for name in unexpected)
    losses, plain = with_head.loss(batch, [1, 2, 3, 4]), without.loss(batch, [1, 2, 3, 4])
    assert all(losses[name].item() == pytest.approx(plain[name].item(), rel=1e-6) for name in plain)
    return set(losses.keys() - plain.keys())


def record_results(objects: Iterable[Any], method: str) -> list[Any]:
    """Return a list that collects the entries of all lists that a method of some objects returns from now on."""
    seen: list[Any] = []

    def spy(original: Callable[..., Any], *arguments: Any) -> Any:
        made = original(*arguments)
        seen.extend(made)
        return made

    for one in objects:
        setattr(one, method, partial(spy, getattr(one, method)))
    return seen


def tiny_checkpoint_content(
    seed: int = 0, *, class_ids: Iterable[int] = CLASS_IDS, kept: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Return the content of train.py's checkpoint, for a tiny model whose random heads prefer some classes.

    Args:
        seed: seed of the weights.
        class_ids: category ids; their names are the first of `CLASS_NAMES`.
        kept: path -> score of each checkpoint that the run kept.
    """
    from fashion_hydra.model.htc import build_htc

    ids = list(class_ids)
    tiny = ("model=htc_tiny", *TINY_HEADS, *TINY_BACKBONE, "model.test_proposals=30")
    model = OmegaConf.to_container(compose_config("train", *tiny).model, resolve=True)
    torch.manual_seed(seed)
    detector = build_htc(num_classes=len(ids), **{k: v for k, v in model.items() if k != "_target_"})
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=1.0)
    return {
        "state_dict": {f"detector.{name}": value for name, value in detector.state_dict().items()},
        "classes": {"ids": ids, "names": list(CLASS_NAMES[: len(ids)])},
        "model": model,
        "eval_scale": [96, 144],
        "callbacks": {"ModelCheckpoint{'monitor': 'val/score'}": {"best_k_models": dict(kept or {})}},
    }


def write_tiny_checkpoint(path: Path, seed: int = 0, **options: Any) -> Path:
    """Write `tiny_checkpoint_content` to a file, create its folder if necessary, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tiny_checkpoint_content(seed, **options), path)
    return path


def matches_message(message: str, line: str) -> bool:
    """Return whether a line contains a message, where an ellipsis matches any text."""
    return re.search(".*".join(map(re.escape, message.split("…"))), line, re.IGNORECASE) is not None


def run_script(script: str, *words: str) -> int:
    """Run an entry script in this process and return its exit code; with `traceback=true` exceptions propagate."""
    path = str(PROJECT_ROOT / script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [path, *words])
        for name in ("FASHION_HYDRA_TRACEBACKS", "HYDRA_FULL_ERROR", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.setenv(name, os.environ.get(name, ""))  # lets the patch restore the variable after the script sets it
            patch.delenv(name)
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0
