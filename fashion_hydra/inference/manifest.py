"""The manifest of a candidate cache: the models, views and limits that its candidates come from."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.text import shorten

VERSION = 2  # in version 1, the manifest has a SHA-256 over the images' ids and file sizes; there is no images.json
_FILE = "manifest.json"
_OTHERS = {
    "members": "other checkpoints (members)",
    "weights": "other weights of the checkpoints (weights)",
    "class_ids": "other classes (class_ids)",
    "class_names": "classes of other names (class_names)",
    "scales": "other views (scales)",
    "flips": "other views (flips)",
    "attributes": "other attributes",
    "mask_grid": "other mask grids (inference.mask_grid)",
}
"""Manifest field -> words for the message about a difference."""
_LATER = ("attributes", "weights", "mask_grid")
"""Fields that earlier files do not have; left out where they are empty."""


class OtherCandidates(UserError):
    """A folder holds candidates of other models, views or images than requested."""


@dataclass(frozen=True)
class Manifest:
    """Everything that determines an image's candidates, apart from the image.

    Args:
        members: name and SHA-256 of each checkpoint.
        class_ids: category id of each label.
        class_names: category name of each label.
        scales: short and long edge of each scale.
        flips: views of each scale, see `Merging`.
        proposal_iou_thr: IoU threshold of the NMS that merges sources.
        max_proposals: maximum number of proposals after that NMS.
        precision: Lightning's precision, such as `bf16-mixed`.
        score_floor: boxes with a score at or below this are dropped.
        iou_grid: a box is kept if it survives NMS at one of these thresholds.
        attributes: attributes whose probabilities the candidates have.
        weights: weight of each member in the averages; empty: all equal.
        mask_grid: grid on which masks are aligned with the image, see `Merging`; None: they are not.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    members: tuple[tuple[str, str], ...]
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    scales: tuple[tuple[int, int], ...]
    flips: tuple[bool, ...]
    proposal_iou_thr: float
    max_proposals: int
    precision: str
    score_floor: float
    iou_grid: tuple[float, ...]
    attributes: AttributeSet = field(default_factory=AttributeSet)
    weights: tuple[float, ...] = ()
    mask_grid: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, without the later fields where these are empty."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["attributes"] = self.attributes.plain() if self.attributes else None
        kept = {name: value for name, value in values.items() if value or name not in _LATER}
        return dict(json.loads(json.dumps(kept)))

    def __post_init__(self) -> None:
        if not self.iou_grid or not all(0 <= thr <= 1 for thr in (self.score_floor, *self.iou_grid)):
            raise UserError(
                f"candidates.score_floor={self.score_floor} candidates.iou_grid={list(self.iou_grid)}: "
                "thresholds must be between 0 and 1"
            )

    @property
    def classes(self) -> ClassSet:
        """Classes of the labels."""
        return ClassSet(self.class_ids, self.class_names, attributes=self.attributes)

    def rules(self) -> list[Postprocess]:
        """Return the loosest rule at each IoU threshold; their candidates together suffice for all stricter rules."""
        return loosest_rules(self.score_floor, self.iou_grid)

    def check(self, rule: Postprocess) -> None:
        """Raise `UserError` if a rule needs boxes that the cache does not hold."""
        check_rule(rule, score_floor=self.score_floor, iou_grid=self.iou_grid)


def loosest_rules(score_floor: float, iou_grid: Iterable[float]) -> list[Postprocess]:
    """Return the loosest rule at each IoU threshold, see `Manifest.rules`."""
    return [Postprocess(score_thr=score_floor, iou_thr=thr, mask_thr=0.5, max_per_image=NO_LIMIT) for thr in iou_grid]


def check_rule(rule: Postprocess, *, score_floor: float, iou_grid: Sequence[float]) -> None:
    """Raise `UserError` if a rule needs boxes that candidates with this score floor and IoU grid do not include."""
    lowest = rule.lowest_score_thr
    if lowest < score_floor:
        raise UserError(
            f"postprocess.score_thr={lowest:g} is below what the candidates hold (score_floor {score_floor:g}): give "
            f"{score_floor:g} or more, or predict again with a lower candidates.score_floor"
        )
    if rule.nms == "box" and rule.iou_thr not in iou_grid:
        raise UserError(
            f"postprocess.iou_thr={rule.iou_thr:g} is not among the thresholds that the candidates are exact for "
            f"({', '.join(f'{thr:g}' for thr in iou_grid)}): give one of them, or predict again with another "
            "candidates.iou_grid"
        )


@dataclass(frozen=True)
class StoredManifest:
    """The content of a manifest file, not checked yet.

    Args:
        path: the file.
        version: version of the format.
        images: in version 1, the digest of the images' names and sizes.
        values: the fields of `Manifest`.
    """

    path: Path
    version: int
    images: object
    values: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the manifest file of a folder; None if there is none.

        Raises:
            UserError: the file is damaged or of an unknown version.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        try:
            values = dict(json.loads(path.read_text(encoding="utf-8")))
            version = values.pop("version")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: damaged ({error}); delete the folder and predict again") from error
        if version not in (1, VERSION):
            raise UserError(
                f"{path}: format version {version}, expected {VERSION} or 1; delete the folder and predict again"
            )
        return cls(path, version, values.pop("images", None), values)

    def manifest(self) -> Manifest:
        """Check the values and return the manifest.

        Raises:
            UserError: names the first damaged field.
        """
        values = dict(self.values)
        attributes = values.pop("attributes", None)
        try:
            manifest = TypeAdapter(Manifest).validate_json(json.dumps(values))
            if len(manifest.class_ids) != len(manifest.class_names):
                raise ValueError("class_names")
            return replace(manifest, attributes=AttributeSet.from_plain(attributes, classes=len(manifest.class_ids)))
        except ValueError as error:
            what = next(iter(error.errors()[0]["loc"]), "invalid text") if isinstance(error, ValidationError) else error
            raise UserError(f"{self.path}: damaged ({what}); delete the folder and predict again") from error

    def check_equal(self, wanted: Manifest) -> None:
        """Raise `OtherCandidates` that names the first field in which the wanted manifest differs."""
        plain = wanted.plain()
        for name in {**plain, **self.values}:
            if self.values.get(name) != plain.get(name):
                kept_text, wanted_text = (shorten(json.dumps(v.get(name)), 80) for v in (self.values, plain))
                raise OtherCandidates(
                    f"{self.path.parent}: holds candidates of {_OTHERS.get(name, f'another {name}')}: {kept_text}, "
                    f"this run has {wanted_text}. Give another out=FOLDER, or delete this folder"
                )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest file of a folder, in the current version."""
    with atomic_write(folder / _FILE) as stream:
        json.dump({"version": VERSION, **manifest.plain()}, stream, indent=1)
