"""A table of what a multirun's jobs scored."""

import csv
import json
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fashion_hydra.utils.files import atomic_write

_RESULT = ".result.json"


class SweepTable(Callback):
    """Writes `sweep.csv` into the sweep's folder and prints it, the best job first.

    Each job leaves a file of its own, so that it does not matter on which machine it runs.
    """

    def __init__(self) -> None:
        self.begin = time.time()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keep the job's overrides and what it returned."""
        if job_return.status == JobStatus.COMPLETED and job_return.working_dir is not None:
            folder = Path(config.hydra.runtime.output_dir)
            with atomic_write(folder / _RESULT) as stream:
                json.dump({"overrides": list(job_return.overrides or ()), "score": job_return.return_value}, stream)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect the jobs' results, write `sweep.csv` and print it."""
        folder = Path(config.hydra.sweep.dir)
        found = [path for path in folder.glob(f"*/{_RESULT}") if path.stat().st_mtime >= self.begin]
        jobs = [(path.parent.name, json.loads(path.read_text())) for path in found]
        jobs.sort(key=lambda job: (-(job[1]["score"] or 0.0), _number(job[0])))
        if not jobs:
            return
        keys = list(dict.fromkeys(o.partition("=")[0] for _, job in jobs for o in job["overrides"]))
        rows = [
            [name, *(dict(o.split("=", 1) for o in job["overrides"]).get(key, "") for key in keys), repr(job["score"])]
            for name, job in jobs
        ]
        header = ["job", *keys, "score"]
        with atomic_write(folder / "sweep.csv") as stream:
            csv.writer(stream, lineterminator="\n").writerows([header, *rows])
        varied = [i for i in range(len(header) - 1) if len(jobs) == 1 or len({row[i] for row in rows}) > 1]
        lines = [[*(header[i] for i in varied), "score"]]
        lines += [
            [*(row[i] for i in varied), f"{job['score'] or 0.0:.6f}"] for row, (_, job) in zip(rows, jobs, strict=True)
        ]
        widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
        print("\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in lines))
        print(f"table          {folder / 'sweep.csv'}")


def _number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)
