"""What happens around training: scoring, pictures, curves."""

from fashion_hydra.callbacks.curves import LearningCurves
from fashion_hydra.callbacks.pictures import ValidationPictures
from fashion_hydra.callbacks.score import ValidationScore

__all__ = ["LearningCurves", "ValidationPictures", "ValidationScore"]
