"""Callbacks for scores, pictures, curves and checkpoints."""

from fashion_hydra.training.callbacks.checkpoints import LaterModelCheckpoint
from fashion_hydra.training.callbacks.learning_curves import LearningCurves
from fashion_hydra.training.callbacks.process_watch import ProcessWatch
from fashion_hydra.training.callbacks.resume import AtomicCheckpointIO, ResumePoint
from fashion_hydra.training.callbacks.stop_on_signal import StopOnSignal
from fashion_hydra.training.callbacks.validation_pictures import ValidationPictures
from fashion_hydra.training.callbacks.validation_score import ValidationScore
from fashion_hydra.training.callbacks.weight_average import WeightAverage

__all__ = [
    "AtomicCheckpointIO",
    "LaterModelCheckpoint",
    "LearningCurves",
    "ProcessWatch",
    "ResumePoint",
    "StopOnSignal",
    "ValidationPictures",
    "ValidationScore",
    "WeightAverage",
]
