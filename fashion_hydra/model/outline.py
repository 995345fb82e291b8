"""Build models whose parameters have shapes but no memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_ALLOCATE = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


class _OnMeta(TorchFunctionMode):
    """Mode that allocates tensors on the meta device; computed tensors, such as linspace's, keep their values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _ALLOCATE and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


@contextmanager
def outline() -> Iterator[None]:
    """Build modules without memory for parameters: shapes and `sum(p.numel() for p in ...)` work, values do not.

    `torch.device("meta")` would put all tensors on the meta device, and constructors that read a value would fail:
    mmdet's Swin calls `.item()` on its drop path rates.
    """
    with _OnMeta():
        yield
