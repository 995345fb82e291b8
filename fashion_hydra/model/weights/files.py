"""Read tensors from weight files of any layout without running code from the files.

A pickle can call any function by name. `torch.load(weights_only=True)` allows only the few that tensors need. Other
objects in mmengine's checkpoints are replaced by `_Ignored`, which does nothing.
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

_STATE_KEYS = ("state_dict", "model")  # "model" is used by torchvision's training scripts
_PICKLE = b"\x80"  # first byte of files written by torch before 1.6; later files are zip archives


@dataclass(frozen=True)
class WeightFile:
    """Content of a weight file.

    Args:
        tensors: tensors by name, unchanged.
        rest: everything else; for safetensors the metadata (only strings) and a packed model's description.
    """

    tensors: dict[str, Tensor]
    rest: Mapping[str, Any]


class _Ignored:
    """Placeholder for mmengine's training log, the numpy values in the log, and all objects built from them."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# `HistoryBuffer` pickles numpy arrays and, by `getattr`, its methods; numpy 2 moved its functions to `_core`.
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
    """Read a safetensors file, or a file of torch.save in the current or the old format.

    Raises:
        UserError: the file is missing, damaged, of another type, or would run code or create other objects.
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
        f"{path}: neither a safetensors file nor a complete file of torch.save (begins with {head!r}). "
        "Download it again, or use another file"
    )


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return WeightFile(tensors, metadata | read_description(metadata))
    except Exception as error:  # the types of safetensors' errors differ between versions
        raise UserError(f"{path}: not a readable safetensors file ({error}). Download it again") from error


def _read_torch(path: Path) -> WeightFile:
    check_uncompressed(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except Exception as error:  # torch raises many types of errors for invalid files and for files with code
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: refused: besides tensors and plain data, it contains {named[1]}, which could run any code. "
                "If you trust the file, save only its state_dict"
            ) from error
        reason = one_line(error, 120)
        raise UserError(
            f"{path}: damaged, or not a file of torch.save ({reason}). Download it again, or use another file"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: contains a {type(content).__name__}, but must contain a dictionary of tensors")
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
    """Refuse tensors that are larger than their data in the file, such as one number expanded to a billion elements.

    Raises:
        UserError: a tensor is larger than its data, sparse or quantized.
    """
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized:
            raise UserError(
                f"{path}: tensor {name} is sparse or quantized ({value.layout}). Save it dense and unquantized"
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(
                f"{path}: tensor {name} {tuple(value.shape)} is larger than its data in the file. Save it contiguous"
            )
