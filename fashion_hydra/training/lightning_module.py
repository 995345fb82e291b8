"""The LightningModule: training step, optimizer, and candidates in validation. No metrics, no paths."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.inference.cascade import find_candidates
from fashion_hydra.inference.merging import MASK_GRID
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.parameter_groups import parameter_groups
from fashion_hydra.postprocess.rule import COCO_RULE, Postprocess
from fashion_hydra.structures.batch import Batch
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.training.console import log_rank_zero
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import id_list

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


class SegmentationModule(LightningModule):
    """Training of a detector, and validation that returns candidates for the callbacks.

    Args:
        detector: see `fashion_hydra.model.detector.Detector`.
        classes: classes of the detector's outputs; saved in the checkpoint.
        model: plain config that the detector was built from; saved in the checkpoint.
        optimizer: creates an optimizer from parameter groups; the schedule replaces its learning rate.
        schedule: learning rate schedule.
        batch: images per step, over all devices and accumulated batches.
        eval_scale: short and long edge of the images in validation; saved in the checkpoint.
        postprocess: postprocessing rule for the validation score.
        seed: seed for sampling boxes in the detector.
        skip_nonfinite: maximum number of steps with NaN or infinite losses to skip; one more stops the run.
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
        skip_nonfinite: int = 0,
    ) -> None:
        super().__init__()
        self.detector, self.classes, self.model = detector, classes, model
        self.optimizer_factory, self.schedule, self.batch = optimizer, schedule, batch
        self.eval_scale, self.postprocess, self.seed = eval_scale, postprocess, seed
        self.skip_nonfinite, self.skipped = skip_nonfinite, 0
        self._is_spoilt = False
        self._steps_per_epoch = 1
        self._wanted: list[dict[str, Any]] = []  # this run's optimizer options for each group
        self._resumed: dict[str, Any] | None = None
        detector.train()  # Lightning does not call this, and mmdet's backbones apply `norm_eval` here

    def on_fit_start(self) -> None:
        """Use the channels-last layout on a CPU, where it is faster, and apply fixed batch norms to weights."""
        if self.device.type == "cpu":
            self.detector.lay_channels_last()
            self.detector.apply_fixed_norms_to_weights()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the losses.

        Boxes are sampled with seeds that depend on the run's seed, the epoch and the image. Therefore, a step depends
        only on weights and images, and results do not depend on interruptions or on the number of processes.

        Raises:
            UserError: the loss is NaN or infinite in more than `skip_nonfinite` steps.
        """
        seeds = [seed_for_image(self.seed, self.current_epoch, image_id) for image_id in batch.image_ids]
        losses = self.detector.loss(batch, seeds)
        total = torch.stack(list(losses.values())).sum()
        logged = self._mean_over_ranks(torch.stack([total, *losses.values()]).detach().float())
        if not bool(logged[0].isfinite()):
            self._skip_step(batch, losses)
        self.log("train/loss", logged[0], prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{name}": v for name, v in zip(losses, logged[1:], strict=True)}, batch_size=len(batch))
        return total * self._accumulation_correction(batch_idx)

    def _accumulation_correction(self, batch_idx: int) -> float:
        """Return a factor on the loss that makes the last step of an epoch a mean over the step's batches.

        Lightning divides each loss by `accumulate_grad_batches`, even if the last step has fewer batches.
        """
        accumulated, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        left = batches % accumulated
        return accumulated / left if left and batch_idx >= batches - left else 1.0

    def _mean_over_ranks(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks, on every rank."""
        if self.trainer.world_size > 1:
            dist.all_reduce(values)
            values /= self.trainer.world_size
        return values

    def _skip_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> None:
        """Skip this step on every rank."""
        wrong = {name: float(value) for name, value in losses.items() if not bool(value.isfinite())}
        gathered: list[Any] = [(wrong, batch.image_ids)]
        if self.trainer.world_size > 1:
            gathered = [None] * self.trainer.world_size
            dist.all_gather_object(gathered, (wrong, batch.image_ids))
        images = [image_id for found, ids in gathered if found for image_id in ids]
        values = ", ".join(f"{name} {value}" for name, value in next(v for v, _ in gathered if v).items())
        what = f"step {self.global_step} of epoch {self.current_epoch}: {values} on images {', '.join(images)}"
        if self.skipped >= self.skip_nonfinite:
            raise UserError(
                f"{what}. Check these images (fashion-hydra eda). If they are good, lower schedule.lr or "
                "schedule.gradient_clip, or use trainer.precision=bf16-mixed instead of 16-mixed; "
                f"schedule.skip_nonfinite={self.skip_nonfinite + 10} skips up to {self.skip_nonfinite + 10} such steps"
            )
        if spoilt := [n for n, b in self.detector.named_buffers() if b.is_floating_point() and not b.isfinite().all()]:
            raise UserError(
                f"{what}. The buffer {spoilt[0]} is no longer finite, so the step cannot be skipped. "
                "Resume from the last checkpoint (ckpt_path=last) with a lower schedule.lr"
            )
        self.skipped += 1
        self._is_spoilt = True
        rank_zero_warn(f"{what}: skipped, {self.skipped} so far (schedule.skip_nonfinite={self.skip_nonfinite})")

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Drop the gradients of a skipped step; in half precision, the gradient scaler skips the step itself."""
        if self._is_spoilt and getattr(self.trainer.precision_plugin, "scaler", None) is None:
            optimizer.zero_grad(set_to_none=True)
        self._is_spoilt = False

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Candidates]]:
        """Return candidates for `postprocess` and for COCO's rule."""
        return {"candidates": find_candidates(self.detector, batch, [self.postprocess, COCO_RULE], mask_grid=MASK_GRID)}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        schedule = self.schedule
        return parameter_groups(
            self.detector,
            backbone_lr=schedule.backbone_lr,
            layer_decay=schedule.layer_decay,
            decay_norms=schedule.decay_norms,
        )

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the optimizer with the scaled learning rate, and the schedule per step."""
        schedule, groups = self.schedule, self._parameter_groups()
        shares = [group.pop("share") for group in groups]
        try:
            optimizer = self.optimizer_factory(groups)
        except (IndexError, TypeError, ValueError) as error:  # raised by PyTorch for invalid arguments
            raise UserError(f"schedule.optimizer: {error}") from error
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = schedule.scaled_lr(self.batch) * share
        self._wanted = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        try:
            _ = self.trainer.estimated_stepping_batches  # makes Lightning count the batches
        except ValueError as error:  # raised by Lightning for val_check_interval
            raise UserError(f"trainer: {str(error).strip()}") from error
        batches, accumulated = int(self.trainer.num_training_batches), self.trainer.accumulate_grad_batches
        if batches < accumulated:
            rank_zero_warn(
                f"trainer.accumulate_grad_batches={accumulated}: an epoch has {batches} batches, so a step uses "
                f"{batches}, but the learning rate is scaled for {accumulated}"
            )
        self._steps_per_epoch = steps = max(1, math.ceil(batches / accumulated))
        scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Restore this run's optimizer options, which resuming replaced by the checkpoint's."""
        if self._resumed is None:
            return
        optimizer, scheduler = self.trainer.optimizers[0], self.trainer.lr_scheduler_configs[0].scheduler
        changed: dict[str, tuple[Any, Any]] = {}
        for group, wanted in zip(optimizer.param_groups, self._wanted, strict=True):
            before = {**group, "lr": group.get("initial_lr", group["lr"])}
            for key in (key for key, value in wanted.items() if before.get(key) != value):
                changed.setdefault(key, (before.get(key), wanted[key]))
            group |= {**wanted, "initial_lr": wanted["lr"]}
        steps = int(self._resumed.get("steps_per_epoch", self._steps_per_epoch))
        if steps != self._steps_per_epoch:  # the batch size changed: continue at the same epoch of the schedule
            scheduler.last_epoch = round(scheduler.last_epoch * self._steps_per_epoch / steps)
            changed["steps per epoch"] = (steps, self._steps_per_epoch)
        scheduler.base_lrs = [wanted["lr"] for wanted in self._wanted]
        factor = self.schedule.factor(scheduler.last_epoch, self._steps_per_epoch)
        for group, rate in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = rate * factor
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
        if changed:
            told = ", ".join(f"{key} {before} -> {value}" for key, (before, value) in changed.items())
            log_rank_zero("changed        %s, starting with this step", told)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what is needed to rebuild the model, as plain containers."""
        checkpoint["classes"] = {"ids": list(self.classes.ids), "names": list(self.classes.names)}
        if self.classes.attributes:
            checkpoint["classes"]["attributes"] = self.classes.attributes.plain()
        checkpoint["model"] = self.model
        checkpoint["skipped"] = self.skipped
        checkpoint["eval_scale"] = [int(edge) for edge in self.eval_scale]
        checkpoint["steps_per_epoch"] = self._steps_per_epoch
        checkpoint["optimizer"] = type(self.trainer.optimizers[0]).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with other classes or an incompatible optimizer."""
        check_classes(checkpoint, self.classes)
        self._check_optimizer(checkpoint)
        self._resumed = {"steps_per_epoch": checkpoint["steps_per_epoch"]} if "steps_per_epoch" in checkpoint else {}
        self.skipped = checkpoint.get("skipped", 0)

    def _check_optimizer(self, checkpoint: Mapping[str, Any]) -> None:
        if not (states := checkpoint.get("optimizer_states")):
            return
        groups = self._parameter_groups()
        mine = getattr(getattr(self.optimizer_factory, "func", None), "__name__", None)
        theirs = checkpoint.get("optimizer", mine)
        if mine is not None and theirs != mine:
            raise UserError(
                f"schedule/optimizer: the checkpoint has {theirs}, this run {mine}. Use the same optimizer, or start a "
                "new run from the checkpoint's weights: weights=FILE"
            )
        saved, wanted = ([len(group["params"]) for group in of] for of in (states[0]["param_groups"], groups))
        if saved != wanted:
            raise UserError(
                f"schedule.backbone_lr, layer_decay, decay_norms or model.backbone.frozen_stages: the checkpoint's "
                f"optimizer has parameter groups of sizes {saved}, this run's {wanted}. Use the same options, or start "
                "a new run from the checkpoint's weights: weights=FILE"
            )


def seed_for_image(seed: int, epoch: int, image_id: str) -> int:
    """Return the seed for sampling boxes in an image."""
    return int(np.random.SeedSequence((seed, epoch, zlib.crc32(image_id.encode()))).generate_state(1)[0])


def check_classes(checkpoint: dict[str, Any], classes: ClassSet) -> None:
    """Raise `UserError` unless the checkpoint was trained on the same categories and attributes in the same order."""
    ids, kept = classes.ids, checkpoint.get("classes")
    if kept is None:
        raise UserError("the checkpoint does not contain its classes: not written by train.py")
    if list(kept["ids"]) != list(ids):
        raise UserError(
            f"the checkpoint was trained on {len(kept['ids'])} classes ({id_list(kept['ids'])}), this run has "
            f"{len(ids)} ({id_list(ids)}); choose the same classes=... and data, or start without ckpt_path"
        )
    theirs, mine = list((kept.get("attributes") or {}).get("ids", [])), list(classes.attributes.ids)
    if theirs != mine:
        raise UserError(
            f"the checkpoint was trained on {len(theirs)} attributes ({id_list(theirs)}), this run has {len(mine)} "
            f"({id_list(mine)}); choose the same model.attributes=... and data, or start without ckpt_path"
        )
