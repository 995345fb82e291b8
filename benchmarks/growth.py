"""Measure time and memory of each step on the host as the data grow a hundredfold, and write a table and a plot.

The data are synthetic: photos are one JPEG under many names, masks are ellipses, and candidates are drawn around the
truth. Full size is iMaterialist's: 45,600 photos with 333,000 masks to check, read and split, and 3,200 images to
predict and score; plus 4,500 images to tune on, ten times as many as the winner had. Each step runs in its own process,
and its peak resident memory is reported. The exponent describes the growth of time between the last two sizes: 1 is
linear. Starting a process takes seconds, so the exponent is below 1 for short steps.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.threshold_search import make
from benchmarks.worker_memory import SIZE, ellipse
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.formats import writers
from fashion_hydra.formats.submission import SUBMISSION_GRID, write_truth
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.rle import runs_to_kaggle

PROJECT = Path(__file__).parents[1]
MASKS_AN_IMAGE = 333_000 / 45_600
STEPS = ("check and index", "check, read before", "split", "answer", "score", "tune")
CLI = [sys.executable, "-c", "import sys; from fashion_hydra.cli.main import main; sys.exit(main())"]
RULE = Postprocess(score_thr=0.3, iou_thr=0.3, mask_thr=0.45, max_per_image=100)


@dataclass(frozen=True)
class Spent:
    """Time and memory of a process.

    Args:
        seconds: wall time.
        mib: peak resident memory in MiB.
    """

    seconds: float
    mib: float


# Linux counts the memory of a process before exec as its own, so a small process launches the measured command.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=2)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def spent(words: Sequence[str], folder: Path) -> Spent:
    """Run a command to its end, and return its time and memory."""
    environment = {**os.environ, "FASHION_HYDRA_CACHE": str(folder / "cache")}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCHER, *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return Spent(time.perf_counter() - begin, int(done.stdout) / 1024)


def make_data(root: Path, images: int) -> None:
    """Write a data set in Kaggle's layout."""
    rng = np.random.default_rng(0)
    (root / "train").mkdir(parents=True)
    labels = {"categories": [{"id": i, "name": f"category {i}"} for i in range(46)]}
    (root / "label_descriptions.json").write_text(json.dumps(labels))
    photo = root / "photo.jpg"
    cv2.imwrite(str(photo), np.full((*SIZE, 3), 128, np.uint8))
    with (root / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for i in tqdm(range(images), desc="making photos", unit=" photos", disable=None):
            name = f"{i:08x}.jpg"
            (root / "train" / name).hardlink_to(photo)
            for category in rng.choice(46, 1 + rng.poisson(MASKS_AN_IMAGE - 1), replace=False).tolist():
                writer.writerow([name, runs_to_kaggle(ellipse(rng)), *SIZE, category])


def make_candidates(folder: Path, images: int) -> None:
    """Write candidates as predict.py does, and their truth."""
    _, truth = make(folder / "candidates", images, truths=7, candidates=30)
    write_truth(folder / "truth.csv", truth)


def answer(folder: Path) -> None:
    """Run the last part of predict.py, which needs no model: turn candidates into a submission."""
    cache = CandidateCache(folder / "candidates")
    classes = ClassSet(cache.manifest.class_ids, cache.manifest.class_names)
    names = sorted(path.stem for path in (folder / "candidates" / "images").glob("*.npz"))
    found = (
        writers.ImageAnswer(name, Path(name), c.size, apply(c, RULE, size=SUBMISSION_GRID), classes.ids)
        for name in names
        for c in [cache.read(name)]
    )
    writers.write_submission_csv(folder / "submission.csv", found)


def measure(images: int, answered: int, tuned: int, only: Sequence[str] = STEPS) -> dict[str, tuple[int, Spent]]:
    """Run the steps in `only` at one size, and return the number of images and the cost of each."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        root, predicted, held_out = folder / "data", folder / "predicted", folder / "held_out"
        make_data(root, images)
        make_candidates(predicted, answered)
        make_candidates(held_out, tuned)
        tune = [
            f"candidates.folder={held_out}",
            f"out={folder / 'tuned'}",
            "search.trials=0",
            "trainer.accelerator=cpu",
        ]
        commands = {
            "check and index": (images, [*CLI, "check", str(root), "--quick"]),
            "check, read before": (images, [*CLI, "check", str(root), "--quick"]),
            "split": (images, [*CLI, "split", str(root), "--out", str(folder / "split.csv")]),
            "answer": (answered, [sys.executable, "-m", "benchmarks.growth", "--answer", str(predicted)]),
            "score": (answered, [*CLI, "score", str(predicted / "truth.csv"), str(predicted / "submission.csv")]),
            "tune": (tuned, [sys.executable, str(PROJECT / "tune_thresholds.py"), *tune]),
        }
        found = {}
        for name in only:
            count, words = commands[name]
            found[name] = (count, spent(words, folder))
            print(
                f"{name:20} {count:6} images  {found[name][1].seconds:8.2f} s  {found[name][1].mib:8.0f} MiB",
                flush=True,
            )
        return found


def draw(path: Path, sizes: Sequence[dict[str, tuple[int, Spent]]]) -> None:
    """Plot seconds and MiB over the number of images, on logarithmic axes."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("seconds", "mib"), strict=True):
        for name in sizes[0]:
            points = [(size[name][0], getattr(size[name][1], what)) for size in sizes]
            axes.loglog(*zip(*points, strict=True), "o-", label=name, markersize=4)
        axes.set_xlabel("images")
        axes.set_ylabel({"seconds": "seconds", "mib": "peak MiB of a process"}[what])
        axes.grid(alpha=0.3)
    figure.legend(handles=axes.lines, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    FigureCanvasAgg(figure).print_png(str(path))


def _exponent(name: str, sizes: Sequence[dict[str, tuple[int, Spent]]]) -> str:
    """Return the exponent of the growth of time between the last two sizes."""
    if len(sizes) < 2 or sizes[-2][name][0] == sizes[-1][name][0]:
        return "-"
    (few, before), (many, after) = (size[name] for size in sizes[-2:])
    return f"{math.log(after.seconds / before.seconds) / math.log(many / few):.2f}"


def main() -> None:
    """Measure at up to three sizes, and report the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=45_600, help="images to check and split at full size")
    parser.add_argument("--answered", type=int, default=3_200, help="images to predict and score at full size")
    parser.add_argument("--tuned", type=int, default=4_500, help="images to tune on at full size")
    parser.add_argument("--leaps", type=int, choices=range(3), default=2, help="tenfold steps up to full size")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="steps to run, in order")
    parser.add_argument("--picture", type=Path, default=Path("benchmarks") / "growth.png", help="PNG file to write")
    parser.add_argument("--answer", type=Path, metavar="FOLDER", help="only write a submission of FOLDER's candidates")
    args = parser.parse_args()
    if args.answer:
        return answer(args.answer)
    full = (args.images, args.answered, args.tuned)
    parts = (100, 10, 1)[2 - args.leaps :]
    sizes = [measure(*(max(20, count // part) for count in full), only=args.steps) for part in parts]
    print(f"\n{'ours, at full size':20} {'images':>7} {'seconds':>9} {'exponent':>9} {'MiB':>7}")
    for name, (count, end) in sizes[-1].items():
        print(f"{name:20} {count:7} {end.seconds:9.2f} {_exponent(name, sizes):>9} {end.mib:7.0f}")
    draw(args.picture, sizes)
    print(f"plot: {args.picture}")


if __name__ == "__main__":
    main()
