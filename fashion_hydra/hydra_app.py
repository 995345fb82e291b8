"""The helper beside the entry scripts: resolvers, errors in one line, config -> objects."""

import datetime
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fashion_hydra.errors import UserError

T = TypeVar("T")
PROJECT_ROOT = Path(__file__).resolve().parent.parent
_STAMP = "%Y-%m-%d_%H-%M-%S"


def register_resolvers() -> None:
    """Make `${project_root:}` and `${run_dir:...}` known to the config."""
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)


def run_dir(runs: str, name: str, ckpt_path: str | None) -> str:
    """The folder of a run: a new one by date, or with `ckpt_path=last` the newest that has a checkpoint."""
    if ckpt_path == "last" and (found := newest_checkpoint(Path(runs) / name)):
        return str(found.parent.parent)
    return str(Path(runs) / name / datetime.datetime.now().strftime(_STAMP))


def newest_checkpoint(folder: Path) -> Path | None:
    """`last.ckpt` of the newest run below a folder."""
    found = sorted(folder.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def one_line_errors(task: Callable[[], T]) -> Callable[[], T]:
    """Decorate an entry script's main: mistakes of the user's become one line and exit code 2.

    Tracebacks stay for everything else, and for all with `debug=true` or HYDRA_FULL_ERROR=1.
    """

    @functools.wraps(task)
    def wrapped() -> T:
        wanted = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in [a.lower() for a in sys.argv]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits
        try:
            return task()
        except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
            if wanted:
                raise
            line = " ".join(str(_mistake(error)).partition("Config search path")[0].split())
            print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
            sys.exit(2)

    return wrapped


def _mistake(error: BaseException) -> BaseException:
    """The user's mistake behind an error of Hydra's, which wraps what an object's making fails with."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    return cause or error


def build(kind: type[T], config: DictConfig, group: str, *, without: tuple[str, ...] = ()) -> T:
    """Make a frozen dataclass from a config group.

    Raises:
        UserError: a key that the group does not have, or one that is missing.
    """
    values: dict[str, Any] = {k: v for k, v in _plain(config).items() if k not in without}
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"{group}.{unknown[0]}: no such option; {group} has {', '.join(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{group}: {error}") from error


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
