"""Fold batch norms into the preceding convolutions where this does not change the output."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-3  # relative to the largest output; folding in float32 changes outputs by about 1e-6 of it


def fuse_batch_norms(part: nn.Module, run: Callable[[], Sequence[Tensor]]) -> int:
    """Fold each batch norm of a module in evaluation mode into the plain convolution registered before the norm.

    Subclasses are skipped: a weight-standardised convolution transforms its weight again, and timm's batch norms
    include the activation. Registration order may differ from execution order, so outputs before and after are
    compared, and all folds are undone if the outputs differ.

    Args:
        part: module whose submodules are replaced in place.
        run: returns the outputs of `part` on a fixed input.

    Returns:
        Number of folded batch norms.
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
    """A batch norm folded into a convolution; can be undone."""

    def __init__(self, parent: nn.Module, conv: str, norm: str) -> None:
        self._parent, self._names = parent, (conv, norm)
        self._modules = tuple(parent._modules[name] for name in self._names)
        parent._modules[conv] = _folded(*self._modules)  # type: ignore[arg-type]
        parent._modules[norm] = nn.Identity()

    def undo(self) -> None:
        """Restore the convolution and the batch norm."""
        for name, module in zip(self._names, self._modules, strict=True):
            self._parent._modules[name] = module


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution equal to `conv` followed by `norm`."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(conv.weight * factor.view(-1, 1, 1, 1), requires_grad=False)
    made.bias = nn.Parameter((bias - norm.running_mean) * factor + norm.bias, requires_grad=False)
    return made


def _pairs(parent: nn.Module) -> list[tuple[str, str]]:
    """Return the names of consecutive direct children that are a plain convolution and a matching plain batch norm."""
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
