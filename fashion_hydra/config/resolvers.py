"""Resolvers for the interpolations in conf/."""

import datetime
import hashlib
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.config.command import Command
from fashion_hydra.config.machine import has_gpu, share_batch, usable_cores
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.config.run_folders import STAMP, newest_sweep
from fashion_hydra.config.sweep_table import SWEEP
from fashion_hydra.training.run_folder import RunFolder

_DEFAULTS = {
    "model": ("htc_r50", "htc_lite"),
    "augment": ("winner", "laptop"),
    "schedule": ("winner", "laptop"),
    "tta": ("fixed_scale", "laptop"),
    "trainer": ("default", "cpu"),
    "callbacks": ("default", "ema"),
}
"""Group -> its default choice with and without a GPU."""


def register_resolvers() -> None:
    """Register the resolvers with OmegaConf.

    `${project_root:}`; `${run_dir:RUNS,NAME,CKPT_PATH}` and `${sweep_dir:RUNS,NAME,CKPT_PATH}`; `${record_id:FOLDER}`,
    a run's id in trackers; `${leaf:PATH,WITHOUT}`, the last part of a path, or WITHOUT if there is no path;
    `${unless:CHOSEN,USUAL}`, "-CHOSEN", or nothing if the usual is chosen; `${choice:GROUP}`, the choice of a group;
    `${default:GROUP}`, the default choice of a group; `${cpu_processes:BATCH}`, the number of training processes on a
    CPU.
    """
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("sweep_dir", sweep_dir, replace=True)
    OmegaConf.register_new_resolver("record_id", record_id, replace=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)
    OmegaConf.register_new_resolver("default", default_choice, replace=True)
    OmegaConf.register_new_resolver("cpu_processes", cpu_processes, replace=True)
    OmegaConf.register_new_resolver("unless", unless, replace=True)
    OmegaConf.register_new_resolver("leaf", lambda path, without: Path(path).name if path else without, replace=True)


def unless(chosen: object, usual: str) -> str:
    """Return a part of a folder's name: "-" and the choice, or nothing for the usual choice."""
    return "" if str(chosen) == usual else f"-{chosen}"


def choice(group: str, *, _root_: DictConfig) -> str:
    """Return the choice of a group; unlike Hydra's own resolver, this also works at the start of a multirun."""
    hydra = _root_.hydra if "hydra" in _root_ else HydraConfig.get()
    return str(hydra.runtime.choices[group])


def default_choice(group: str) -> str:
    """Return the default choice of a group, which depends on whether the machine has a GPU."""
    with_gpu, without = _DEFAULTS[group]
    return with_gpu if has_gpu() else without


def cpu_processes(batch: int | None) -> int:
    """Return the number of training processes on this machine's CPU; 1 if a multirun's jobs share the process.

    Args:
        batch: images per step over all processes; None if any number is allowed.
    """
    if HydraConfig.initialized() and Command.current().shares_process:
        return 1
    return share_batch(batch, usable_cores())


def run_dir(runs: str, name: str, ckpt_path: str | None) -> str:
    """Return the folder of a run: named by date, or with `ckpt_path=last` the newest one with a checkpoint, if any.

    Under torchrun or srun it is named by the job, because the processes' clocks might show different seconds.
    """
    folder = _folder(runs, name)
    if ckpt_path == "last" and (found := RunFolder.newest(folder)) is not None:
        return str(found.path)
    return str(folder / (_job_name() or datetime.datetime.now().strftime(STAMP)))


def _folder(runs: str, name: str) -> Path:
    """Return the folder of the runs of a name; the config parses names such as 1 or true as other types than text."""
    return Path(str(runs)) / str(name)


def sweep_dir(runs: str, name: str, ckpt_path: str | None, *, _root_: DictConfig) -> str:
    """Return the folder of a multirun: named by date, or with `ckpt_path=last` the newest of the same words, if any.

    Jobs with another name are in a folder of that name and the same date.
    """
    folder = _folder(runs, name)
    if (running := os.environ.get(SWEEP)) is not None:
        return str(folder / Path(running).name)
    if ckpt_path == "last" and (found := newest_sweep(folder, _root_.hydra.overrides.task)) is not None:
        return str(found)
    return str(folder / datetime.datetime.now().strftime(STAMP))


def _job_name() -> str | None:
    """Return a name shared by the processes that torchrun or srun started for one job; None for other processes."""
    if (torchrun := os.environ.get("TORCHELASTIC_RUN_ID")) is not None:
        return f"torchrun-{os.getppid() if torchrun == 'none' else torchrun}"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    return None


def record_id(folder: str) -> str:
    """Return a tracker id that depends only on the run's folder, so that a resumed run continues its record.

    It begins with a letter that no number contains: YAML reads an id like `939750e95706` as a number.
    """
    return f"r{hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:12]}"
