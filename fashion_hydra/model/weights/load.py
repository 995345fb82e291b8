"""Load imported weights into a model: class-dependent tensors may be dropped, all others must fit."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.timm_backbone import TimmBackbone
from fashion_hydra.model.weights.layouts import FileClasses, Imported, import_weights
from fashion_hydra.model.weights.normalization import check_inputs
from fashion_hydra.utils.errors import UserError

_ROW_A_CLASS = re.compile(r"roi_head\..*\.(fc_cls|conv_logits|fc_mask_iou)\.(weight|bias)$")
_COUNTS = ".loss_cls.cum_samples"
"""End of the names of Seesaw loss's counts of objects, which belong to a training."""
_OPTIONAL = {
    "roi_head.semantic_": "semantic branch, which this model does not have",
    "roi_head.mask_iou_head.": "mask scoring head, which this model does not have",
    "roi_head.mask_point_head.": "mask refinement head, which this model does not have",
}
"""Parts that a file or a model may lack, by the start of their tensors' names."""
_ATTRIBUTES = re.compile(r"roi_head\..*\.fc_attribute\.(weight|bias)$")
_REGRESSION = re.compile(r"roi_head\..*\.fc_reg\.(weight|bias)$")


@dataclass(frozen=True)
class LoadSummary:
    """Tensors that a model loads from a file.

    Args:
        taken: loaded tensors by name in the model.
        partly: names of loaded tensors that keep some of the model's initial rows -> reason.
        dropped: names in the file that are not loaded -> reason.
        fresh: names in the model that are missing in the file.
    """

    taken: dict[str, Tensor]
    partly: dict[str, str]
    dropped: dict[str, str]
    fresh: list[str]

    def describe(self) -> str:
        """Return one line with the number of loaded tensors, and the others grouped by reason."""
        parts = [f"{len(self.taken)} tensors loaded"]
        for verb, named in (("partly loaded", self.partly), ("dropped", self.dropped)):
            if named:
                parts.append(f"{len(named)} {verb} ({_by_reason(named)})")
        if self.fresh:
            parts.append(f"{len(self.fresh)} not in the file ({_named(self.fresh)})")
        return ", ".join(parts)


def load_weights(detector: Detector, path: Path, classes: ClassSet) -> str:
    """Load a weight file of any known layout into a detector, or into its backbone if the file contains no more.

    Args:
        detector: detector to change in place.
        path: weight file, see `fashion_hydra.model.weights.layouts`.
        classes: classes of the detector's outputs; outputs of categories that the file shares are loaded.

    Returns:
        One line on the loaded, dropped and unchanged tensors.

    Raises:
        UserError: the file cannot be read, or belongs to another model.
    """
    imported = import_weights(path)
    fit = _fit(imported, detector.net.state_dict(), classes, source=f"weights={path}")
    check_inputs(imported.inputs, detector, source=f"weights={path}")
    detector.net.load_state_dict(fit.taken, strict=False)
    return f"{path}: {fit.describe()}"


def load_backbone(detector: Detector, path: Path) -> str:
    """Load a file of ImageNet weights, or the backbone in a detector's file, into a detector's backbone.

    Returns:
        One line on the loaded, dropped and unchanged tensors.

    Raises:
        UserError: the file cannot be read, or belongs to another backbone.
    """
    option = f"model.backbone.weights={path}"
    if not path.is_file():
        raise UserError(f"{option}: no such file. Give a file, or model.backbone.weights=null to train from scratch")
    imported = import_weights(path, backbone=True)
    if isinstance(backbone := detector.net.backbone, TimmBackbone) and imported.backbone_only:
        tensors = {name.removeprefix("backbone."): value for name, value in imported.tensors.items()}
        try:
            backbone.load_pretrained(tensors)
        except UserError as error:
            raise UserError(f"{option}: {error}") from error
        return f"{path}: {len(tensors)} tensors loaded by timm"
    others = {name: "not part of the backbone" for name in imported.tensors if not name.startswith("backbone.")}
    tensors = {name: value for name, value in imported.tensors.items() if name not in others}
    dropped = {**imported.dropped, **others}
    fit = _fit(
        replace(imported, tensors=tensors, classes=None, parts=("backbone.",), dropped=dropped),
        detector.net.state_dict(),
        None,
        source=option,
    )
    check_inputs(imported.inputs, detector, source=option)
    detector.net.load_state_dict(fit.taken, strict=False)
    return f"{path}: {fit.describe()}"


