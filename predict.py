"""Predict masks: `python predict.py --help` shows the groups and options."""

from typing import TYPE_CHECKING

from fashion_hydra.config.entry_point import entry_point

if TYPE_CHECKING:
    from fashion_hydra.config.command import Command
    from fashion_hydra.config.schema import PredictConfig


@entry_point("predict")
def main(options: "PredictConfig", command: "Command") -> None:
    """Predict the images that have no predictions yet, and write the results."""
    from fashion_hydra.workflows.predict import predict  # loads torch and mmdet: not needed for --help

    predict(options, command)


if __name__ == "__main__":
    main()
