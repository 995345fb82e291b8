"""Train a model: `python train.py --help` shows the groups and options, `experiment=NAME` picks a recipe."""

from typing import TYPE_CHECKING

from fashion_hydra.config.entry_point import entry_point

if TYPE_CHECKING:
    from fashion_hydra.config.command import Command
    from fashion_hydra.config.schema import TrainConfig


@entry_point("train")
def main(options: "TrainConfig", command: "Command") -> float:
    """Train, and return the best validation score for Hydra's sweepers."""
    from fashion_hydra.workflows.train import train  # loads torch and mmdet: not needed for --help

    return train(options, command)


if __name__ == "__main__":
    main()
