"""Exceptions that are shown to a person as a single line instead of a traceback."""

import signal


class UserError(ValueError):
    """What is wrong, the value, and what to do, in one line; the entry points print it and exit with 2."""


class Stopped(Exception):
    """A run that was asked to stop did so, everything saved.

    Args:
        number: of the signal that asked for it.
        step: the last that was done.
    """

    def __init__(self, number: signal.Signals, step: int) -> None:
        super().__init__(f"{number.name} after step {step}")
        self.number, self.step = number, step
