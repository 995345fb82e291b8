"""Write a table of the scores of a multirun's jobs."""

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
"""Environment variable with the running sweep's folder, which jobs read because their overrides cannot change it."""
_JOBS = ".jobs"


class JobFailed(UserError):
    """One job of a multirun failed with a message; the other jobs continue.

    Args:
        reason: one-line message of the job.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"a job failed, see above and sweep.csv: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type["JobFailed"], tuple[str]]:
        # The launcher receives the exception pickled from the job's process.
        return JobFailed, (self.reason,)


class SweepTable(Callback):
    """A Hydra callback that writes and prints `sweep.csv` in the sweep's folder, best job first, failed jobs last.

    Each job writes its result to a file in this folder, so that jobs may run on any machine and change any option. A
    failed job ends a multirun without a call of `on_multirun_end`; then `write_open` writes the table.
    """

    _open: ClassVar[tuple["SweepTable", DictConfig] | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Pass the sweep's folder to the jobs, and delete results of a sweep that is being resumed."""
        os.environ.pop(SWEEP, None)
        folder = Path(config.hydra.sweep.dir).absolute()
        for left_over in folder.glob(f"{_JOBS}/*.json"):  # of the sweep being resumed
            left_over.unlink()
        os.environ[SWEEP] = str(folder)
        SweepTable._open = self, config

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Save the job's overrides and its score or error."""
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
        """Collect the jobs' results, and write and print `sweep.csv`."""
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
        """Write the table of a multirun that ended early, if any."""
        if cls._open is not None:
            table, config = cls._open
            with contextlib.suppress(OSError):
                table.on_multirun_end(config)


def _rank(score: float | None, *, is_min: bool) -> tuple[bool, float]:
    if score is None:
        return True, 0.0
    return False, score if is_min else -score


def _write(path: Path, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Write the table, and print the options that differ between the jobs."""
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
