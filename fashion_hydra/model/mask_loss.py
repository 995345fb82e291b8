"""The loss of a mask head: cross-entropy of each cell, and Dice of each mask.

Cross-entropy counts cells, so thin objects such as belts and ties, which cover few cells of their box, hardly move it.
Dice counts overlap relative to both areas, as IoU does (Milletari et al., V-Net, 3DV 2016, arXiv:1606.04797).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskLoss(nn.Module):
    """Mean over RoIs of binary cross-entropy plus weighted Dice loss.

    Args:
        dice_weight: weight of the Dice loss; 0 for cross-entropy alone.
    """

    def __init__(self, dice_weight: float = 0.0) -> None:
        super().__init__()
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (N, C, M, M), N at least 1.
            targets: (N, M, M), 0 or 1.
            labels: (N,), the class whose mask is compared.
        """
        chosen = logits[torch.arange(len(labels), device=labels.device), labels]
        loss = F.binary_cross_entropy_with_logits(chosen, targets)
        if self.dice_weight:
            probabilities, truth = chosen.float().sigmoid().flatten(1), targets.float().flatten(1)
            total = (probabilities**2).sum(1) + (truth**2).sum(1)
            dice = 1 - 2 * (probabilities * truth).sum(1) / total.clamp(min=1e-3)
            loss = loss + self.dice_weight * dice.mean()
        return loss
