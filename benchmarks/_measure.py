"""Interleaved timing of rivals in one process, and the table that tells of it."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(rivals: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each rival in each round, after one round that does not count; the order turns round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    names = list(rivals)
    for turn in range(-1, rounds):
        for name in names if turn % 2 else reversed(names):
            begin = time.perf_counter()
            rivals[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def tell(title: str, seconds: Mapping[str, list[float]], *, ours: str, per: int = 1, unit: str = "ms") -> None:
    """Print medians, spread, and how many times as long the others took as `ours`."""
    factor = {"s": 1, "ms": 1e3, "us": 1e6}[unit] / per
    base = statistics.median(seconds[ours])
    print(f"\n{title}  [{os.cpu_count()} cores, Python {platform.python_version()}, {len(seconds[ours])} rounds]")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"  {name:44} median {middle * factor:9.2f} {unit}  (min {min(values) * factor:.2f}, "
            f"max {max(values) * factor:.2f})  x {middle / base:.2f}"
        )
