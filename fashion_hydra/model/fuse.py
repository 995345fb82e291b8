"""Fold batch norms into the preceding convolutions where this does not change the output."""

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fashion_hydra.model.conv_norms import apply_if_same, names_of_pairs, weight_and_bias

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fuse_batch_norms(part: nn.Module, run: Callable[[], Sequence[Tensor]]) -> int:
    """Fold each batch norm of a module in evaluation mode into the plain convolution registered before the norm.

    Args:
        part: module whose submodules are replaced in place.
        run: returns the outputs of `part` on a fixed input; if folding changes them, no norm is folded.

    Returns:
        Number of folded batch norms.
    """
    folds = [_Fold(parent, *pair) for parent in part.modules() for pair in names_of_pairs(parent, (nn.Conv2d,), _NORMS)]
    return apply_if_same(folds, run)


class _Fold:
    """A batch norm to fold into a convolution."""

    def __init__(self, parent: nn.Module, conv: str, norm: str) -> None:
        self._parent, self._names = parent, (conv, norm)
        self._modules = tuple(parent._modules[name] for name in self._names)

    def apply(self) -> None:
        """Replace the convolution, and the batch norm by an identity."""
        self._replace(_folded(*self._modules), nn.Identity())  # type: ignore[arg-type]

    def undo(self) -> None:
        """Restore the convolution and the batch norm."""
        self._replace(*self._modules)

    def _replace(self, *modules: nn.Module | None) -> None:
        self._parent._modules.update(zip(self._names, modules, strict=True))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution equal to `conv` followed by `norm`."""
    weight, bias = weight_and_bias(conv, norm)
    made = copy.deepcopy(conv)
    made.weight, made.bias = (nn.Parameter(value, requires_grad=False) for value in (weight, bias))
    return made
