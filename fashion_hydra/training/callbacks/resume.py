"""Resume a run that was interrupted at any moment, with the same result as without the interruption."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn

from fashion_hydra.structures.batch import Batch
from fashion_hydra.training.callbacks.signals import forward_signal, restore_handlers
from fashion_hydra.training.run_folder import LAST
from fashion_hydra.utils.errors import StopRequested, UserError
from fashion_hydra.utils.files import atomic_write

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_SPARE = 3  # warn if there is no disk space for this number of checkpoints


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writer of atomic checkpoints: after a power failure or on a full disk, existing checkpoints are intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: the checkpoint cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "wb", durable=True) as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError for failed writes
            free = shutil.disk_usage(path.parent).free >> 20 if path.parent.is_dir() else 0
            kept = f"; the previous {path.name} is intact" if path.is_file() else ""
            raise UserError(
                f"{path}: not written ({error.__context__ or error}; {free} MiB free). Free disk space and repeat the "
                f"command with ckpt_path=last{kept}"
            ) from error


class ResumePoint(Checkpoint):
    """Callback that writes `last.ckpt`, from which `ckpt_path=last` resumes to the result of an uninterrupted run.

    The file is written every `minutes`, before and after each validation, and on SIGTERM (SLURM's pre-emption), SIGUSR1
    (SLURM's warning before the time limit) and SIGINT (Ctrl-C), which stop the run after the current step.

    Args:
        folder: folder of the file.
        minutes: maximum time between two writes; 0: write after every step.
    """

    def __init__(self, folder: str, minutes: float = 15.0) -> None:
        if minutes < 0:
            raise UserError(f"callbacks.last.minutes={minutes}: must be at least 0")
        self.path, self.minutes = Path(folder) / LAST, minutes
        self.asked: signal.Signals | None = None
        self._validation_due = False
        self._saved_at_step = -1
        self._next = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return whether a validation is due before training resumes, and the metrics for other callbacks."""
        return {"validation_due": self._validation_due, "metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self._validation_due = state_dict["validation_due"]
        self._metrics = state_dict.get("metrics", {})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove temporary files of a killed run, and warn if there is little disk space."""
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for left_over in self.path.parent.glob(".*.part"):
                left_over.unlink(missing_ok=True)
            free, likely = shutil.disk_usage(self.path.parent).free, _likely_size(pl_module)
            if free < _SPARE * likely:
                rank_zero_warn(
                    f"{self.path.parent}: {free >> 20} MiB free, but a checkpoint takes {likely >> 20} MiB or more, "
                    "and several are kept. Free disk space, or the run will stop when the disk is full"
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start handling signals, and repeat a validation that was interrupted."""
        for number in _SIGNALS if threading.current_thread() is threading.main_thread() else ():
            self._before[number] = signal.signal(number, lambda n, frame: self._ask(trainer, signal.Signals(n), frame))
        self._next = time.monotonic() + 60 * self.minutes
        self._saved_at_step = trainer.global_step
        # Lightning resumes at the end of an epoch, where EarlyStopping needs the metrics from before the interruption.
        known = {name: torch.tensor(value) for name, value in self._metrics.items()}
        trainer._logger_connector._callback_metrics.update(known)
        if self._validation_due:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True
            loop._has_run = False  # without this, Lightning stays in its restarting state

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save if it is time or a stop is requested; a validation or an epoch's end that follows saves by itself."""
        due = time.monotonic() >= self._next and trainer.is_global_zero
        asked, due = _any(trainer, self.asked is not None, due)
        loop = trainer.fit_loop.epoch_loop
        assert trainer.fit_loop._data_fetcher is not None
        if loop.batch_progress.is_last_batch or loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # checkpoints do not contain accumulated gradients
        if asked or due:
            self._save(trainer)
        if asked:
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save before a validation."""
        if trainer.state.fn == TrainerFn.FITTING and not self._validation_due:
            self._validation_due = True
            self._save(trainer)
            self._heed(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if requested; everything is already saved."""
        if self.asked is not None:
            self._stop(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the validation as done before the epoch's checkpoints are written."""
        self._validation_due = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the scores of the best checkpoints."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._save(trainer)
            self._heed(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save an epoch without validation."""
        if self._saved_at_step < trainer.global_step:
            self._save(trainer)
            self._heed(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the previous signal handlers."""
        restore_handlers(self._before)

    def _ask(self, trainer: Trainer, number: signal.Signals, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked is not None:
            raise KeyboardInterrupt
        if self.asked is None and trainer.is_global_zero:
            os.write(2, f"\n{number.name}: stopping after this step and writing {LAST}\n".encode())
        self.asked = number
        if number != signal.SIGINT:  # a terminal sends SIGINT to all processes
            forward_signal(trainer, number)

    def _heed(self, trainer: Trainer) -> None:
        if _any(trainer, self.asked is not None)[0]:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        raise StopRequested(self.asked or signal.SIGTERM, trainer.global_step)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at_step = trainer.global_step
        self._next = time.monotonic() + 60 * self.minutes


def _any(trainer: Trainer, *flags: bool) -> list[bool]:
    """Return, for each flag, whether it is set on any rank."""
    if trainer.world_size == 1:
        return list(flags)
    shared = torch.tensor(flags, dtype=torch.int32, device=trainer.strategy.root_device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


def _likely_size(module: LightningModule) -> int:
    """Return the minimum size of a checkpoint in bytes: weights, and one momentum per trainable weight."""
    return sum(p.nbytes * (2 if p.requires_grad else 1) for p in module.parameters())
