"""Count the devices of a run, check that they are available, and share the batch among them."""

import os
from collections.abc import Sequence

import torch

from fashion_hydra.config.command import Command
from fashion_hydra.config.schema import TrainConfig, TrainerConfig
from fashion_hydra.utils.errors import UserError

GPU_IMAGES, GPU_WORKERS = 2, 2
"""Default number of images per device and step, and of loader processes per GPU."""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SHORT_FOR = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def device_count(trainer: TrainerConfig) -> int:
    """Return the number of devices that each node uses."""
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


def share_images(options: TrainConfig, devices: int) -> None:
    """Set `data.batch_size` and `data.num_workers` from the schedule and the devices where they are null.

    Args:
        options: options of the run, changed in place.
        devices: number of devices of all nodes together.

    Raises:
        UserError: the devices cannot share `schedule.batch` evenly.
    """
    data, batch, parts = options.data, options.schedule.batch, devices * options.trainer.accumulate_grad_batches
    if data.num_workers is None:
        on_gpu = options.trainer.accelerator != "cpu" and torch.cuda.is_available()
        data.num_workers = GPU_WORKERS if on_gpu else 0
    if data.batch_size is not None:
        return
    if batch is None:
        data.batch_size = GPU_IMAGES
    else:
        if batch < 1:
            raise UserError(f"schedule.batch={batch}: must be at least 1, or null")
        if batch % parts:
            raise UserError(
                f"schedule.batch={batch}: {devices} devices x {options.trainer.accumulate_grad_batches} accumulated "
                "batches do not share it evenly. Give another trainer.devices, or data.batch_size=N images per device"
            )
        data.batch_size = batch // parts


def is_one_of_several() -> bool:
    """Return whether a launcher such as torchrun or SLURM has started several processes of this job."""
    return any(int(os.environ.get(name, "1")) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def check_devices(trainer: TrainerConfig, command: Command) -> None:
    """Refuse unavailable devices, for which Lightning would start CPU processes, and unsupported precisions.

    The cascade computes its boxes and losses at the supported precisions only. A multirun that runs its jobs in one
    process is limited to one device, because each additional process would start the whole multirun again.

    Raises:
        UserError: the devices or the precision are not available.
    """
    precision = str(trainer.precision)
    if trainer.precision is not None and _SHORT_FOR.get(precision, precision) not in PRECISIONS:
        raise UserError(f"trainer.precision={precision}: give {', '.join(PRECISIONS)}")
    wanted, gpus = device_count(trainer), torch.cuda.device_count()
    if wanted > 1 and command.shares_process:
        raise UserError(
            f"trainer.devices={wanted}: jobs that share a process, as in a multirun (-m), use one device each. Give "
            "trainer.devices=1, or for a multirun a launcher such as hydra/launcher=submitit_slurm"
        )
    if isinstance(trainer.accelerator, str) and trainer.accelerator not in ACCELERATORS:
        raise UserError(f"trainer.accelerator={trainer.accelerator}: give {', '.join(ACCELERATORS)}")
    if trainer.accelerator in ("gpu", "cuda") and gpus == 0:
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}: PyTorch finds no GPU on this machine. Give "
            "trainer.accelerator=cpu or auto, or check the driver with `nvidia-smi`"
        )
    if trainer.accelerator in ("auto", "gpu", "cuda") and wanted > max(1, gpus):
        raise UserError(
            f"trainer.devices={wanted}: this machine has {gpus} GPUs. Give trainer.devices={max(1, gpus)}, "
            "or trainer.accelerator=cpu for that many CPU processes"
        )
