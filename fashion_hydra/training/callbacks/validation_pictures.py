"""Pictures of predictions beside the truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.dataset import read_image
from fashion_hydra.plots.painted_masks import PaintedImage, draw_comparison
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.structures.batch import Batch
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.rle import runs_to_bitmap
from fashion_hydra.training.callbacks._context import datamodule_of, module_of
from fashion_hydra.training.lightning_module import SegmentationModule
from fashion_hydra.training.trackers import log_pictures


class ValidationPictures(Callback):
    """Writes `predictions.png`, and tells the trackers, whenever `val/score` is the best so far.

    Args:
        folder: where the picture goes.
        images: how many validation images it shows.
        metric: what best means.
    """

    def __init__(self, folder: str, images: int = 6, metric: str = "val/score") -> None:
        self.path, self.images, self.metric = Path(folder) / "predictions.png", images, metric
        self.best = -1.0
        self._shown: list[Candidates] = []

    def state_dict(self) -> dict[str, float]:
        """The best value, so that a resumed run does not draw a worse picture over it."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from a checkpoint's best value."""
        self.best = state_dict["best"]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch's."""
        self._shown.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, list[Candidates]],  # type: ignore[override]
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first few images' candidates."""
        self._shown += outputs["candidates"][: self.images - len(self._shown)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw if the score is the best so far."""
        score = float(trainer.callback_metrics.get(self.metric, 0.0))
        if not trainer.is_global_zero or trainer.sanity_checking or score <= self.best:
            return
        self.best = score
        annotations = datamodule_of(trainer).annotations
        rows = [self._row(candidates, annotations, module_of(pl_module)) for candidates in self._shown]
        draw_comparison(self.path, rows, names=annotations.names)
        log_pictures(trainer.loggers, "val/predictions", rows, names=annotations.names, step=trainer.global_step)

    def _row(self, candidates: Candidates, annotations: Annotations, module: SegmentationModule) -> PaintedImage:
        image = int(np.flatnonzero(annotations.image_ids == candidates.image_id)[0])
        height, width = candidates.size
        masks = annotations.instances(image)
        truth = [
            (int(annotations.categories[m]), runs_to_bitmap(annotations.runs_of(m), height=height, width=width))
            for m in masks
        ]
        everything = replace(module.postprocess, dropped_labels=())  # what is learnt, answered or not
        found = apply(candidates, everything, size=candidates.size)
        return PaintedImage.of_detections(read_image(annotations, image), truth, found, module.classes.ids)
