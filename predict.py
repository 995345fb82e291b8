"""Predict masks: `python predict.py --help` shows the groups and options."""

from typing import TYPE_CHECKING

import hydra

from fashion_hydra.hydra_app import one_line_errors, register_resolvers, told_in_one_line
from fashion_hydra.options import checked
from fashion_hydra.targets import checked_first

if TYPE_CHECKING:
    from omegaconf import DictConfig

register_resolvers()


@one_line_errors
@checked_first("predict")
@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(cfg: "DictConfig") -> None:
    """Predict what is not predicted yet, and write the answers."""
    options = told_in_one_line(lambda: checked(cfg))
    from fashion_hydra.prediction import predict  # torch and mmdet, only when there is something to predict

    told_in_one_line(lambda: predict(options))


if __name__ == "__main__":
    main()
