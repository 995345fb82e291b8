"""Cache of candidates on disk: one file per image, and a manifest of models and views. No thresholds."""

import hashlib
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fashion_hydra.inference.cached_images import ImageFiles
from fashion_hydra.inference.manifest import VERSION, Manifest, OtherCandidates, StoredManifest, write_manifest
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.limits import LONGEST_EDGE, is_frame
from fashion_hydra.utils.zip_safety import check_uncompressed

_ROUNDING = 1e-3  # averaged probabilities may exceed [0, 1] by this
_LONGEST_NAME = 200  # file systems allow 255 bytes


class CandidateCache:
    """A folder of candidates.

    Files are written atomically, so an interrupted run leaves no partial file, and several processes may write the
    same image.

    Args:
        folder: the folder, created if it does not exist.
        manifest: the required manifest; None to read the folder's manifest.
        images: the images to predict; candidates of files that have changed since are deleted. None to leave them.

    Raises:
        OtherCandidates: the manifest is not the required one (names the first field that differs), or the folder
            holds candidates of other images.
        UserError: the manifest is missing or damaged.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None, images: ImageFiles | None = None) -> None:
        self.folder = folder
        stored = StoredManifest.read(folder)
        if manifest is None:
            if stored is None:
                raise UserError(f"{folder}: no manifest.json: not a folder of candidates. predict.py makes one")
            self.manifest = stored.manifest()
            return
        self.manifest = manifest
        if stored is not None:
            stored.check_equal(manifest)
            if images is None:
                return
            if stored.version == VERSION:
                self._continue_with(images)
                return
            if stored.images != images.digest():
                raise OtherCandidates(
                    f"{folder}: holds candidates that an earlier version predicted for another list of images. Give "
                    "another out=FOLDER, or delete this folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        if images is not None:
            images.write(folder)
        write_manifest(folder, manifest)

    def _continue_with(self, wanted: ImageFiles) -> None:
        kept = ImageFiles.read(self.folder)
        if not kept.is_continued_by(wanted):
            raise OtherCandidates(
                f"{self.folder}: holds candidates of other images ({len(kept.sizes)} in {kept.folder}), this run has "
                f"{len(wanted.sizes)} in {wanted.folder}. Give another out=FOLDER, or delete this folder"
            )
        for image_id, size in wanted.sizes.items():
            if kept.sizes.get(image_id, size) != size:
                self.path(image_id).unlink(missing_ok=True)
        known = ImageFiles(wanted.folder, {**kept.sizes, **wanted.sizes})
        if known != kept:
            known.write(self.folder)

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
