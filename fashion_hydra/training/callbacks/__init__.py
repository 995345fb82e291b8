"""What happens around training: scoring, pictures, curves, checkpoints."""

from fashion_hydra.training.callbacks.learning_curves import LearningCurves
from fashion_hydra.training.callbacks.process_watch import WatchProcesses
from fashion_hydra.training.callbacks.resume import ResumePoint, WholeFiles
from fashion_hydra.training.callbacks.validation_pictures import ValidationPictures
from fashion_hydra.training.callbacks.validation_score import ValidationScore

__all__ = ["LearningCurves", "ResumePoint", "ValidationPictures", "ValidationScore", "WatchProcesses", "WholeFiles"]
