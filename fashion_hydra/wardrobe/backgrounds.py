"""Draw backgrounds: RGB float images (H, W, 3) in 0..1, blurred so that the figure stands out."""

from collections.abc import Callable

import cv2
import numpy as np

from fashion_hydra.wardrobe.canvas import Colour
from fashion_hydra.wardrobe.colours import blend, rgb, shade
from fashion_hydra.wardrobe.curves import xy

Image = np.ndarray
LONG_EDGE = 512  # maximum long edge, in pixels, at which a background is drawn


def draw_background(height: int, width: int, floor: float, rng: np.random.Generator) -> Image:
    """Draw a random background; `floor` is the pixel row where the floor meets the wall (may be outside the image)."""
    place = PLACES[int(rng.choice(len(PLACES), p=[0.26, 0.2, 0.22, 0.18, 0.14]))]
    # The background is out of focus, so more pixels would add no detail.
    shrink = min(1.0, LONG_EDGE / max(height, width))
    small_height, small_width = round(height * shrink), round(width * shrink)
    image = place(small_height, small_width, floor * shrink, rng)
    image = cv2.GaussianBlur(image, (0, 0), max(small_height, small_width) * float(rng.uniform(0.002, 0.007)))
    # Add low-frequency variation, because real walls are not uniform.
    cloud = rng.normal(0, 0.02, (5, 5)).astype(np.float32)
    image = image + cv2.resize(cloud, (small_width, small_height), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _gradient(height: int, width: int, top: Colour, bottom: Colour) -> Image:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.broadcast_to(
        np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t, (height, width, 3)
    ).copy()


def _box(image: Image, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    cv2.rectangle(image, (round(x0), round(y0)), (round(x1), round(y1)), colour, -1, cv2.LINE_AA)


def _floor(image: Image, y: float, near: Colour, far: Colour) -> None:
    height, width = image.shape[:2]
    y0 = int(np.clip(y, 0, height))
    if y0 < height:
        image[y0:] = _gradient(height - y0, width, far, near)


def _pick(rng: np.random.Generator, *codes: str) -> Colour:
    return rgb(codes[int(rng.integers(len(codes)))])


def _studio(height: int, width: int, floor: float, rng: np.random.Generator) -> Image:
    tone = _pick(rng, "e9e4dc", "dfe5e8", "d8dcd2", "ead9cf", "cfd4dd", "f0ead8", "b9c3c6", "dcc8c8")
    image = _gradient(height, width, shade(tone, 1.25), shade(tone, 0.92))
    _floor(image, floor, shade(tone, 0.98), shade(tone, 0.84))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    glow = np.exp(-(((x - width * rng.uniform(0.3, 0.7)) / width) ** 2 + ((y - 0.35 * height) / height) ** 2) * 4)
    image *= (0.86 + 0.18 * glow)[..., None]
    # A studio backdrop curves into the floor without a hard edge.
    return cv2.GaussianBlur(image, (0, 0), 0.02 * height)


def _wall(height: int, width: int, floor: float, rng: np.random.Generator) -> Image:
    tone = _pick(rng, "c9d3c6", "d9cdbb", "b7c4cf", "d8b8a4", "c7bfce", "e3dac3", "a9b7b0")
    image = _gradient(height, width, shade(tone, 1.1), tone)
    brick = height / rng.integers(22, 34)
    if rng.random() < 0.6:
        red = _pick(rng, "b47860", "c3a28c", "9a8478", "d6cfc4")
        image[:] = shade(red, 0.82)
        for i in range(int(height / brick) + 1):
            for j in range(-1, int(width / (2.4 * brick)) + 1):
                x = (j + 0.5 * (i % 2)) * 2.4 * brick
                lift = shade(red, float(rng.uniform(0.93, 1.14)))
                _box(image, x + 0.1 * brick, (i + 0.1) * brick, x + 2.25 * brick, (i + 0.9) * brick, lift)
        image = image * 0.6 + 0.4 * np.array(shade(red, 1.35), np.float32)
    elif rng.random() < 0.5:
        _box(image, 0, floor - 0.16 * height, width, floor, shade(tone, 0.9))
    stone = _pick(rng, "a6a29b", "8f8d8b", "b9b0a2")
    _floor(image, floor, stone, shade(stone, 0.82))
    _box(image, 0, floor - 0.012 * height, width, floor + 0.004 * height, shade(tone, 0.6))
    return image


def _street(height: int, width: int, floor: float, rng: np.random.Generator) -> Image:
    image = _gradient(height, width, _pick(rng, "a9c8e4", "c5d5e2", "f0d4b8", "b9c6d6"), rgb("eee9e2"))
    x = -0.1 * width
    while x < width:
        wide = width * float(rng.uniform(0.22, 0.45))
        top = height * float(rng.uniform(0.0, 0.32))
        tone = blend(_pick(rng, "c9a98f", "a8a39d", "d8c8ae", "b88a78", "94a0ac", "dcd3c8"), (1.0, 1.0, 1.0), 0.22)
        _box(image, x, top, x + wide, floor, tone)
        pane, cols, step = shade(tone, float(rng.choice([0.6, 1.4]))), int(rng.integers(2, 5)), height * 0.13
        for i in range(int((floor - top) / step)):
            for j in range(cols):
                wx, wy = x + (j + 0.22) * wide / cols, top + (i + 0.25) * step
                _box(image, wx, wy, wx + 0.56 * wide / cols, wy + 0.6 * step, pane)
        _box(
            image,
            x,
            floor - 0.2 * height,
            x + wide,
            floor - 0.17 * height,
            _pick(rng, "b5493f", "3f6d6a", "d9a441", "8a8f96"),
        )
        x += wide
    paving = _pick(rng, "b3aea7", "9d9a97", "c4b9aa")
    _floor(image, floor, shade(paving, 1.08), shade(paving, 0.85))
    for k in range(-6, 7):
        a = (round(width / 2 + k * width * 0.12), round(floor))
        b = (round(width / 2 + k * width * 0.5), round(floor + 0.5 * height))
        cv2.line(image, a, b, shade(paving, 0.78), max(1, height // 260), cv2.LINE_AA)
    return _defocus(image, height)


def _defocus(image: Image, height: int) -> Image:
    return cv2.GaussianBlur(image, (0, 0), 0.008 * height)


def _park(height: int, width: int, floor: float, rng: np.random.Generator) -> Image:
    image = _gradient(height, width, _pick(rng, "9cc4e8", "bfd8ea", "f3d9b5"), rgb("f2f0e4"))
    leaf = _pick(rng, "7fa66a", "93b07a", "b9a35a", "c98f4e", "6d9a7a")
    for depth in (0.45, 0.25, 0.0):
        base = floor - depth * 0.25 * height
        for _ in range(26):
            x, r = rng.uniform(-0.1, 1.1) * width, rng.uniform(0.05, 0.13) * height
            y = base - rng.uniform(0.05, 0.55) * height * (1 - 0.6 * depth)
            tone = blend(shade(leaf, float(rng.uniform(0.8, 1.2))), (0.93, 0.95, 0.93), 0.2 + depth)
            cv2.circle(image, (round(x), round(y)), round(r), tone, -1, cv2.LINE_AA)
    for _ in range(3):
        x = rng.uniform(0, 1) * width
        _box(image, x, floor - 0.45 * height, x + 0.035 * height, floor, rgb("7b6350"))
    _floor(image, floor, _pick(rng, "8fae6a", "a5b878", "c9b98e"), shade(leaf, 1.1))
    path = np.array([(0.42, 0), (0.58, 0), (1.1, 0.5), (-0.1, 0.5)]) * (width, height) + xy(0, floor)
    cv2.fillPoly(image, [path.astype(np.int32)], rgb("d8cbb2"), cv2.LINE_AA)
    return _defocus(image, height)


def _room(height: int, width: int, floor: float, rng: np.random.Generator) -> Image:
    tone = _pick(rng, "e8dcc8", "d5dde0", "dfe3d2", "e9d5cb", "cbd3da")
    image = _gradient(height, width, shade(tone, 1.05), shade(tone, 0.95))
    x0 = width * float(rng.choice([0.04, 0.62]))
    wide, high, y0 = width * 0.36, height * 0.46, floor - 0.78 * height
    _box(
        image,
        x0 - 0.015 * width,
        y0 - 0.012 * height,
        x0 + wide + 0.015 * width,
        y0 + high + 0.012 * height,
        rgb("f7f3ea"),
    )
    _box(image, x0, y0, x0 + wide, y0 + high, _pick(rng, "bcd7e8", "d7e3d2", "f3dfc2"))
    _box(image, x0 + wide / 2 - 0.008 * width, y0, x0 + wide / 2 + 0.008 * width, y0 + high, rgb("f7f3ea"))
    px = width - x0 - wide * 0.5
    _box(image, px - 0.12 * width, y0 + 0.04 * height, px + 0.12 * width, y0 + 0.28 * height, rgb("5d4a3c"))
    _box(
        image,
        px - 0.1 * width,
        y0 + 0.055 * height,
        px + 0.1 * width,
        y0 + 0.265 * height,
        _pick(rng, "d98f6a", "7fa3a8", "e3c779"),
    )
    wood = _pick(rng, "c79b6b", "a97c54", "d6b88c")
    _floor(image, floor, shade(wood, 1.06), shade(wood, 0.86))
    _box(image, 0, floor - 0.03 * height, width, floor, rgb("f1ece2"))
    for k in range(-9, 10):
        a, b = (
            (round(width / 2 + k * width * 0.09), round(floor)),
            (round(width / 2 + k * width * 0.3), round(floor + 0.4 * height)),
        )
        cv2.line(image, a, b, shade(wood, 0.74), max(1, height // 300), cv2.LINE_AA)
    plant = (width * float(rng.choice([0.06, 0.94])), floor)
    for a in np.linspace(-1.1, 1.1, 9):
        tip = (
            round(plant[0] + 0.12 * height * np.sin(a)),
            round(plant[1] - 0.14 * height - 0.2 * height * np.cos(a)),
        )
        cv2.line(
            image,
            (round(plant[0]), round(plant[1] - 0.1 * height)),
            tip,
            rgb("6f9468"),
            max(2, height // 40),
            cv2.LINE_AA,
        )
    _box(
        image,
        plant[0] - 0.05 * height,
        plant[1] - 0.12 * height,
        plant[0] + 0.05 * height,
        plant[1] + 0.02 * height,
        rgb("c07a52"),
    )
    return image


PLACES: tuple[Callable[[int, int, float, np.random.Generator], Image], ...] = (
    _studio,
    _wall,
    _street,
    _park,
    _room,
)
