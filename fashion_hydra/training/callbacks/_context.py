"""Typed access to the data module and the LightningModule in callbacks."""

from pytorch_lightning import LightningModule, Trainer

from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.training.lightning_module import SegmentationModule


def datamodule_of(trainer: Trainer) -> FashionDataModule:
    """Return the trainer's data module."""
    datamodule = getattr(trainer, "datamodule", None)
    assert isinstance(datamodule, FashionDataModule)
    return datamodule


def module_of(module: LightningModule) -> SegmentationModule:
    """Return the LightningModule with its type."""
    assert isinstance(module, SegmentationModule)
    return module
