"""Apply batch norms with fixed statistics to the weights of the convolutions before them, also in training.

A batch norm in evaluation mode (`norm_eval`) scales and shifts each channel. Scaling the convolution's weight instead
gives the same outputs and gradients up to rounding, and skips a forward and a backward pass over the features (You et
al. 2023, arXiv:2305.11624). Parameters, their names and their values stay as they are.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame, conv2d_same
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

_TOLERANCE = 1e-3  # relative to the largest output


def apply_fixed_norms_to_weights(part: nn.Module, run: Callable[[], Sequence[Tensor]]) -> int:
    """Let the plain convolutions of a module apply the batch norms registered after them, while these are fixed.

    Registration order may differ from execution order, so outputs before and after are compared, and everything is
    undone if they differ.

    Args:
        part: module in the mode of training, whose convolutions and norms are changed in place.
        run: returns the outputs of `part` on a fixed input.

    Returns:
        Number of changed convolutions.
    """
    pairs = [pair for parent in part.modules() for pair in _pairs(parent)]
    if not pairs:
        return 0
    mode = part.training
    part.eval()  # without stochastic depth, outputs are the same each time
    with torch.no_grad():
        before = run()
        for pair in pairs:
            pair.join()
        is_same = all(
            (new - old).abs().max() <= _TOLERANCE * old.abs().max() for new, old in zip(run(), before, strict=True)
        )
    if not is_same:
        for pair in pairs:
            pair.part()
    part.train(mode)
    return len(pairs) if is_same else 0


class _Pair:
    """A convolution and the batch norm after it, by their names in the parent module."""

    def __init__(self, parent: nn.Module, conv: str, norm: str) -> None:
        self.parent, self.names = parent, (conv, norm)

    def _modules(self) -> tuple[Any, Any]:
        return self.parent._modules[self.names[0]], self.parent._modules[self.names[1]]

    def join(self) -> None:
        """Let the convolution apply the norm."""
        conv, norm = self._modules()
        conv.__class__, norm.__class__ = _CONVOLUTIONS[type(conv)], _NORMS[type(norm)]
        conv.pair = self

    def part(self) -> None:
        """Undo `join`."""
        for module, kinds in zip(self._modules(), (_CONVOLUTIONS, _NORMS), strict=True):
            module.__class__ = next(plain for plain, joined in kinds.items() if joined is type(module))

    def scale_and_shift(self) -> tuple[Tensor, Tensor] | None:
        """Return what the norm does to each channel, or None if it is not fixed or has been replaced."""
        norm = self._modules()[1]
        if norm.training or type(norm) not in _NORMS.values():
            return None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return scale, norm.bias - norm.running_mean * scale


class _AppliesNorm(nn.Conv2d):
    """Convolution that also applies the batch norm after it, while the norm is fixed."""

    pair: _Pair

    def forward(self, x: Tensor) -> Tensor:
        factors = self.pair.scale_and_shift()
        if factors is None:
            return super().forward(x)
        scale, shift = factors
        bias = shift if self.bias is None else shift + scale * self.bias
        return self._convolve(x, self.weight * scale[:, None, None, None], bias)

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


def _pairs(parent: nn.Module) -> list[_Pair]:
    """Return consecutive direct children that are a plain convolution and a matching batch norm with fixed statistics.

    Subclasses are skipped; they may transform their weights.
    """
    return [
        _Pair(parent, first, second)
        for (first, conv), (second, norm) in pairwise(parent.named_children())
        if type(conv) in _CONVOLUTIONS
        and type(norm) in _NORMS
        and norm.num_features == conv.out_channels
        and norm.track_running_stats
        and norm.affine
        and not norm.training
    ]
