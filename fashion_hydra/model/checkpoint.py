"""Build models from the checkpoints of a training run; only plain data is unpickled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.model.backbones import check_backbone, check_plain
from fashion_hydra.model.builder import HTC, build_detector
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.weights.files import check_held, read_file
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import check_trusted
from fashion_hydra.utils.limits import is_frame
from fashion_hydra.utils.text import one_line
from fashion_hydra.utils.zip_safety import check_uncompressed

_PREFIX = "detector."


@dataclass(frozen=True)
class Member:
    """A trained model.

    Args:
        path: file of the checkpoint.
        detector: detector in evaluation mode, on the CPU.
        classes: classes of the detector's outputs.
        scale: short and long edge of the images in validation.
        rule: tuned postprocessing values stored in a packed model, if any.
    """

    path: Path
    detector: Detector
    classes: ClassSet
    scale: tuple[int, int]
    rule: Mapping[str, Any] | None = None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Raises:
        UserError: the file is missing, or is not a checkpoint of plain data.
    """
    if not path.is_file():
        what = (
            "is a folder; name a file in it"
            if path.is_dir()
            else "no such file. train.py writes checkpoints to checkpoints/ in the run's folder"
        )
        raise UserError(f"checkpoint={path}: {what}")
    content = _read_packed(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, dict) or not {"state_dict", "classes", "model"} <= set(content):
        by = "fashion-hydra pack" if path.suffix == ".safetensors" else "train.py"
        raise UserError(f"{path}: not written by {by}: must contain state_dict, classes and model")
    if reason := _wrong(content):
        raise UserError(f"{path}: not written by train.py: {reason}")
    check_held(path, content["state_dict"])
    return content


def _read_packed(path: Path) -> Any:
    file = read_file(path)
    return {**file.rest, "state_dict": file.tensors}


def _read_torch(path: Path) -> Any:
    check_uncompressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types of errors for invalid files and for files with code
        reason = "not a file of torch.save" if "_use_new_zipfile" in str(error) else one_line(error, 120)
        raise UserError(
            f"{path}: damaged, or not a checkpoint of plain data ({reason}). Use another checkpoint of the run"
        ) from error


def _wrong(content: Mapping[str, Any]) -> str:
    """Return what is wrong with a checkpoint's content; an empty string if nothing is."""
    state, model, classes = content["state_dict"], content["model"], content["classes"]
    plain_state = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not plain_state or not all(isinstance(value, Tensor) for value in state.values()):
        return "state_dict is not a mapping from names to tensors"
    ids, names = (classes.get(key, ()) if isinstance(classes, Mapping) else () for key in ("ids", "names"))
    if not (isinstance(ids, list | tuple) and isinstance(names, list | tuple) and 0 < len(ids) == len(names)):
        return "classes must have as many ids as names, at least one"
    if not all(type(i) is int for i in ids) or not all(isinstance(name, str) for name in names):
        return "class ids must be whole numbers, class names text"
    try:
        attributes = AttributeSet.from_plain(classes.get("attributes"), classes=len(ids))
    except ValueError as error:
        return str(error)
    if bool(attributes) != (model.get("attributes") is True if isinstance(model, Mapping) else False):
        return "only one of model and classes has attributes"
    scale = content.get("eval_scale", (0, 0))
    pair = isinstance(scale, list | tuple) and len(scale) == 2 and all(type(edge) is int for edge in scale)
    if not pair or not (tuple(scale) == (0, 0) or is_frame(*scale)):
        return f"invalid eval_scale {str(scale)[:80]}"
    if not isinstance(model, Mapping) or not isinstance(model.get("_target_"), str):
        return "model has no _target_"
    if model["_target_"] == HTC and not isinstance(model.get("backbone"), Mapping):
        return "model has no backbone"
    if not (content.get("rule") is None or isinstance(content["rule"], Mapping)):
        return "rule is not a mapping"
    try:
        list(check_plain(model, "model"))
    except UserError as error:
        return str(error)
    return ""


def load_member(path: Path, trusted: Sequence[str] = ()) -> Member:
    """Build the model of a checkpoint and load the weights.

    Args:
        path: file of the checkpoint.
        trusted: packages whose code the checkpoint may name, in addition to fashion_hydra.

    Raises:
        UserError: see `read_checkpoint` and `member_of`.
    """
    return member_of(read_checkpoint(path), path, trusted)


def member_of(content: Mapping[str, Any], path: Path, trusted: Sequence[str] = ()) -> Member:
    """Build the model of a checkpoint from the checkpoint's content and load the weights.

    Args:
        content: content of the checkpoint.
        path: file of the checkpoint, for messages.
        trusted: packages whose code the checkpoint may name, in addition to fashion_hydra.

    Raises:
        UserError: the description names code of another package, or the weights do not fit the described model.
    """
    model, target = dict(content["model"]), content["model"]["_target_"]
    if target != HTC:
        check_trusted(target, trusted, f"{path}: model._target_")
    ids, names = content["classes"]["ids"], content["classes"]["names"]
    try:
        if isinstance(backbone := model.get("backbone"), Mapping):
            check_backbone(backbone, trusted)
            model["backbone"] = {**backbone, "weights": None}
        attributes = AttributeSet.from_plain(content["classes"].get("attributes"), classes=len(ids))
        detector = build_detector(model, num_classes=len(ids), attributes=attributes)
        state = {k.removeprefix(_PREFIX): v for k, v in content["state_dict"].items() if k.startswith(_PREFIX)}
        detector.load_state_dict(state, strict=True)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # invalid arguments lead to arbitrary errors
        reason = one_line(error, 200)
        raise UserError(f"{path}: the weights do not fit the model's description ({reason})") from error
    short_edge, long_edge = content.get("eval_scale", (0, 0))
    classes, scale = ClassSet(tuple(ids), tuple(names), attributes=attributes), (short_edge, long_edge)
    return Member(path, detector.eval(), classes, scale, content.get("rule"))


def check_same_classes(members: list[Member]) -> ClassSet:
    """Return the classes that all members share.

    Raises:
        UserError: the classes or attributes of two members differ.
    """
    first = members[0]
    for other in members[1:]:
        if other.classes.ids != first.classes.ids:
            strange = sorted(set(other.classes.ids) ^ set(first.classes.ids))
            raise UserError(
                f"ensemble: {first.path} has {len(first.classes)} classes, {other.path} {len(other.classes)}"
                + (f"; only one of them has {strange[:6]}" if strange else " in another order")
                + ". Members must have been trained on the same classes"
            )
        if other.classes.attributes.ids != first.classes.attributes.ids:
            counts = f"{len(first.classes.attributes)} attributes, {other.path} {len(other.classes.attributes)}"
            raise UserError(
                f"ensemble: {first.path} has {counts}, not the same ones. Members must have been trained on the same "
                "attributes"
            )
    return first.classes
