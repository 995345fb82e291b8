"""Find GPUs and cores without importing PyTorch: defaults depend on them, and `--help` must be fast."""

import math
import os
from pathlib import Path

_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # drivers of NVIDIA, AMD and WSL
_CGROUP = Path("/sys/fs/cgroup")


def has_gpu(root: Path = Path("/")) -> bool:
    """Return whether a GPU driver exists and CUDA_VISIBLE_DEVICES does not hide it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return any((root / file[1:]).exists() for file in _GPU_FILES)


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Return the number of cores that this process may use, by its CPU affinity and its container's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        limit = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no quota; the file then reads "max"
        limit = cores
    return max(1, min(cores, limit))


def share_batch(batch: int | None, cores: int) -> int:
    """Return the number of training processes: up to one per core, such that they share a batch evenly.

    Args:
        batch: images per step over all processes; None if any number is allowed.
        cores: number of available cores.
    """
    if batch is None:
        return cores
    return max(count for count in range(1, cores + 1) if batch % count == 0) if batch > 0 else 1
