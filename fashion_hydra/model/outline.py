"""Models without memory: their parameters have shapes alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_ALLOCATE = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


class _OnMeta(TorchFunctionMode):
    """Puts what layers allocate on the meta device; what constructors compute, as with linspace, stays real."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _ALLOCATE and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


@contextmanager
def outline() -> Iterator[None]:
    """Build modules without memory for their parameters: `sum(p.numel() for p in ...)` and shapes work, values do not.

    `torch.device("meta")` puts every tensor there, so that a constructor that reads one (mmdet's Swin takes `.item()`
    of its drop path rates) fails.
    """
    with _OnMeta():
        yield
