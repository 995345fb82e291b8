"""Instance segmentation of clothes: Hydra configs, Lightning training, mmdet's Hybrid Task Cascade."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fashion_hydra.api.image_detections import ImageDetections
    from fashion_hydra.api.load import load
    from fashion_hydra.api.predictor import Predictor
    from fashion_hydra.utils.errors import UserError

__all__ = ["ImageDetections", "Predictor", "UserError", "load"]
__version__ = "0.1.0"

_PLACES = {
    "ImageDetections": "fashion_hydra.api.image_detections",
    "Predictor": "fashion_hydra.api.predictor",
    "UserError": "fashion_hydra.utils.errors",
    "load": "fashion_hydra.api.load",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that commands without a model do not wait for PyTorch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
