"""The run that a callback is part of, with its types."""

from pytorch_lightning import LightningModule, Trainer

from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.training.lightning_module import SegmentationModule


def datamodule_of(trainer: Trainer) -> FashionDataModule:
    """The trainer's data module."""
    datamodule = getattr(trainer, "datamodule", None)
    assert isinstance(datamodule, FashionDataModule)
    return datamodule


def module_of(module: LightningModule) -> SegmentationModule:
    """The trainer's module."""
    assert isinstance(module, SegmentationModule)
    return module
