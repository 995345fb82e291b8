"""What this machine has, found out without PyTorch: defaults depend on it, and `--help` must not wait."""

import math
import os
from pathlib import Path

_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's driver, AMD's, Windows' for Linux inside it
_CGROUP = Path("/sys/fs/cgroup")


def has_gpu(root: Path = Path("/")) -> bool:
    """Return whether a GPU's driver is there and not hidden by CUDA_VISIBLE_DEVICES."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return any((root / file[1:]).exists() for file in _GPU_FILES)


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Return how many cores this process may use: by its affinity, and by its container's share of the time."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        limit = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such limit, which reads "max"
        limit = cores
    return max(1, min(cores, limit))


def share_batch(batch: int | None, cores: int) -> int:
    """Return how many processes train: one a core, but no more than share a batch evenly.

    Args:
        batch: images a step over all processes; None: any number can be had.
        cores: that there are.
    """
    if batch is None:
        return cores
    return max(count for count in range(1, cores + 1) if batch % count == 0) if batch > 0 else 1
