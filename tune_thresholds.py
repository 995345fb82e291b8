"""Find thresholds: `python tune_thresholds.py --help` shows the groups and options, `-m` scores one rule a job."""

from typing import TYPE_CHECKING

import hydra

from fashion_hydra.config.allowed_targets import checked_first
from fashion_hydra.config.entry_point import describe_any_error, exit_with_one_line
from fashion_hydra.config.overrides import checked
from fashion_hydra.config.resolvers import register_resolvers

if TYPE_CHECKING:
    from omegaconf import DictConfig

register_resolvers()


@describe_any_error
@checked_first("tune")
@hydra.main(version_base="1.3", config_path="conf", config_name="tune")
def main(cfg: "DictConfig") -> float:
    """Tune, or with `-m` score one rule; return the score, which Hydra's sweepers read."""
    options = exit_with_one_line(lambda: checked(cfg))
    from fashion_hydra.workflows.tune import score_rule, sweeping, tune  # torch, only when there is something to tune

    return exit_with_one_line(lambda: score_rule(options) if sweeping() else tune(options))


if __name__ == "__main__":
    main()
