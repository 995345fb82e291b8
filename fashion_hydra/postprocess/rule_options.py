"""Turn the options of the group `postprocess`, with categories by id or name, into a rule in label space."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fashion_hydra.data.class_set import ClassSet, find_category
from fashion_hydra.postprocess.attributes import EXPECTED, NONE, AttributeRule
from fashion_hydra.postprocess.calibration_file import read_calibration
from fashion_hydra.postprocess.expected_score import Calibration
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.utils.errors import UserError


def build_rule(options: Mapping[str, Any], classes: ClassSet) -> Postprocess:
    """Build a rule from the options of the group `postprocess`.

    Args:
        options: fields of `fashion_hydra.postprocess.rule.Postprocess`, with these differences: `class_score_thr`
            (category -> threshold) replaces `label_score_thr`; `drop_classes`, in addition to the class set's own
            `drop`, replaces `dropped_labels`; `select` is added, and `calibration` is a file.
        classes: the classes of the model's labels.

    Raises:
        UserError: an option is unknown or missing, a value is out of range, or the model has no such category.
    """
    values = {key: value for key, value in options.items() if key not in ("file", "otherwise")}
    if options.get("file") is not None:
        raise UserError(
            "postprocess=tuned: only predict.py reads tuned files; give postprocess=winner or mmdet_default"
        )
    known = [f.name for f in fields(Postprocess) if f.name not in ("label_score_thr", "dropped_labels")]
    known += ["class_score_thr", "drop_classes", "select", "attribute_thr", "match_thr"]
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"postprocess.{unknown[0]}: no such option; postprocess has {', '.join(known)}")
    optional = ["calibration", "class_score_thr", "drop_classes", "select", "steps"]
    optional += ["attributes", "attribute_thr", "match_thr"]
    if missing := [key for key, value in values.items() if value is None and key not in optional]:
        raise UserError(f"postprocess.{missing[0]}=null: a value is required")
    values["calibration"] = _calibration(values.pop("select", None) or "threshold", values.get("calibration"), classes)
    values["attributes"] = _attributes(
        values.pop("attributes", None), values.pop("attribute_thr", None), values.pop("match_thr", None), classes
    )
    if not isinstance(steps := values.get("steps") or [], list):
        raise UserError(f"postprocess.steps={steps}: must be a list of names, such as [fill_holes]")
    values["steps"] = tuple(steps)
    thresholds, dropped = values.pop("class_score_thr", None) or {}, values.pop("drop_classes", None) or []
    if not isinstance(thresholds, dict):
        raise UserError(f"postprocess.class_score_thr={thresholds}: must map categories to thresholds, as {{23:0.6}}")
    if not isinstance(dropped, list):
        raise UserError(f"postprocess.drop_classes={dropped}: must be a list of ids or names, such as [0,hat]")
    label_score_thr = {}
    for entry, threshold in thresholds.items():
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise UserError(f"postprocess.class_score_thr={{{entry}: {threshold}}}: must be between 0 and 1")
        label_score_thr[_label(entry, classes, "postprocess.class_score_thr")] = float(threshold)
    labels = [_label(entry, classes, "postprocess.drop_classes") for entry in dropped]
    dropped_labels = tuple(sorted({*classes.dropped_labels(), *labels}))
    try:
        return Postprocess(**values, label_score_thr=label_score_thr, dropped_labels=dropped_labels)
    except TypeError as error:
        raise UserError(f"postprocess: {error}") from error


def _calibration(select: object, file: object, classes: ClassSet) -> Calibration | None:
    """Return the calibration for `postprocess.select=expected`, None for `threshold`."""
    if select not in ("threshold", "expected"):
        raise UserError(f"postprocess.select={select}: give threshold or expected")
    if select == "threshold":
        return None
    if file is None:
        raise UserError(
            "postprocess.select=expected: needs postprocess.calibration=FILE, written by tune_thresholds.py; "
            "postprocess=tuned finds this file itself"
        )
    return read_calibration(Path(str(file)), classes)


def _label(entry: object, classes: ClassSet, option: str) -> int:
    """Return the label of a category given by id or name; an id from the command line may be text."""
    names = classes.by_id()
    if isinstance(entry, int):
        return classes.label_of()[find_category(entry, names, option)]
    text = str(entry)
    by_id = text.isdecimal() and text not in classes.names
    return classes.label_of()[find_category(int(text) if by_id else text, names, option)]


def _attributes(kind: Any, attribute_thr: Any, match_thr: Any, classes: ClassSet) -> AttributeRule | None:
    """Build the options for choosing attributes; by default, choose the most probable set."""
    if not classes.attributes:
        if kind in (None, NONE):
            return None
        raise UserError(
            f"postprocess.attributes={kind}: the model learns no attributes. Train with model.attributes=true"
        )
    for name, value in (("attribute_thr", attribute_thr), ("match_thr", match_thr)):
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise UserError(f"postprocess.{name}={value}: must be between 0 and 1")
    return AttributeRule(
        kind=EXPECTED if kind is None else str(kind),
        attribute_thr=0.5 if attribute_thr is None else float(attribute_thr),
        match_thr=0.0 if match_thr is None else float(match_thr),
        attributes=classes.attributes,
    )
