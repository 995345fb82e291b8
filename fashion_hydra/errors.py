"""The one exception that is shown to a person as a single line instead of a traceback."""


class UserError(ValueError):
    """What is wrong, the value, and what to do, in one line; the entry points print it and exit with 2."""
