"""How many devices a run uses, and whether they are there."""

import hashlib
import os
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fashion_hydra.utils.errors import UserError


def join_local_job() -> None:
    """Tell Lightning, before it is imported, of the tasks that submitit started on this machine as one job.

    Those of SLURM and torchrun it finds itself.
    """
    job = {name: os.environ.get(f"SUBMITIT_LOCAL_{name}", "1") for name in ("NTASKS", "LOCALID", "JOB_ID")}
    if int(job["NTASKS"]) > 1:
        port = 20000 + int(hashlib.sha256(job["JOB_ID"].encode()).hexdigest(), 16) % 40000
        os.environ |= {"WORLD_SIZE": job["NTASKS"], "LOCAL_RANK": job["LOCALID"], "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


ACCELERATORS = ("auto", "cpu", "gpu", "cuda")


def device_count(trainer: DictConfig) -> int:
    """How many devices a node uses, from the trainer's config."""
    import torch  # `--help` shall not wait for it

    devices = trainer.devices
    if isinstance(devices, int) and devices >= 1:
        return devices
    if devices in (-1, "-1", "auto"):
        return max(1, torch.cuda.device_count()) if trainer.accelerator != "cpu" else 1
    indices = devices.split(",") if isinstance(devices, str) else devices
    if isinstance(devices, str) and devices.isdecimal() and int(devices) >= 1:
        return int(devices)
    if isinstance(indices, Sequence) and len(indices) and all(str(index).strip().isdecimal() for index in indices):
        return len(indices)
    raise UserError(f"trainer.devices={devices}: give a number, a list of indices, or auto")


def check_devices(trainer: DictConfig) -> None:
    """Refuse more devices than there are, before Lightning would start that many CPU processes.

    In a multirun a job's further processes would each start the whole multirun again, so there one is the most, unless
    a launcher gives each job a program of its own.
    """
    import torch

    wanted, gpus = device_count(trainer), torch.cuda.device_count()
    if wanted > 1 and HydraConfig.initialized():
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN and hydra.launcher._target_.endswith("BasicLauncher"):
            raise UserError(
                f"trainer.devices={wanted}: a multirun (-m) in this process takes one device a job. Give "
                "trainer.devices=1, or a launcher such as hydra/launcher=submitit_slurm"
            )
    if trainer.accelerator not in ACCELERATORS:
        raise UserError(f"trainer.accelerator={trainer.accelerator}: give {', '.join(ACCELERATORS)}")
    if trainer.accelerator in ("gpu", "cuda") and gpus == 0:
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}: PyTorch finds no GPU on this machine. Give "
            "trainer.accelerator=cpu or auto, or look at what `nvidia-smi` says of the driver"
        )
    if trainer.accelerator in ("auto", "gpu", "cuda") and wanted > max(1, gpus):
        raise UserError(
            f"trainer.devices={wanted}: this machine has {gpus} GPUs. Give trainer.devices={max(1, gpus)}, "
            "or trainer.accelerator=cpu for that many CPU processes"
        )
