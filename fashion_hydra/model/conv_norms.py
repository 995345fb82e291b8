"""Batch norms with fixed statistics as part of the convolutions before them, where the output stays the same."""

from collections.abc import Callable, Container, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-3  # relative to the largest output; in float32, outputs change by about 1e-6 of it


class Change(Protocol):
    """A change of a module that can be undone."""

    def apply(self) -> None:
        """Make the change."""

    def undo(self) -> None:
        """Restore the module."""


def apply_if_same(changes: Sequence[Change], run: Callable[[], Sequence[Tensor]]) -> int:
    """Make changes, compare the outputs before and after, and undo all changes if the outputs differ.

    Norms are found by the order of registration, which may differ from the order of execution.

    Args:
        changes: the changes.
        run: returns the outputs on a fixed input.

    Returns:
        Number of changes made.
    """
    if not changes:
        return 0
    with torch.no_grad():
        before = run()
        for change in changes:
            change.apply()
        if any((new - old).abs().max() > _TOLERANCE * old.abs().max() for new, old in zip(run(), before, strict=True)):
            for change in changes:
                change.undo()
            return 0
    return len(changes)


def names_of_pairs(parent: nn.Module, convolutions: Container[type], norms: Container[type]) -> list[tuple[str, str]]:
    """Return the names of consecutive direct children that are a convolution and a matching batch norm.

    Subclasses are skipped: a weight-standardised convolution transforms its weight again, and timm's batch norms
    include the activation.

    Args:
        parent: the module.
        convolutions: exact types of convolutions.
        norms: exact types of batch norms.
    """
    return [
        (first, second)
        for (first, conv), (second, norm) in pairwise(parent.named_children())
        if type(conv) in convolutions
        and type(norm) in norms
        and norm.num_features == conv.out_channels
        and norm.track_running_stats
        and norm.affine
    ]


def weight_and_bias(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that equals `conv` followed by `norm` with its statistics."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = 0.0 if conv.bias is None else conv.bias
    return conv.weight * factor.view(-1, 1, 1, 1), (bias - norm.running_mean) * factor + norm.bias
