"""Draw shoes, hats, glasses and scarves."""

from collections.abc import Callable

import numpy as np

from fashion_hydra.wardrobe.canvas import Colour
from fashion_hydra.wardrobe.colours import BRIGHTS, EARTHS, NEUTRALS, PASTELS, rgb, shade
from fashion_hydra.wardrobe.curves import Points, along, box, ellipse, mirror, radius_at, spline, tube, turn, xy
from fashion_hydra.wardrobe.fabrics import Fabric, weave
from fashion_hydra.wardrobe.figure import Figure


def draw_shoes(figure: Figure, kind: str) -> None:
    """Draw a pair of shoes as two instances; `kind` is sneaker, boot, pump or loafer."""
    rng = figure.rng
    codes = (
        (*BRIGHTS, *NEUTRALS[:1]) if kind == "sneaker" else ("25262b", "5b3a24", "8a4b2a", "b83b3b", "d0a15f", "43506b")
    )
    colour = rgb(codes[int(rng.integers(len(codes)))])
    sole = rgb("f4f1ea") if kind == "sneaker" else shade(colour, 0.45)
    for side in (-1, 1):
        _draw_shoe(figure, side, kind, colour, sole)


def _draw_shoe(figure: Figure, side: int, kind: str, colour, sole) -> None:
    body, canvas, part = figure.body, figure.canvas, figure.add("shoe")
    path = body.leg(side)
    ankle, _ = along(path, 1.0)
    out = -side * 0.42 - 0.25 * body.yaw  # toes point outwards and follow the body's turn

    def place(points) -> Points:
        return turn(np.asarray(points) * (side, 1), out) + ankle + xy(0, 0.02)

    if kind == "boot":
        radii = [(t, r + 0.06) for t, r in body.leg_radii()]
        shaft = tube(path, [(0, radius_at(radii, 0.72)), (1, radii[-1][1])], start=0.72, n=12)
        canvas.fill(shaft, colour, (part,), relief=0.14, shadow=0.4, edge=0.45)
    vamp = [
        (-0.14, -0.12),
        (0.14, -0.12),
        (0.2, 0.14),
        (0.24, 0.36),
        (0.14, 0.5),
        (-0.06, 0.5),
        (-0.17, 0.36),
        (-0.18, 0.12),
    ]
    base = [(x * 1.12 + 0.004, y * 1.04 + 0.045) for x, y in vamp]
    canvas.fill(place(spline(base, closed=True, steps=5)), sole, (part,), shadow=0.3, edge=0.3)
    canvas.fill(place(spline(vamp, closed=True, steps=5)), colour, (part,), relief=0.16, edge=0.4)
    if kind == "pump":
        canvas.fill(place(ellipse((0.01, 0.02), 0.12, 0.17)), figure.skin, None, relief=0.1)
    if kind in ("sneaker", "boot"):
        for y in (0.06, 0.15, 0.24):
            lace = place([(-0.1, y), (0.12, y + 0.02)])
            canvas.line(lace, 0.035, rgb("f4f1ea") if kind == "sneaker" else shade(colour, 0.5), clip=part)
    if kind == "sneaker":
        canvas.fill(place(ellipse((0.03, 0.45), 0.16, 0.09)), sole, clip=part, relief=0.06)
    if kind == "loafer":
        canvas.line(place([(-0.15, 0.14), (0.18, 0.16)]), 0.07, shade(colour, 0.6), clip=part)


def draw_glasses(figure: Figure) -> None:
    """Draw glasses with large frames; the lenses belong to the mask."""
    body, canvas, part = figure.body, figure.canvas, figure.add("glasses")
    x = 0.11 * body.yaw
    frame = rgb(("1b1b1f", "1b1b1f", "5a2c1a", "b01f3a", "e8e2d4")[int(figure.rng.integers(5))])
    lens = rgb(("17181d", "2b2320", "33434f", "6a3b1c")[int(figure.rng.integers(4))])
    round_ = figure.chance(0.5)

    def place(points) -> Points:
        return turn(np.asarray(points), body.tilt) + body.head

    def rim(side: int, grow: float) -> Points:
        centre = (x + side * 0.185, 0.03)
        return place(
            ellipse(centre, 0.155 + grow, 0.14 + grow)
            if round_
            else box(centre, 0.31 + 2 * grow, 0.24 + 2 * grow, soft=0.6)
        )

    bar = [(-0.38, -0.05), (0.38, -0.05), (0.38, 0.01), (-0.38, 0.01)]
    canvas.fill(place(bar), frame, (part,), shadow=0.3)
    for side in (-1, 1):
        canvas.fill(rim(side, 0.035), frame, (part,), relief=0.03, shadow=0.3)
        canvas.fill(rim(side, 0.0), lens, (part,))
        glint = place(
            [
                (x + side * 0.185 - 0.07, -0.05),
                (x + side * 0.185 - 0.01, -0.05),
                (x + side * 0.185 - 0.08, 0.1),
                (x + side * 0.185 - 0.13, 0.1),
            ]
        )
        canvas.fill(glint, (1.0, 1.0, 1.0), clip=part, opacity=0.3)


