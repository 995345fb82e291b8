"""Checkpoints of a training run -> models, without unpickling anything but plain data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fashion_hydra.data.classes import ClassSet
from fashion_hydra.errors import UserError
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.htc import build_htc

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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many things for a file that is none, and for one with code in it
        reason = "no file of torch.save" if "_use_new_zipfile" in str(error) else str(error).splitlines()[0][:120]
        raise UserError(
            f"{path}: not a whole checkpoint of plain data ({reason}). Give another of the run's"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "classes", "model"} <= set(content):
        raise UserError(f"{path}: not written by train.py: state_dict, classes and model expected in it")
    return content


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
    except (TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: weights and model description do not fit ({reason})") from error
    short_edge, long_edge = content.get("eval_scale", (0, 0))
    return Member(path, detector.eval(), ClassSet(tuple(ids), tuple(names)), (int(short_edge), int(long_edge)))


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
    last = run / "checkpoints" / "last.ckpt"
    if not last.is_file():
        raise UserError(f"ensemble.run={run}: no checkpoints/last.ckpt there. Give the folder of a training run")
    kept: dict[str, float] = {}
    for name, state in read_checkpoint(last).get("callbacks", {}).items():
        if name.startswith("ModelCheckpoint"):
            kept = {Path(path).name: float(score) for path, score in state["best_k_models"].items()}
    ranked = sorted(kept, key=lambda name: (-kept[name], name))
    found = [path for name in ranked if (path := last.parent / name).is_file()]
    if len(found) < count:
        raise UserError(
            f"ensemble.run={run}: {len(found)} kept checkpoints, {count} wanted. Give ensemble=single, a run of "
            "more epochs, or name files in ensemble.members"
        )
    return found[:count]
