"""Masks for what a photo is known to show: a detector's candidates, chosen by the photo's tags."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.structures.paste import MaskWindow, mask_iou, paste

_SAME_PIXELS = 0.5
"""IoU of two masks beyond which they are of one garment, whatever the classes say."""


def choose_tagged(
    candidates: Candidates,
    most: Mapping[int, int],
    *,
    score_thr: float,
    tag_thr: float,
    mask_thr: float,
) -> Detections:
    """The masks of one photo whose classes are known.

    Greedy by score, among candidates of the classes that the photo has: the first of a class needs little score, since
    the tag vouches for it; another of the class needs `score_thr`; and none may cover the pixels of a better one, for
    a detector that wavers between two classes has candidates of both.

    Args:
        candidates: of the photo, by descending score.
        most: label -> how many masks of it the photo may have; labels that are not there it does not have.
        score_thr: a mask beyond the first of its class has at least this score.
        tag_thr: the first has at least this.
        mask_thr: a pixel is of a mask where its probability is above.
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
