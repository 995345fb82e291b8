"""Stop training at random moments, run the same command again, and compare with an uninterrupted run.

    python -m tests.faults.training                 ten kills, a stop by SIGTERM, a full disk, damaged checkpoints
    python -m tests.faults.training --kills 30      more kills
    python -m tests.faults.training --seed 2        different moments

At the end, everything in a checkpoint must be bit-identical: weights and their moving average, optimizer, schedule, the
best checkpoints and the history of losses and scores. This takes six minutes on two cores.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.faults.inject import MOMENTS
from tests.helpers import SMALL_TRAIN

ROOT = Path(__file__).parents[2]
IMAGES, EPOCHS = 32, 3
STEPS = 3 * 7  # 3 epochs of 26 training images, 4 per step
OPTIONS = (
    *SMALL_TRAIN,
    "callbacks=ema",
    "callbacks.progress.refresh_rate=0",
    f"schedule.epochs={EPOCHS}",
    "ckpt_path=last",
)
# Occurrences of each moment in an uninterrupted run; kills are drawn from them.
OCCURRENCES = {
    "reading annotations": 100,
    "looking at images": IMAGES,
    "writing records": 1,
    "loading an image": 0,  # happens in a worker, see below
    "forward pass": 10,
    "backward pass": 10,
    "optimizer step": 10,
    "within a checkpoint": 5,
    "before a checkpoint takes its place": 5,
    "after a checkpoint took its place": 5,
    "validation step": 6,
    "scoring": 1,
    "drawing": 1,
}


@dataclass
class Line:
    """A row of the table.

    Args:
        fault: description of the fault.
        times: number of injected faults.
        survived: number of faults after which the next command resumed.
        lost: repeated steps after each fault.
    """

    fault: str
    times: int = 0
    survived: int = 0
    lost: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        lost = f"{max(self.lost)} steps at most" if self.lost else "-"
        return f"{self.fault:<46}{self.times:>6}{self.survived:>10}   {lost}"


@dataclass
class Place:
    """The folder of a run.

    Args:
        folder: folder for runs, cache and the log of steps.
        data: training data.
        options: options of every command.
    """

    folder: Path
    data: Path
    options: Sequence[str] = ("+callbacks.curves.every=1", "callbacks.last.minutes=0.02", "data.num_workers=2")

    def command(self, harm: str = "", *more: str) -> subprocess.CompletedProcess[str]:
        """Run the command with the same arguments each time; `harm` is "" or MOMENT:N:SIGNAL[:PROCESS]."""
        environment = {
            **os.environ,
            "FAULTS_HARM": harm if harm.count(":") != 2 else f"{harm}:0",
            "FASHION_HYDRA_CACHE": str(self.folder / "cache"),
            "FAULTS_STEPS": str(self.folder / "steps"),
        }
        arguments = [*OPTIONS, f"data.root={self.data}", f"paths.runs={self.folder / 'runs'}", *self.options, *more]
        return subprocess.run(
            [sys.executable, "-m", "tests.faults.inject", *arguments],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    def last(self) -> Path | None:
        """Return the newest last.ckpt."""
        found = sorted(self.folder.glob("runs/demo/*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        return found[-1] if found else None

    def done(self) -> int:
        """Return the last finished step."""
        steps = self.folder / "steps"
        return int(steps.read_text().split()[-1]) if steps.is_file() else 0

    def saved(self) -> int:
        """Return the step that the next command resumes from."""
        path = self.last()
        return int(torch.load(path, weights_only=True)["global_step"]) if path else 0


def state(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that must be equal at the end, without paths and times."""
    content = torch.load(path, weights_only=True)
    callbacks = {name.partition("{")[0]: value for name, value in content["callbacks"].items()}
    best = {Path(name).name: float(score) for name, score in callbacks["ModelCheckpoint"]["best_k_models"].items()}
    kept = {path.name for path in path.parent.glob("epoch*.ckpt")}
    names = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "epoch")
    return {**{name: content[name] for name in names if name in content}, "best": best, "kept": kept,
            "history": callbacks["LearningCurves"]["history"], "step": content["global_step"]}  # fmt: skip


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the places where two states are not bit-identical."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [at]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{at} (names)"]
        return [d for key in one for d in differences(one[key], other[key], f"{at}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{at} (length)"]
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{at}/{i}")]
    return [] if one == other else [f"{at}: {one!r} and {other!r}"]


def finish(place: Place, uninterrupted: dict[str, Any]) -> None:
    """Run the command until it finishes, and compare.

    Raises:
        AssertionError: the command fails or ends in a different state.
    """
    done = place.command()
    assert done.returncode == 0, done.stderr[-2000:]
    last = place.last()
    assert last is not None
    assert (found := differences(uninterrupted, state(last))) == [], found[:5]


def kills(place: Place, uninterrupted: dict[str, Any], count: int, rng: random.Random) -> list[Line]:
    """Kill the run at `count` random moments, one after the other; start a new run after one that finished."""
    lines = {moment: Line(f"SIGKILL, {moment}") for moment in OCCURRENCES}
    moments = [moment for moment, often in OCCURRENCES.items() if often]
    drawn = [*rng.sample(moments, min(count, len(moments))), *rng.choices(moments, k=max(0, count - len(moments)))]
    for moment in drawn:
        if moment in ("reading annotations", "looking at images", "writing records"):
            shutil.rmtree(place.folder / "cache", ignore_errors=True)
        occurrence = rng.randint(1, OCCURRENCES[moment])
        done = place.command(f"{moment}:{occurrence}:SIGKILL")
        if done.returncode == 0:  # finished before the moment
            last = place.last()
            assert last is not None
            assert (found := differences(uninterrupted, state(last))) == [], found[:5]
            shutil.rmtree(place.folder / "runs")
            (place.folder / "steps").unlink()
            done = place.command(f"{moment}:{occurrence}:SIGKILL")
        assert done.returncode == -9, (moment, occurrence, done.returncode, done.stderr[-2000:])
        lost = place.done() - place.saved()
        print(f"  killed: {moment} ({occurrence}.); step {place.done()}, goes on from {place.saved()}", flush=True)
        line = lines[moment]
        line.times += 1
        line.survived += 1
        line.lost.append(lost)
    finish(place, uninterrupted)
    return [line for line in lines.values() if line.times]


def stops(place: Place, uninterrupted: dict[str, Any], rng: random.Random) -> list[Line]:
    """Stop the run by signal in a step and in a validation; no step is lost, and the exit code encodes the signal."""
    lines = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        line = Line(f"{number.name}, which asks to stop")
        for moment in ("forward pass", "validation step"):
            done = place.command(f"{moment}:{rng.randint(1, 4)}:{number.name}")
            assert done.returncode == 128 + number, (done.returncode, done.stderr[-2000:])
            assert "resume         python train.py" in done.stdout + done.stderr
            line.times += 1
            line.survived += 1
            line.lost.append(place.done() - place.saved())
            print(f"  stopped: {number.name} in a {moment}; step {place.done()}", flush=True)
        lines.append(line)
    finish(place, uninterrupted)
    return lines


def damages(place: Place, uninterrupted: dict[str, Any]) -> list[Line]:
    """Truncate last.ckpt, and change a byte in it; the newest intact checkpoint is used, with a warning."""
    lines = []
    done = place.command("forward pass:10:SIGKILL")
    assert done.returncode == -9, done.stderr[-2000:]
    for fault in ("last.ckpt cut short", "last.ckpt with a wrong byte", "last.ckpt removed"):
        path = place.last()
        assert path is not None
        content, before = path.read_bytes(), place.saved()
        if fault.endswith("short"):
            path.write_bytes(content[: len(content) // 3])
        elif fault.endswith("byte"):
            at = len(content) // 2
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        else:
            path.unlink()
        done = place.command("forward pass:4:SIGKILL")
        assert done.returncode == -9, done.stderr[-2000:]
        output = done.stdout + done.stderr
        assert "resumes from" in output or fault.endswith("removed"), output
        print(f"  {fault}: {' '.join(line for line in output.splitlines() if 'resumes from' in line)}", flush=True)
        lines.append(Line(fault, 1, 1, [before - 7]))
    finish(place, uninterrupted)
    return lines


def full_disk(place: Place, uninterrupted: dict[str, Any]) -> list[Line]:
    """Save checkpoints to a file system with room for two."""
    disk = place.folder / "runs"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        print("  full disk: left out, mounting a tmpfs takes root", flush=True)
        return []
    line = Line("disk full while a checkpoint is written")
    try:
        done = place.command()
        assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
        output = done.stderr.strip().splitlines()[-1]
        assert "not written" in output, output
        assert "Traceback" not in done.stderr
        print(f"  full disk: {output}", flush=True)
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        line = Line(line.fault, 1, 1, [place.done() - place.saved()])
        finish(place, uninterrupted)
    finally:
        subprocess.run(["umount", disk], check=True)
    return [line]


def main() -> None:
    """Inject faults, compare the results, print the table."""
    assert MOMENTS.keys() == OCCURRENCES.keys()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        from fashion_hydra.wardrobe import write_wardrobe

        data = Path(folder, "data")
        write_wardrobe(data, train=IMAGES, test=2, size=128, seed=5)
        quiet = Place(Path(folder, "quiet"), data)
        done = quiet.command()
        assert done.returncode == 0, done.stderr[-2000:]
        last = quiet.last()
        assert last is not None
        uninterrupted = state(last)
        print(f"nothing stopped it: {quiet.done()} steps, {len(uninterrupted['best'])} best checkpoints", flush=True)
        rng = random.Random(args.seed)
        lines = kills(Place(Path(folder, "killed"), data), uninterrupted, args.kills, rng)
        lines += stops(Place(Path(folder, "stopped"), data), uninterrupted, rng)
        each_step = ("+callbacks.curves.every=1", "callbacks.last.minutes=0", "data.num_workers=2")
        lines += damages(Place(Path(folder, "damaged"), data, each_step), uninterrupted)
        lines += full_disk(Place(Path(folder, "full"), data), uninterrupted)
    print(f"\n{'fault':<46}{'times':>6}{'survived':>10}   lost work")
    for line in lines:
        print(line)
    print(f"\nall ended with the uninterrupted run's state, to the last bit; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
