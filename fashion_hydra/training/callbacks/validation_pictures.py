"""Draw predictions beside the ground truth."""

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
    """Callback that writes `predictions.png` and logs it to the trackers whenever `metric` is the best so far.

    Args:
        folder: folder of the picture.
        images: number of validation images in the picture.
        metric: name of the metric, higher is better.
    """

    def __init__(self, folder: str, images: int = 6, metric: str = "val/score") -> None:
        self.path, self.images, self.metric = Path(folder) / "predictions.png", images, metric
        self.best = -1.0
        self._shown: list[Candidates] = []

    def state_dict(self) -> dict[str, float]:
        """Return the best value, so that a resumed run does not replace the picture with a worse one."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the best value from a checkpoint."""
        self.best = state_dict["best"]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the previous epoch's candidates."""
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
        """Collect the first images' candidates."""
        self._shown += outputs["candidates"][: self.images - len(self._shown)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw if the metric is the best so far."""
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
        everything = replace(module.postprocess, dropped_labels=())  # show all learnt classes, even dropped ones
        found = apply(candidates, everything, size=candidates.size)
        return PaintedImage.of_detections(read_image(annotations, image), truth, found, module.classes.ids)
