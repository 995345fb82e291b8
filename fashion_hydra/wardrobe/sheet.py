"""Draw a contact sheet: pictures, the same pictures with masks, and the names of their categories."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fashion_hydra.data.imaterialist import CATEGORIES, NUM_WITH_ATTRIBUTES
from fashion_hydra.wardrobe.scene import Picture

FIRST_PART = 27  # first category of parts and decorations, which are drawn over their garments
MARGIN = 8
LINE = 16  # height of a line of the legend
LEGEND_WIDTH = 76  # minimum width of a column of the legend


def category_colour(category: int) -> tuple[int, int, int]:
    """Return an RGB colour, 0-255: pale for garments and deep for parts, so that a part stands out on its garment."""
    hue = (0.02 + category * 0.61803) % 1
    if category < NUM_WITH_ATTRIBUTES:
        saturation, value = 0.42, 0.97
    elif category < FIRST_PART:
        saturation, value = 0.8, 0.88
    else:
        saturation, value = 0.9, 0.62
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * r), round(255 * g), round(255 * b)


def overlay(picture: Picture) -> np.ndarray:
    """Paint the masks over the picture in grey: RGB uint8 (H, W, 3)."""
    grey = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    pale = np.repeat(255 - (255 - grey) * 0.5, 3, axis=2)
    paint = pale.copy()
    ordered = sorted(picture.truth, key=lambda t: (t.category >= FIRST_PART, -np.count_nonzero(t.mask)))
    for truth in ordered:
        colour = category_colour(truth.category)
        paint[truth.mask] = colour
        edges, _ = cv2.findContours(truth.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(paint, edges, -1, tuple(0.4 * c for c in colour), 1, cv2.LINE_AA)
    shape = cv2.GaussianBlur(grey, (0, 0), 1.0)[..., None] / 255 - 0.5
    return np.clip(0.82 * paint + 0.18 * pale + 60 * shape, 0, 255).astype(np.uint8)


def contact_sheet(pictures: Sequence[Picture], *, width: int = 1200, columns: int = 6) -> Image.Image:
    """Lay out `pictures` in rows of `columns` and equal height, on a sheet `width` pixels wide."""
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    strips = [_row(row, width, columns) for row in rows]
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips) + MARGIN), "white")
    y = MARGIN
    for strip in strips:
        sheet.paste(strip, (0, y))
        y += strip.height
    # Six bits per channel look the same and halve the size of the PNG.
    return sheet.point([min(255, (v + 2) // 4 * 4) for v in range(256)] * 3)


def _row(pictures: Sequence[Picture], width: int, columns: int) -> Image.Image:
    """Draw one row of pictures, masks and legends: RGB, `width` pixels wide."""
    aspects = [p.rgb.shape[1] / p.rgb.shape[0] for p in pictures]
    # A partly filled row has the height of a full row.
    tall = round((width - MARGIN * (columns + 1)) / (sum(aspects) * columns / len(aspects)))
    widths = [round(a * tall) for a in aspects]
    names = [sorted({t.category for t in p.truth}) for p in pictures]
    across = [max(1, w // LEGEND_WIDTH) for w in widths]
    lines = max(-(-len(n) // k) for n, k in zip(names, across, strict=True))
    strip = Image.new("RGB", (width, 2 * (tall + MARGIN) + lines * LINE + 2 * MARGIN), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=LINE - 4)
    x = MARGIN
    for picture, wide, categories, k in zip(pictures, widths, names, across, strict=True):
        for i, image in enumerate((picture.rgb, overlay(picture))):
            strip.paste(
                Image.fromarray(image).resize((wide, tall), Image.Resampling.LANCZOS),
                (x, i * (tall + MARGIN)),
            )
        for i, category in enumerate(categories):
            at = (x + (i % k) * wide // k, 2 * (tall + MARGIN) + (i // k) * LINE)
            draw.rectangle((at[0], at[1] + 2, at[0] + LINE - 5, at[1] + LINE - 3), fill=category_colour(category))
            draw.text((at[0] + LINE - 1, at[1]), CATEGORIES[category].name.split(",")[0], "black", font)
        x += wide + MARGIN
    return strip
