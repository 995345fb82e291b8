"""Predict masks: `python predict.py --help` shows the groups and options."""

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
@checked_first("predict")
@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(cfg: "DictConfig") -> None:
    """Predict what is not predicted yet, and write the answers."""
    options = exit_with_one_line(lambda: checked(cfg))
    from fashion_hydra.workflows.predict import predict  # torch and mmdet, only when there is something to predict

    exit_with_one_line(lambda: predict(options))


if __name__ == "__main__":
    main()
