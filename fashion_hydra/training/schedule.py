"""The learning rate as a function of the step: warm-up by iteration, decay by epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fashion_hydra.utils.errors import UserError

DECAYS = ("multistep", "cosine", "linear", "constant", "onecycle")
_PEAK, _RISE, _FALL = 0.3, 25.0, 1e4  # of onecycle: where the highest rate is, and how far it rises and falls


@dataclass(frozen=True)
class Schedule:
    """How long to train and how the learning rate moves.

    Args:
        epochs: passes over the training images.
        lr: learning rate at `base_batch` images a step.
        base_batch: the batch that `lr` was chosen for; other batches scale it linearly (Goyal et al. 2017).
        warmup_steps: steps of linear warm-up.
        warmup_ratio: share of the learning rate that the warm-up starts from.
        decay: `multistep`; `cosine` or `linear`, down to zero at the end; `constant`; or `onecycle` (Smith and Topin
            2018), which rises to the learning rate over the first three tenths and has no other warm-up.
        cycles: how often `cosine` falls from the full rate to zero (Loshchilov and Hutter 2017, arXiv:1608.03983). With
            one cycle per epoch, the checkpoints of all epochs can be averaged (`ensemble=soup`; Zhang et al. 2020,
            arXiv:2012.12645).
        milestones: epochs after which `multistep` multiplies by `gamma`.
        gamma: see there.
        backbone_lr: share of the learning rate that the backbone learns with.
        layer_decay: share of the next stage's learning rate that each stage of the backbone below the last one has
            (Bao et al. 2022, BEiT, appendix; there a layer at a time).
        decay_norms: whether weight decay applies to norms and biases.
    """

    epochs: int
    lr: float
    base_batch: int = 16
    warmup_steps: int = 500
    warmup_ratio: float = 1 / 3
    decay: str = "multistep"
    milestones: Sequence[int] = ()
    gamma: float = 0.1
    cycles: int = 1
    backbone_lr: float = 1.0
    layer_decay: float = 1.0
    decay_norms: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.lr <= 0 or self.base_batch < 1:
            raise UserError(f"schedule: epochs={self.epochs} lr={self.lr} base_batch={self.base_batch} must be above 0")
        if self.warmup_steps < 0 or not 0 <= self.warmup_ratio <= 1 or not 0 < self.gamma <= 1:
            raise UserError(
                f"schedule: warmup_steps={self.warmup_steps} must be at least 0, warmup_ratio={self.warmup_ratio} "
                f"and gamma={self.gamma} between 0 and 1"
            )
        for name in ("backbone_lr", "layer_decay"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise UserError(
                    f"schedule.{name}={value}: a share above 0, at most 1 expected (model.backbone.frozen_stages=4 "
                    "trains no backbone)"
                )
        if self.cycles < 1 or (self.cycles > 1 and self.decay != "cosine"):
            raise UserError(
                f"schedule.cycles={self.cycles}: at least 1 expected, and more only with schedule.decay=cosine"
            )
        if self.decay not in DECAYS:
            raise UserError(f"schedule.decay={self.decay}: give {', '.join(DECAYS[:-1])} or {DECAYS[-1]}")

    def scaled_lr(self, batch: int) -> float:
        """The learning rate for so many images a step, over all devices and accumulated batches."""
        return self.lr * batch / self.base_batch

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """What the learning rate is multiplied by at a step (from 0)."""
        total = self.epochs * steps_per_epoch
        if self.decay == "onecycle":
            return _one_cycle(step, total)
        warmup = 1.0
        if step < self.warmup_steps:
            warmup = self.warmup_ratio + (1 - self.warmup_ratio) * step / self.warmup_steps
        done = min(1.0, step / total)
        if self.decay == "cosine":
            within = done * self.cycles % 1 if done < 1 else 1.0
            return warmup * (1 + math.cos(math.pi * within)) / 2
        if self.decay == "linear":
            return warmup * (1 - done)
        if self.decay == "constant":
            return warmup
        return warmup * self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)


def _one_cycle(step: int, total: int) -> float:
    """The factor of torch.optim.lr_scheduler.OneCycleLR with its own defaults, the highest rate being 1."""
    lowest, end = 1 / _RISE, 1 / _RISE / _FALL
    peak, last = _PEAK * total - 1, total - 1
    step = min(step, last)
    if step <= peak:
        return _between(lowest, 1.0, step / peak)
    return _between(1.0, end, (step - peak) / (last - peak)) if last > peak else 1.0


def _between(start: float, stop: float, share: float) -> float:
    """From one value to another along half a cosine."""
    return stop + (start - stop) * (1 + math.cos(math.pi * share)) / 2
