"""What lies in the folder of a training run: checkpoints, config, split."""

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
"""The checkpoint that training resumes from."""
_CONFIG = "config.yaml"


def saved_config(folder: Path) -> dict[str, Any]:
    """Return the config that a command was run with in a folder, as plain values; empty where none was saved.

    Raises:
        UserError: it is no YAML.
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
        """Return the run with the newest checkpoint below a folder; None where no run has one.

        Args:
            runs: the folder.
            at_any_depth: look in all folders below, where sweeps have their jobs, not in those of the folder alone.
        """
        found = list(runs.rglob("checkpoints/*.ckpt") if at_any_depth else runs.glob("*/checkpoints/*.ckpt"))
        return cls(max(found, key=lambda path: path.stat().st_mtime).parents[1]) if found else None

    @classmethod
    def find(cls, folder: Path) -> "RunFolder":
        """Return the run in a folder, or the newest run in a folder of runs.

        Raises:
            UserError: it is neither.
        """
        run = cls(folder) if (folder / "checkpoints" / LAST).is_file() else cls.newest(folder)
        if run is None:
            raise UserError(f"{folder}: no checkpoints/{LAST} there. Give the folder of a training run, or of several")
        return run

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def split_file(self) -> Path:
        """The CSV with each image's fold."""
        return self.path / "split.csv"

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Keep the config that the run was started with, as plain values."""
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / _CONFIG) as stream:
            yaml.safe_dump(dict(config), stream, sort_keys=False, allow_unicode=True)

    def config(self) -> dict[str, Any]:
        """Return what the run was started with, as plain values; empty where nothing was saved."""
        return saved_config(self.path)

    def newest_intact(self) -> tuple[Path, list[str]]:
        """Return the newest undamaged checkpoint, and what is wrong with newer ones; `last.ckpt` counts as the newest.

        Raises:
            UserError: there is none.
        """
        from fashion_hydra.model.checkpoint import read_checkpoint

        others = sorted(self.checkpoints.glob("epoch*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
        damaged: list[str] = []
        for path in [*self.checkpoints.glob(LAST), *others]:
            try:
                read_checkpoint(path)
                with zipfile.ZipFile(path) as archive:  # reading maps the tensors and does not look at them
                    if (broken := archive.testzip()) is not None:
                        raise UserError(f"{path}: damaged ({broken} is not what was written)")
                return path, damaged
            except UserError as error:
                damaged.append(str(error))
        raise UserError("; ".join(damaged) or f"{self.checkpoints}: no checkpoints there")

    def best(self, count: int) -> list[Path]:
        """Return the best checkpoints that the run kept, best first, by the monitor and mode of its ModelCheckpoint.

        Raises:
            UserError: the run has fewer, or no checkpoint at all; or none are wanted.
        """
        from fashion_hydra.model.checkpoint import read_checkpoint

        if count < 1:
            raise UserError(f"ensemble.count={count}: at least 1 expected")
        if not any(self.checkpoints.glob("*.ckpt")):
            raise UserError(f"ensemble.run={self.path}: no checkpoints/{LAST} there. Give the folder of a training run")
        newest, damaged = self.newest_intact()
        for reason in damaged:
            log.warning("%s; %s tells which are the best", reason, newest.name)
        try:
            scores, mode = self._kept(read_checkpoint(newest).get("callbacks", {}))
        except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, RuntimeError) as error:
            reason = f"does not tell which checkpoints were kept ({error})"
            raise UserError(f"{newest}: {reason}. Name files in ensemble.members") from error
        sign = -1 if mode == "max" else 1
        ranked = sorted(scores, key=lambda name: (sign * scores[name], name))
        found = [path for name in ranked if (path := self.checkpoints / name).is_file()]
        if not found and count == 1:
            log.warning("%s: no checkpoint was scored; %s predicts", self.path, newest.name)
            return [newest]
        if len(found) < count:
            raise UserError(
                f"ensemble.run={self.path}: {len(found)} kept checkpoints, {count} wanted. Give ensemble=single, a run "
                "of more epochs, or name files in ensemble.members"
            )
        return found[:count]

    def _kept(self, callbacks: Mapping[str, Any]) -> tuple[dict[str, float], str]:
        """The scores of the kept checkpoints by file name, and whether `max` or `min` is best.

        Of several ModelCheckpoints one counts whose files are in the run's folder of checkpoints, of these that of the
        config's `callbacks.checkpoint`, else the first with a monitor.
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
