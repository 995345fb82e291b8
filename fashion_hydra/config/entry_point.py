"""Around the entry scripts: any error in one line."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig

from fashion_hydra.config.overrides import readable, refusal
from fashion_hydra.utils.error_messages import describe_error

T = TypeVar("T")
_TRACEBACKS = "FASHION_HYDRA_TRACEBACKS"


def describe_any_error(task: Callable[[], T]) -> Callable[[], T]:
    """Decorate an entry script's main: whatever ends it becomes one line, see `exit_with_one_line`.

    Tracebacks stay with `debug=true` or HYDRA_FULL_ERROR=1.
    """

    @functools.wraps(task)
    def wrapped() -> T:
        wanted = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in [a.lower() for a in sys.argv]
        os.environ.setdefault(_TRACEBACKS, str(int(wanted)))  # processes that this one starts find it set
        sys.argv[1:] = readable([word for given in sys.argv[1:] for word in _tuned_file(given)])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # the same bits for any number of threads, at no cost
        return exit_with_one_line(task)

    return wrapped


def _tuned_file(word: str) -> list[str]:
    """`postprocess=FILE.yaml` in the words that Hydra knows, everything else as it is."""
    group, _, value = word.partition("=")
    if group != "postprocess" or not value.endswith(".yaml"):
        return [word]
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return ["postprocess=tuned", f"postprocess.file='{quoted}'"]


def exit_with_one_line(task: Callable[[], T]) -> T:
    """Do the task; a mistake of the user's ends the program with one line and exit code 2, a bug with 1.

    Called inside Hydra's main too, because Hydra says a line of its own about an error that passes through it.
    """
    try:
        return task()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(_TRACEBACKS) == "1":
            raise
        script = f"{HydraConfig.get().job.name}.py" if HydraConfig.initialized() else Path(sys.argv[0]).name
        line, code = describe_error(refusal(error, script, sys.argv[1:]), script)
        print(f"{script}: {line}", file=sys.stderr)
        sys.exit(code)
