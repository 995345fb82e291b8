"""Exceptions that are shown to a person as a single line instead of a traceback."""

import signal

_LONGEST = 1500
_END = 300  # characters that are kept of a longer message's end, where it says what to do


class UserError(ValueError):
    """What is wrong, the value, and what to do, in one line; the entry points print it and exit with 2."""

    def __str__(self) -> str:
        """The message; of a very long one, as a value in it makes it, beginning and end."""
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _END]} … {text[-_END:]}"


class StopRequested(Exception):
    """A run that was asked to stop did so, everything saved.

    Args:
        number: of the signal that asked for it.
        step: the last that was done.
    """

    def __init__(self, number: signal.Signals, step: int) -> None:
        super().__init__(f"{number.name} after step {step}")
        self.number, self.step = number, step
