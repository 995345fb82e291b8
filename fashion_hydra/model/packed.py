"""A trained model as one small file to hand on: float16 weights, classes, scale and thresholds, in safetensors."""

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
"""The key of the safetensors metadata that holds everything but the weights, as JSON."""
NOTE = "note"
"""The key of a text for people: data, licence, scores."""


def read_description(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a packed model says of itself besides its weights; empty for another safetensors file.

    Raises:
        ValueError: the description is no JSON object.
    """
    if PACKED not in metadata:
        return {}
    description = json.loads(metadata[PACKED])
    if not isinstance(description, dict):
        raise ValueError(f"its metadata {PACKED} is no JSON object")
    return {str(key): value for key, value in description.items()} | {NOTE: metadata.get(NOTE, "")}


def write_packed(path: Path, content: Mapping[str, Any], *, rule: Mapping[str, Any] | None, note: str) -> None:
    """Write a checkpoint as a packed model, atomically.

    Tensors of two dimensions and more become float16, which halves the file; norms, biases and whatever float16
    cannot hold stay as they are.

    Args:
        path: the file, `.safetensors`.
        content: of the checkpoint, see `fashion_hydra.model.checkpoint.read_checkpoint`.
        rule: values of a tuned file that predictions use unless told otherwise; None: the checkpoint's own, if any.
        note: for people: what it was trained on, under which licence it may be used.

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
        Path(stream.name).chmod(os.fstat(stream.fileno()).st_mode & 0o777)  # safetensors makes it the owner's alone


def _halved(path: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.contiguous()
    if not bool(value.isfinite().all()):
        raise UserError(f"{path}: not written, the weights {name} are not finite. Choose another checkpoint")
    half = value.half()
    return (half if value.ndim > 1 and bool(half.isfinite().all()) else value.to(torch.float32)).contiguous()
