"""Tensors out of files of any layout, without running anything that a file asks for.

A pickle may name any function and have it called. `torch.load(weights_only=True)` knows the few that tensors need and
stops at every other; what mmengine's checkpoints hold besides is replaced by `_Ignored`, which does nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fashion_hydra.model.packed import read_description
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line
from fashion_hydra.utils.zip_safety import check_uncompressed, is_zip

_STATE_KEYS = ("state_dict", "model")  # the first is everyone's, the second torchvision's training scripts'
_PICKLE = b"\x80"  # how a torch file before version 1.6 begins; later ones are zip archives


@dataclass(frozen=True)
class WeightFile:
    """What a file holds.

    Args:
        tensors: by name, as the file has them.
        rest: what lies beside them; for safetensors its metadata, texts alone, and what a packed model says of itself.
    """

    tensors: dict[str, Tensor]
    rest: Mapping[str, Any]


class _Ignored:
    """Takes the place of mmengine's training log, numpy's numbers in it, and whatever is made from them."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# `HistoryBuffer` keeps numpy arrays, and its methods by `getattr`; numpy 2 moved its functions to `_core`.
_HARMLESS: list[Any] = [
    (_Ignored, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",
        "numpy.ndarray",
        "numpy.dtype",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    )
]


def read_file(path: Path) -> WeightFile:
    """The tensors of a safetensors file, or of one that torch.save wrote in its present or its old format.

    Raises:
        UserError: no such file, one of another kind, a damaged one, or one that would run code or make other objects.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as stream:
        head = stream.read(9)
    if head[8:] == b"{":  # a length of eight bytes, then JSON
        return _read_safetensors(path)
    if head.startswith(_PICKLE) or is_zip(path):
        return _read_torch(path)
    raise UserError(
        f"{path}: neither a safetensors file nor a whole one of torch.save (begins with {head!r}). "
        "Fetch it again, or give another"
    )


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return WeightFile(tensors, metadata | read_description(metadata))
    except Exception as error:  # the reader has no exception of its own that all versions share
        raise UserError(f"{path}: not a readable safetensors file ({error}). Fetch it again") from error


def _read_torch(path: Path) -> WeightFile:
    check_uncompressed(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except Exception as error:  # torch raises many things for a file that is none, and for one with code in it
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: refused, because it holds {named[1]} and not tensors and plain data alone; reading that "
                "could run any code. Save its state_dict alone, where you trust the file"
            ) from error
        reason = one_line(error, 120)
        raise UserError(
            f"{path}: not a whole file of torch.save ({reason}). Fetch it again, or give another"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, where a dictionary of tensors is expected")
    for key in _STATE_KEYS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return _split(path, inner, {k: v for k, v in content.items() if k != key})
    return _split(path, content, {})


def _split(path: Path, state: Mapping[Any, Any], rest: Mapping[str, Any]) -> WeightFile:
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: no tensors in it (found: {', '.join(map(str, list(state)[:6])) or 'nothing'})")
    check_held(path, tensors)
    return WeightFile(tensors, rest)


def check_held(path: Path, tensors: Mapping[Any, Tensor]) -> None:
    """Refuse tensors that would become larger than what the file holds of them, such as one number a billion times.

    Raises:
        UserError: there is one.
    """
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized:
            raise UserError(f"{path}: tensor {name} is {value.layout}, where plain ones are expected. Save it densely")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: tensor {name} {tuple(value.shape)} is not wholly there. Save it contiguous")
