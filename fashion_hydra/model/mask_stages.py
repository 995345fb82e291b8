"""The mask heads of a cascade, one stage after the other."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def mask_logits(heads: Iterable[nn.Module], pooled: Tensor) -> tuple[list[Tensor], Tensor | None]:
    """Run all mask heads; each stage gets the features of the stage before (mask information flow).

    Args:
        heads: mmdet's HTC mask heads, in the order of the stages.
        pooled: RoI features (N, C, S, S).

    Returns:
        Logits (N, classes, M, M) of each stage, and the features of the last stage.
    """
    made: list[Tensor] = []
    carried: Tensor | None = None
    for head in heads:
        logits, carried = head(pooled, carried)
        made.append(logits)
    return made, carried


def mask_probabilities(stages: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return each stage's mask probabilities for the class of each RoI: float32 (stages, N, M, M)."""
    index = torch.arange(len(labels), device=labels.device)
    return torch.stack([logits[index, labels].float().sigmoid() for logits in stages])
