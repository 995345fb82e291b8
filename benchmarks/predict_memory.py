"""Measure the resident memory of predict.py from image 20 to image 200; it must not grow with the number of images.

Memory varies within an image, so the table shows medians and peaks over 20 images each. It shows the total resident
memory and the part owned by the process (anonymous); the rest is mapped library files.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.ensemble import decided_model, options
from fashion_hydra.wardrobe import write_wardrobe

PROJECT = Path(__file__).parents[1]
PERIOD_S = 0.05


class Look(NamedTuple):
    """Resident memory of a process in MiB, and the part that it owns (anonymous memory)."""

    resident: float
    own: float


def look(process: int) -> Look | None:
    """Read the memory of a process; None if it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    kib = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines) if "Rss" in key}
    if "RssAnon" not in kib:
        return None
    return Look(sum(kib[key] for key in ("RssAnon", "RssFile", "RssShmem")) / 1024, kib["RssAnon"] / 1024)


def random_checkpoint(path: Path) -> Path:
    """Write a checkpoint in train.py's format with random weights."""
    arguments = options(depth=18, base_channels=16)
    model = decided_model(0, arguments)
    content = {
        "state_dict": {f"detector.{name}": value for name, value in model.state_dict().items()},
        "classes": {"ids": list(range(46)), "names": [f"category {i}" for i in range(46)]},
        "model": {"_target_": "fashion_hydra.model.htc.build_htc", **arguments},
        "eval_scale": [128, 192],
    }
    torch.save(content, path)
    return path


def watch(command: Sequence[str], phase: Callable[[], str]) -> dict[str, list[Look]]:
    """Run a command, and return memory samples of each of its phases, in order."""
    looks: dict[str, list[Look]] = defaultdict(list)
    process = subprocess.Popen(command)
    while process.poll() is None:
        name = phase()
        if (one := look(process.pid)) is not None:
            looks[name].append(one)
        time.sleep(PERIOD_S)
    assert process.returncode == 0
    return looks


def phase_of(out: Path, *, images: int, window: int) -> str:
    """Return the current phase of a prediction that writes to `out`."""
    if (out / "submission.csv").exists():
        return "exit"
    done = sum(1 for _ in out.glob("candidates/images/[!.]*.npz"))
    if done == images:
        return "submission"
    begin = done // window * window
    return f"images {begin}-{min(begin + window, images) - 1}" if begin else "start"


def main() -> None:
    """Run a prediction and watch its memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="default: a small model with random weights")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--first", type=int, default=20, help="images to skip, and images per row")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "wardrobe", Path(folder) / "out"
        checkpoint = args.checkpoint or random_checkpoint(Path(folder) / "random.ckpt")
        write_wardrobe(root, train=8, test=args.images, size=224, seed=0)
        command = [sys.executable, str(PROJECT / "predict.py"), f"checkpoint={checkpoint.absolute()}"]
        command += [f"data.root={root}", f"out={out}", "tta=multi", "trainer.accelerator=cpu", "data.num_workers=0"]
        command += ["candidates.score_floor=0.2"]
        looks = watch(command, lambda: phase_of(out, images=args.images, window=args.first))
    tell(looks)


def tell(looks: dict[str, list[Look]]) -> None:
    """Print the table and a summary."""
    print(f"\n{'MiB':18}{'median':>9}{'peak':>9}{'own, median':>14}{'own, peak':>12}")
    for name, seen in looks.items():
        resident, own = zip(*seen, strict=True)
        print(f"{name:18}{median(resident):9.1f}{max(resident):9.1f}{median(own):14.1f}{max(own):12.1f}")
    rows = [[one.resident for one in seen] for name, seen in looks.items() if name.startswith("images")]
    growth = median(rows[-1]) / median(rows[0]) - 1
    peak, answering = max(map(max, rows)), max((one.resident for one in looks["submission"]), default=float("nan"))
    print(
        f"ours: {growth:+.1%} from the first to the last row of images; "
        f"peak {peak:.1f} MiB while predicting, {answering:.1f} MiB while writing the submission"
    )


if __name__ == "__main__":
    main()
