"""Packed models: one small safetensors file to share, with float16 weights, classes, scale and thresholds."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write

PACKED = "fashion_hydra_model"
"""Key of the safetensors metadata with everything but the weights, as JSON."""
NOTE = "note"
"""Key of the safetensors metadata with a text for people: data, licence, scores."""


def read_description(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the description in a packed model's metadata; empty for other safetensors files.

    Raises:
        ValueError: the description is not a JSON object.
    """
    if PACKED not in metadata:
        return {}
    description = json.loads(metadata[PACKED])
    if not isinstance(description, dict):
        raise ValueError(f"metadata {PACKED}: not a JSON object")
    return {str(key): value for key, value in description.items()} | {NOTE: metadata.get(NOTE, "")}


def write_packed(path: Path, content: Mapping[str, Any], *, rule: Mapping[str, Any] | None, note: str) -> None:
    """Write a checkpoint as a packed model, atomically.

    Tensors with two or more dimensions are stored as float16, which halves the file. Norms, biases and tensors with
    values beyond float16's range stay float32.

    Args:
        path: the `.safetensors` file to write.
        content: content of the checkpoint, see `fashion_hydra.model.checkpoint.read_checkpoint`.
        rule: tuned values that predictions use by default; None: the checkpoint's rule, if any.
        note: text for people: training data, licence.

    Raises:
        UserError: a weight is not finite.
    """
    description = {
        "classes": {**content["classes"], **{key: list(content["classes"][key]) for key in ("ids", "names")}},
        "model": content["model"],
        "eval_scale": list(content.get("eval_scale", (0, 0))),
        "rule": dict(rule) if rule is not None else content.get("rule"),
    }
    tensors = {name: _halved(path, name, value) for name, value in content["state_dict"].items()}
    metadata = {"format": "pt", PACKED: json.dumps(description), NOTE: note}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as stream:
        save_file(tensors, stream.name, metadata)
        Path(stream.name).chmod(os.fstat(stream.fileno()).st_mode & 0o777)  # safetensors restricts it to the owner


def _halved(path: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.contiguous()
    if not bool(value.isfinite().all()):
        raise UserError(f"{path}: not written, because the weights {name} are not finite. Choose another checkpoint")
    half = value.half()
    return (half if value.ndim > 1 and bool(half.isfinite().all()) else value.to(torch.float32)).contiguous()
