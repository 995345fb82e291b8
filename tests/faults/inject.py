"""Run train.py in this process and do it harm at a chosen moment: `python -m tests.faults.inject MOMENT:N:SIGNAL ...`.

MOMENT is one of `MOMENTS`, N counts its occurrences from 1, SIGNAL such as SIGKILL is sent to this very process; what
follows are train.py's own arguments. Each step that is done is noted in the file that FAULTS_STEPS names.
"""

import io
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = {
    "reading annotations": ("fashion_hydra.data.records", "RecordsBuilder.add", "before"),
    "looking at images": ("fashion_hydra.data.images", "examine", "before"),
    "writing records": ("fashion_hydra.data.records", "RecordsBuilder._write_runs", "after"),
    "loading an image": ("fashion_hydra.data.dataset", "TrainDataset.__getitem__", "before"),
    "forward pass": ("fashion_hydra.model.detector", "Detector.loss", "after"),
    "backward pass": ("fashion_hydra.module", "SegmentationModule.on_before_optimizer_step", "before"),
    "optimizer step": ("torch.optim", "AdamW.step", "after"),
    "within a checkpoint": ("torch", "save", "within"),
    "before a checkpoint takes its place": ("os", "replace", "before"),
    "after a checkpoint took its place": ("os", "replace", "after"),
    "validation step": ("fashion_hydra.module", "SegmentationModule.validation_step", "before"),
    "scoring": ("fashion_hydra.callbacks.score", "ValidationScore.on_validation_epoch_end", "before"),
    "drawing": ("fashion_hydra.callbacks.curves", "draw_curves", "before"),
}


def harm(moment: str, occurrence: int, number: signal.Signals) -> None:
    """Put the harm in its place."""
    module, path, when = MOMENTS[moment]
    __import__(module)
    *parents, name = path.split(".")
    owner: Any = sys.modules[module]
    for parent in parents:
        owner = getattr(owner, parent)
    whole: Callable[..., Any] = getattr(owner, name)
    seen = 0

    def harmed(*args: Any, **options: Any) -> Any:
        nonlocal seen
        if module == "os" and not str(args[1]).endswith(".ckpt"):
            return whole(*args, **options)
        seen += 1
        if seen != occurrence:
            return whole(*args, **options)
        if when == "after":
            result = whole(*args, **options)
            os.kill(os.getpid(), number)
            return result
        if when == "within":
            buffer = io.BytesIO()
            whole(args[0], buffer)
            args[1].write(buffer.getvalue()[: buffer.tell() // 2])
            args[1].flush()
        os.kill(os.getpid(), number)
        return whole(*args, **options)

    setattr(owner, name, harmed)


def note_steps(path: Path) -> None:
    """Write each step that is done into a file."""
    from fashion_hydra.callbacks import LearningCurves

    plain = LearningCurves.on_train_batch_end

    def noted(self: LearningCurves, trainer: Any, *args: Any) -> None:
        with path.open("a") as stream:
            stream.write(f"{trainer.global_step}\n")
        plain(self, trainer, *args)

    LearningCurves.on_train_batch_end = noted  # type: ignore[assignment, method-assign]


def main() -> None:
    what = sys.argv.pop(1)
    if what != "nothing":
        moment, occurrence, number = what.split(":")
        harm(moment, int(occurrence), signal.Signals[number])
    if steps := os.environ.get("FAULTS_STEPS"):
        note_steps(Path(steps))
    sys.argv[0] = str(Path(__file__).parents[2] / "train.py")
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
