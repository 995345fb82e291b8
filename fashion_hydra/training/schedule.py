"""Learning rate as a function of the step: warm-up by step, decay by epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fashion_hydra.utils.errors import UserError

DECAYS = ("multistep", "cosine", "linear", "constant", "onecycle")
_PEAK, _RISE, _FALL = 0.3, 25.0, 1e4  # onecycle: position of the peak, peak / initial rate, initial / final rate


@dataclass(frozen=True)
class Schedule:
    """Length of the training, learning rate and weight decay.

    Args:
        epochs: passes over the training images.
        lr: learning rate at `base_batch` images per step.
        base_batch: batch size that `lr` was chosen for; `lr` scales linearly with the batch size (Goyal et al. 2017).
        warmup_steps: steps of linear warm-up.
        warmup_ratio: learning rate at the start of the warm-up, as a share of `lr`.
        decay: `multistep`; `cosine` or `linear`, down to zero at the end; `constant`; or `onecycle` (Smith and Topin
            2018), which rises to `lr` over the first 30 % of the steps and ignores the warm-up options.
        cycles: number of times that `cosine` falls from `lr` to zero (Loshchilov and Hutter 2017, arXiv:1608.03983).
            With one cycle per epoch, the checkpoints of all epochs can be averaged (`ensemble=soup`; Zhang et al. 2020,
            arXiv:2012.12645).
        milestones: epochs after which `multistep` multiplies the learning rate by `gamma`.
        gamma: factor of `multistep`.
        backbone_lr: learning rate of the backbone's last stage, as a share of `lr`.
        layer_decay: learning rate of each earlier stage of the backbone, as a share of the next stage's (Bao et al.
            2022, BEiT, appendix, where it applies per layer).
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
        for name in ("epochs", "lr", "base_batch"):
            if not (value := getattr(self, name)) > 0:
                raise UserError(f"schedule.{name}={value}: must be above 0")
        if self.warmup_steps < 0 or not 0 <= self.warmup_ratio <= 1 or not 0 < self.gamma <= 1:
            raise UserError(
                f"schedule: warmup_steps={self.warmup_steps} must be at least 0, warmup_ratio={self.warmup_ratio} "
                f"and gamma={self.gamma} between 0 and 1"
            )
        for name in ("backbone_lr", "layer_decay"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise UserError(
                    f"schedule.{name}={value}: must be above 0 and at most 1. To freeze the backbone, set "
                    "model.backbone.frozen_stages=4"
                )
        if self.cycles < 1 or (self.cycles > 1 and self.decay != "cosine"):
            raise UserError(
                f"schedule.cycles={self.cycles}: must be at least 1, and above 1 only with schedule.decay=cosine"
            )
        if self.decay not in DECAYS:
            raise UserError(f"schedule.decay={self.decay}: give {', '.join(DECAYS[:-1])} or {DECAYS[-1]}")

    def scaled_lr(self, batch: int) -> float:
        """Return the learning rate for `batch` images per step, summed over all devices and accumulated batches."""
        return self.lr * batch / self.base_batch

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Return the factor on the learning rate at a step, counted from 0."""
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
    """Return the factor of `torch.optim.lr_scheduler.OneCycleLR` with default options and a maximum of 1."""
    lowest, end = 1 / _RISE, 1 / _RISE / _FALL
    peak, last = _PEAK * total - 1, total - 1
    step = min(step, last)
    if step <= peak:
        return _between(lowest, 1.0, step / peak)
    return _between(1.0, end, (step - peak) / (last - peak)) if last > peak else 1.0


def _between(start: float, stop: float, share: float) -> float:
    """Interpolate between two values along half a cosine; `share` 0 gives `start`, 1 gives `stop`."""
    return stop + (start - stop) * (1 + math.cos(math.pi * share)) / 2
