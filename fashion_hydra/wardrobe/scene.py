"""Draw one picture of the wardrobe: place the figures, frame them, and extract the ground truth."""

from dataclasses import dataclass

import cv2
import numpy as np

from fashion_hydra.wardrobe.backgrounds import draw_background
from fashion_hydra.wardrobe.body import Body, draw_body
from fashion_hydra.wardrobe.canvas import Camera, Canvas, Light
from fashion_hydra.wardrobe.curves import along, xy
from fashion_hydra.wardrobe.figure import Figure
from fashion_hydra.wardrobe.outfit import Outfit, choose_outfit, draw_figure, hold
from fashion_hydra.wardrobe.person import HAIRS, SKINS

LARGE = 1024  # pictures of this size or more are drawn at their size; smaller ones at twice their size, then reduced
MIN_AREA = 12  # instances with fewer pixels in the finished picture are omitted from the truth

# Frame -> (top, bottom, probability); top and bottom in head heights from the hips, None for head or feet.
FRAMES = {
    "full": (None, None, 0.4),
    "knees": (None, 1.75, 0.28),
    "half": (None, 0.55, 0.2),
    "legs": (-1.35, None, 0.12),
}


@dataclass(frozen=True)
class Truth:
    """A true mask: category id, attribute ids in ascending order, bool (H, W)."""

    category: int
    attributes: tuple[int, ...]
    mask: np.ndarray


@dataclass(frozen=True)
class Picture:
    """A finished picture, RGB uint8 (H, W, 3), and its true masks."""

    rgb: np.ndarray
    truth: tuple[Truth, ...]


def draw_picture(rng: np.random.Generator, *, size: int) -> Picture:
    """Draw a picture whose long edge has `size` pixels; pictures are never square."""
    people = int(rng.choice([1, 2, 3], p=[0.84, 0.13, 0.03]))
    height, width = _picture_size(rng, size, people)
    outfits = [choose_outfit(rng) for _ in range(people)]
    bodies = [hold(draw_body(rng, feminine=o.feminine), o) for o in outfits]
    k = 1 if size >= LARGE else 2
    cameras, floor = _frame(rng, bodies, outfits, k * height, k * width)
    light = _light(rng)
    canvas = Canvas(draw_background(k * height, k * width, floor, rng), light)
    for camera, body, outfit in zip(cameras, bodies, outfits, strict=True):
        canvas.camera = camera
        _ground_shadow(canvas, body)
        skin, hair = SKINS[int(rng.integers(len(SKINS)))], HAIRS[int(rng.integers(len(HAIRS)))]
        draw_figure(Figure(canvas, body, rng, skin, hair, outfit.feminine), outfit)
    return Picture(_develop(canvas, rng, height, width), _truth(canvas, height, width))


def _picture_size(rng: np.random.Generator, size: int, people: int) -> tuple[int, int]:
    short = int(np.clip(round(size * rng.uniform(0.62, 0.85)), 1, size - 1))
    landscape = rng.random() < (0.06 if people == 1 else 0.7)
    return (short, size) if landscape else (size, short)


def _frame(
    rng: np.random.Generator, bodies: list[Body], outfits: list[Outfit], height: int, width: int
) -> tuple[list[Camera], float]:
    """Return a camera for each figure, and the row of the floor line in canvas pixels."""
    names = list(FRAMES)
    name = names[int(rng.choice(len(names), p=[f[2] for f in FRAMES.values()]))]
    if width > height and name == "full":
        name = "knees"
    if width > height and len(bodies) == 1:
        name = "half"
    top, bottom, _ = FRAMES[name]
    tallest = min(b.head[1] for b in bodies)
    lowest = max(float(b.leg(s)[-1, 1]) for b in bodies for s in (-1, 1)) + 0.62
    extra = 0.75 if any(o.umbrella for o in outfits) else (0.42 if any(o.hat for o in outfits) else 0.2)
    y0 = tallest - 0.5 - extra if top is None else top + float(rng.uniform(-0.3, 0.2))
    y1 = lowest if bottom is None else bottom + float(rng.uniform(-0.2, 0.2))
    scale = height / (y1 - y0)
    gap = width / len(bodies)
    cameras = []
    for i, _body in enumerate(bodies):
        k = scale * float(rng.uniform(0.93, 1.02))
        x = gap * (i + 0.5) + gap * float(rng.uniform(-0.07, 0.07))
        if len(bodies) > 1:
            x = width / 2 + (x - width / 2) * 0.9
        cameras.append(Camera(k, (float(x), float(height - y1 * k + (k - scale) * 0.1))))
    floor = height - (y1 - (lowest - 0.62)) * scale - float(rng.uniform(0.3, 1.0)) * scale
    return cameras, floor


def _light(rng: np.random.Generator) -> Light:
    warm = float(rng.uniform(-1, 1))
    tint = (1 + 0.05 * warm, 1.0, 1 - 0.06 * warm)
    return Light(float(rng.uniform(-0.75, 0.75)), -0.6, float(rng.uniform(0.65, 1.0)), tint)


def _ground_shadow(canvas: Canvas, body: Body) -> None:
    """Draw a soft shadow under the feet, shifted away from the light."""
    layer = np.zeros(canvas.rgb.shape[:2], np.float32)
    k, origin = canvas.camera.scale, np.array(canvas.camera.origin)
    for side in (-1, 1):
        foot, _ = along(body.leg(side), 1.0)
        centre = (foot + xy(-0.25 * canvas.light.x, 0.36)) * k + origin
        axes = (round(0.5 * k), round(0.14 * k))
        cv2.ellipse(layer, tuple(np.round(centre).astype(int).tolist()), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    canvas.rgb *= (1 - 0.5 * cv2.GaussianBlur(layer, (0, 0), 0.1 * k))[..., None]


def _develop(canvas: Canvas, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Reduce the canvas to its final size and imitate a camera: tint, exposure, contrast, blur, grain."""
    image = cv2.resize(canvas.rgb, (width, height), interpolation=cv2.INTER_AREA)
    image = image * np.array(canvas.light.tint, np.float32) * float(rng.uniform(0.9, 1.08))
    image = (image - 0.5) * float(rng.uniform(0.95, 1.1)) + 0.5
    blur = float(rng.uniform(0.0, 0.45))
    if blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    grain = rng.normal(0, float(rng.uniform(0.004, 0.016)), image.shape).astype(np.float32)
    return np.round(np.clip(image + grain, 0, 1) * 255).astype(np.uint8)


def _truth(canvas: Canvas, height: int, width: int) -> tuple[Truth, ...]:
    truth = []
    for instance in canvas.instances:
        share = cv2.resize(canvas.mask(instance).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        mask = share >= 0.5
        if np.count_nonzero(mask) >= MIN_AREA:
            truth.append(Truth(instance.category, instance.attributes, mask))
    return tuple(truth)
