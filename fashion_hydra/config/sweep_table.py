"""A table of what a multirun's jobs scored."""

import contextlib
import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write

SWEEP = "FASHION_HYDRA_SWEEP"
"""Environment variable with the running sweep's folder, which the jobs find whatever they change."""
_JOBS = ".jobs"


class JobFailed(UserError):
    """One job of a multirun failed, and said why; the others go on.

    Args:
        reason: in one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"a job failed, see above and sweep.csv: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type["JobFailed"], tuple[str]]:
        # From the process of a job the launcher gets it pickled.
        return JobFailed, (self.reason,)


class SweepTable(Callback):
    """Writes `sweep.csv` into the sweep's folder and prints it, the best job first and failed ones last.

    Each job leaves a file in that folder, so that it matters neither on which machine it runs nor what it changes. A
    failed job ends a multirun without Hydra's last call; `write_open` makes up for it.
    """

    _open: ClassVar[tuple["SweepTable", DictConfig] | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell the jobs where the sweep is."""
        os.environ.pop(SWEEP, None)
        folder = Path(config.hydra.sweep.dir).absolute()
        for left_over in folder.glob(f"{_JOBS}/*.json"):  # of the same sweep, that goes on
            left_over.unlink()
        os.environ[SWEEP] = str(folder)
        SweepTable._open = self, config

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keep the job's overrides and what it returned, or why it failed."""
        if (sweep := os.environ.get(SWEEP)) is None or "num" not in config.hydra.job:
            return
        failed = job_return.status != JobStatus.COMPLETED
        value = job_return._return_value
        score = value if isinstance(value, int | float) and math.isfinite(value) else None
        result = {
            "overrides": list(job_return.overrides or ()),
            "folder": str(config.hydra.runtime.output_dir),
            "score": None if failed else score,
            "error": getattr(value, "reason", str(value)) if failed else "",
        }
        path = Path(sweep) / _JOBS / f"{config.hydra.job.num}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream:
            json.dump(result, stream)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect the jobs' results, write `sweep.csv` and print it."""
        SweepTable._open = None
        folder = Path(os.environ.pop(SWEEP, config.hydra.sweep.dir))
        found = sorted(folder.glob(f"{_JOBS}/*.json"), key=lambda path: int(path.stem))
        jobs = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in found]
        if not jobs:
            return
        is_min = OmegaConf.select(config, "callbacks.checkpoint.mode") == "min"
        jobs.sort(key=lambda job: _rank(job[1]["score"], is_min=is_min))
        _write(folder / "sweep.csv", jobs)

    @classmethod
    def write_open(cls) -> None:
        """Write the table of a multirun that did not come to its end, if there is one."""
        if cls._open is not None:
            table, config = cls._open
            with contextlib.suppress(OSError):
                table.on_multirun_end(config)


def _rank(score: float | None, *, is_min: bool) -> tuple[bool, float]:
    if score is None:
        return True, 0.0
    return False, score if is_min else -score


def _write(path: Path, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Write the table and print what differs between the jobs."""
    keys = list(dict.fromkeys(o.partition("=")[0] for _, job in jobs for o in job["overrides"]))
    chosen = [dict(o.partition("=")[::2] for o in job["overrides"]) for _, job in jobs]
    varied = [key for key in keys if len(jobs) == 1 or len({of.get(key, "") for of in chosen}) > 1]
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["job", *keys, "score", "folder", "error"])
        for (name, job), of in zip(jobs, chosen, strict=True):
            score = "" if job["score"] is None else repr(job["score"])
            writer.writerow([name, *(of.get(key, "") for key in keys), score, job["folder"], job["error"]])
    lines = [["job", *varied, "score"]]
    for (name, job), of in zip(jobs, chosen, strict=True):
        score = "failed" if job["error"] else "-" if job["score"] is None else f"{job['score']:.6f}"
        lines.append([name, *(of.get(key, "") for key in varied), score])
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    print("\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in lines))
    print(f"table          {path}")
