"""Resolvers of the interpolations in conf/."""

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
"""Group -> its choice with a GPU and without."""


def register_resolvers() -> None:
    """Make resolvers known to the config.

    `${project_root:}`; `${run_dir:RUNS,NAME,CKPT_PATH}` and `${sweep_dir:RUNS,NAME,CKPT_PATH}`; `${record_id:FOLDER}`,
    the name of a run's record with a tracker; `${leaf:PATH,WITHOUT}`, a path's last name; `${choice:GROUP}`, what a
    group was chosen to be; `${default:GROUP}`, what it is where nothing is chosen; `${cpu_processes:BATCH}`, how many
    train on a CPU.
    """
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("sweep_dir", sweep_dir, replace=True)
    OmegaConf.register_new_resolver("record_id", record_id, replace=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)
    OmegaConf.register_new_resolver("default", default_choice, replace=True)
    OmegaConf.register_new_resolver("cpu_processes", cpu_processes, replace=True)
    OmegaConf.register_new_resolver("leaf", lambda path, without: Path(path).name if path else without, replace=True)


def choice(group: str, *, _root_: DictConfig) -> str:
    """What a group was chosen to be; unlike Hydra's own resolver also while a multirun begins."""
    hydra = _root_.hydra if "hydra" in _root_ else HydraConfig.get()
    return str(hydra.runtime.choices[group])


def default_choice(group: str) -> str:
    """What a group is where the command chooses nothing: one recipe for a GPU, another for a computer without one."""
    with_gpu, without = _DEFAULTS[group]
    return with_gpu if has_gpu() else without


def cpu_processes(batch: int | None) -> int:
    """How many processes train on this machine's CPU: all cores, but one where a multirun's jobs share the process.

    Args:
        batch: images a step over all of them; None: any number.
    """
    if HydraConfig.initialized() and Command.current().shares_process:
        return 1
    return share_batch(batch, usable_cores())


def run_dir(runs: str, name: str, ckpt_path: str | None) -> str:
    """The folder of a run: a new one by date, or with `ckpt_path=last` the newest that has a checkpoint, if any.

    Processes that torchrun or srun started name it by their job, or each might read another second from its clock.
    """
    folder = _folder(runs, name)
    if ckpt_path == "last" and (found := RunFolder.newest(folder)) is not None:
        return str(found.path)
    return str(folder / (_job_name() or datetime.datetime.now().strftime(STAMP)))


def _folder(runs: str, name: str) -> Path:
    """Where runs of a name are; a name such as 1 or true comes from the config as no text."""
    return Path(str(runs)) / str(name)


def sweep_dir(runs: str, name: str, ckpt_path: str | None, *, _root_: DictConfig) -> str:
    """The folder of a multirun: a new one by date, or with `ckpt_path=last` the newest of the same words, if any.

    Its jobs, whose name may be another, lie below a folder of the same date.
    """
    folder = _folder(runs, name)
    if (running := os.environ.get(SWEEP)) is not None:
        return str(folder / Path(running).name)
    if ckpt_path == "last" and (found := newest_sweep(folder, _root_.hydra.overrides.task)) is not None:
        return str(found)
    return str(folder / datetime.datetime.now().strftime(STAMP))


def _job_name() -> str | None:
    """What the processes of a job on several devices, started from outside, have in common; None for others."""
    if (torchrun := os.environ.get("TORCHELASTIC_RUN_ID")) is not None:
        return f"torchrun-{os.getppid() if torchrun == 'none' else torchrun}"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    return None


def record_id(folder: str) -> str:
    """The same for a run that goes on in its folder, so that its record goes on too."""
    return hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:12]
