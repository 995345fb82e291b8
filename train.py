"""Train a model: `python train.py --help` shows the groups and options, `experiment=NAME` picks a recipe."""

from typing import TYPE_CHECKING

import hydra

from fashion_hydra.config.allowed_targets import checked_first
from fashion_hydra.config.devices import join_local_job
from fashion_hydra.config.entry_point import one_line_errors, told_in_one_line
from fashion_hydra.config.overrides import checked
from fashion_hydra.config.resolvers import register_resolvers

if TYPE_CHECKING:
    from omegaconf import DictConfig

register_resolvers()


@one_line_errors
@checked_first("train")
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: "DictConfig") -> float:
    """Train, and return the best validation score, which Hydra's sweepers read."""
    join_local_job()
    options = told_in_one_line(lambda: checked(cfg))
    from fashion_hydra.workflows.train import assemble, train  # torch and mmdet, only when there is something to train

    return told_in_one_line(lambda: train(assemble(options)))


if __name__ == "__main__":
    main()
