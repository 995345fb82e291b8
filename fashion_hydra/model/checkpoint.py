"""Checkpoints of a training run -> models, without unpickling anything but plain data."""

import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.model.backbones import check_plain
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.weights.files import check_held
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import is_frame
from fashion_hydra.utils.text import one_line
from fashion_hydra.utils.zip_safety import check_uncompressed

log = logging.getLogger(__name__)
LAST = "last.ckpt"
"""In a run's folder of checkpoints: the state that training goes on from."""
_BUILDER = "fashion_hydra.model.htc.build_htc"
_PREFIX = "detector."


@dataclass(frozen=True)
class Member:
    """A trained model.

    Args:
        path: of its checkpoint.
        detector: in evaluation mode, on the CPU.
        classes: behind its outputs.
        scale: short and long edge that it was validated at.
    """

    path: Path
    detector: Detector
    classes: ClassSet
    scale: tuple[int, int]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        UserError: no such file, or no checkpoint of plain data.
    """
    if not path.is_file():
        what = (
            "is a folder; name a file in it" if path.is_dir() else "no such file. train.py keeps them in checkpoints/"
        )
        raise UserError(f"checkpoint={path}: {what}")
    check_uncompressed(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many things for a file that is none, and for one with code in it
        reason = "no file of torch.save" if "_use_new_zipfile" in str(error) else one_line(error, 120)
        raise UserError(
            f"{path}: not a whole checkpoint of plain data ({reason}). Give another of the run's"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "classes", "model"} <= set(content):
        raise UserError(f"{path}: not written by train.py: state_dict, classes and model expected in it")
    if reason := _wrong(content):
        raise UserError(f"{path}: not written by train.py: {reason}")
    check_held(path, content["state_dict"])
    return content


def _wrong(content: Mapping[str, Any]) -> str:
    """What of a checkpoint's content is not as train.py writes it, or nothing."""
    state, model, classes = content["state_dict"], content["model"], content["classes"]
    plain_state = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not plain_state or not all(isinstance(value, Tensor) for value in state.values()):
        return "state_dict holds something else than tensors by name"
    ids, names = (classes.get(key, ()) if isinstance(classes, Mapping) else () for key in ("ids", "names"))
    if not (isinstance(ids, list | tuple) and isinstance(names, list | tuple) and 0 < len(ids) == len(names)):
        return "classes without as many ids as names"
    if not all(type(i) is int for i in ids) or not all(isinstance(name, str) for name in names):
        return "classes with other ids than numbers, or other names than texts"
    scale = content.get("eval_scale", (0, 0))
    pair = isinstance(scale, list | tuple) and len(scale) == 2 and all(type(edge) is int for edge in scale)
    if not pair or not (tuple(scale) == (0, 0) or is_frame(*scale)):
        return f"eval_scale {str(scale)[:80]}"
    if not isinstance(model, Mapping) or not isinstance(model.get("backbone"), Mapping):
        return "model without a backbone"
    try:
        list(check_plain(model, "model"))
    except UserError as error:
        return str(error)
    return ""


def newest_intact(folder: Path) -> tuple[Path, list[str]]:
    """The newest checkpoint of a run that is whole, `last.ckpt` where it is, and what is wrong with newer ones.

    Args:
        folder: the run's folder of checkpoints.

    Raises:
        UserError: none is there, or none is whole.
    """
    others = sorted(folder.glob("epoch*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    damaged: list[str] = []
    for path in [*folder.glob(LAST), *others]:
        try:
            read_checkpoint(path)
            with zipfile.ZipFile(path) as archive:  # reading maps the tensors and does not look at them
                if (broken := archive.testzip()) is not None:
                    raise UserError(f"{path}: damaged ({broken} is not what was written)")
            return path, damaged
        except UserError as error:
            damaged.append(str(error))
    raise UserError("; ".join(damaged) or f"{folder}: no checkpoints there")


def load_member(path: Path) -> Member:
    """Build the model that a checkpoint describes, with its weights.

    Raises:
        UserError: see `read_checkpoint` and `member_of`.
    """
    return member_of(read_checkpoint(path), path)


def member_of(content: dict[str, Any], path: Path) -> Member:
    """Build the model that a checkpoint's content describes; `path` is what it is called.

    Raises:
        UserError: the weights do not fit the model that is described.
    """
    model = dict(content["model"])
    if model.pop("_target_", None) != _BUILDER:
        raise UserError(f"{path}: the model was not made by {_BUILDER}")
    ids, names = content["classes"]["ids"], content["classes"]["names"]
    try:
        backbone = {**model.pop("backbone"), "weights": None}
        detector = build_htc(num_classes=len(ids), backbone=backbone, **model)
        state = {k.removeprefix(_PREFIX): v for k, v in content["state_dict"].items() if k.startswith(_PREFIX)}
        detector.load_state_dict(state, strict=True)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # whatever wrong arguments lead to
        reason = one_line(error, 200)
        raise UserError(f"{path}: weights and model description do not fit ({reason})") from error
    short_edge, long_edge = content.get("eval_scale", (0, 0))
    return Member(path, detector.eval(), ClassSet(tuple(ids), tuple(names)), (short_edge, long_edge))


def check_same_classes(members: list[Member]) -> ClassSet:
    """The label space that all members share.

    Raises:
        UserError: two of them differ; both are named.
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
    return first.classes


def best_checkpoints(run: Path, count: int) -> list[Path]:
    """The best so many checkpoints that a run kept, best first.

    Raises:
        UserError: the run has fewer, or no checkpoint at all.
    """
    folder = run / "checkpoints"
    if not any(folder.glob("*.ckpt")):
        raise UserError(f"ensemble.run={run}: no checkpoints/{LAST} there. Give the folder of a training run")
    newest, damaged = newest_intact(folder)
    for reason in damaged:
        log.warning("%s; %s tells which are the best", reason, newest.name)
    kept: dict[str, float] = {}
    try:
        for name, state in read_checkpoint(newest).get("callbacks", {}).items():
            if name.startswith("ModelCheckpoint"):
                kept = {Path(path).name: float(score) for path, score in state["best_k_models"].items()}
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        reason = f"does not tell which checkpoints were kept ({error})"
        raise UserError(f"{newest}: {reason}. Name files in ensemble.members") from error
    ranked = sorted(kept, key=lambda name: (-kept[name], name))
    found = [path for name in ranked if (path := folder / name).is_file()]
    if len(found) < count:
        raise UserError(
            f"ensemble.run={run}: {len(found)} kept checkpoints, {count} wanted. Give ensemble=single, a run of "
            "more epochs, or name files in ensemble.members"
        )
    return found[:count]
