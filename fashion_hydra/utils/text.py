"""Format values for messages: short and in one line."""

from collections.abc import Sequence


def shorten(value: object, longest: int = 120) -> str:
    """Return a value's text, cut to `longest` characters that end with `...` if it is longer."""
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def one_line(value: object, longest: int | None = None) -> str:
    """Return a value's text in one line, shortened to `longest` characters.

    Args:
        value: any value; an exception without a text is shown by its class name.
        longest: maximum number of characters; None for no limit.
    """
    text = " ".join(str(value).split())
    if not text and isinstance(value, BaseException):
        text = type(value).__name__
    return text if longest is None else shorten(text, longest)


def id_list(ids: Sequence[int], most: int = 6) -> str:
    """Return up to `most` ids separated by commas, then `...` if there are more: `0,1,2,3,4,5,...`."""
    return ",".join([*map(str, ids[:most]), *(["..."] if len(ids) > most else [])])
