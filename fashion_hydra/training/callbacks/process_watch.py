"""End a distributed run when one of its processes is lost."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fashion_hydra.utils.errors import StopRequested, UserError

_EVERY = 0.5  # seconds
_PATIENCE = 10.0  # seconds to let a process that waits for a lost process fail by itself


class ProcessWatch(Callback):
    """Callback that makes the first process of each machine and the processes that it started watch each other.

    Without this, some communication backends wait half an hour for a lost process. Processes that torchrun or srun
    started are not watched, because these launchers watch them.

    Args:
        remedy: advice to append to the error message.
    """

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
        self.lost = ""
        self._is_over = threading.Event()
        self._children: list[Popen] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start watching."""
        launcher: Any = trainer.strategy.launcher
        if trainer.world_size == 1 or not hasattr(launcher, "procs"):
            return
        started: list[Popen] = list(launcher.procs)
        launcher.procs.clear()  # Lightning's observer, which would also kill this process, uses this list
        launcher.procs = started
        parent = os.getppid() if trainer.local_rank else None

        def look() -> str:
            if parent is not None:
                return "process 0 is gone" if os.getppid() != parent else ""
            ended = ((number, child.poll()) for number, child in enumerate(started, start=1))
            return next((f"process {number} {_how(code)}" for number, code in ended if code), "")

        def watch() -> None:
            while not self.lost:
                if self._is_over.wait(_EVERY):
                    return
                self.lost = look()
            if not self._is_over.wait(_PATIENCE):
                os.write(2, f"{os.path.basename(sys.argv[0])}: {self}\n".encode())
                self._end()
                os._exit(2)

        self._children = started
        if started or parent is not None:
            threading.Thread(target=watch, daemon=True, name="watch-processes").start()

    @contextmanager
    def explain_lost_ranks(self, trainer: Trainer) -> Iterator[None]:
        """Replace an error caused by a lost process with one that names the process, and end the other processes.

        Raises:
            UserError: a process was lost.
        """
        try:
            yield
        except (UserError, StopRequested):
            raise
        except Exception as error:
            if trainer.world_size == 1 or not self._is_lost_soon():
                raise
            self._end()
            raise UserError(str(self)) from error

    def _is_lost_soon(self) -> bool:
        deadline = time.monotonic() + 2 * _EVERY
        while not self.lost and time.monotonic() < deadline:
            time.sleep(_EVERY / 5)
        self._is_over.set()
        return bool(self.lost)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        self.rest()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        self.rest()

    def rest(self) -> None:
        """Stop watching; afterwards, processes may end."""
        self._is_over.set()

    def __str__(self) -> str:
        return f"{self.lost}, so the other processes were ended. {self.remedy}"

    def _end(self) -> None:
        for child in self._children:
            child.kill()


def _how(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"was killed ({name}{', possibly out of memory' if name == 'SIGKILL' else ''})"
    return f"ended with exit code {code} (see its output above)"
