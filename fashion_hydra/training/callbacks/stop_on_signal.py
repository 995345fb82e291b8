"""Stop a prediction on a signal, after the current batch."""

import os
import signal
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fashion_hydra.training.callbacks.process_watch import ProcessWatch
from fashion_hydra.training.callbacks.signals import forward_signal, restore_handlers
from fashion_hydra.utils.errors import StopRequested

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(Callback):
    """Callback that raises `StopRequested` after the batch at which SIGTERM (SLURM's pre-emption) or SIGUSR1 arrived.

    Lightning does not stop a prediction on SIGTERM, and its signal handler runs a collective operation, which can
    block. The signal is forwarded to the processes that this process started.

    Args:
        watch: watch of the processes, which is stopped on a signal.
    """

    def __init__(self, watch: ProcessWatch) -> None:
        self.watch = watch
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers."""

        def ask(number: int, frame: Any) -> None:
            if self._asked is None and trainer.is_global_zero:
                os.write(2, f"\n{signal.Signals(number).name}: stopping after this image\n".encode())
            self._asked = signal.Signals(number)
            self.watch.rest()
            forward_signal(trainer, number)

        self._before = {number: signal.signal(number, ask) for number in _SIGNALS}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if a signal has arrived."""
        if self._asked is not None:
            raise StopRequested(self._asked, batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the handlers after a stop or an error."""
        restore_handlers(self._before)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handlers."""
        restore_handlers(self._before)
