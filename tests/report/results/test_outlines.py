"""SVG paths of masks, drawn by Pillow, reproduce the masks."""

import re

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from fashion_hydra.report.results.outlines import mask_path
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_coco

FINE = 8


def encoded(bitmap):
    return runs_to_coco(bitmap_to_runs(bitmap), height=bitmap.shape[0], width=bitmap.shape[1])


def subpaths(path):
    for part in re.findall(r"M(\d+ \d+)l([-\d ]+)z", path):
        first, steps = (np.array(text.split(), int).reshape(-1, 2) for text in part)
        yield np.concatenate([first, first + np.cumsum(steps, axis=0)])


def drawn(path, size):
    """Draw a path with even-odd filling, on a grid eight times as fine."""
    canvas = Image.new("1", (size[1] * FINE, size[0] * FINE))
    for points in subpaths(path):
        layer = Image.new("1", canvas.size)
        ImageDraw.Draw(layer).polygon([(int(x * FINE), int(y * FINE)) for x, y in points], fill=1)
        canvas = ImageChops.logical_xor(canvas, layer)
    share = np.array(canvas, np.float32).reshape(size[0], FINE, size[1], FINE).mean(axis=(1, 3))
    return share >= 0.5


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize(("width", "height", "least"), [(300, 200, 0.99), (60, 90, 0.97), (24, 16, 0.9)])
@pytest.mark.parametrize("holed", [False, True])
def test_an_ellipse_comes_back(width, height, least, holed):
    y, x = np.mgrid[:512, :512]
    radius = np.hypot((x - 255.5) / width * 2, (y - 240.5) / height * 2)
    bitmap = (radius <= 1) & (not holed or radius >= 0.5)
    path = mask_path(encoded(bitmap))
    assert path.count("M") == 1 + holed
    assert iou(drawn(path, bitmap.shape), bitmap) > least
    assert len(path) < 700


def test_rectangles_are_exact():
    bitmap = np.zeros((60, 80), bool)
    bitmap[5:20, 7:50] = bitmap[40:41, 3:4] = bitmap[0:60, 79:80] = True
    path = mask_path(encoded(bitmap))
    areas = []
    for points in subpaths(path):
        x, y = points.T
        areas.append(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
    assert sorted(areas) == [1, 60, 15 * 43]


def test_no_pixels_no_path():
    assert mask_path(encoded(np.zeros((9, 9), np.uint8))) == ""
