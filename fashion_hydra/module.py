"""The LightningModule: training steps, optimizer, and candidates in validation. No metric, no paths."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fashion_hydra.data.classes import ClassSet
from fashion_hydra.errors import UserError
from fashion_hydra.inference import find_candidates
from fashion_hydra.model.detector import Detector
from fashion_hydra.postprocess import COCO_RULE, Postprocess
from fashion_hydra.schedule import Schedule
from fashion_hydra.structures import Batch, Candidates

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


class SegmentationModule(LightningModule):
    """Trains a detector; in validation, hands candidates to the callbacks.

    Args:
        detector: see `fashion_hydra.model.detector.Detector`.
        classes: behind its outputs; kept in the checkpoint.
        model: the plain config that the detector was built from; kept in the checkpoint.
        optimizer: makes one from parameter groups; its learning rate is replaced by the schedule's.
        schedule: learning rate.
        batch: images a step over all devices and accumulated batches.
        eval_scale: short and long edge that it is validated at; kept in the checkpoint.
        postprocess: the rule that validation is scored with.
        seed: of the sampling inside the detector.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        classes: ClassSet,
        model: dict[str, Any],
        optimizer: OptimizerFactory,
        schedule: Schedule,
        batch: int,
        eval_scale: tuple[int, int],
        postprocess: Postprocess,
        seed: int,
    ) -> None:
        super().__init__()
        self.detector, self.classes, self.model = detector, classes, model
        self.optimizer_factory, self.schedule, self.batch = optimizer, schedule, batch
        self.eval_scale, self.postprocess, self.seed = eval_scale, postprocess, seed

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the losses.

        The detector samples boxes at random from torch's generator. Seeding it from the step makes a step
        depend on nothing but weights and batch, so a resumed run goes on as the uninterrupted one.
        """
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        losses = self.detector.loss(batch)
        total = torch.stack(list(losses.values())).sum()
        count = len(batch)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=count)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Candidates]]:
        """Candidates for the competition's rule and for COCO's."""
        return {"candidates": find_candidates(self.detector, batch, [self.postprocess, COCO_RULE])}

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimizer at the scaled learning rate, and the schedule step by step."""
        parameters = [p for p in self.detector.parameters() if p.requires_grad]
        optimizer = self.optimizer_factory(parameters)
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.scaled_lr(self.batch)
        assert self.trainer.max_epochs, "the schedule counts in epochs"
        steps_per_epoch = max(1, int(self.trainer.estimated_stepping_batches) // self.trainer.max_epochs)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is needed to build the model again, as plain containers."""
        checkpoint["classes"] = {"ids": list(self.classes.ids), "names": list(self.classes.names)}
        checkpoint["model"] = self.model
        checkpoint["eval_scale"] = [int(edge) for edge in self.eval_scale]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another label space."""
        check_classes(checkpoint, self.classes.ids)


def check_classes(checkpoint: dict[str, Any], ids: Sequence[int]) -> None:
    """Raise `UserError` unless the checkpoint was trained on these categories, in this order."""
    kept = checkpoint.get("classes")
    if kept is None:
        raise UserError("the checkpoint does not say which classes it was trained on: not written by train.py")
    if list(kept["ids"]) != list(ids):
        raise UserError(
            f"the checkpoint was trained on {len(kept['ids'])} classes {_short(kept['ids'])}, this run has "
            f"{len(ids)} {_short(ids)}; choose the same classes=... and data, or start without ckpt_path"
        )


def _short(ids: Sequence[int]) -> str:
    shown = ",".join(map(str, ids[:6]))
    return f"({shown}{',...' if len(ids) > 6 else ''})"
