"""Non-maximum suppression (NMS): greedy per class, greedy over all classes, and soft."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops import nms as _nms


def select(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score_thr: float | Tensor, iou_thr: float, max_per_image: int
) -> Tensor:
    """Apply greedy NMS within each class and return the indices of the kept boxes, by descending score.

    NMS runs class by class instead of on shifted coordinates, so the result for a class does not depend on the boxes of
    other classes.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: see `Postprocess`; one threshold, or one per candidate (N,).
        iou_thr: see `Postprocess`.
        max_per_image: see `Postprocess`.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    grouped = able[labels[able].sort(stable=True).indices]
    kept = [
        members[_nms(boxes[members], scores[members], iou_thr)] if len(members) > 1 else members
        for members in grouped.split(labels[grouped].unique_consecutive(return_counts=True)[1].tolist())
    ]
    if not kept:
        return able
    index = torch.cat(kept).sort().values  # equal scores: the earlier candidate first
    order = scores[index].sort(descending=True, stable=True).indices
    return index[order[:max_per_image]]


def top_survivors(boxes: Tensor, scores: Tensor, *, iou_thr: float, count: int) -> Tensor:
    """Apply greedy NMS over all classes and return the indices of the best `count` kept boxes, by descending score.

    Boxes with lower scores do not change which boxes with higher scores NMS keeps. So NMS starts with a few of the best
    boxes and doubles their number until enough are kept.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        iou_thr: boxes whose IoU with a better box is above this are dropped.
        count: maximum number of boxes to keep.
    """
    order = scores.sort(descending=True, stable=True).indices
    looked_at = 2 * count
    while True:
        head = order[:looked_at]
        kept = _nms(boxes[head], scores[head], iou_thr)
        if len(kept) >= count or looked_at >= len(order):
            return head[kept[:count]]
        looked_at *= 2


def soft_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score_thr: Tensor, sigma: float, max_per_image: int
) -> tuple[Tensor, Tensor]:
    """Apply soft-NMS with the Gaussian penalty within each class, in float64.

    Repeatedly keep the best remaining box and multiply the scores of the other remaining boxes of its class by
    exp(-IoU² / sigma). Boxes whose score falls to the threshold or below are dropped. Among equal scores, the earlier
    candidate comes first. (Bodla, Singh, Chellappa, Davis: Soft-NMS - Improving Object Detection With One Line of Code,
    ICCV 2017, equation 3; the authors use sigma = 0.5.)

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: float32 (N,), threshold of each candidate.
        sigma: width of the Gaussian penalty.
        max_per_image: maximum number of boxes to keep.

    Returns:
        Indices of the kept boxes, and their lowered scores, float64, descending.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    overlaps = box_iou(boxes[able].double(), boxes[able].double()).numpy()
    of_class = labels[able].numpy()
    kept_share = np.where(of_class[:, None] == of_class, np.exp(-(overlaps**2) / sigma), 1.0)
    left, floor = scores[able].double().numpy().copy(), score_thr[able].double().numpy()
    index: list[int] = []
    lowered: list[float] = []
    while len(index) < max_per_image and (left > floor).any():
        # Classes can share one loop: the best remaining box is the best of its class, and scores only decrease.
        best = int(np.where(left > floor, left, -1.0).argmax())
        index.append(best)
        lowered.append(float(left[best]))
        left *= kept_share[best]
        left[best] = -1.0
    return able[index], torch.tensor(lowered, dtype=torch.float64)
