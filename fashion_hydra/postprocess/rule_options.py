"""The options of the group `postprocess`, which name categories by id or name -> a rule in label space."""

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
    """Make a rule from the options of the group `postprocess`.

    Args:
        options: fields of `fashion_hydra.postprocess.rule.Postprocess`, but `class_score_thr` (category -> threshold)
            in place of `label_score_thr`, `drop_classes`, left out besides the class set's own `drop`, in place of
            `dropped_labels`, and `select` with the file `calibration`.
        classes: behind the model's labels.

    Raises:
        UserError: an unknown option, one that is missing, a value out of its range, or a category that the model does
            not know.
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
        raise UserError(f"postprocess.{missing[0]}=null: a value expected")
    values["calibration"] = _calibration(values.pop("select", None) or "threshold", values.get("calibration"), classes)
    values["attributes"] = _attributes(
        values.pop("attributes", None), values.pop("attribute_thr", None), values.pop("match_thr", None), classes
    )
    if not isinstance(steps := values.get("steps") or [], list):
        raise UserError(f"postprocess.steps={steps}: a list of names expected, such as [fill_holes]")
    values["steps"] = tuple(steps)
    thresholds, dropped = values.pop("class_score_thr", None) or {}, values.pop("drop_classes", None) or []
    if not isinstance(thresholds, dict):
        raise UserError(f"postprocess.class_score_thr={thresholds}: category to threshold expected, such as {{23:0.6}}")
    if not isinstance(dropped, list):
        raise UserError(f"postprocess.drop_classes={dropped}: a list of ids or names expected, such as [0,hat]")
    label_score_thr = {}
    for entry, threshold in thresholds.items():
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise UserError(f"postprocess.class_score_thr={{{entry}: {threshold}}}: between 0 and 1 expected")
        label_score_thr[_label(entry, classes, "postprocess.class_score_thr")] = float(threshold)
    labels = [_label(entry, classes, "postprocess.drop_classes") for entry in dropped]
    dropped_labels = tuple(sorted({*classes.dropped_labels(), *labels}))
    try:
        return Postprocess(**values, label_score_thr=label_score_thr, dropped_labels=dropped_labels)
    except TypeError as error:
        raise UserError(f"postprocess: {error}") from error


def _calibration(select: object, file: object, classes: ClassSet) -> Calibration | None:
    """The calibration that `postprocess.select` asks for."""
    if select not in ("threshold", "expected"):
        raise UserError(f"postprocess.select={select}: give threshold or expected")
    if select == "threshold":
        return None
    if file is None:
        raise UserError(
            "postprocess.select=expected: needs postprocess.calibration=FILE, as tune_thresholds.py writes it; "
            "postprocess=tuned knows its own"
        )
    return read_calibration(Path(str(file)), classes)


def _label(entry: object, classes: ClassSet, option: str) -> int:
    """The label of a category by id or name; an id may have become text on the command line."""
    names = classes.by_id()
    if isinstance(entry, int):
        return classes.label_of()[find_category(entry, names, option)]
    text = str(entry)
    by_id = text.isdecimal() and text not in classes.names
    return classes.label_of()[find_category(int(text) if by_id else text, names, option)]


def _attributes(kind: Any, attribute_thr: Any, match_thr: Any, classes: ClassSet) -> AttributeRule | None:
    """How attributes are answered: with the most probable set unless something else is asked for."""
    if not classes.attributes:
        if kind in (None, NONE):
            return None
        raise UserError(
            f"postprocess.attributes={kind}: the model learns no attributes. Train with model.attributes=true"
        )
    for name, value in (("attribute_thr", attribute_thr), ("match_thr", match_thr)):
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise UserError(f"postprocess.{name}={value}: between 0 and 1 expected")
    return AttributeRule(
        kind=EXPECTED if kind is None else str(kind),
        attribute_thr=0.5 if attribute_thr is None else float(attribute_thr),
        match_thr=0.0 if match_thr is None else float(match_thr),
        attributes=classes.attributes,
    )
