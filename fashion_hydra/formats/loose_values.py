"""Interpret values written by pandas, VIA or hand: whole floats, numbers as text, NaN and null for missing values."""

import math
import re
from typing import Any

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*", re.ASCII)
_NOTHING = frozenset({"", "nan", "none", "null", "na", "n/a"})


def whole_number(value: Any) -> int | None:
    """Return the integer of a JSON or CSV value: 6 for 6, 6.0, "6" and "6.0"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 10**18 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 10**18 else None
    if isinstance(value, str) and (found := _WHOLE.fullmatch(value)):
        return int(found[1])
    return None


def is_nothing(value: Any) -> bool:
    """Return whether a value means "missing": null, NaN, an empty text, or a name such as "null" or "n/a"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _NOTHING