def draw_hat(figure: Figure) -> None:
    """Draw a beanie, a cap, a bucket hat or a hat with a brim."""
    body, part = figure.body, figure.add("hat")
    kind = figure.pick("beanie", "brim", "brim", "cap", "bucket")
    pattern = "knit" if kind == "beanie" else "plain"
    cloth = weave(figure.rng, pattern, (*BRIGHTS, *EARTHS, *NEUTRALS[:4]), period=0.5)
    for points, paint, shadow in _HATS[kind](cloth):
        outline = turn(points, body.tilt) + body.head
        figure.canvas.fill(outline, paint, (part,), relief=0.16, edge=0.45, shadow=shadow)
    if kind == "cap":
        badge = turn(ellipse((0.1 * body.yaw, -0.52), 0.12, 0.12), body.tilt) + body.head
        figure.canvas.fill(badge, cloth.accent, clip=part)


# The pieces of a hat in drawing order: outline relative to the centre of the head, paint, strength of the cast shadow.
Layers = list[tuple[Points, Fabric | Colour, float]]


def _dome(half: float, brow: float, top: float) -> Points:
    right = [(0.0, top), (0.42 * half, top), (0.92 * half, 0.4 * brow + 0.6 * top), (half, brow)]
    return mirror(spline(right))


def _beanie(cloth: Fabric) -> Layers:
    cuff, bobble = box((0, -0.24), 0.97, 0.22, soft=0.5), ellipse((0, -0.93), 0.15, 0.14)
    return [
        (_dome(0.46, -0.2, -0.88), cloth, 0.4),
        (cuff, cloth.ribbed(0.85), 0.4),
        (bobble, cloth.accent, 0.0),
    ]


def _brim(cloth: Fabric) -> Layers:
    crown = mirror(spline([(0.0, -0.78), (0.28, -0.84), (0.4, -0.62), (0.42, -0.3)]))
    ribbon = mirror([(0.425, -0.44), (0.43, -0.29), (0.2, -0.24)])
    return [
        (ellipse((0, -0.27), 0.88, 0.2), cloth, 0.6),
        (crown, cloth, 0.3),
        (ribbon, shade(cloth.base, 0.5), 0.0),
    ]


def _cap(cloth: Fabric) -> Layers:
    peak = [
        (0.0, -0.36),
        (0.4, -0.3),
        (0.52, -0.12),
        (0.25, -0.2),
        (-0.25, -0.2),
        (-0.52, -0.12),
        (-0.4, -0.3),
    ]
    return [(_dome(0.45, -0.2, -0.78), cloth, 0.3), (spline(peak, closed=True), cloth.plain(0.7), 0.6)]


def _bucket(cloth: Fabric) -> Layers:
    rim = [(-0.44, -0.38), (0.44, -0.38), (0.66, -0.06), (0.3, -0.18), (-0.3, -0.18), (-0.66, -0.06)]
    return [(_dome(0.45, -0.2, -0.78), cloth, 0.3), (spline(rim, closed=True), cloth.plain(0.85), 0.6)]


_HATS: dict[str, Callable[[Fabric], Layers]] = {
    "beanie": _beanie,
    "brim": _brim,
    "cap": _cap,
    "bucket": _bucket,
}


def draw_scarf(figure: Figure) -> None:
    """Draw a scarf around the neck, with one or two hanging ends that have a fringe."""
    body, canvas, rng = figure.body, figure.canvas, figure.rng
    part = figure.add("scarf")
    cloth = weave(rng, str(rng.choice(["check", "stripe", "knit", "leopard"])), (*BRIGHTS, *PASTELS), period=0.42)
    for side in (-1, 1) if figure.chance(0.5) else (int(rng.choice([-1, 1])),):
        length = float(rng.uniform(0.9, 1.5))
        x = side * 0.2
        end = np.array([(x - 0.13, 0.05), (x + 0.15, 0.05), (x + 0.2, length), (x - 0.16, length)])
        canvas.fill(body.warp(end + xy(0, -body.torso)), cloth, (part,), relief=0.12, shadow=0.6, edge=0.45)
        for k in np.linspace(-0.14, 0.18, 7):
            tassel = body.warp(np.array([(x + k, length), (x + k, length + 0.16)]) + xy(0, -body.torso))
            strip = np.concatenate([tassel - xy(0.018, 0), (tassel + xy(0.018, 0))[::-1]])
            canvas.fill(strip, shade(cloth.accent, 0.95), (part,))
    for dy, rx, angle in ((0.1, 0.5, 0.1), (-0.1, 0.45, -0.1)):
        loop = ellipse(body.neck + xy(0.0, dy - 0.02), rx, 0.19, angle=angle)
        canvas.fill(loop, cloth, (part,), relief=0.16, shadow=0.5, edge=0.45, angle=angle + 0.5)
