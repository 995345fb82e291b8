"""Choose masks for a photo whose classes are known from tags, among a detector's candidates."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.structures.paste import MaskWindow, mask_iou, paste

_SAME_PIXELS = 0.5
"""Two masks with an IoU above this show the same garment, whatever their classes."""


def choose_tagged(
    candidates: Candidates,
    most: Mapping[int, int],
    *,
    score_thr: float,
    tag_thr: float,
    mask_thr: float,
) -> Detections:
    """Choose the masks of one photo whose classes are known.

    Candidates of the tagged classes are chosen greedily by score. The first mask of a class may have a low score, since
    the tag confirms the class; further masks of the class need `score_thr`. A mask must not cover the pixels of a
    better one, because an uncertain detector finds the same garment as candidates of two classes.

    Args:
        candidates: the photo's candidates, by descending score.
        most: label -> maximum number of masks; labels that the photo does not show are absent.
        score_thr: minimum score of every mask of a class but the first.
        tag_thr: minimum score of the first mask of a class.
        mask_thr: mask probability from which a pixel belongs to the mask.
    """
    kept: list[tuple[int, MaskWindow, int]] = []
    count = Counter[int]()
    for i, (label, score) in enumerate(zip(candidates.labels.tolist(), candidates.scores.tolist(), strict=True)):
        if count[label] >= most.get(label, 0) or score < (score_thr if count[label] else tag_thr):
            continue
        mask = _drawn(candidates.masks[i], candidates.boxes[i], candidates.size, mask_thr)
        area = int(np.count_nonzero(mask.pixels))
        if area and all(mask_iou(mask, other, area, its) <= _SAME_PIXELS for _, other, its in kept):
            kept.append((i, mask, area))
            count[label] += 1
    index = [i for i, *_ in kept]
    return Detections(
        candidates.image_id,
        candidates.labels[index].tolist(),
        candidates.scores[index].tolist(),
        [mask.encoded(candidates.size) for _, mask, _ in kept],
        [area for *_, area in kept],
    )


def _drawn(mask: Tensor, box: Tensor, size: tuple[int, int], mask_thr: float) -> MaskWindow:
    return paste(mask.numpy(), box.double().numpy(), size=size, mask_thr=mask_thr)
