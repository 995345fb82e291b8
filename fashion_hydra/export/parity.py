"""Compare an exported model with the native one on the same pixels."""

import csv
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from torchvision.ops import box_iou

from fashion_hydra.data.dataset import scaled_image
from fashion_hydra.export.onnx_file import Description
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.manifest import loosest_rules
from fashion_hydra.inference.merging import MASK_GRID, Merging
from fashion_hydra.model.detector import Detector
from fashion_hydra.structures.batch import ScaledImage
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.paste import mask_iou, paste
from fashion_hydra.utils.files import atomic_write

_SAME_BOX = 0.9  # minimum IoU at which two candidates of a class match


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences between an exported model's outputs and the native ones.

    Args:
        matched: minimum share of candidates that both models found.
        score: maximum difference of a score or of an attribute probability.
        box: maximum difference of a box edge, as a share of the image's long edge.
        mask_iou: minimum IoU of two matched masks in the image.
    """

    matched: float
    score: float
    box: float
    mask_iou: float


def tolerance_of(*, half: bool) -> Tolerance:
    """Return the tolerance for rounding errors in float32, or with weights stored as float16."""
    if half:
        return Tolerance(matched=0.98, score=0.01, box=0.005, mask_iou=0.98)
    return Tolerance(matched=0.99, score=0.001, box=0.001, mask_iou=0.99)


@dataclass(frozen=True)
class Comparison:
    """Comparison of the candidates of both models for one image.

    Args:
        image: name of the image.
        native: number of candidates of the native model.
        onnx: number of candidates of the exported model.
        matched: number of matched candidates, which have the same class and a box IoU of at least 0.9.
        box: largest difference of an edge between matched boxes, in pixels of the image.
        box_share: `box` as a share of the image's long edge.
        score: largest difference of a score or of an attribute probability.
        mask_iou: smallest IoU of two matched masks, drawn in the image at the model's threshold; 1 without masks. Masks
            that differ by only one pixel are ignored, because rounding can cause this.
        native_ms: time of the native model from the resized image to candidates.
        onnx_ms: time of ONNX Runtime from the resized image to candidates.
    """

    image: str
    native: int
    onnx: int
    matched: int
    box: float
    box_share: float
    score: float
    mask_iou: float
    native_ms: float
    onnx_ms: float


class OnnxModel:
    """An exported model in ONNX Runtime, on the CPU.

    Args:
        source: path of the file, or its content.
        threads: number of CPU threads; None for one per core.
    """

    def __init__(self, source: Path | bytes, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        given = source if isinstance(source, bytes) else str(source)
        self.session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        self._type = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[self.session.get_inputs()[0].type]

    def candidates(self, scaled: ScaledImage) -> Candidates:
        """Find the candidates of an image with one scale, in the frame of its file."""
        [image] = scaled.images
        outputs = self.session.run(None, {"image": image[None].numpy().astype(self._type)})
        boxes, scores, labels, masks, *attributes = map(torch.from_numpy, outputs)
        stretch = torch.tensor([scaled.size[1] / image.shape[2], scaled.size[0] / image.shape[1]] * 2)
        return Candidates(
            scaled.image_id,
            scaled.size,
            boxes * stretch,
            scores,
            labels,
            masks if len(masks) else torch.zeros((0, 1, 1)),
            attributes[0].half() if attributes else None,
        )


def prepare(image_id: str, pixels: np.ndarray, description: Description) -> ScaledImage:
    """Resize an image for the exported model: to its scale, or stretched to its fixed size.

    Args:
        image_id: id of the image.
        pixels: uint8 (H, W, 3), RGB.
        description: metadata of the model.
    """
    if description.size is None:
        return scaled_image(image_id, pixels, [description.scale])
    resized = cv2.resize(pixels, description.size[::-1], interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    return ScaledImage(image_id, (pixels.shape[0], pixels.shape[1]), (tensor,))


def compare_models(
    detector: Detector, exported: OnnxModel, images: Iterable[ScaledImage], description: Description
) -> list[Comparison]:
    """Run both models over images and compare their candidates.

    Args:
        detector: the native model, ready for inference on the CPU.
        exported: the exported model.
        images: images resized by `prepare`.
        description: metadata of the model, whose mask threshold is used to draw the masks.
    """
    rules = loosest_rules(description.score_floor, description.iou_grid)
    mask_thr, device = float(description.thresholds["mask_thr"]), torch.device("cpu")
    merging = Merging(mask_grid=MASK_GRID)
    rows = []
    for i, scaled in enumerate(images):
        if i == 0:  # warm up, so that set-up time is not measured
            merge_sources([detector], scaled, rules, merging, device=device)
            exported.candidates(scaled)
        begin = time.perf_counter()
        native = merge_sources([detector], scaled, rules, merging, device=device)
        middle = time.perf_counter()
        other = exported.candidates(scaled)
        end = time.perf_counter()
        rows.append(_compare(native, other, mask_thr, 1e3 * (middle - begin), 1e3 * (end - middle)))
    return rows


def _compare(native: Candidates, other: Candidates, mask_thr: float, native_ms: float, onnx_ms: float) -> Comparison:
    mine, its = _match(native, other)
    boxes, other_boxes = native.boxes[mine], other.boxes[its]
    box = float((boxes - other_boxes).abs().max()) if mine else 0.0
    score = float((native.scores[mine] - other.scores[its]).abs().max()) if mine else 0.0
    if mine and native.attributes is not None and other.attributes is not None:
        score = max(score, float((native.attributes[mine].float() - other.attributes[its].float()).abs().max()))
    ious = [1.0]
    for a, b in zip(mine, its, strict=True):
        first, second = (
            paste(one.masks[k].numpy(), one.boxes[k].double().numpy(), size=native.size, mask_thr=mask_thr)
            for one, k in ((native, a), (other, b))
        )
        area, other_area = (int(np.count_nonzero(mask.pixels)) for mask in (first, second))
        iou = mask_iou(first, second, area, other_area)
        if (1 - iou) / (1 + iou) * (area + other_area) > 1.5:  # differ by more than one pixel
            ious.append(iou)
    return Comparison(
        image=native.image_id,
        native=len(native),
        onnx=len(other),
        matched=len(mine),
        box=box,
        box_share=box / max(native.size),
        score=score,
        mask_iou=min(ious),
        native_ms=native_ms,
        onnx_ms=onnx_ms,
    )


def _match(native: Candidates, other: Candidates) -> tuple[list[int], list[int]]:
    """Match each native candidate, best first, with the remaining box of highest IoU; return the indices of both."""
    overlap = box_iou(native.boxes, other.boxes)
    overlap[native.labels[:, None] != other.labels[None]] = 0
    mine, its = [], []
    for i in range(len(native)):
        if len(other) and float(overlap[i].max()) >= _SAME_BOX:
            nearest = int(overlap[i].argmax())
            overlap[:, nearest] = 0
            mine.append(i)
            its.append(nearest)
    return mine, its


def total(rows: Sequence[Comparison]) -> Comparison:
    """Return one comparison for all images: summed counts, largest differences, median times."""
    return Comparison(
        image=f"all {len(rows)}",
        native=sum(row.native for row in rows),
        onnx=sum(row.onnx for row in rows),
        matched=sum(row.matched for row in rows),
        box=max(row.box for row in rows),
        box_share=max(row.box_share for row in rows),
        score=max(row.score for row in rows),
        mask_iou=min(row.mask_iou for row in rows),
        native_ms=statistics.median(row.native_ms for row in rows),
        onnx_ms=statistics.median(row.onnx_ms for row in rows),
    )


def describe_difference(rows: Sequence[Comparison], tolerance: Tolerance) -> str:
    """Return the differences that exceed the tolerance, each with its worst image; empty if there are none."""
    found = total(rows)
    share = 2 * found.matched / max(1, found.native + found.onnx)
    wrong = []
    if found.native + found.onnx and share < tolerance.matched:
        worst = max(rows, key=lambda row: row.native + row.onnx - 2 * row.matched)
        wrong.append(
            f"{share:.2%} of the candidates are found by both, must be at least {tolerance.matched:.2%} ({worst.image})"
        )
    for name, what in (("score", "scores differ by"), ("box_share", "boxes differ, in long edges, by")):
        limit = tolerance.score if name == "score" else tolerance.box
        worst = max(rows, key=lambda row: getattr(row, name))
        if (value := getattr(worst, name)) > limit:
            wrong.append(f"{what} {value:.2g}, must be at most {limit:g} ({worst.image})")
    worst = min(rows, key=lambda row: row.mask_iou)
    if worst.mask_iou < tolerance.mask_iou:
        wrong.append(f"IoU of a mask {worst.mask_iou:.4f}, must be at least {tolerance.mask_iou:g} ({worst.image})")
    return "; ".join(wrong)


def table(rows: Sequence[Comparison]) -> str:
    """Return the comparison as text, with one line per image and one for all images."""
    heads = ("image", "native", "onnx", "matched", "box px", "score", "mask IoU", "native ms", "onnx ms")
    lines = [f"{heads[0]:28}" + "".join(f" {head:>9}" for head in heads[1:])]
    for row in (*rows, total(rows)):
        name = row.image if len(row.image) <= 28 else f"...{row.image[-25:]}"
        lines.append(
            f"{name:28} {row.native:9d} {row.onnx:9d} {row.matched:9d} {row.box:9.1g} {row.score:9.1g} "
            f"{row.mask_iou:9.4f} {row.native_ms:9.0f} {row.onnx_ms:9.0f}"
        )
    return "\n".join(lines)


def write_table(path: Path, rows: Sequence[Comparison]) -> None:
    """Write the comparison as CSV, with one row per image and one for all images."""
    with atomic_write(path) as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Comparison)], lineterminator="\n")
        writer.writeheader()
        for row in (*rows, total(rows)):
            values: dict[str, Any] = asdict(row)
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()})
