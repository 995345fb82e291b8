"""Tune thresholds: `python tune_thresholds.py --help` shows the groups and options, `-m` scores one rule per job."""

from typing import TYPE_CHECKING

from fashion_hydra.config.entry_point import entry_point

if TYPE_CHECKING:
    from fashion_hydra.config.command import Command
    from fashion_hydra.config.schema import TuneConfig


@entry_point("tune")
def main(options: "TuneConfig", command: "Command") -> float:
    """Tune, or score one rule with `-m`, and return the score for Hydra's sweepers."""
    from fashion_hydra.workflows.tune import score_rule, tune  # loads torch: not needed for --help

    return score_rule(options, command) if command.is_sweep else tune(options, command)


if __name__ == "__main__":
    main()
