"""Batch norms folded into the convolutions before them, where that is known to change nothing."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-3  # of the largest output; folding in float32 moves it by about 1e-6


def fuse_batch_norms(part: nn.Module, run: Callable[[], Sequence[Tensor]]) -> int:
    """Fold each batch norm of a part in evaluation mode into the plain convolution registered before it.

    Subclasses are left alone: a weight-standardised convolution changes its weight once more, and timm's batch norms
    hold the activation too. Order of registration need not be order of use, so outputs are compared before and
    after, and everything is undone where they moved.

    Args:
        part: of a network; its modules are replaced.
        run: gives the outputs of the part on the same input each time.

    Returns:
        How many batch norms were folded.
    """
    with torch.no_grad():
        before = run()
        folds = [_Fold(parent, conv, norm) for parent in part.modules() for conv, norm in _pairs(parent)]
        if any((new - old).abs().max() > _TOLERANCE * old.abs().max() for new, old in zip(run(), before, strict=True)):
            for fold in folds:
                fold.undo()
            return 0
    return len(folds)


class _Fold:
    """A convolution that has taken a batch norm into itself."""

    def __init__(self, parent: nn.Module, conv: str, norm: str) -> None:
        self._parent, self._names = parent, (conv, norm)
        self._modules = tuple(parent._modules[name] for name in self._names)
        parent._modules[conv] = _folded(*self._modules)  # type: ignore[arg-type]
        parent._modules[norm] = nn.Identity()

    def undo(self) -> None:
        """Put both back."""
        for name, module in zip(self._names, self._modules, strict=True):
            self._parent._modules[name] = module


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution that gives what the batch norm makes of this one's output."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(conv.weight * factor.view(-1, 1, 1, 1), requires_grad=False)
    made.bias = nn.Parameter((bias - norm.running_mean) * factor + norm.bias, requires_grad=False)
    return made


def _pairs(parent: nn.Module) -> list[tuple[str, str]]:
    """Names of plain convolutions and of the plain batch norms that follow them, among a module's own children."""
    children = list(parent.named_children())
    return [
        (first, second)
        for (first, conv), (second, norm) in pairwise(children)
        if type(conv) is nn.Conv2d
        and type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm)
        and norm.num_features == conv.out_channels
        and norm.track_running_stats
        and norm.affine
    ]
