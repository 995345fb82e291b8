"""Apply batch norms with fixed statistics to the weights of the convolutions before them, also in training.

A batch norm in evaluation mode (`norm_eval`) scales and shifts each channel. Scaling the convolution's weight instead
gives the same outputs and gradients up to rounding, and skips a forward and a backward pass over the features (You et
al. 2023, arXiv:2305.11624). Parameters, their names and their values stay as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

from timm.layers.conv2d_same import Conv2dSame, conv2d_same
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from fashion_hydra.model.conv_norms import apply_if_same, names_of_pairs, weight_and_bias


def apply_fixed_norms_to_weights(part: nn.Module, run: Callable[[], Sequence[Tensor]]) -> int:
    """Let the plain convolutions of a module apply the batch norms registered after them, while these are fixed.

    Args:
        part: module in the mode of training, whose convolutions and norms are changed in place.
        run: returns the outputs of `part` on a fixed input; if they change, everything stays as it is.

    Returns:
        Number of changed convolutions.
    """
    pairs = [
        _Pair(parent, conv, norm)
        for parent in part.modules()
        for conv, norm in names_of_pairs(parent, _CONVOLUTIONS, _NORMS)
        if not parent.get_submodule(norm).training
    ]
    mode = part.training
    part.eval()  # without stochastic depth, outputs are the same each time
    count = apply_if_same(pairs, run)
    part.train(mode)
    return count


class _Pair:
    """A convolution and the batch norm after it, by their names in the parent module."""

    def __init__(self, parent: nn.Module, conv: str, norm: str) -> None:
        self.parent, self.names = parent, (conv, norm)

    def modules(self) -> tuple[Any, Any]:
        """Return the convolution and the norm that the parent has now."""
        return self.parent._modules[self.names[0]], self.parent._modules[self.names[1]]

    def apply(self) -> None:
        """Let the convolution apply the norm."""
        conv, norm = self.modules()
        conv.__class__, norm.__class__ = _CONVOLUTIONS[type(conv)], _NORMS[type(norm)]
        conv.pair = self

    def undo(self) -> None:
        """Make them plain again."""
        for module, kinds in zip(self.modules(), (_CONVOLUTIONS, _NORMS), strict=True):
            module.__class__ = next(plain for plain, joined in kinds.items() if joined is type(module))


class _AppliesNorm(nn.Conv2d):
    """Convolution that also applies the batch norm after it, while the norm is fixed."""

    pair: _Pair

    def forward(self, x: Tensor) -> Tensor:
        norm = self.pair.modules()[1]
        if norm.training or type(norm) not in _NORMS.values():  # it learns statistics, or has been replaced
            return super().forward(x)
        return self._convolve(x, *weight_and_bias(self, norm))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self._conv_forward(x, weight, bias)


class _Conv2d(_AppliesNorm, nn.Conv2d):
    """See `_AppliesNorm`."""


class _Conv2dSame(_AppliesNorm, Conv2dSame):
    """See `_AppliesNorm`."""

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        options: Any = (self.stride, self.padding, self.dilation, self.groups)
        return conv2d_same(x, weight, bias, *options)


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that the convolution before it applies while it is fixed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


class _BatchNormAct2d(BatchNormAct2d):
    """See `_BatchNorm2d`; the activation stays."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else self.act(self.drop(x))


_CONVOLUTIONS: dict[type, type] = {nn.Conv2d: _Conv2d, Conv2dSame: _Conv2dSame}
_NORMS: dict[type, type] = {nn.BatchNorm2d: _BatchNorm2d, BatchNormAct2d: _BatchNormAct2d}
