"""Read and write the rule files of tune_thresholds.py, for `predict.py postprocess=tuned` and `postprocess=FILE`."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.formats.csv_files import open_csv
from fashion_hydra.postprocess.calibration_file import write_calibration
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.yaml_files import read_yaml

NAME = "tuned.yaml"
IN_FORCE = "postprocess.yaml"
"""File in a prediction's folder with the rule that produced its detections."""
_PLAIN = (
    "score_thr",
    "nms",
    "iou_thr",
    "soft_nms_sigma",
    "max_per_image",
    "mask_thr",
    "mask_iou_power",
    "mask_certainty_power",
    "suppress_overlaps",
    "min_area",
)


def write_tuned(path: Path, rule: Postprocess, classes: ClassSet, about: Mapping[str, Any]) -> None:
    """Write a rule as YAML and its calibration, if any, as a JSON file beside it.

    Args:
        path: the file to write, `.yaml`.
        rule: the rule.
        classes: the classes of the rule's labels.
        about: plain values that describe what the rule was tuned on, including `members` (name and SHA-256 of each
            checkpoint).
    """
    values: dict[str, Any] = {name: getattr(rule, name) for name in _PLAIN}
    values["steps"] = list(rule.steps)
    values["class_score_thr"] = {classes.ids[label]: thr for label, thr in sorted(rule.label_score_thr.items())} or None
    values["drop_classes"] = [classes.ids[label] for label in rule.dropped_labels]
    if rule.attributes is not None:
        values["attributes"] = rule.attributes.kind
        values |= {name: getattr(rule.attributes, name) for name in ("attribute_thr", "match_thr")}
    values["select"] = "threshold" if rule.calibration is None else "expected"
    values["calibration"] = None
    path.parent.mkdir(parents=True, exist_ok=True)
    if rule.calibration is not None:
        values["calibration"] = f"{path.stem}_calibration.json"
        write_calibration(path.with_name(values["calibration"]), rule.calibration, classes)
    with atomic_write(path) as stream:
        stream.write("# A postprocessing rule; use it with predict.py postprocess=FILE.\n")
        yaml.safe_dump({**values, "about": dict(about)}, stream, sort_keys=False, allow_unicode=True)


def read_tuned(path: Path) -> dict[str, Any]:
    """Read a file that `write_tuned` wrote, and put the file's folder before the name of its calibration.

    Raises:
        UserError: the file is missing or is not a rule file.
    """
    if not path.is_file():
        raise UserError(f"postprocess={path}: no such file. tune_thresholds.py writes one")
    values = read_yaml(path)
    if not isinstance(values, dict) or "score_thr" not in values:
        raise UserError(f"{path}: not written by tune_thresholds.py: it has no score_thr")
    rule, about = {key: value for key, value in values.items() if key != "about"}, values.get("about")
    if "${" in str(rule):
        raise UserError(f"{path}: refused, a value contains an interpolation ({'${...}'}). Write plain values")
    if about is not None and not (isinstance(about, dict) and _are_members(about.get("members", []))):
        raise UserError(f"{path}: not written by tune_thresholds.py: about.members must be pairs of name and SHA-256")
    if values.get("calibration") is not None:
        values["calibration"] = str(path.parent / str(values["calibration"]))
    return {str(key): value for key, value in values.items()}


def plain_rule(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the values of a rule file without `about`, for storage inside another file.

    Args:
        values: the values that `read_tuned` returned.
        path: the rule file, for the message.

    Raises:
        UserError: the rule needs a calibration, which is a separate file.
    """
    if values.get("calibration") is not None:
        raise UserError(
            f"{path}: has a calibration in a separate file. Give a rule without calibration: see methods/*.yaml"
        )
    return {key: value for key, value in values.items() if key != "about"}


def _are_members(members: object) -> bool:
    pairs = members if isinstance(members, list) else [None]
    return all(isinstance(p, list) and len(p) == 2 and all(isinstance(text, str) for text in p) for p in pairs)


def rule_of(path: Path, classes: ClassSet) -> Postprocess:
    """Read the rule in a file, for a model with these classes.

    Raises:
        UserError: the file is missing, is not a rule file, or names other classes.
    """
    values = read_tuned(path)
    values.pop("about", None)
    return build_rule(values, classes)


def fill_in(
    options: Mapping[str, Any],
    members: Sequence[tuple[str, str]],
    root: Path,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Replace `file` in the options of the group `postprocess` by the values that it stands for.

    Args:
        options: the group `postprocess`. `file` is null, a path, `newest` (the newest rule file below `root` that was
            tuned for these checkpoints), or `own` (the rule stored in the checkpoint, or `otherwise` if there is none).
            Options that are not null override the file's values.
        members: name and SHA-256 of each checkpoint.
        root: output folder of tune_thresholds.py.
        own: values of the rule stored in the checkpoint; None if it has none.

    Raises:
        UserError: the file is missing, or the other options override all of its thresholds.
    """
    given = {key: value for key, value in options.items() if key not in ("file", "otherwise")}
    file = options.get("file")
    if file is None:
        return given
    if file == "own":
        values = own if own is not None else options["otherwise"]
        return {**values, **{key: value for key, value in given.items() if value is not None}}
    if given.get("score_thr") is not None and given.get("iou_thr") is not None and given.get("nms") is not None:
        raise UserError(f"postprocess.file={file}: overridden by the given thresholds. Give postprocess={file} instead")
    values = read_tuned(rule_file(file, members, root))
    values.pop("about", None)
    return {**values, **{key: value for key, value in given.items() if value is not None}}


def rule_file(file: str, members: Sequence[tuple[str, str]], root: Path) -> Path:
    """Return the path of the rule file that `postprocess.file` stands for.

    Args:
        file: a path or `newest`, see `fill_in`.
        members: name and SHA-256 of each checkpoint.
        root: output folder of tune_thresholds.py.

    Raises:
        UserError: `newest`, and no rule file below `root` was tuned for these checkpoints.
    """
    return _newest(members, root) if file == "newest" else Path(file)


def _newest(members: Sequence[tuple[str, str]], root: Path) -> Path:
    """Return the newest rule file that was tuned for these checkpoints, in any order."""
    wanted = sorted(digest for _, digest in members)
    others = []
    for path in sorted(root.glob(f"*/{NAME}"), key=lambda p: p.stat().st_mtime, reverse=True):
        about = read_tuned(path).get("about") or {}
        if sorted(digest for _, digest in about.get("members", [])) == wanted:
            return path
        others.append(f"{path} ({', '.join(name for name, _ in about.get('members', []))})")
    there = f"found {others[0]}" if others else "found none"
    raise UserError(
        f"postprocess=tuned: no {NAME} below {root}/ was tuned for {', '.join(name for name, _ in members)} ({there}). "
        "Run tune_thresholds.py with the same ensemble, or name a file: postprocess=FILE.yaml"
    )


def method_files(folder: Path) -> list[Path]:
    """Return the rule files of all methods in an output folder of tune_thresholds.py, the simplest method first.

    Raises:
        UserError: the folder has no valid methods.csv.
    """
    table = folder / "methods.csv"
    if not table.is_file():
        raise UserError(f"{folder}: no methods.csv: not a folder that tune_thresholds.py wrote")
    with open_csv(table) as stream:
        methods = [row.get("method") or "" for row in csv.DictReader(stream)]
    if wrong := [name for name in methods if not re.fullmatch(r"\w[\w .+-]*", name)]:
        raise UserError(f"{table}: method {wrong[0][:40]!r} is not a method of tune_thresholds.py")
    return [folder / "methods" / f"{name}.yaml" for name in methods]
