"""Record and plot losses, learning rate and scores."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fashion_hydra.plots.learning_curves import draw_curves
from fashion_hydra.structures.batch import Batch


class LearningCurves(Callback):
    """Callback that writes `curves.png` after each validation. Resumed runs continue the curves of the checkpoint.

    Args:
        folder: folder of the picture.
        every: steps between two points of the training loss.
    """

    def __init__(self, folder: str, every: int = 10) -> None:
        self.path, self.every = Path(folder) / "curves.png", every
        self.history: dict[str, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain lists."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history from a checkpoint."""
        self.history = state_dict["history"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Record loss and learning rate every `every` steps."""
        if trainer.global_step % self.every == 0 and trainer.is_global_zero:
            self._note("train/loss", trainer.global_step, float(outputs["loss"]))
            self._note("lr", trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the scores and draw the curves."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/"):
                self._note(name, trainer.global_step, float(value))
        draw_curves(self.path, self.history)

    def _note(self, name: str, step: int, value: float) -> None:
        points = self.history.setdefault(name, [])
        if not points or points[-1][0] < step:
            points.append([step, value])