def _fit(imported: Imported, own: Mapping[str, Tensor], classes: ClassSet | None, *, source: str) -> LoadSummary:
    fit = LoadSummary({}, {}, dict(imported.dropped), [])
    rows = [] if imported.classes is None or classes is None else _shared_rows(imported.classes, classes)
    wrong: list[str] = []
    for name, value in imported.tensors.items():
        mine = own.get(name)
        if (part := _part_missing(name, own)) is not None:
            fit.dropped[name] = _OPTIONAL[part]
        elif name.endswith(_COUNTS):
            fit.dropped[name] = "counts of another training"
        elif _ATTRIBUTES.search(name):
            _take_attributes(fit, name, value, mine, imported.classes, classes)
        elif mine is None:
            wrong.append(f"{name} {tuple(value.shape)}, which the model does not have")
        elif _ROW_A_CLASS.search(name) and imported.classes is not None:
            if not _take_rows(fit, name, value, mine, rows, imported.classes):
                wrong.append(_both_shapes(name, value, mine))
        elif value.shape == mine.shape:
            fit.taken[name] = value
        elif _REGRESSION.search(name) and value.shape[1:] == mine.shape[1:]:
            fit.dropped[name] = "box regression per class, which this model does not have"
        else:
            wrong.append(_both_shapes(name, value, mine))
    for name in (n for n in own.keys() - imported.tensors.keys() if n.startswith(imported.parts)):
        # Offsets start at zero, see build_htc. Only norms without momentum read num_batches_tracked.
        at_rest = imported.backbone_only and ".conv_offset." in name
        is_output = _ROW_A_CLASS.search(name) or _ATTRIBUTES.search(name)
        if at_rest or is_output or _part_missing(name, imported.tensors) is not None:
            fit.fresh.append(name)
        elif not name.endswith(("num_batches_tracked", _COUNTS)):
            wrong.append(f"{name} {tuple(own[name].shape)}, which the file does not have")
    if wrong:
        raise UserError(_misfit(source, imported, wrong))
    fit.fresh.sort()
    return fit


def _part_missing(name: str, others: Iterable[str]) -> str | None:
    """Return the optional part that a tensor belongs to, if none of the others belongs to it."""
    part = next((part for part in _OPTIONAL if name.startswith(part)), None)
    return None if part is None or any(other.startswith(part) for other in others) else part


def _shared_rows(file: FileClasses, classes: ClassSet) -> list[int | None]:
    """Return, for each class of the model, the file's output for the same category, or None.

    Categories are matched by name, because other tools renumber them, or by id if the file has no names. A file
    without names and ids is assumed to have the model's classes if the number of classes is equal.
    """
    if file.names is not None:
        return _places(file.names, classes.names)
    if file.ids is not None:
        return _places(file.ids, classes.ids)
    return list(range(len(classes))) if file.count == len(classes) else [None] * len(classes)


def _places(values: Sequence[object], wanted: Sequence[object]) -> list[int | None]:
    """Return the index of each wanted value; None for missing and for repeated values."""
    counts = Counter(values)
    return [values.index(value) if counts[value] == 1 else None for value in wanted]


def _take_rows(
    fit: LoadSummary, name: str, value: Tensor, mine: Tensor, rows: list[int | None], file: FileClasses
) -> bool:
    """Copy the rows of shared categories and of the background into the model's; return False if rows do not fit."""
    if value.shape[1:] != mine.shape[1:]:
        return False
    theirs, ours = file.count, len(rows)
    shared = [(label, row) for label, row in enumerate(rows) if row is not None]
    after = (0,) if ".mask" in name else (1, 2)  # rows of the background: none in mask heads, two with Seesaw loss
    if not shared or len(value) - theirs not in after:
        fit.dropped[name] = f"{ours} classes instead of {theirs}" if ours != theirs else "other classes"
        return True
    made = mine.clone()
    labels, sources = zip(*shared, strict=True)
    made[list(labels)] = value[list(sources)]
    fit.taken[name] = made
    if len(shared) < len(rows):
        fit.partly[name] = f"{len(shared)} of {len(rows)} classes"
    if len(value) - theirs == len(mine) - ours:
        made[ours:] = value[theirs:]
    else:
        fit.partly[name] = "without the background, of another class loss"
    return True


def _take_attributes(
    fit: LoadSummary,
    name: str,
    value: Tensor,
    mine: Tensor | None,
    file: FileClasses | None,
    classes: ClassSet | None,
) -> None:
    """Copy the rows of shared attributes into the model's."""
    theirs = file.attributes if file is not None else None
    ours = classes.attributes.ids if classes is not None else ()
    if mine is None or theirs is None or value.shape[1:] != mine.shape[1:] or not set(theirs) & set(ours):
        fit.dropped[name] = "attributes, which this model does not learn" if mine is None else "other attributes"
        return
    shared = [attribute for attribute in ours if attribute in theirs]
    made = mine.clone()
    made[[ours.index(attribute) for attribute in shared]] = value[[theirs.index(attribute) for attribute in shared]]
    fit.taken[name] = made
    if len(shared) < len(ours):
        fit.partly[name] = f"{len(shared)} of {len(ours)} attributes"


def _misfit(source: str, imported: Imported, wrong: list[str]) -> str:
    example = min(wrong, key=lambda text: ("instead of" not in text, text))  # prefer an example with both shapes
    parts = Counter(text.partition(".")[0] for text in wrong)
    where = ", ".join(f"{count} in {part}" for part, count in sorted(parts.items()))
    return (
        f"{source}: {imported.layout}, does not fit this model in {len(wrong)} tensors ({where}), such as {example}. "
        "Choose the model and model/backbone that the file was made for"
    )


def _both_shapes(name: str, value: Tensor, mine: Tensor) -> str:
    return f"{name} {tuple(value.shape)} instead of {tuple(mine.shape)}"


def _by_reason(named: Mapping[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, reason in named.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"{reason}: {_named(names)}" for reason, names in reasons.items())


def _named(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
