"""What happens around training: scoring, pictures, curves, checkpoints."""

from fashion_hydra.callbacks.curves import LearningCurves
from fashion_hydra.callbacks.pictures import ValidationPictures
from fashion_hydra.callbacks.resume import ResumePoint, WholeFiles
from fashion_hydra.callbacks.score import ValidationScore
from fashion_hydra.callbacks.watch import WatchProcesses

__all__ = ["LearningCurves", "ResumePoint", "ValidationPictures", "ValidationScore", "WatchProcesses", "WholeFiles"]
