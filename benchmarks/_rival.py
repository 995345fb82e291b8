"""What the rivals of `benchmarks.rivals` have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from fashion_hydra.config.schema import AugmentConfig
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.inference.cascade import CascadeDetector
from fashion_hydra.model.detector import Detector

WARM_UP = 100  # steps; the 500 of mmdet and 1,000 of torchvision are for 7,330 steps per epoch


@dataclass(frozen=True)
class Budget:
    """Length of a training: a number of epochs, or of steps."""

    epochs: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Setting:
    """What a rival is trained with.

    Args:
        data: the data set, split into folds.
        augment: sizes, windows and flips of photos.
        model: options of our model.
        ours: our model, whose backbone the rival gets.
        narrow: whether the rival's heads are as wide as ours and sample as many boxes.
        optimizer: `sgd` as the rival's own, or `adamw` as our recipe's.
        folder: output folder.
    """

    data: FashionDataModule
    augment: AugmentConfig
    model: dict[str, Any]
    ours: Detector
    narrow: bool
    optimizer: str
    folder: Path


class Rival(Protocol):
    """A detector of another library, ready to train."""

    def start(self) -> nn.Module:
        """Return the detector with initial weights."""

    def train(self, net: nn.Module, budget: Budget) -> list[float]:
        """Train, and return the time at which each step ended."""

    def detector(self, net: nn.Module) -> CascadeDetector:
        """Return the trained detector with our interface."""
