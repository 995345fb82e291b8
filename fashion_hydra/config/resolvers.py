"""Resolvers of the interpolations in conf/."""

import datetime
import hashlib
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.training.run_folder import RunFolder

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CONF = PROJECT_ROOT / "conf"
_STAMP = "%Y-%m-%d_%H-%M-%S"


def register_resolvers() -> None:
    """Make known to the config: `${project_root:}`, `${run_dir:...}`, `${record_id:FOLDER}`, the name of a run's record
    with a tracker, `${leaf:PATH,WITHOUT}`, a path's last name, and `${choice:GROUP}`, what a group was chosen to be."""
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("record_id", record_id, replace=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)
    OmegaConf.register_new_resolver("leaf", lambda path, without: Path(path).name if path else without, replace=True)


def choice(group: str, *, _root_: DictConfig) -> str:
    """What a group was chosen to be; unlike Hydra's own resolver also while a multirun begins."""
    hydra = _root_.hydra if "hydra" in _root_ else HydraConfig.get()
    return str(hydra.runtime.choices[group])


def run_dir(runs: str, name: str, ckpt_path: str | None) -> str:
    """The folder of a run: a new one by date, or with `ckpt_path=last` the newest that has a checkpoint, if any.

    Processes that torchrun or srun started name it by their job, or each might read another second from its clock.
    """
    if ckpt_path == "last" and (found := RunFolder.newest(Path(runs) / name)) is not None:
        return str(found.path)
    return str(Path(runs) / name / (_job_name() or datetime.datetime.now().strftime(_STAMP)))


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
