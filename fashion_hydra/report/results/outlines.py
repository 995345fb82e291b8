"""Convert masks to SVG paths on the submission's grid."""

import cv2
import numpy as np

from fashion_hydra.structures.rle import CocoRLE, coco_to_runs, runs_to_box, runs_to_crop

TOLERANCE = 0.9
"""Maximum distance between a simplified outline and the exact one, in pixels of the mask's grid."""


def mask_path(mask: CocoRLE, *, tolerance: float = TOLERANCE) -> str:
    """Return the outline of a mask as an SVG path for the even-odd fill rule, in whole pixels of the mask's grid.

    OpenCV's contours run through the centres of border pixels, so a mask would lose half a pixel on every side. This
    function traces the corners of pixels instead: the outline of a single pixel is a square of area 1. As a side
    effect, gaps of one pixel are closed.

    Args:
        mask: mask to outline.
        tolerance: tolerance of the Douglas-Peucker simplification, in pixels.

    Returns:
        Subpaths `Mx yl dx dy ...z`; empty for a mask without pixels.
    """
    runs = coco_to_runs(mask)
    height = mask["size"][0]
    x0, y0, x1, y1 = box = runs_to_box(runs, height=height)
    crop = runs_to_crop(runs, height=height, box=box)
    if crop.size == 0:
        return ""
    corners = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            corners[rows, columns] |= crop
    contours, _ = cv2.findContours(corners, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x0, y0))
    return "".join(_subpath(contour, tolerance) for contour in contours)


def _subpath(contour: np.ndarray, tolerance: float) -> str:
    points = cv2.approxPolyDP(contour, tolerance, closed=True)[:, 0]
    if len(points) < 3:  # the contour is too small for this tolerance
        points = contour[:, 0]
    steps = " ".join(f"{dx} {dy}" for dx, dy in np.diff(points, axis=0).tolist())
    return f"M{points[0][0]} {points[0][1]}l{steps}z"
