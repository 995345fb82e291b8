"""Give each run and sweep its own folder, and find the sweep that a command resumes."""

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
"""Words that are ignored when a sweep to resume is searched."""


class OwnFolder(Callback):
    """A Hydra callback that gives runs and sweeps that start in the same second different folders.

    Folders that the user chose, and folders of resumed runs, are not changed.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Reserve the folder of a single run."""
        if not any(word.startswith("hydra.run.dir=") for word in config.hydra.overrides.hydra):
            _claim(config, config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Reserve the folder of a sweep."""
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
    """Return the newest sweep in a folder that was started with the same words; None if there is no such sweep.

    Args:
        folder: folder of the sweeps.
        words: overrides of the command; `ckpt_path=` and `schedule.epochs=` are ignored.
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
