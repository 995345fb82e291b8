"""Pieces of the callbacks that stop a run on a signal."""

import signal
from typing import Any

from pytorch_lightning import Trainer


def forward_signal(trainer: Trainer, number: int) -> None:
    """Send a signal to the processes that this process started for the other ranks."""
    for child in getattr(trainer.strategy.launcher, "procs", ()):
        child.send_signal(number)


def restore_handlers(before: dict[signal.Signals, Any]) -> None:
    """Put signal handlers back, and forget them."""
    for number, handler in before.items():
        signal.signal(number, handler)
    before.clear()
