"""Turn candidates into detections: thresholds, NMS, mask pasting, overlaps. Pure functions of a frozen rule."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from fashion_hydra.postprocess import steps
from fashion_hydra.postprocess.attributes import ChosenAttributes, choose_attributes
from fashion_hydra.postprocess.expected_score import choose
from fashion_hydra.postprocess.nms import select, soft_nms
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.structures.paste import MaskWindow, ScoredMask, mask_iou, paste
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import FloatArray, IntArray

LOOSE_IOU_THR = 0.7
"""IoU threshold of the box NMS that limits which masks are computed for `nms=mask` and `nms=soft`; see `survivors`."""


def survivors(boxes: Tensor, scores: Tensor, labels: Tensor, rule: Postprocess) -> Tensor:
    """Return the indices of the candidates that a rule may keep, by descending score, without looking at masks.

    With NMS on boxes, these are the candidates that the rule keeps. Mask NMS and soft-NMS start from a larger set: all
    candidates above their thresholds that survive greedy NMS at `LOOSE_IOU_THR`, or at `iou_thr` if that is higher.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        rule: the postprocessing rule.
    """
    on_boxes = rule.nms == "box"
    return select(
        boxes,
        scores,
        labels,
        score_thr=rule.thresholds(labels),
        iou_thr=rule.iou_thr if on_boxes else max(LOOSE_IOU_THR, rule.iou_thr),
        max_per_image=rule.max_per_image if on_boxes else max(1, len(scores)),
    )


def apply(candidates: Candidates, rule: Postprocess, *, size: Size) -> Detections:
    """Return the detections of one image, with masks on a grid of `size`.

    With `nms=mask`, all masks are drawn on the grid first. A candidate is then dropped if the IoU of its mask (before
    overlaps are suppressed) with a better, kept mask of its class is above `iou_thr`. A mask without pixels has IoU 0
    with every other mask. As with boxes, `max_per_image` limits the candidates that survive NMS.

    Args:
        candidates: the image's candidates.
        rule: the postprocessing rule.
        size: height and width of the grid that masks are drawn on; boxes are scaled from the image to the grid.
    """
    index, scores = rank(candidates, rule)
    stretch = np.array([size[1] / candidates.size[1], size[0] / candidates.size[0]] * 2)
    boxes = candidates.boxes[index].double().numpy() * stretch
    drawn = (
        paste(mask, box, size=size, mask_thr=rule.mask_thr)._replace(candidate=candidate)
        for mask, box, candidate in zip(candidates.masks[index].numpy(), boxes, index.tolist(), strict=True)
    )
    found: Iterable[ScoredMask] = zip(drawn, candidates.labels[index].tolist(), scores.tolist(), strict=True)
    if rule.nms == "mask":
        found = mask_nms(found, rule)
    for name in rule.steps:
        found = steps.load(name)(list(found), size)
    return _answer(candidates, found, rule, size)


def rank(candidates: Candidates, rule: Postprocess) -> tuple[Tensor, Tensor]:
    """Return the indices of the candidates to draw, best first, and their scores (float32; float64 with soft-NMS)."""
    if not rule.rescores(has_mask_ious=candidates.mask_ious is not None):
        return _suppress(candidates, rule)
    index, scores = _suppress(candidates, replace(rule, max_per_image=NO_LIMIT))
    if candidates.mask_ious is not None and rule.mask_iou_power:
        scores = scores * candidates.mask_ious[index].to(scores) ** rule.mask_iou_power
    if rule.mask_certainty_power:
        scores = scores * mask_certainty(candidates.masks[index]).to(scores) ** rule.mask_certainty_power
    order = scores.sort(descending=True, stable=True).indices
    order = order[scores[order] > rule.thresholds(candidates.labels)[index[order]]]
    if rule.nms != "mask":  # NMS on masks counts afterwards
        order = order[: rule.max_per_image]
    return index[order], scores[order]


def mask_certainty(masks: Tensor) -> Tensor:
    """Return the mean probability of each mask's cells above one half, float32 (N,); 0 for masks without such cells.

    Where a detector finds the outline hard to tell, probabilities inside the mask are low as well (the maskness of Wang
    et al., SOLO, ECCV 2020, arXiv:1912.04488).

    Args:
        masks: (N, M, M), mask probabilities.
    """
    masks = masks.float()
    inside = masks > 0.5
    return (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


def _suppress(candidates: Candidates, rule: Postprocess) -> tuple[Tensor, Tensor]:
    """Return the candidates that NMS on boxes and the score thresholds keep, the best first, and their scores."""
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    if rule.nms == "box":
        index = survivors(boxes, scores, labels, rule)
        return index, scores[index]
    floors = rule.thresholds(labels)
    if rule.nms == "mask":
        order = scores.sort(descending=True, stable=True).indices
        index = order[scores[order] > floors[order]]
        return index, scores[index]
    return soft_nms(
        boxes, scores, labels, score_thr=floors, sigma=rule.soft_nms_sigma, max_per_image=rule.max_per_image
    )


def mask_nms(found: Iterable[ScoredMask], rule: Postprocess) -> list[ScoredMask]:
    """Apply greedy mask NMS within each class, see `apply`; `found` is sorted by descending score."""
    kept: list[ScoredMask] = []
    rivals: dict[int, list[tuple[MaskWindow, int]]] = {}
    for mask, label, score in found:
        area = int(np.count_nonzero(mask.pixels))
        better = rivals.setdefault(label, [])
        if any(mask_iou(mask, other, area, its, up_to=rule.iou_thr) > rule.iou_thr for other, its in better):
            continue
        better.append((mask, area))
        kept.append((mask, label, score))
        if len(kept) == rule.max_per_image:
            break
    return kept


def _answer(candidates: Candidates, found: Iterable[ScoredMask], rule: Postprocess, size: Size) -> Detections:
    """Suppress overlaps, drop small masks, select detections and encode them; `found` is sorted by descending score."""
    taken: dict[int, list[MaskWindow]] = {}
    masks: list[MaskWindow] = []
    kept: list[tuple[int, float, int]] = []
    for mask, label, score in found:
        if rule.suppress_overlaps:
            better = taken.setdefault(label, [])
            for other in better:
                if (views := mask.windows_shared_with(other)) is not None:
                    np.greater(*views, out=views[0])  # keep the pixels that the better mask does not have
            better.append(mask)
        if (area := int(np.count_nonzero(mask.pixels))) >= rule.min_area:
            masks.append(mask)
            kept.append((label, score, area))
    labels, scores = np.array([one[0] for one in kept], np.int64), np.array([one[1] for one in kept], np.float64)
    attributes = _attributes(candidates, [mask.candidate for mask in masks], labels, rule)
    index = select_detections(scores, labels, attributes, rule).tolist()
    known = rule.attributes.attributes.ids if rule.attributes is not None else ()
    return Detections(
        candidates.image_id,
        labels=[kept[i][0] for i in index],
        scores=[kept[i][1] for i in index],
        masks=[masks[i].encoded(size) for i in index],
        known_areas=[kept[i][2] for i in index],
        attributes=None if attributes is None else [tuple(known[p] for p in attributes.places[i]) for i in index],
    )


def _attributes(
    candidates: Candidates, index: Sequence[int], labels: IntArray, rule: Postprocess
) -> ChosenAttributes | None:
    """Choose the attributes of the detections drawn from the candidates at `index`.

    Raises:
        UserError: a postprocessing step returned a mask without its candidate.
    """
    if not rule.answers_attributes:
        return None
    assert rule.attributes is not None
    assert candidates.attributes is not None, "a rule for attributes needs candidates with attributes"
    if -1 in index:
        raise UserError(
            "postprocess.steps: a step returned a MaskWindow without its candidate, so its attributes are unknown. "
            "Change masks with mask._replace(pixels=...)"
        )
    return choose_attributes(candidates.attributes.numpy()[list(index)], labels, rule.attributes)


def select_detections(
    scores: FloatArray, labels: IntArray, attributes: ChosenAttributes | None, rule: Postprocess
) -> IntArray:
    """Apply `match_thr` and the calibration, the last parts of a rule, and return the indices of the kept detections.

    Args:
        scores: (N,), descending.
        labels: (N,).
        attributes: the attributes chosen for the N detections.
        rule: the rule, of which only `calibration` and `attributes` are used.
    """
    if attributes is not None and rule.attributes is not None:
        left = np.flatnonzero(scores * attributes.chances > rule.attributes.match_thr)
    else:
        left = np.arange(len(scores))
    if rule.calibration is None:
        return left
    return left[choose(scores[left], labels[left], rule.calibration, None if attributes is None else attributes[left])]
