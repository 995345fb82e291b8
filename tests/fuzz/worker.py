"""Fuzz one target for some seconds in a separate process; the parent detects crashes."""

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path
from types import FrameType

ADDRESSES = 8 << 30
SECONDS_AN_INPUT = 20
_TO_PARENT = 9  # file descriptor
CURRENT = "current"
"""File in the folder of findings with the current input."""


class TooSlow(Exception):
    """Reading an input took too long."""


class Work:
    """Sequential processing of inputs.

    Args:
        name: name of the target.
        out: folder for inputs that fail.
        seconds: duration.
    """

    def __init__(self, name: str, out: Path, seconds: float) -> None:
        self.name, self.out, self.begin, self.until = name, out, time.monotonic(), time.monotonic() + seconds
        self.inputs, self.findings, self.reported_at = 0, dict[str, str](), 0.0
        self.current = os.open(out / CURRENT, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        signal.signal(signal.SIGALRM, self._too_slow)

    def start(self) -> None:
        """Start the clock, after all imports."""
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        self.until += time.monotonic() - self.begin
        self.begin = time.monotonic()

    def _too_slow(self, signum: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS_AN_INPUT} seconds")

    def take(self, data: bytes) -> None:
        """Try one input."""
        from tests.fuzz.targets import attempt

        os.ftruncate(self.current, 0)
        os.pwrite(self.current, data, 0)
        self.inputs += 1
        signal.alarm(SECONDS_AN_INPUT)
        try:
            attempt(self.name, data, self.folder)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._note(error, data)
        finally:
            signal.alarm(0)
        if time.monotonic() > self.reported_at + 1:
            self.report()

    def _note(self, error: BaseException, data: bytes) -> None:
        """Save the first input of each kind of failure."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/fashion_hydra/" in f.filename or "/tests/fuzz/" in f.filename]
        place = (ours or frames)[-1]
        kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        if kind not in self.findings:
            self.findings[kind] = " ".join(str(error).split())[:200]
            stem = f"{self.name.replace(' ', '_')}-{len(self.findings)}-{zlib.crc32(kind.encode()):08x}"
            (self.out / f"{stem}.input").write_bytes(data)
            (self.out / f"{stem}.txt").write_text("".join(traceback.format_exception(error)), errors="replace")

    def report(self) -> None:
        """Send the progress so far to the parent."""
        self.reported_at = time.monotonic()
        state = {"inputs": self.inputs, "seconds": self.reported_at - self.begin, "findings": self.findings}
        os.write(_TO_PARENT, json.dumps(state).encode() + b"\n")

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until


def fuzz(work: Work, seed: int) -> None:
    """Fuzz with well-formed inputs from the target's strategy."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    import tests.fuzz.models  # noqa: F401 - registers targets
    from tests.fuzz.generators import STRATEGIES
    from tests.fuzz.targets import TARGETS

    work.start()
    for data in TARGETS[work.name].seeds():
        work.take(data)
    strategy = STRATEGIES[work.name]()
    while not work.is_over:
        seed += 1

        @seeded(seed)
        @settings(
            max_examples=300,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(data: bytes) -> None:
            if not work.is_over:
                work.take(data)

        run()
    work.report()


def main() -> None:
    name, seconds, seed, out = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import tests.fuzz.models  # noqa: F401 - registers targets

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    work = Work(name, Path(out), float(seconds))
    fuzz(work, int(seed))


if __name__ == "__main__":
    # Only reports to the parent use this descriptor, so that output of libraries is separate.
    os.dup2(1, _TO_PARENT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main()
