"""Paint true and predicted masks on photos, side by side."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE, coco_to_runs, runs_to_bitmap
from fashion_hydra.utils.files import atomic_write

_ROW_HEIGHT, _GAP, _LEGEND = 300, 8, 190
_LINE_HEIGHT, _LEGEND_LINES = 16, 18
_OPACITY = 0.55
_TONES = ((0.95, 1.0), (0.45, 1.0), (0.95, 0.6), (0.5, 0.65), (0.7, 0.85))

Mask = tuple[int, np.ndarray]
"""A category id and its uint8 (H, W) bitmap."""


@dataclass(frozen=True)
class PaintedImage:
    """A photo with its true and its predicted masks.

    Args:
        photo: uint8 (H, W, 3), RGB.
        truth: true masks on the photo's grid.
        found: predicted masks on the photo's grid, the best first.
    """

    photo: np.ndarray
    truth: Sequence[Mask]
    found: Sequence[Mask]

    @classmethod
    def of_detections(
        cls, photo: np.ndarray, truth: Sequence[Mask], detections: Detections, ids: Sequence[int]
    ) -> "PaintedImage":
        """Build the image from detections on the photo's grid; `ids` maps labels to category ids."""
        found = [(ids[label], _bitmap(rle)) for label, rle in zip(detections.labels, detections.masks, strict=True)]
        return cls(photo, truth, found)


def _bitmap(encoded: CocoRLE) -> np.ndarray:
    height, width = encoded["size"]
    return runs_to_bitmap(coco_to_runs(encoded), height=height, width=width)


def colour(category: int) -> tuple[int, int, int]:
    """Return a category's RGB colour: hues a golden angle apart in five tones, so that 46 are distinguishable."""
    saturation, value = _TONES[category % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb(category * 0.618034 % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def largest_first(masks: Sequence[Mask]) -> list[Mask]:
    """Return masks by descending area, the drawing order that puts small masks on top."""
    return sorted(masks, key=lambda mask: -int(mask[1].sum()))


def paint(photo: np.ndarray, masks: Sequence[Mask]) -> np.ndarray:
    """Return the photo with outlined masks in their categories' colours, small masks on top.

    Args:
        photo: uint8 (H, W, 3), RGB.
        masks: masks on the photo's grid.
    """
    canvas = photo.astype(np.float32)
    for category, mask in largest_first(masks):
        inside = mask.astype(bool)
        tint = np.array(colour(category), dtype=np.float32)
        canvas[inside] = canvas[inside] * (1 - _OPACITY) + tint * _OPACITY
        canvas[inside & ~_eroded(inside)] = tint * 0.6
    return canvas.astype(np.uint8)


def _eroded(mask: np.ndarray) -> np.ndarray:
    framed = np.pad(mask, 1, mode="edge")
    return framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]


def draw_comparison(path: Path, rows: Sequence[PaintedImage], *, names: Mapping[int, str]) -> None:
    """Write the `comparison` of several images as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as stream:
        comparison(rows, names=names).save(stream, format="PNG")


def comparison(rows: Sequence[PaintedImage], *, names: Mapping[int, str], columns: int = 2) -> Image.Image:
    """Draw photo, truth and prediction of each image side by side, with a legend of mask counts per category.

    Args:
        rows: the images.
        names: category id -> name.
        columns: images per line.
    """
    tiles = [_tile(row, names) for row in rows]
    width = max((tile.width for tile in tiles), default=1) + 2 * _GAP
    height = _ROW_HEIGHT + 34
    lines = max(1, -(-len(tiles) // columns))
    sheet = Image.new("RGB", (width * min(columns, max(1, len(tiles))), height * lines), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width + _GAP, i // columns * height + 4))
    return sheet


def _tile(row: PaintedImage, names: Mapping[int, str]) -> Image.Image:
    panels = {
        "photo": row.photo,
        "truth": paint(row.photo, row.truth),
        "prediction": paint(row.photo, row.found),
    }
    width = round(row.photo.shape[1] * _ROW_HEIGHT / row.photo.shape[0])
    tile = Image.new("RGB", (3 * (width + _GAP) + _LEGEND, _ROW_HEIGHT + 30), "white")
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(13)
    for i, (title, pixels) in enumerate(panels.items()):
        draw.text((i * (width + _GAP), 0), title, fill="black", font=font)
        resized = Image.fromarray(pixels).resize((width, _ROW_HEIGHT), Image.Resampling.LANCZOS)
        tile.paste(resized, (i * (width + _GAP), 18))
    true, found = ([c for c, _ in masks] for masks in (row.truth, row.found))
    left = 3 * (width + _GAP)
    draw.text((left, 0), "found / true", fill="black", font=font)
    categories = sorted(set(true) | set(found))
    for line, category in enumerate(categories[:_LEGEND_LINES]):
        y = 18 + _LINE_HEIGHT * line
        draw.rectangle((left, y + 3, left + 10, y + 13), fill=colour(category))
        label = f"{names[category].split(',')[0][:17]} {found.count(category)} / {true.count(category)}"
        draw.text((left + 15, y), label, fill="black", font=font)
    if len(categories) > _LEGEND_LINES:
        more = f"and {len(categories) - _LEGEND_LINES} more"
        draw.text((left + 15, 18 + _LINE_HEIGHT * _LEGEND_LINES), more, fill="black", font=font)
    return tile
