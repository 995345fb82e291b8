"""Cache of candidates on disk: one file per image, and a manifest of models and views. No thresholds."""

import hashlib
import json
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.limits import LONGEST_EDGE, is_frame
from fashion_hydra.utils.text import shorten
from fashion_hydra.utils.zip_safety import check_uncompressed

_VERSION = 2  # in version 1, the manifest has a SHA-256 over the images' ids and file sizes; there is no images.json
_MANIFEST = "manifest.json"
_IMAGES = "images.json"
_ROUNDING = 1e-3  # averaged probabilities may exceed [0, 1] by this
_OTHERS = {
    "members": "other checkpoints (members)",
    "class_ids": "other classes (class_ids)",
    "class_names": "classes of other names (class_names)",
    "scales": "other views (scales)",
    "flips": "other views (flips)",
    "attributes": "other attributes",
}
"""Manifest field -> words for the message about a difference."""
_LONGEST_NAME = 200  # file systems allow 255 bytes


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

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; without attributes, in the format from before attributes existed."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "attributes"}
        if self.attributes:
            values["attributes"] = self.attributes.plain()
        return dict(json.loads(json.dumps(values)))

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
class ImageFiles:
    """The files that candidates are predicted from.

    Args:
        folder: absolute path of the files' folder.
        sizes: file size in bytes of each image id; -1 if the file is missing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    folder: str
    sizes: Mapping[str, int]

    def is_continued_by(self, wanted: "ImageFiles") -> bool:
        """Tell whether the wanted images are these with some added, removed or replaced, not those of another folder.

        In another folder, no file may be replaced: otherwise names like IMG_0001.jpg would mix up two folders.
        """
        shared = self.sizes.keys() & wanted.sizes.keys()
        if self.folder == wanted.folder:
            return bool(shared) or not self.sizes
        unchanged = all(self.sizes[image_id] == wanted.sizes[image_id] for image_id in shared)
        return unchanged and len(shared) == min(len(self.sizes), len(wanted.sizes))


class CandidateCache:
    """A folder of candidates.

    Files are written atomically, so an interrupted run leaves no partial file, and several processes may write the
    same image.

    Args:
        folder: the folder, created if it does not exist.
        manifest: the required manifest; None to read the folder's manifest.
        images: the images to predict; candidates of files that have changed since are deleted. None to leave them.

    Raises:
        UserError: the manifest is missing, damaged, or not the required one (names the first field that differs), or
            the folder holds candidates of other images.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None, images: ImageFiles | None = None) -> None:
        self.folder = folder
        kept = _read_manifest(folder)
        if manifest is None:
            if kept is None:
                raise UserError(f"{folder}: no {_MANIFEST}: not a folder of candidates. predict.py makes one")
            kept.pop("version")
            kept.pop("images", None)
            self.manifest = _manifest(folder / _MANIFEST, kept)
            return
        self.manifest, wanted = manifest, manifest.plain()
        if kept is not None:
            version, digest = kept.pop("version"), kept.pop("images", None)
            _refuse_difference(folder, kept, wanted)
            if images is None:
                return
            if version == _VERSION:
                self._continue_with(images)
                return
            _check_first_version(folder, digest, images)
        folder.mkdir(parents=True, exist_ok=True)
        if images is not None:
            self._write_images(images)
        _write_json(folder / _MANIFEST, {"version": _VERSION, **wanted})

    def _continue_with(self, wanted: ImageFiles) -> None:
        kept = _read_images(self.folder / _IMAGES)
        if not kept.is_continued_by(wanted):
            raise UserError(
                f"{self.folder}: holds candidates of other images ({len(kept.sizes)} in {kept.folder}), this run has "
                f"{len(wanted.sizes)} in {wanted.folder}. Give another out=FOLDER, or delete this folder"
            )
        for image_id, size in wanted.sizes.items():
            if kept.sizes.get(image_id, size) != size:
                self.path(image_id).unlink(missing_ok=True)
        known = ImageFiles(wanted.folder, {**kept.sizes, **wanted.sizes})
        if known != kept:
            self._write_images(known)

    def _write_images(self, images: ImageFiles) -> None:
        _write_json(self.folder / _IMAGES, asdict(images))

    def path(self, image_id: str) -> Path:
        """Return the path of an image's file."""
        name = urllib.parse.quote(image_id, safe="")
        if len(name) > _LONGEST_NAME:
            name = f"{name[:100]}-{hashlib.sha256(image_id.encode()).hexdigest()}"
        return self.folder / "images" / f"{name}.npz"

    def missing(self, image_ids: Sequence[str]) -> list[int]:
        """Return the indices of the images that have no candidates yet."""
        return [i for i, image_id in enumerate(image_ids) if not self.path(image_id).is_file()]

    def write(self, candidates: Candidates, *, fault: str = "") -> None:
        """Write an image's candidates; `fault` is the reason why an image could not be read."""
        path = self.path(candidates.image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            "image_id": candidates.image_id,
            "fault": fault,
            "size": np.array(candidates.size, dtype=np.int64),
            "boxes": candidates.boxes.float().numpy(),
            "scores": candidates.scores.float().numpy(),
            "labels": candidates.labels.numpy(),
            "masks": candidates.masks.float().numpy(),
        }
        if candidates.attributes is not None:
            arrays["attributes"] = candidates.attributes.half().numpy()
        if candidates.mask_ious is not None:
            arrays["mask_ious"] = candidates.mask_ious.float().numpy()
        with atomic_write(path, "wb") as stream:
            np.savez(stream, **arrays)

    def read_fault(self, image_id: str) -> str:
        """Return the reason why an image could not be read, or an empty string."""
        kept = self._load(image_id, ("fault",))["fault"]
        try:
            return str(kept.astype("U", casting="no").item())
        except Exception as error:  # NumPy and Python raise many kinds of errors for invalid text
            raise UserError(f"{self.path(image_id)}: damaged candidates (fault); delete the file") from error

    def read(self, image_id: str) -> Candidates:
        """Read an image's candidates.

        Raises:
            UserError: the file is missing or damaged.
        """
        attributes = len(self.manifest.attributes)
        kept = self._load(
            image_id,
            ("size", "boxes", "scores", "labels", "masks", *(["attributes"] if attributes else [])),
            optional=("mask_ious",),
        )
        if reason := _wrong(kept, classes=len(self.manifest.class_ids), attributes=attributes):
            raise UserError(f"{self.path(image_id)}: damaged candidates ({reason}); delete it and run predict.py again")
        height, width = kept.pop("size").tolist()
        return Candidates(image_id, (height, width), **{name: torch.from_numpy(kept[name]) for name in kept})

    def _load(self, image_id: str, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
        path = self.path(image_id)
        check_uncompressed(path)
        try:
            with np.load(path, allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in (*names, *(name for name in optional if name in kept))}
            if strange := [name for name, values in arrays.items() if not isinstance(values, np.ndarray)]:
                raise ValueError(f"{strange[0]} is not an array")
            return arrays
        except FileNotFoundError:
            raise UserError(f"{path}: no candidates of image {image_id}; run predict.py again") from None
        except Exception as error:  # zipfile and NumPy raise many kinds of errors for a damaged file
            raise UserError(f"{path}: damaged candidates ({error}); delete it and run predict.py again") from error


def _wrong(kept: dict[str, np.ndarray], *, classes: int, attributes: int) -> str:
    """Describe the first problem in an image's arrays, or return an empty string."""
    size, boxes, scores, labels, masks = (kept[name] for name in ("size", "boxes", "scores", "labels", "masks"))
    count, cells = len(scores) if scores.ndim else 0, masks.shape[-1] if masks.ndim else 0
    shapes = {"size": (2,), "boxes": (count, 4), "scores": (count,), "labels": (count,), "masks": (count, cells, cells)}
    if attributes:
        shapes["attributes"] = (count, attributes)
    if "mask_ious" in kept:
        shapes["mask_ious"] = (count,)
    for name, shape in shapes.items():
        kind = {"size": np.int64, "labels": np.int64, "attributes": np.float16}.get(name, np.float32)
        if kept[name].shape != shape or kept[name].dtype != kind:
            return f"{name}: expected {np.dtype(kind)} of shape {shape}, got {kept[name].dtype} {kept[name].shape}"
    if not is_frame(*size.tolist()):
        return f"invalid image size {size[0]}x{size[1]}"
    shares = [kept[name] for name in ("scores", "masks", "attributes", "mask_ious") if name in kept]
    if not all(np.isfinite(values).all() for values in (boxes, *shares)):
        return "NaN or infinite values"
    if (np.abs(boxes) > 2 * LONGEST_EDGE).any() or (boxes[:, :2] > boxes[:, 2:]).any():
        return "invalid boxes: x0 > x1 or y0 > y1, or far outside the image"
    if any(((values < -_ROUNDING) | (values > 1 + _ROUNDING)).any() for values in shares):
        return "probabilities outside [0, 1]"
    return f"labels outside 0 to {classes - 1}" if ((labels < 0) | (labels >= classes)).any() else ""


def _manifest(path: Path, kept: dict[str, Any]) -> Manifest:
    """Check the values of a manifest file and build the manifest."""
    attributes = kept.pop("attributes", None)
    try:
        manifest = TypeAdapter(Manifest).validate_json(json.dumps(kept))
        if len(manifest.class_ids) != len(manifest.class_names):
            raise ValueError("class_names")
        return replace(manifest, attributes=AttributeSet.from_plain(attributes, classes=len(manifest.class_ids)))
    except ValueError as error:
        what = next(iter(error.errors()[0]["loc"]), "invalid text") if isinstance(error, ValidationError) else error
        raise UserError(f"{path}: damaged ({what}); delete the folder and predict again") from error


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        version = kept["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); delete the folder and predict again") from error
    if version not in (1, _VERSION):
        raise UserError(
            f"{path}: format version {version}, expected {_VERSION} or 1; delete the folder and predict again"
        )
    return dict(kept)


def _check_first_version(folder: Path, digest: object, images: ImageFiles) -> None:
    """Raise `UserError` unless these are all images of a cache of version 1, whose manifest has their digest."""
    if digest != hashlib.sha256(json.dumps(list(images.sizes.items())).encode()).hexdigest():
        raise UserError(
            f"{folder}: holds candidates that an earlier version predicted for another list of images. Give another "
            "out=FOLDER, or delete this folder"
        )


def _read_images(path: Path) -> ImageFiles:
    try:
        return TypeAdapter(ImageFiles).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        what = "no such file" if isinstance(error, OSError) else "invalid content"
        raise UserError(f"{path}: damaged ({what}); delete the folder and predict again") from error


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with atomic_write(path) as stream:
        json.dump(values, stream, indent=1)


def _refuse_difference(folder: Path, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in {**wanted, **kept}:
        if kept.get(name) != (value := wanted.get(name)):
            kept_text, wanted_text = (shorten(json.dumps(v), 80) for v in (kept.get(name), value))
            raise UserError(
                f"{folder}: holds candidates of {_OTHERS.get(name, f'another {name}')}: {kept_text}, this "
                f"run has {wanted_text}. Give another out=FOLDER, or delete this folder"
            )
