"""Boundary IoU (Cheng et al.: Boundary IoU, CVPR 2021), which measures how well outlines of masks agree.

Used instead of IoU, it gives boundary AP, which penalizes ragged edges of large objects.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.evaluation.coco_ap import LEAST_IOU, mask_iou
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.types import FloatArray

WIDTH = 0.02
"""Width of the boundary as a share of the frame's diagonal, as in the paper and its results."""


def boundary_iou(predicted: Sequence[CocoRLE], true: Sequence[CocoRLE], crowd: Sequence[bool]) -> FloatArray:
    """Return the smaller of IoU and boundary IoU of every detection with every true mask: (N, M).

    See `fashion_hydra.evaluation.coco_ap.Overlap`. The minimum is used because a detection inside an object may be far
    from its boundary, while thin objects consist of boundary only. If the IoU is too low for a match, boundaries are
    not computed and the IoU is returned.
    """
    iou = mask_iou(predicted, true, crowd)
    rows, columns = (np.flatnonzero((iou >= LEAST_IOU).any(axis=axis)).tolist() for axis in (1, 0))
    edges = mask_iou(
        [boundary(predicted[n]) for n in rows], [boundary(true[m]) for m in columns], [crowd[m] for m in columns]
    )
    iou[np.ix_(rows, columns)] = np.minimum(iou[np.ix_(rows, columns)], edges)
    return iou


def boundary(mask: CocoRLE) -> CocoRLE:
    """Return the boundary: mask pixels up to `WIDTH`, in 8-connected steps, from a pixel outside mask or frame."""
    height, width = mask["size"]
    steps = max(1, round(WIDTH * float(np.hypot(height, width))))
    frame = coco_mask.decode(mask)
    x, y, w, h = (int(edge) for edge in coco_mask.toBbox(mask))
    if w == 0 or h == 0:
        return mask
    window = frame[y : y + h, x : x + w]
    padded = cv2.copyMakeBorder(window, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)
    window -= inner[1:-1, 1:-1]
    return coco_mask.encode(frame)
