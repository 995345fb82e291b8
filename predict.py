"""Predict masks: `python predict.py --help` shows the groups and options."""

from typing import TYPE_CHECKING

from fashion_hydra.config.entry_point import entry_point

if TYPE_CHECKING:
    from fashion_hydra.config.command import Command
    from fashion_hydra.config.schema import PredictConfig


@entry_point("predict")
def main(options: "PredictConfig", command: "Command") -> None:
    """Predict the images that are not predicted yet, and write the answers."""
    from fashion_hydra.workflows.predict import predict  # torch and mmdet, only when there is something to predict

    predict(options, command)


if __name__ == "__main__":
    main()
