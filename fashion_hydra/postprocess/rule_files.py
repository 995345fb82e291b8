"""Tuned rules as files: written by tune_thresholds.py, read by `predict.py postprocess=tuned` or `postprocess=FILE`."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.data.class_set import ClassSet, named_categories
from fashion_hydra.formats.csv_files import open_csv
from fashion_hydra.postprocess.calibration_file import write_calibration
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_options import build_postprocess
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.text import one_line

NAME = "tuned.yaml"
IN_FORCE = "postprocess.yaml"
"""In a prediction's folder: the rule that its answers were made with."""
_LARGEST_YAML, _LONGEST_VALUE, _DEEPEST_YAML = 1 << 20, 4096, 20
_PLAIN = ("score_thr", "nms", "iou_thr", "soft_nms_sigma", "max_per_image", "mask_thr", "suppress_overlaps", "min_area")


def write_tuned(path: Path, rule: Postprocess, classes: ClassSet, about: Mapping[str, Any]) -> None:
    """Write a rule; a calibration goes into a file beside it.

    Args:
        path: the file, `.yaml`.
        rule: what was found.
        classes: behind the rule's labels.
        about: plain values that say what it was tuned on, with `members` (name and SHA-256 of each checkpoint).
    """
    values: dict[str, Any] = {name: getattr(rule, name) for name in _PLAIN}
    values["steps"] = list(rule.steps)
    values["class_score_thr"] = {classes.ids[label]: thr for label, thr in sorted(rule.label_score_thr.items())} or None
    values["drop_classes"] = [classes.ids[label] for label in rule.dropped_labels]
    values["select"] = "threshold" if rule.calibration is None else "expected"
    values["calibration"] = None
    path.parent.mkdir(parents=True, exist_ok=True)
    if rule.calibration is not None:
        values["calibration"] = f"{path.stem}_calibration.json"
        write_calibration(path.with_name(values["calibration"]), rule.calibration, classes)
    with atomic_write(path) as stream:
        stream.write("# A rule of postprocessing; read by predict.py postprocess=FILE.\n")
        stream.write(OmegaConf.to_yaml(OmegaConf.create({**values, "about": dict(about)})))


def read_tuned(path: Path) -> dict[str, Any]:
    """The values of a file that `write_tuned` wrote; the calibration's path is made absolute.

    Raises:
        UserError: no such file, or none of that kind.
    """
    if not path.is_file():
        raise UserError(f"postprocess={path}: no such file. tune_thresholds.py writes one")
    values: Any = OmegaConf.to_container(read_yaml(path))
    if not isinstance(values, dict) or "score_thr" not in values:
        raise UserError(f"{path}: not written by tune_thresholds.py: score_thr and the like expected in it")
    rule, about = {key: value for key, value in values.items() if key != "about"}, values.get("about")
    if "${" in str(rule):
        raise UserError(f"{path}: refused, a value stands for another ({'${...}'}). Write plain values")
    if about is not None and not (isinstance(about, dict) and _are_members(about.get("members", []))):
        raise UserError(f"{path}: not written by tune_thresholds.py: about.members expected to be names with sums")
    if values.get("calibration") is not None:
        values["calibration"] = str(path.parent / str(values["calibration"]))
    return {str(key): value for key, value in values.items()}


def _are_members(members: object) -> bool:
    pairs = members if isinstance(members, list) else [None]
    return all(isinstance(p, list) and len(p) == 2 and all(isinstance(text, str) for text in p) for p in pairs)


def read_yaml(path: Path) -> Any:
    """A config in a file, see `checked_yaml`.

    Raises:
        UserError: no YAML, or more of it than a config has.
    """
    text = checked_yaml(path)
    try:
        return OmegaConf.create(text)
    except Exception as error:  # OmegaConf has many words for what it does not take
        raise UserError(f"{path}: not readable as a config ({one_line(error, 120)})") from error


def checked_yaml(path: Path) -> str:
    """A file of YAML without references, which could grow into more than any memory holds, and of no great depth.

    Raises:
        UserError: no YAML, or more of it than a config has.
    """
    if (size := path.stat().st_size) > _LARGEST_YAML:
        raise UserError(f"{path}: {size} bytes: refused, at most {_LARGEST_YAML} expected of a config")
    depth = 0
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST_YAML:
                raise ValueError("references (*NAME), or nested too deeply")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_VALUE:
                raise ValueError(f"a value of {len(event.value)} characters, at most {_LONGEST_VALUE} expected")
    except Exception as error:  # YAML has many words for what it cannot read
        raise UserError(f"{path}: not readable as YAML ({one_line(error, 120)})") from error
    return text


def rule_of(path: Path, classes: ClassSet) -> Postprocess:
    """The rule that a tuned file describes, for a model of these classes.

    Raises:
        UserError: no such file, none of that kind, or of other classes.
    """
    values = read_tuned(path)
    values.pop("about", None)
    return build_postprocess(OmegaConf.create(values), classes)


def fill_in(config: DictConfig, members: Sequence[tuple[str, str]], root: Path) -> DictConfig:
    """The group `postprocess` with what a tuned file says wherever it says nothing itself.

    Args:
        config: the group; only `postprocess=tuned` has the key `file`, a file or null for the newest below `root`
            that was tuned for these checkpoints.
        members: name and SHA-256 of each checkpoint.
        root: where tune_thresholds.py writes.

    Raises:
        UserError: no such file.
    """
    if "file" not in config:
        return config
    values = read_tuned(Path(config.file) if config.file is not None else _newest(members, root))
    values.pop("about", None)
    given = {str(key): value for key, value in config.items() if key != "file" and value is not None}
    return OmegaConf.create({**values, **given})


def _newest(members: Sequence[tuple[str, str]], root: Path) -> Path:
    """The newest tuned file for these checkpoints, in whatever order they were given."""
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


def rule_in_force(folder: Path, classes: ClassSet, members: Sequence[tuple[str, str]]) -> Postprocess | None:
    """The rule that a prediction's answers were made with; None where nothing in its folder tells.

    Args:
        folder: that predict.py wrote.
        classes: behind the labels of its candidates.
        members: name and SHA-256 of each checkpoint.

    Raises:
        UserError: what tells cannot be read.
    """
    if (folder / IN_FORCE).is_file():
        return rule_of(folder / IN_FORCE, classes)
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        return None
    config = read_yaml(path)
    if not isinstance(config, DictConfig) or "postprocess" not in config:
        return None
    dropped = OmegaConf.select(config, "classes.drop") or []
    ids = named_categories(dropped, classes, "classes.drop")
    rule = fill_in(config.postprocess, members, Path(OmegaConf.select(config, "paths.tuned") or "tuned"))
    return build_postprocess(rule, replace(classes, drop=ids))


def method_files(folder: Path) -> list[Path]:
    """The rules of all methods that tune_thresholds.py wrote into a folder, the simplest first.

    Raises:
        UserError: there are none.
    """
    table = folder / "methods.csv"
    if not table.is_file():
        raise UserError(f"{folder}: no methods.csv: not a folder that tune_thresholds.py wrote")
    with open_csv(table) as stream:
        methods = [row.get("method") or "" for row in csv.DictReader(stream)]
    if wrong := [name for name in methods if not re.fullmatch(r"\w[\w .+-]*", name)]:
        raise UserError(f"{table}: method {wrong[0][:40]!r} is none that tune_thresholds.py writes")
    return [folder / "methods" / f"{name}.yaml" for name in methods]
