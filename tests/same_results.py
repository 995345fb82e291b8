"""Check that two checkouts give bit-identical results: losses, weights, candidates, tables and scores.

python -m tests.same_results BEFORE [AFTER]     # folders of checkouts, each with a .venv or sharing this one's Python

In a separate folder, each checkout draws a small data set, trains a tiny cascade with a fixed seed, tunes, predicts and
scores with the users' commands; the written files are compared by SHA-256. This proves that a refactor changes no
results. Paths and dates in files are ignored, see `DIGESTS`.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SMALL = ["model=htc_tiny", "model.test_proposals=60", "classes.train=[1,23,31]", "data.batch_size=4",
         "data.num_workers=0", "augment=small", "schedule=demo", "trainer.accelerator=cpu", "trainer.devices=1",
         "seed=7"]  # fmt: skip
FEW = "inference.max_proposals=30 candidates.iou_grid=[0.3,0.5]"  # the model is hardly trained
RULES = ["grid.score_thr=[0.05,0.1,0.2]", "search.trials=8", "search.mask_step=0.1", "folds=2", FEW]
COMMANDS = [
    "fashion-hydra wardrobe data --train 40 --test 4 --size 96 --seed 3",
    f"train.py name=run data.root=data data.folds=3 schedule.epochs=4 callbacks.last.minutes=0 {' '.join(SMALL)}",
    f"tune_thresholds.py ensemble=top3 tta=flip out=tuned trainer.accelerator=cpu {' '.join(RULES)}",
    "predict.py ensemble=top3 tta=flip data.images=val postprocess=winner postprocess.score_thr=0.07 out=predicted "
    f"output=[csv,coco,masks] trainer.accelerator=cpu {FEW}",
    "fashion-hydra score predicted/truth.csv predicted/submission.csv",
]


def _bytes(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _losses(path: Path) -> str:
    with path.open() as stream:
        rows = [{k: v for k, v in row.items() if "time" not in k} for row in csv.DictReader(stream)]
    return hashlib.sha256(json.dumps([sorted(row.items()) for row in rows]).encode()).hexdigest()


def _weights(path: Path) -> str:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _arrays(path: Path) -> str:
    import numpy as np

    digest = hashlib.sha256()
    with np.load(path) as arrays:
        for name in sorted(arrays.files):
            digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def _rule(path: Path) -> str:
    lines = [line for line in path.read_text().splitlines() if line[:1].isalpha() and not line.startswith("about")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


DIGESTS: dict[str, Callable[[Path], str]] = {
    "runs/run/*/csv/version_0/metrics.csv": _losses,
    "runs/run/*/checkpoints/*.ckpt": _weights,
    "tuned/methods.csv": _bytes,
    "tuned/grid.csv": _bytes,
    "tuned/classes.csv": _bytes,
    "tuned/methods/*.yaml": _rule,
    "tuned/methods/*.json": _bytes,
    "predicted/candidates/images/*.npz": _arrays,
    "predicted/submission.csv": _bytes,
    "predicted/coco_results.json": _bytes,
    "predicted/masks/**/*": _bytes,
}


def results(checkout: Path) -> dict[str, str]:
    """Run the commands of a checkout; return digests of the written files by name, and the printed score."""
    python = checkout / ".venv" / "bin" / "python"
    python = python if python.is_file() else Path(sys.executable)
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "FASHION_HYDRA_CACHE": f"{place}/cache",
                       "OMP_NUM_THREADS": "1"}  # fmt: skip
        output, begin = "", time.monotonic()
        for command in COMMANDS:
            script, *words = command.split()
            module = _console_script(checkout)
            started = [str(checkout / script)] if script.endswith(".py") else ["-c", module]
            done = subprocess.run([str(python), *started, *words], cwd=place, env=environment, text=True,
                                  capture_output=True, check=False)  # fmt: skip
            print(f"{time.monotonic() - begin:6.0f} s  {checkout}: {script} {words[0]}", file=sys.stderr, flush=True)
            if done.returncode:
                raise SystemExit(f"{checkout}: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            output = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
        found = {
            "/".join(p for p in path.relative_to(place).parts if p[:2] != "20"): digest(path)
            for pattern, digest in DIGESTS.items()
            for path in sorted(Path(place).glob(pattern))
            if path.is_file()
        }
    return {**found, "printed": output}


def _console_script(checkout: Path) -> str:
    """Return the entry point of the script `fashion-hydra` in the checkout's pyproject.toml."""
    lines = (checkout / "pyproject.toml").read_text().splitlines()
    target = next(line.split('"')[1] for line in lines if line.startswith("fashion-hydra ="))
    module, _, function = target.partition(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


def main() -> None:
    """Compare two checkouts, or print one's digests."""
    places = [Path(word).resolve() for word in sys.argv[1:]]
    if not 1 <= len(places) <= 2:
        raise SystemExit(__doc__)
    with ThreadPoolExecutor() as pool:
        before, *after = pool.map(results, places)
    for name, digest in before.items():
        same = "" if not after else "same   " if after[0].get(name) == digest else "OTHER  "
        print(f"{same}{digest[:32]}  {name}")
    if after:
        wrong = [name for name in {**before, **after[0]} if before.get(name) != after[0].get(name)]
        print(f"{len(before)} results, {len(wrong)} differ")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
