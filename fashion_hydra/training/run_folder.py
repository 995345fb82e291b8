"""The folder of a training run: checkpoints, config, split."""

import ast
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.yaml_files import read_mapping, value_at

log = logging.getLogger(__name__)
LAST = "last.ckpt"
"""Name of the checkpoint that training resumes from."""
_CONFIG = "config.yaml"


def saved_config(folder: Path) -> dict[str, Any]:
    """Return the config that a command saved in a folder, as plain values; empty if none was saved.

    Raises:
        UserError: the file is not valid YAML.
    """
    return read_mapping(folder / _CONFIG) or read_mapping(folder / ".hydra" / _CONFIG)


@dataclass(frozen=True)
class RunFolder:
    """A training run's folder.

    Args:
        path: the folder.
    """

    path: Path

    @classmethod
    def newest(cls, runs: Path, *, at_any_depth: bool = False) -> "RunFolder | None":
        """Return the run with the newest checkpoint in a folder of runs; None if no run has a checkpoint.

        Args:
            runs: folder of runs.
            at_any_depth: also search nested folders, such as the jobs of sweeps, not only direct subfolders.
        """
        found = list(runs.rglob("checkpoints/*.ckpt") if at_any_depth else runs.glob("*/checkpoints/*.ckpt"))
        return cls(max(found, key=lambda path: path.stat().st_mtime).parents[1]) if found else None

    @classmethod
    def find(cls, folder: Path) -> "RunFolder":
        """Return the run in a folder, or the newest run in a folder of runs.

        Raises:
            UserError: the folder is neither.
        """
        run = cls(folder) if (folder / "checkpoints" / LAST).is_file() else cls.newest(folder)
        if run is None:
            raise UserError(f"{folder}: no checkpoints/{LAST} there. Give the folder of a training run, or of several")
        return run

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def split_file(self) -> Path:
        """CSV file with each image's fold."""
        return self.path / "split.csv"

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Save the config of the run, as plain values."""
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / _CONFIG) as stream:
            yaml.safe_dump(dict(config), stream, sort_keys=False, allow_unicode=True)

    def config(self) -> dict[str, Any]:
        """Return the saved config of the run, as plain values; empty if none was saved."""
        return saved_config(self.path)

    def newest_intact(self) -> tuple[Path, list[str]]:
        """Return the newest intact checkpoint and the errors of newer ones; `last.ckpt` counts as the newest.

        Raises:
            UserError: there is no intact checkpoint.
        """
        from fashion_hydra.model.checkpoint import read_checkpoint

        others = sorted(self.checkpoints.glob("epoch*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
        damaged: list[str] = []
        for path in [*self.checkpoints.glob(LAST), *others]:
            try:
                read_checkpoint(path)
                with zipfile.ZipFile(path) as archive:  # read_checkpoint maps tensors without reading them
                    if (broken := archive.testzip()) is not None:
                        raise UserError(f"{path}: damaged (checksum mismatch in {broken})")
                return path, damaged
            except UserError as error:
                damaged.append(str(error))
        raise UserError("; ".join(damaged) or f"{self.checkpoints}: no checkpoints there")

    def best(self, count: int) -> list[Path]:
        """Return the run's `count` best checkpoints, best first, by the monitor and mode of the run's ModelCheckpoint.

        Of checkpoints with the same score, the later one comes first.

        Raises:
            UserError: the run has fewer checkpoints, or `count` is below 1.
        """
        from fashion_hydra.model.checkpoint import read_checkpoint

        if count < 1:
            raise UserError(f"ensemble.count={count}: must be at least 1")
        if not any(self.checkpoints.glob("*.ckpt")):
            raise UserError(f"ensemble.run={self.path}: no checkpoints/{LAST} there. Give the folder of a training run")
        newest, damaged = self.newest_intact()
        for reason in damaged:
            log.warning("%s; using the scores in %s", reason, newest.name)
        try:
            scores, mode = self._kept(read_checkpoint(newest).get("callbacks", {}))
        except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, RuntimeError) as error:
            reason = f"does not contain the scores of the run's checkpoints ({error})"
            raise UserError(f"{newest}: {reason}. List files in ensemble.members") from error
        sign = -1 if mode == "max" else 1
        ranked = sorted(reversed(scores), key=lambda name: sign * scores[name])
        found = [path for name in ranked if (path := self.checkpoints / name).is_file()]
        if not found and count == 1:
            log.warning("%s: no checkpoint has a score; using %s", self.path, newest.name)
            return [newest]
        if len(found) < count:
            raise UserError(
                f"ensemble.run={self.path}: {len(found)} checkpoints with scores, {count} requested. Use "
                "ensemble=single or a run with more epochs, or list files in ensemble.members"
            )
        return found[:count]

    def _kept(self, callbacks: Mapping[str, Any]) -> tuple[dict[str, float], str]:
        """Return the scores of the run's checkpoints by file name, and whether `max` or `min` is best.

        Of several ModelCheckpoints, use the one with files in the run's folder of checkpoints, preferably with the
        monitor of the config's `callbacks.checkpoint`, else with any monitor.
        """
        wanted = value_at(self.config(), "callbacks.checkpoint.monitor")
        states = []
        for key, state in callbacks.items():
            kind, brace, options = key.partition("{")
            if kind.endswith("ModelCheckpoint"):
                named = ast.literal_eval(brace + options) if brace else {}
                states.append((named.get("monitor"), named.get("mode", "max"), state["best_k_models"]))
        here = {path.name for path in self.checkpoints.glob("*.ckpt")}
        states.sort(
            key=lambda state: (
                not here.intersection(Path(path).name for path in state[2]),
                state[0] is None,
                state[0] != wanted,
            )
        )
        for _, mode, kept in states[:1]:
            return {Path(path).name: float(score) for path, score in kept.items()}, mode
        return {}, "max"
