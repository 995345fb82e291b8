"""Fuzz the readers of files.

    python -m tests.fuzz all                                          every target, a minute each
    python -m tests.fuzz "COCO JSON" weights --seconds 300 --seed 7
    python -m tests.fuzz --list
    python -m tests.fuzz weights --input FILE                         one input again, with its traceback

Hypothesis generates well-formed files with invalid values and edited bytes. If a reader neither returns nor raises
UserError, the input is saved below --out with its traceback.
"""

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SILENT = 90
"""Seconds without a report after which a process counts as hanging."""


@dataclass
class Result:
    """Result of fuzzing one target."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        return f"{self.target:26} {self.inputs:9,d} {self.seconds:8.0f} {len(self.findings):9d}"


def fuzz(target: str, *, seconds: float, seed: int, out: Path) -> Result:
    """Fuzz a target for `seconds`; a process that dies or hangs is a finding, and a new process continues."""
    result, begin, crashes = Result(target), time.monotonic(), 0
    while (left := seconds - (time.monotonic() - begin)) > 0.5 or not result.inputs:
        words = [target, str(max(left, 1.0)), str(seed + 1000 * crashes), str(out)]
        paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environment |= {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        with (
            tempfile.TemporaryDirectory(prefix="fuzz-") as scratch,
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors,
                env={**environment, "TMPDIR": scratch},
            ) as process,
        ):  # fmt: skip
            last_report, hangs = _listen(process)
            process.kill()
            process.wait()
            errors.seek(0)
            text = errors.read().decode(errors="replace")[-2000:]
            code = process.returncode
        result.inputs += last_report.get("inputs", 0)
        result.findings |= last_report.get("findings", {})
        if not hangs and last_report.get("over"):
            break
        crashes += 1
        kind = "hangs" if hangs else f"died with exit code {code}"
        if (out / "current").is_file():
            stem = f"{target.replace(' ', '_')}-{kind.split(maxsplit=1)[0]}-{crashes}"
            shutil.copy(out / "current", out / f"{stem}.input")
            (out / f"{stem}.txt").write_text(text)
        result.findings[f"{kind} ({crashes})"] = " ".join(text.split())[-200:]
        if crashes >= 5 or not last_report:
            break
    result.seconds = time.monotonic() - begin
    return result


def _listen(process: subprocess.Popen[bytes]) -> tuple[dict, bool]:
    """Return the last report of a process and whether it hangs; the report has `over` if the process succeeded."""
    last_report: dict = {}
    assert process.stdout is not None
    stream = process.stdout
    while select.select([stream], [], [], SILENT)[0]:
        if not (line := stream.readline()):
            process.wait()
            return {**last_report, "over": process.returncode == 0}, False
        last_report = json.loads(line)
    return last_report, True


def again(target: str, file: Path) -> None:
    """Read one input again, with its traceback."""
    import tests.fuzz.models  # noqa: F401 - registers targets
    from tests.fuzz.targets import attempt

    with tempfile.TemporaryDirectory() as folder:
        attempt(target, file.read_bytes(), Path(folder))
    print(f"{file}: nothing is wrong")


def names() -> list[str]:
    import tests.fuzz.models  # noqa: F401 - registers targets
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def main() -> int:
    """Print one line per finished target, then the table; return 1 if anything was found."""
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, or names")
    parser.add_argument("--list", action="store_true", help="the names")
    parser.add_argument("--seconds", type=float, default=60, help="per target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="default: %(default)s")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try one input of a target again")
    args = parser.parse_args()
    known = names()
    if args.list:
        print("\n".join(known))
        return 0
    chosen = known if args.targets == ["all"] else args.targets
    if not chosen or (unknown := [name for name in chosen if name not in known]):
        print(f"no target {unknown[0] if chosen else 'named'}; there are: all, {', '.join(known)}", file=sys.stderr)
        return 2
    if args.input is not None:
        again(chosen[0], args.input)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    head = f"{'target':26} {'inputs':>9} {'seconds':>8} {'findings':>9}"
    print(head, flush=True)
    results = []
    for target in chosen:
        result = fuzz(target, seconds=args.seconds, seed=args.seed, out=args.out.resolve())
        results.append(result)
        print(result.line(), flush=True)
        for kind, text in result.findings.items():
            print(f"    {kind}: {text}", flush=True)
    print(f"\n{head}\n" + "\n".join(result.line() for result in results))
    found = sum(len(result.findings) for result in results)
    print(
        f"{sum(r.inputs for r in results):,d} inputs, {sum(r.seconds for r in results):.0f} seconds, {found} findings"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
