"""The competition score and COCO's mask AP of the validation images."""

from typing import Any

import numpy as np
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.evaluation import coco_ap, competition_score
from fashion_hydra.formats.submission import SUBMISSION_GRID, SUBMISSION_SIZE, MaskTable
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import Batch
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.training.callbacks._context import datamodule_of, module_of


class ValidationScore(Callback):
    """Logs `val/score`, `val/AP`, `val/AP50` and `val/AP75` after each validation.

    Args:
        pooling: how classes are pooled inside an image, see `fashion_hydra.evaluation.competition_score`.
    """

    def __init__(self, pooling: str = "class") -> None:
        self.pooling = pooling
        self._on_grid: dict[str, Detections] = {}
        self._on_image: dict[str, Detections] = {}
        self._truth: tuple[dict[str, Any], dict[str, Any]] | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch's."""
        self._on_grid.clear()
        self._on_image.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, list[Candidates]],  # type: ignore[override]
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the answers as run-lengths."""
        module = module_of(pl_module)
        for candidates in outputs["candidates"]:
            name = candidates.image_id
            self._on_grid[name] = apply(candidates, module.postprocess, size=SUBMISSION_GRID)
            self._on_image[name] = apply(candidates, COCO_RULE, size=candidates.size)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather from all processes once, score, and log."""
        parts: list[Any] = [(self._on_grid, self._on_image)]
        if dist.is_initialized():
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, (self._on_grid, self._on_image))
        on_grid = {name: d for grid, _ in parts for name, d in grid.items()}
        on_image = {name: d for _, image in parts for name, d in image.items()}
        classes, data = module_of(pl_module).classes, datamodule_of(trainer)
        if self._truth is None:
            self._truth = _truth(data.annotations, data.is_validation, classes)
        by_class_id, by_label = self._truth
        predicted = {name: d.by_class_id(classes.ids) for name, d in on_grid.items()}
        score = competition_score.score_images(by_class_id, predicted, pooling=self.pooling)
        ap = coco_ap.mask_ap(by_label, on_image, labels=len(classes))
        # Every process has the same detections, so the mean over processes is the number itself.
        pl_module.log("val/score", score.value, prog_bar=True, sync_dist=True)
        pl_module.log("val/AP50", ap["AP50"], prog_bar=True, sync_dist=True)
        pl_module.log_dict({"val/AP": ap["AP"], "val/AP75": ap["AP75"]}, sync_dist=True)


def _truth(annotations: Annotations, chosen: np.ndarray, classes: ClassSet) -> tuple[MaskTable, dict[str, Any]]:
    """The truth of the chosen images: on the submission's grid by ClassId, and on their own by label."""
    label_of, images = classes.label_of(), np.flatnonzero(chosen).tolist()
    on_image: dict[str, Any] = {}
    for image in images:
        height, width = (int(edge) for edge in annotations.sizes[image])
        on_image[str(annotations.image_ids[image])] = [
            (label_of[category], rle.runs_to_coco(annotations.runs_of(mask), height=height, width=width))
            for mask in annotations.instances(image)
            if (category := int(annotations.categories[mask])) in label_of
        ]
    return truth_on_grid(annotations, images, size=SUBMISSION_SIZE), on_image
