"""Keep a run's best checkpoints."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint


class LaterModelCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, except that of equal scores the later one is better.

    A training of few images can have a score of 0 in every validation; Lightning's keeps the first epochs then.
    """

    @property
    def state_key(self) -> str:
        """Lightning's key, so that runs of one class resume with the other."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Return whether a checkpoint with this score is among the best `save_top_k`."""
        is_tie = current is not None and self.save_top_k > 0 and bool(current == self.kth_value)
        return is_tie or super().check_monitor_top_k(trainer, current)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a checkpoint as Lightning does; of equal scores, the later one is the best."""
        super().on_validation_end(trainer, pl_module)
        best = [path for path, score in self.best_k_models.items() if score == self.best_model_score]
        self.best_model_path = best[-1] if best else self.best_model_path
