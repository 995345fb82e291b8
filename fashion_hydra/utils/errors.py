"""Exceptions that users see as one line instead of a traceback."""

import signal

_LONGEST = 1500
_END = 300  # characters kept from the end of a longer message, which says what to do


class UserError(ValueError):
    """A one-line message: what is wrong, the value, what to do. The entry points print it and exit with 2."""

    def __str__(self) -> str:
        """Return the message; if a value in it makes it very long, only its beginning and end."""
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _END]} … {text[-_END:]}"


class StopRequested(Exception):
    """A signal stopped the run after everything was saved.

    Args:
        number: the signal.
        step: the last completed step.
    """

    def __init__(self, number: signal.Signals, step: int) -> None:
        super().__init__(f"{number.name} after step {step}")
        self.number, self.step = number, step
