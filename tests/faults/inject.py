"""Run train.py, or another script, and inject a fault at a chosen moment: `python -m tests.faults.inject ARGUMENTS`.

The environment variable FAULTS_HARM=MOMENT:N:SIGNAL:PROCESS defines the fault: at occurrence N (from 1) of MOMENT, one
of `MOMENTS`, the process with LOCAL_RANK PROCESS sends itself SIGNAL, such as SIGKILL. FAULTS_SCRIPT names the script,
and FAULTS_STEPS a file to which the first process writes each finished step.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = {
    "reading annotations": ("fashion_hydra.data.annotations", "AnnotationsBuilder.add", "before"),
    "looking at images": ("fashion_hydra.data.image_files", "examine", "before"),
    "writing records": ("fashion_hydra.data.annotations", "AnnotationsBuilder._write_runs", "after"),
    "loading an image": ("fashion_hydra.data.dataset", "TrainDataset.__getitem__", "before"),
    "forward pass": ("fashion_hydra.model.detector", "Detector.loss", "after"),
    "backward pass": (
        "fashion_hydra.training.lightning_module",
        "SegmentationModule.on_before_optimizer_step",
        "before",
    ),
    "optimizer step": ("torch.optim", "AdamW.step", "after"),
    "within a checkpoint": ("torch", "save", "within"),
    "before a checkpoint takes its place": ("os", "replace", "before"),
    "after a checkpoint took its place": ("os", "replace", "after"),
    "validation step": ("fashion_hydra.training.lightning_module", "SegmentationModule.validation_step", "before"),
    "scoring": (
        "fashion_hydra.training.callbacks.validation_score",
        "ValidationScore.on_validation_epoch_end",
        "before",
    ),
    "drawing": ("fashion_hydra.training.callbacks.learning_curves", "draw_curves", "before"),
}


def harm(moment: str, occurrence: int, number: signal.Signals) -> None:
    """Patch the moment's function to send the signal."""
    module, path, when = MOMENTS[moment]
    __import__(module)
    *parents, name = path.split(".")
    owner: Any = sys.modules[module]
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, name)
    seen = 0

    def strike() -> None:
        if steps := os.environ.get("FAULTS_STEPS"):
            Path(steps).with_name("harmed").touch()
        os.kill(os.getpid(), number)

    def harmed(*args: Any, **options: Any) -> Any:
        nonlocal seen
        if module == "os" and not str(args[1]).endswith(".ckpt"):
            return original(*args, **options)
        seen += 1
        if seen != occurrence:
            return original(*args, **options)
        if when == "after":
            result = original(*args, **options)
            strike()
            return result
        if when == "within":
            buffer = io.BytesIO()
            original(args[0], buffer)
            args[1].write(buffer.getvalue()[: buffer.tell() // 2])
            args[1].flush()
        strike()
        return original(*args, **options)

    setattr(owner, name, harmed)


def note_steps(path: Path) -> None:
    """Write each finished step to a file."""
    from fashion_hydra.training.callbacks import LearningCurves

    plain = LearningCurves.on_train_batch_end

    def noted(self: LearningCurves, trainer: Any, *args: Any) -> None:
        with path.open("a") as stream:
            stream.write(f"{trainer.global_step}\n")
        plain(self, trainer, *args)

    LearningCurves.on_train_batch_end = noted  # type: ignore[assignment, method-assign]


def main() -> None:
    if what := os.environ.get("FAULTS_HARM"):
        moment, occurrence, number, process = what.split(":")
        if os.environ.get("LOCAL_RANK", "0") == process:
            harm(moment, int(occurrence), signal.Signals[number])
    if (steps := os.environ.get("FAULTS_STEPS")) and os.environ.get("LOCAL_RANK", "0") == "0":
        note_steps(Path(steps))
    sys.argv[0] = __file__  # Lightning starts further processes from it
    script = Path(__file__).parents[2] / os.environ.get("FAULTS_SCRIPT", "train.py")
    exec(compile(script.read_text(), script, "exec"), {"__name__": "__main__", "__file__": str(script)})


if __name__ == "__main__":
    main()
