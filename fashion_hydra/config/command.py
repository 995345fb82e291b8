"""The command line of a script, and the job that it is part of."""

import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from fashion_hydra.config.places import INSTALLED, VERBS
from fashion_hydra.config.words import option_name


@dataclass(frozen=True)
class Command:
    """The command that started a script.

    Args:
        words: overrides, without most of those of the group `hydra`.
        flags: flags that choose configs, with their values, such as `--config-dir` and its folder.
        place: folder of the script as typed; empty for the current folder, None if `fashion-hydra` ran it.
        is_sweep: whether this is one job of a multirun.
        shares_process: whether the jobs of the multirun run one after another in this process.
    """

    words: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    place: str | None = ""
    is_sweep: bool = False
    shares_process: bool = False

    @classmethod
    def current(cls, flags: Sequence[str] = ()) -> "Command":
        """Return the command of the running Hydra job, which was started with the given flags."""
        hydra = HydraConfig.get()
        is_sweep = hydra.mode == RunMode.MULTIRUN
        basic = hydra.launcher._target_.endswith("BasicLauncher")
        where = [word for word in hydra.overrides.hydra if word.startswith(("hydra.searchpath=", "hydra.run.dir="))]
        script = Path(sys.argv[0])
        place: str | None = ""
        if script.name in VERBS.values() and script.parent != Path():
            place = None if script.parent == INSTALLED else str(script.parent)
        return cls((*where, *hydra.overrides.task), tuple(flags), place, is_sweep, is_sweep and basic)

    def gives(self, option: str) -> bool:
        """Return whether the command line sets an option."""
        return option in map(option_name, self.words)

    def call(self, verb: str) -> list[str]:
        """Return the words that start `train`, `tune` or `predict` the way this command was started."""
        return ["fashion-hydra", verb] if self.place is None else ["python", str(Path(self.place) / VERBS[verb])]

    def with_options(self, *changes: str, without: Sequence[str] = ()) -> str:
        """Return the `train` command with some options changed, quoted for a shell.

        Args:
            changes: overrides to add or to replace.
            without: names of options to omit.
        """
        gone = {*without, *map(option_name, changes)}
        kept = [word for word in self.words if option_name(word) not in gone]
        return shlex.join([*self.call("train"), *self.flags, *kept, *changes])

    def only(self, prefixes: tuple[str, ...], *more: str, verb: str) -> str:
        """Return a command for another verb with only the words that begin with one of the prefixes, and `more`."""
        kept = [word for word in self.words if word.startswith(("hydra.searchpath=", *prefixes))]
        return shlex.join([*self.call(verb), *self.flags, *kept, *more])


def join_local_job() -> None:
    """Set Lightning's environment variables so that tasks that submitit started on this machine form one job.

    Lightning detects the tasks of SLURM and torchrun itself.
    """
    job = {name: os.environ.get(f"SUBMITIT_LOCAL_{name}", "1") for name in ("NTASKS", "LOCALID", "JOB_ID")}
    if int(job["NTASKS"]) > 1:
        port = 20000 + int(hashlib.sha256(job["JOB_ID"].encode()).hexdigest(), 16) % 40000
        os.environ |= {"WORLD_SIZE": job["NTASKS"], "LOCAL_RANK": job["LOCALID"], "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
