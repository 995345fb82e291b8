"""Exponential moving average of the weights, useful from the first step on."""

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from fashion_hydra.utils.errors import UserError


class WeightAverage(WeightAveraging):
    """Callback with an exponential moving average (EMA) of the weights for validation and checkpoints.

    The decay after n averaged steps is (1 + n) / (10 + n) until it reaches `decay`. With a fixed decay, the average
    would still contain the initial weights after a run of a few thousand steps.

    Args:
        decay: maximum decay per step.

    Raises:
        UserError: the decay is not in [0, 1).
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay}: must be at least 0 and below 1")
        super().__init__(use_buffers=True, multi_avg_fn=self._update)
        self.decay = decay

    def decay_after(self, steps: int) -> float:
        """Return the decay of the next step, after `steps` averaged steps."""
        return min(self.decay, (1 + steps) / (10 + steps))

    def _update(self, averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        """Update averaged tensors of one type; copy counters."""
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - self.decay_after(int(steps)))
        else:
            torch._foreach_copy_(averaged, current)
