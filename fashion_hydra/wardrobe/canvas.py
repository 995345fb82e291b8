"""A canvas that tracks which instances own each pixel; painting over a pixel replaces its owners."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from fashion_hydra.wardrobe.curves import Points

Colour = tuple[float, float, float]  # RGB, 0..1
SHIFT = 4  # outlines are passed to cv2 in units of 1/16 pixel


@dataclass(eq=False, slots=True)
class Instance:
    """A future mask: a category id and, for garments, attribute ids."""

    category: int
    attributes: tuple[int, ...] = ()


class Paint(Protocol):
    """A function from points of the cloth to colours."""

    def colours(self, x_HW: np.ndarray, y_HW: np.ndarray, *, scale: float) -> np.ndarray:
        """Return RGB (H, W, 3) at the cloth coordinates; `scale` is the number of canvas pixels per unit."""
        ...


@dataclass(frozen=True, slots=True)
class Light:
    """Direction (x, y) that the light comes from on screen, strength (0..1) and tint."""

    x: float
    y: float
    strength: float
    tint: Colour


@dataclass(frozen=True, slots=True)
class Camera:
    """Mapping from figure units to canvas pixels: pixel = origin + scale * point."""

    scale: float
    origin: tuple[float, float]


class Canvas:
    """Float RGB (H, W, 3) and, per pixel, an index into the sets of owners used so far.

    The painting methods take points in figure units and map them through `camera`.
    """

    def __init__(self, rgb_HW3: np.ndarray, light: Light) -> None:
        self.rgb = rgb_HW3.astype(np.float32)
        self.light = light
        self.camera = Camera(1.0, (0.0, 0.0))
        self.instances: list[Instance] = []
        self.figure = 0
        self._figure_HW = np.zeros(rgb_HW3.shape[:2], np.uint8)
        self._owners_HW = np.zeros(rgb_HW3.shape[:2], np.int16)
        self._owner_sets: list[tuple[Instance, ...]] = [()]

    def add(self, category: int, attributes: Sequence[int] = ()) -> Instance:
        """Add an instance that shapes can be painted for."""
        instance = Instance(category, tuple(sorted(set(attributes))))
        self.instances.append(instance)
        return instance

    def mask(self, instance: Instance) -> np.ndarray:
        """Return the pixels that show `instance`: bool (H, W)."""
        return self._lookup(instance)[self._owners_HW]

    def fill(
        self,
        outline: Points,
        paint: Paint | Colour,
        owners: tuple[Instance, ...] | None = None,
        *,
        clip: Instance | None = None,
        relief: float = 0.0,
        shadow: float = 0.0,
        edge: float = 0.0,
        angle: float = 0.0,
        anchor: Sequence[float] | np.ndarray = (0.0, 0.0),
        opacity: float = 1.0,
        folds: Sequence[tuple[Points, float, float]] = (),
    ) -> None:
        """Paint a closed outline.

        Args:
            outline: (N, 2), in figure units.
            paint: cloth or plain colour.
            owners: new owners of the pixels; None keeps the owners (for a print or a button).
            clip: paint only on the pixels of this instance.
            relief: width of the rounded border, in figure units.
            shadow: strength of the shadow cast on lower layers of the same figure.
            edge: strength of a darker border.
            angle: rotation of the cloth's axes about `anchor`, in radians.
            anchor: origin of the cloth's axes.
            opacity: 0 (invisible) to 1 (opaque).
            folds: (line, width, depth) of each crease.
        """
        pixels = np.asarray(outline) * self.camera.scale + self.camera.origin
        reach = max(4, int(0.16 * self.camera.scale)) if shadow else 2
        area = self._area(pixels, reach)
        if area is None:
            return
        rows, cols = area
        offset = np.array([cols.start, rows.start])
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        cover = np.zeros(shape, np.uint8)
        fixed = np.round((pixels - offset) * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(cover, [fixed], 255, cv2.LINE_AA, SHIFT)
        if clip is not None:
            cover[~self._lookup(clip)[self._owners_HW[area]]] = 0
        if shadow:
            self._cast(cover, area, shadow)
        colour = self._colours(paint, area, angle, anchor)
        shade = self._shade(cover, relief, edge)
        for line, width, depth in folds:
            shade = shade * self._crease(shape, offset, line, width, depth)
        alpha = (cover.astype(np.float32) * (opacity / 255))[..., None]
        view = self.rgb[area]
        view += alpha * (colour * shade[..., None] - view)
        if owners is not None:
            self._own(cover > 127, area, owners)

    def line(
        self,
        points: Points,
        width: float,
        colour: Colour,
        *,
        clip: Instance | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Paint an open line (N, 2), such as a seam, `width` units wide, without changing owners."""
        pixels = np.asarray(points) * self.camera.scale + self.camera.origin
        area = self._area(pixels, int(width * self.camera.scale) + 3)
        if area is None:
            return
        rows, cols = area
        cover = self._stroke((rows.stop - rows.start, cols.stop - cols.start), pixels, (cols.start, rows.start), width)
        if clip is not None:
            cover[~self._lookup(clip)[self._owners_HW[area]]] = 0
        alpha = (cover * opacity)[..., None]
        view = self.rgb[area]
        view += alpha * (np.array(colour, np.float32) - view)

    def crease(self, points: Points, width: float, depth: float, *, clip: Instance) -> None:
        """Paint a soft fold along a line (N, 2), dark on one side and light on the other, on one instance only."""
        pixels = np.asarray(points) * self.camera.scale + self.camera.origin
        area = self._area(pixels, int(2 * width * self.camera.scale) + 3)
        if area is None:
            return
        rows, cols = area
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        factor = self._crease(shape, np.array([cols.start, rows.start]), points, width, depth)
        factor[~self._lookup(clip)[self._owners_HW[area]]] = 1
        self.rgb[area] *= factor[..., None]

    def _area(self, pixels: np.ndarray, reach: int) -> tuple[slice, slice] | None:
        height, width = self.rgb.shape[:2]
        x0, y0 = np.floor(pixels.min(axis=0)).astype(int) - reach
        x1, y1 = np.ceil(pixels.max(axis=0)).astype(int) + reach + 1
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None

    def _lookup(self, instance: Instance) -> np.ndarray:
        return np.array([instance in owners for owners in self._owner_sets])

    def _own(self, cover_hw: np.ndarray, area: tuple[slice, slice], owners: tuple[Instance, ...]) -> None:
        if owners not in self._owner_sets:
            self._owner_sets.append(owners)
        self._owners_HW[area][cover_hw] = self._owner_sets.index(owners)
        self._figure_HW[area][cover_hw] = self.figure

    def _colours(
        self,
        paint: Paint | Colour,
        area: tuple[slice, slice],
        angle: float,
        anchor: Sequence[float] | np.ndarray,
    ) -> np.ndarray:
        if isinstance(paint, tuple):
            return np.array(paint, np.float32)
        rows, cols = area
        scale, (ox, oy) = self.camera.scale, self.camera.origin
        x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5 - ox)[None, :] / scale - anchor[0]
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - oy)[:, None] / scale - anchor[1]
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return paint.colours(c * x + s * y, c * y - s * x, scale=scale)

    def _shade(self, cover: np.ndarray, relief: float, edge: float) -> np.ndarray:
        """Compute Lambertian shading of a pillow whose height grows with the distance from the border."""
        if not relief and not edge:
            return np.ones(cover.shape, np.float32)
        padded = cv2.copyMakeBorder((cover > 127).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        shade = np.ones(cover.shape, np.float32)
        if relief:
            radius = relief * self.camera.scale
            h = np.clip(distance / np.float32(radius), 0, 1)
            height = cv2.GaussianBlur(np.float32(radius) * np.sqrt(1 - (1 - h) ** 2), (0, 0), max(radius / 5, 0.6))
            gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
            gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
            light = self.light
            norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
            facing = (1 - (gx * light.x + gy * light.y) * 0.8) * norm
            shade += light.strength * (facing - 1) * 0.66
        if edge:
            shade *= 1 - 0.7 * edge * np.exp(-((distance / (0.028 * self.camera.scale)) ** 2))
        return np.clip(shade, 0.25, 1.45)

    def _cast(self, cover: np.ndarray, area: tuple[slice, slice], strength: float) -> None:
        reach = 0.06 * self.camera.scale
        move = np.array([[1, 0, -self.light.x * reach], [0, 1, -self.light.y * reach + 0.3 * reach]], np.float32)
        cast = cv2.GaussianBlur(cv2.warpAffine(cover, move, cover.shape[::-1]), (0, 0), max(0.7 * reach, 0.6))
        cast = cast * (self._figure_HW[area] == self.figure)
        self.rgb[area] *= (1 - cast.astype(np.float32) * (strength / 255))[..., None]

    def _stroke(
        self, shape: tuple[int, int], pixels: np.ndarray, offset: Sequence[float] | np.ndarray, width: float
    ) -> np.ndarray:
        """Return the coverage (h, w), 0..1, of a line; a line thinner than a pixel fades instead of disappearing."""
        cover = np.zeros(shape, np.uint8)
        fixed = np.round((pixels - np.asarray(offset)) * (1 << SHIFT)).astype(np.int32)
        thick = width * self.camera.scale
        cv2.polylines(cover, [fixed], False, 255, max(1, round(thick)), cv2.LINE_AA, SHIFT)
        return cover.astype(np.float32) * (min(1.0, thick) / 255)

    def _crease(
        self, shape: tuple[int, int], offset: np.ndarray, line: Points, width: float, depth: float
    ) -> np.ndarray:
        pixels = np.asarray(line) * self.camera.scale + self.camera.origin
        cover = self._stroke(shape, pixels, offset, width)
        dark = cv2.GaussianBlur(cover, (0, 0), max(0.5 * width * self.camera.scale, 0.6))
        step = width * self.camera.scale
        move = np.array([[1, 0, self.light.x * step], [0, 1, self.light.y * step]], np.float32)
        lit = cv2.warpAffine(dark, move, shape[::-1])
        return 1 - depth * dark + 0.5 * depth * lit
