"""An exponential moving average of the weights that is of use from the first step on."""

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from fashion_hydra.utils.errors import UserError


class WeightAverage(WeightAveraging):
    """Keeps an exponential moving average (EMA) of the weights, which validation and checkpoints use.

    The decay after n averaged steps is (1 + n) / (10 + n) until it reaches `decay`: with a fixed one, a run of a few
    thousand steps ends with an average that still holds the weights that it began with.

    Args:
        decay: of the average, from step to step.

    Raises:
        UserError: the decay is not between 0 and 1.
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay}: at least 0 and below 1 expected")
        super().__init__(use_buffers=True, multi_avg_fn=self._update)
        self.decay = decay

    def decay_after(self, steps: int) -> float:
        """Return the share of the average that the next step leaves, after so many averaged steps."""
        return min(self.decay, (1 + steps) / (10 + steps))

    def _update(self, averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        """Move tensors of one type toward the current ones; counters are copied."""
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - self.decay_after(int(steps)))
        else:
            torch._foreach_copy_(averaged, current)
