"""Folders of runs and sweeps: each its own, and the one to go on in where a command resumes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from fashion_hydra.utils.yaml_files import read_mapping, value_at

STAMP = "%Y-%m-%d_%H-%M-%S"
_STAMPED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
_UNTOLD = ("ckpt_path=", "schedule.epochs=")
"""Words that a resumed sweep may have or not."""


class OwnFolder(Callback):
    """Gives a run or a sweep another folder than one that was begun in the same second.

    Folders that the user names, and those of runs that go on, stay as they are.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Of a single run."""
        if not any(word.startswith("hydra.run.dir=") for word in config.hydra.overrides.hydra):
            _claim(config, config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Of a sweep."""
        if not any(word.startswith("hydra.sweep.dir=") for word in config.hydra.overrides.hydra):
            _claim(config, config.hydra.sweep)


def _claim(config: DictConfig, node: DictConfig) -> None:
    folder = Path(node.dir)
    goes_on = OmegaConf.select(config, "ckpt_path") == "last" and folder.is_dir()
    if goes_on or not _STAMPED.fullmatch(folder.name):
        return
    number = 1
    while True:
        own = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            own.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        with read_write(config):
            node.dir = str(own)
        return


def newest_sweep(folder: Path, words: Sequence[str]) -> Path | None:
    """Return the newest sweep in a folder that was started with the same words; None where there is none.

    Args:
        folder: of sweeps.
        words: the command's overrides; whether it resumes, and for how many epochs, does not matter.
    """
    same = _told(words)
    found = [
        path.parent
        for path in folder.glob("*/multirun.yaml")
        if _told(value_at(read_mapping(path), "hydra.overrides.task") or []) == same
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _told(words: Sequence[str]) -> set[str]:
    return {word for word in words if not word.startswith(_UNTOLD)}
