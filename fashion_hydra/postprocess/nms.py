"""Non-maximum suppression: greedy within each class, over all classes, and soft."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops import nms as _nms


def select(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score_thr: float | Tensor, iou_thr: float, max_per_image: int
) -> Tensor:
    """Greedy NMS within each class: indices of what is kept, by descending score.

    Class by class rather than with shifted coordinates, so that a box's fate depends on its class alone and not
    on what else is in the list.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: see `Postprocess`; one, or one a candidate (N,).
        iou_thr: see there.
        max_per_image: see there.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    grouped = able[labels[able].sort(stable=True).indices]
    kept = [
        members[_nms(boxes[members], scores[members], iou_thr)] if len(members) > 1 else members
        for members in grouped.split(labels[grouped].unique_consecutive(return_counts=True)[1].tolist())
    ]
    if not kept:
        return able
    index = torch.cat(kept).sort().values  # ties in score fall to the earlier candidate
    order = scores[index].sort(descending=True, stable=True).indices
    return index[order[:max_per_image]]


def top_survivors(boxes: Tensor, scores: Tensor, *, iou_thr: float, count: int) -> Tensor:
    """Indices of the best so many of what greedy NMS keeps, whatever the class, by descending score.

    NMS of the boxes down to some score keeps what NMS of all keeps down to there, so it looks at a few of the best,
    then at twice as many, until enough are kept.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        iou_thr: boxes that overlap a better one by more are left out.
        count: the best so many are kept.
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
    """Soft-NMS within each class, with the Gaussian penalty; in float64.

    The best box left is kept, and the score of every other box left of its class is multiplied by
    exp(-IoU² / sigma); and so on. Boxes whose score is no longer above the threshold fall out. (Bodla, Singh,
    Chellappa, Davis: Soft-NMS - Improving Object Detection With One Line of Code, ICCV 2017, equation 3; the
    authors use sigma = 0.5.) Ties in score fall to the earlier candidate.

    Args:
        boxes: float32 (N, 4).
        scores: float32 (N,).
        labels: int64 (N,).
        score_thr: float32 (N,), of each candidate.
        sigma: of the penalty.
        max_per_image: the best so many are kept.

    Returns:
        Indices of what is kept, and its lowered scores, float64, descending.
    """
    able = torch.nonzero(scores > score_thr)[:, 0]
    overlaps = box_iou(boxes[able].double(), boxes[able].double()).numpy()
    of_class = labels[able].numpy()
    kept_share = np.where(of_class[:, None] == of_class, np.exp(-(overlaps**2) / sigma), 1.0)
    left, floor = scores[able].double().numpy().copy(), score_thr[able].double().numpy()
    index: list[int] = []
    lowered: list[float] = []
    while len(index) < max_per_image and (left > floor).any():
        # The best of all classes is the best of its own, and what it lowers only gets lower.
        best = int(np.where(left > floor, left, -1.0).argmax())
        index.append(best)
        lowered.append(float(left[best]))
        left *= kept_share[best]
        left[best] = -1.0
    return able[index], torch.tensor(lowered, dtype=torch.float64)
