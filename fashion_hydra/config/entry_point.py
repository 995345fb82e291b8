"""Run the three scripts under Hydra: convert options to objects, and print any error in one line."""

import contextlib
import functools
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.config.command import Command, join_local_job
from fashion_hydra.config.errors import user_error
from fashion_hydra.config.option_help import describe_options
from fashion_hydra.config.places import CONF
from fashion_hydra.config.resolvers import register_resolvers
from fashion_hydra.config.schema import register_schemas
from fashion_hydra.config.sweep_table import JobFailed, SweepTable
from fashion_hydra.config.words import config_flags, readable_words
from fashion_hydra.utils.error_messages import describe_error
from fashion_hydra.utils.errors import UserError

T = TypeVar("T")
_TRACEBACKS = "FASHION_HYDRA_TRACEBACKS"


def entry_point(config_name: str) -> Callable[[Callable[[Any, Command], T]], Callable[[], None]]:
    """Decorate a script's main function, which receives the options as its schema's object and the command.

    An error ends the script with one line, and with exit code 2 for a user error, 1 for a bug. `traceback=true` or
    HYDRA_FULL_ERROR=1 show the traceback instead.

    Args:
        config_name: name of the script's main config in conf/.
    """

    def decorate(task: Callable[[Any, Command], T]) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            words = [word.lower() for word in sys.argv[1:]]
            wanted = os.environ.get("HYDRA_FULL_ERROR") == "1" or "traceback=true" in words
            os.environ.setdefault(_TRACEBACKS, str(int(wanted)))  # child processes inherit it
            os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits
            os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # bit-identical for any number of threads, at no cost
            script = os.path.basename(sys.argv[0])
            flags = config_flags(sys.argv[1:])
            prepare_config()

            def run(cfg: DictConfig) -> T:
                join_local_job()
                command = Command.current(flags)
                # Catch errors inside Hydra's main too, which would print its own line about them.
                end = _or_fail if command.is_sweep else _or_exit
                return end(lambda: _run_task(lambda: task(OmegaConf.to_object(cfg), command)), script)

            def compose_and_run() -> None:
                sys.argv[1:] = readable_words(sys.argv[1:])
                composed = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run)
                if {"--help", "-h"}.isdisjoint(sys.argv):
                    composed()
                else:
                    print(describe_options(_printed_by(composed), config_name), end="")

            try:
                _or_exit(compose_and_run, script)
            finally:
                SweepTable.write_open()

        return main

    return decorate


def prepare_config() -> None:
    """Register schemas and resolvers with Hydra; call this before composing any config."""
    register_schemas()
    register_resolvers()


def _printed_by(task: Callable[[], None]) -> str:
    """Return what a task prints before it ends or exits, as Hydra does after its help."""
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        task()
    return text.getvalue()


def _run_task(task: Callable[[], T]) -> T:
    """Run the task; on wrong options or files, remove the folder that Hydra made if nothing else was written to it."""
    try:
        return task()
    except UserError:
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        written_by_hydra = {".hydra", f"{hydra_config.job.name}.log"}
        if folder != Path.cwd() and {path.name for path in folder.glob("*")} <= written_by_hydra:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _or_fail(task: Callable[[], T], script: str) -> T:
    """Run the task; print an error as one line, and raise JobFailed so that the multirun's other jobs continue."""
    try:
        return task()
    except Exception as error:
        if os.environ.get(_TRACEBACKS) == "1":
            raise
        line, _ = describe_error(user_error(error, script, sys.argv[1:]), script)
        print(f"{script}: {line}", file=sys.stderr)
        raise JobFailed(line) from None


def _or_exit(task: Callable[[], T], script: str) -> T:
    """Run the task; print an error as one line and exit."""
    try:
        return task()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(_TRACEBACKS) == "1":
            raise
        line, code = describe_error(user_error(error, script, sys.argv[1:]), script)
        print(f"{script}: {line}", file=sys.stderr)
        sys.exit(code)
