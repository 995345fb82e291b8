"""Train a model: `python train.py --help` shows the groups and options, `experiment=NAME` picks a recipe."""

from typing import TYPE_CHECKING

import hydra

from fashion_hydra.config.allowed_targets import checked_first
from fashion_hydra.config.devices import join_local_job
from fashion_hydra.config.entry_point import describe_any_error, exit_with_one_line
from fashion_hydra.config.overrides import checked
from fashion_hydra.config.resolvers import register_resolvers

if TYPE_CHECKING:
    from omegaconf import DictConfig

register_resolvers()


@describe_any_error
@checked_first("train")
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: "DictConfig") -> float:
    """Train, and return the best validation score, which Hydra's sweepers read."""
    join_local_job()
    options = exit_with_one_line(lambda: checked(cfg))
    from fashion_hydra.workflows.train import (  # torch and mmdet, only when there is something to train
        build_training,
        train,
    )

    return exit_with_one_line(lambda: train(build_training(options)))


if __name__ == "__main__":
    main()
