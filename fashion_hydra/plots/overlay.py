"""Paint predicted masks on photos, one file per photo."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fashion_hydra.plots.painted_masks import PaintedImage, colour, paint
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Detections

LONGEST_EDGE = 1200
_LINE_HEIGHT, _LEGEND_WIDTH = 18, 190


def overlay_size(size: Size, longest_edge: int = LONGEST_EDGE) -> Size:
    """Return the (height, width) of an image's overlay: the image's size, reduced to `longest_edge` if larger."""
    scale = min(1.0, longest_edge / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def draw_overlay(path: Path, photo: np.ndarray, detections: Detections, names: Mapping[int, str]) -> None:
    """Write the `overlay` of a photo as a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    overlay(photo, detections, names).save(path, quality=88)


def overlay(photo: np.ndarray, detections: Detections, names: Mapping[int, str]) -> Image.Image:
    """Return the photo with its masks, and a legend of the detected classes and scores.

    Args:
        photo: uint8 (H, W, 3), RGB, any size.
        detections: detections on the grid of `overlay_size`; labels index `names`.
        names: category id -> name, in label order.
    """
    size = overlay_size((photo.shape[0], photo.shape[1]))
    reduced = cv2.resize(photo, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    ids = list(names)
    found = PaintedImage.of_detections(reduced, [], detections, ids).found
    sheet = Image.new("RGB", (size[1] + _LEGEND_WIDTH, max(size[0], _LINE_HEIGHT * len(found) + 8)), "white")
    sheet.paste(Image.fromarray(paint(reduced, found)), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for line, (label, score) in enumerate(zip(detections.labels, detections.scores, strict=True)):
        y, left = 4 + _LINE_HEIGHT * line, size[1] + 8
        draw.rectangle((left, y + 2, left + 11, y + 13), fill=colour(ids[label]))
        draw.text((left + 17, y), f"{names[ids[label]].split(',')[0][:16]} {score:.2f}", fill="black", font=font)
    return sheet
