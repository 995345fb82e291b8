"""Competition score and COCO's mask AP of the validation images."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.evaluation import coco_ap, competition_score
from fashion_hydra.evaluation.annotated import true_masks
from fashion_hydra.evaluation.coco_ap import TrueMask
from fashion_hydra.evaluation.competition_score import ClassMasks
from fashion_hydra.evaluation.matching import CLASS_ID, choose_match, describe_match, masks_to_match, reach
from fashion_hydra.formats.submission import SUBMISSION_GRID, SUBMISSION_SIZE, MaskTable
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.batch import Batch
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.training.callbacks._context import datamodule_of, module_of
from fashion_hydra.training.console import log_rank_zero

_LOGGED = ("AP", "AP75", "AP_small", "AP_medium", "AP_large")


class ValidationScore(Callback):
    """Callback that logs `val/score` and COCO's `val/AP`, AP50, AP75, AP_small, AP_medium, AP_large of each validation.

    Metrics of a size without objects are not logged.

    Args:
        pooling: how classes are pooled within an image, see `fashion_hydra.evaluation.competition_score`.
        match: what a detection has to match, `class_id` or `category`; None: `category` if the model cannot predict
            any ClassId of the ground truth, else `class_id`. See `fashion_hydra.evaluation.matching`.
    """

    def __init__(self, pooling: str = "class", match: str | None = None) -> None:
        self.pooling, self.match = pooling, match
        self._on_grid: dict[str, Detections] = {}
        self._on_image: dict[str, Detections] = {}
        self._truth: tuple[Mapping[str, ClassMasks], dict[str, list[TrueMask]]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose what detections have to match, and log it."""
        data = datamodule_of(trainer)
        found = reach(_class_ids(data.annotations, data.is_validation), data.classes.can_answer, pooling=self.pooling)
        if remark := describe_match(self.match, found):
            log_rank_zero("val/score      %s", remark)
        self.match = choose_match(self.match, found)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the previous epoch's detections."""
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
        """Collect the detections as run-length encodings."""
        module = module_of(pl_module)
        for candidates in outputs["candidates"]:
            name = candidates.image_id
            self._on_grid[name] = apply(candidates, module.postprocess, size=SUBMISSION_GRID)
            self._on_image[name] = apply(candidates, COCO_RULE, size=candidates.size)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the detections from all ranks once, score them, and log the scores."""
        parts: list[Any] = [(self._on_grid, self._on_image)]
        if dist.is_initialized():
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, (self._on_grid, self._on_image))
        on_grid = {name: d for grid, _ in parts for name, d in grid.items()}
        on_image = {name: d for _, image in parts for name, d in image.items()}
        classes, data, match = module_of(pl_module).classes, datamodule_of(trainer), self.match or CLASS_ID
        if self._truth is None:
            on_grid_truth, on_image_truth = _truth(data.annotations, data.is_validation, classes)
            self._truth = masks_to_match(on_grid_truth, match), on_image_truth
        # Only validated images: `limit_val_batches` and similar options skip some.
        by_class_id = {name: masks for name, masks in self._truth[0].items() if name in on_image}
        by_label = {name: masks for name, masks in self._truth[1].items() if name in on_image}
        predicted = masks_to_match({name: d.by_class_id(classes.ids) for name, d in on_grid.items()}, match)
        score = competition_score.score_images(by_class_id, predicted, pooling=self.pooling)
        ap = coco_ap.mask_ap(by_label, on_image, labels=len(classes)).overall
        # All ranks have the same detections, so the mean over ranks is the value itself.
        pl_module.log("val/score", score.value, prog_bar=True, sync_dist=True)
        pl_module.log("val/AP50", ap["AP50"], prog_bar=True, sync_dist=True)
        others = {f"val/{name}": ap[name] for name in _LOGGED if not np.isnan(ap[name])}
        pl_module.log_dict(others, sync_dist=True)


def _class_ids(annotations: Annotations, chosen: np.ndarray) -> Iterator[list[str]]:
    """Yield the ClassIds of the ground-truth masks of each chosen image."""
    for image in np.flatnonzero(chosen).tolist():
        yield [str(annotations.class_ids[mask]) for mask in annotations.instances(image)]


def _truth(
    annotations: Annotations, chosen: np.ndarray, classes: ClassSet
) -> tuple[MaskTable, dict[str, list[TrueMask]]]:
    """Return the chosen images' ground truth, on the submission's grid by ClassId and on the image's grid by label."""
    images = np.flatnonzero(chosen).tolist()
    on_image = {str(annotations.image_ids[image]): list(true_masks(annotations, image, classes)) for image in images}
    return truth_on_grid(annotations, images, size=SUBMISSION_SIZE), on_image
