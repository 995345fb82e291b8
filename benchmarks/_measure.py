"""Time rivals in interleaved rounds in one process, and print the table."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(rivals: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each rival per round, after one warm-up round; the order alternates between rounds."""
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
    """Print medians, spread, and the ratio of each median to that of `ours`."""
    factor = {"s": 1, "ms": 1e3, "us": 1e6}[unit] / per
    base = statistics.median(seconds[ours])
    print(f"\n{title}  [{os.cpu_count()} cores, Python {platform.python_version()}, {len(seconds[ours])} rounds]")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"  {name:44} median {middle * factor:9.2f} {unit}  (min {min(values) * factor:.2f}, "
            f"max {max(values) * factor:.2f})  x {middle / base:.2f}"
        )
