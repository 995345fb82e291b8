"""Values as pandas, VIA and people write them: whole floats, digits as text, NaN and null for nothing."""

import math
import re
from typing import Any

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*", re.ASCII)
_NOTHING = frozenset({"", "nan", "none", "null", "na", "n/a"})


def whole_number(value: Any) -> int | None:
    """Return the integer that a value of JSON or text of a CSV stands for: 6, 6.0, "6", "6.0"; None for any other."""
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
    """Return whether a value stands for a missing one: null, NaN, or their names as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _NOTHING
