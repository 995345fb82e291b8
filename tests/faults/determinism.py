"""Predict, tune and score with different numbers of workers, processes and threads, and compare every byte.

    python -m tests.faults.determinism                               random weights, 12 drawn images: a minute
    python -m tests.faults.determinism --run runs/demo --images 60   a trained model

Images with known truth come from `fashion-hydra wardrobe`.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAYS: dict[str, tuple[list[str], int]] = {  # name -> options, threads per process
    "one process, no workers, one thread": (["data.num_workers=0"], 1),
    "one process, two workers, one thread": (["data.num_workers=2"], 1),
    "one process, no workers, two threads": (["data.num_workers=0"], 2),
    "two processes, a worker each": (["trainer.devices=2", "trainer.strategy=ddp", "data.num_workers=1"], 1),
}


def python(arguments: list[str | Path], *, threads: int, folder: Path) -> str:
    """Run a Python command to its end and return its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "FASHION_HYDRA_CACHE": str(folder / "cache")}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file, except logs and hidden files, which contain folders and options."""
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.suffix != ".log")
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return {str(name): hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in shown}


def main() -> None:
    """Compare the outputs and print the differences."""
    from fashion_hydra.wardrobe import write_wardrobe
    from tests.helpers import write_tiny_checkpoint

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a training run, or a folder of runs, whose best checkpoint predicts")
    parser.add_argument("--images", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = Path(temporary)
        write_wardrobe(folder / "data", train=8, test=args.images, size=160, seed=3)
        if args.run is None:
            checkpoint = write_tiny_checkpoint(folder / "one.ckpt")
        else:
            checkpoint = max(args.run.resolve().rglob("epoch*.ckpt"), key=lambda path: path.name.partition("score")[2])
        truth = folder / "data" / "test_truth.csv"
        seen: dict[str, dict[str, str]] = {}
        for number, (way, (options, threads)) in enumerate(WAYS.items()):
            out = folder / str(number)
            common = ["trainer.accelerator=cpu", "callbacks.progress.refresh_rate=0", f"checkpoint={checkpoint}"]
            what = [f"data.root={folder / 'data'}", f"out={out / 'predicted'}", "tta=multi", "draw=true",
                    "output=[csv,coco,masks]"]  # fmt: skip
            python([ROOT / "predict.py", *common, *what, *options], threads=threads, folder=folder)
            tuned = [f"candidates.folder={out / 'predicted' / 'candidates'}", f"truth={truth}", f"out={out / 'tuned'}"]
            python([ROOT / "tune_thresholds.py", *tuned, "search.trials=20"], threads=threads, folder=folder)
            submission = out / "predicted" / "submission.csv"
            (out / "score.txt").write_text(
                python(["-m", "fashion_hydra.cli.main", "score", truth, submission], threads=threads, folder=folder)
            )
            seen[way] = contents(out)
            print(f"{way}: {len(seen[way])} files", flush=True)
        first, *others = seen
        differ = sorted({name for way in others for name in seen[first].keys() | seen[way].keys()
                         if seen[first].get(name) != seen[way].get(name)})  # fmt: skip
        for name in differ:
            print(
                f"  {name} differs: {', '.join(way for way in others if seen[way].get(name) != seen[first].get(name))}"
            )
        print(f"{len(seen[first]) - len(differ)} of {len(seen[first])} files are the same byte for byte in every way")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
