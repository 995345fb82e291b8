"""Draw the person under the clothes: skin, face, hair, hands."""

import numpy as np

from fashion_hydra.wardrobe.colours import blend, rgb, shade
from fashion_hydra.wardrobe.curves import Points, along, ellipse, mirror, spline, tube, turn, xy
from fashion_hydra.wardrobe.figure import Figure

SKINS = tuple(map(rgb, ("f3cdb0", "eab995", "dca27a", "c68862", "a86d49", "8a5638", "6b4029", "f6d9c6")))
HAIRS = tuple(map(rgb, ("1d1715", "2f211a", "4a2f20", "6e4526", "a06a35", "d0a55c", "8c3b23", "8d8a88", "e4d6bd")))


def draw_legs(figure: Figure) -> None:
    """Draw bare legs from the hips to the ankles."""
    body = figure.body
    hips = body.bodice(0.42, ease=0.0, hem=body.hip * 0.98)
    figure.canvas.fill(hips[hips[:, 1] > -0.6], figure.skin, ())
    for side in (-1, 1):
        outline = tube(body.leg(side), body.leg_radii(), n=36)
        figure.canvas.fill(outline, figure.skin, (), relief=0.2, shadow=0.2)
        knee, _ = along(body.leg(side), 0.5)
        arc = ellipse(knee, 0.11, 0.08, n=16)[1:8]
        figure.canvas.line(arc, 0.03, shade(figure.skin, 0.72), opacity=0.35)


def draw_torso(figure: Figure) -> None:
    """Draw neck, shoulders and trunk."""
    body, canvas = figure.body, figure.canvas
    canvas.fill(body.bodice(0.1, ease=0.0), figure.skin, (), relief=0.25)
    figure.draw_neck()
    for side in (-1, 1):
        bone = np.array([(0.07, 0.08), (0.25, 0.05), (0.45, 0.09)]) * (side, 1) + xy(0, -body.torso)
        canvas.line(body.warp(spline(bone)), 0.03, shade(figure.skin, 0.75), opacity=0.4)


def draw_arm(figure: Figure, side: int) -> None:
    """Draw a bare arm without the hand, which is drawn later, over the object it holds."""
    path = figure.body.arm(side)
    figure.canvas.fill(tube(path, figure.body.arm_radii(), cap=True), figure.skin, (), relief=0.14, shadow=0.4)


def draw_hand(figure: Figure, side: int) -> None:
    """Draw a relaxed hand at the end of the arm."""
    path = figure.body.arm(side)
    wrist, direction = along(path, 1.0)
    angle = float(np.arctan2(-direction[0], direction[1]))
    k = figure.body.limb
    palm = [
        (-0.09, -0.08),
        (-0.12, 0.1),
        (-0.1, 0.26),
        (-0.03, 0.37),
        (0.05, 0.35),
        (0.1, 0.2),
        (0.11, 0.05),
        (0.09, -0.08),
    ]
    thumb = [(-0.06, 0.02), (-0.15, 0.1), (-0.18, 0.21), (-0.14, 0.25), (-0.09, 0.17), (-0.04, 0.12)]

    def place(points: list[tuple[float, float]]) -> Points:
        return turn(spline(np.array(points) * (side * k, k), closed=True, steps=4), angle) + wrist

    figure.canvas.fill(place(palm), figure.skin, (), relief=0.1, shadow=0.4, edge=0.12)
    figure.canvas.fill(place(thumb), figure.skin, (), relief=0.06, edge=0.35)
    for x in (-0.045, 0.0, 0.045):
        line = turn(np.array([(x * side * k, 0.2 * k), (x * side * k * 0.9, 0.32 * k)]), angle) + wrist
        figure.canvas.line(line, 0.018, shade(figure.skin, 0.65), opacity=0.5)


def draw_back_hair(figure: Figure, style: str) -> None:
    """Draw the hair behind the head, neck and shoulders."""
    head = figure.body.head
    paint = shade(figure.hair, 0.78)
    match style:
        case "long":
            shape = [
                (0.2, -0.5),
                (0.44, -0.25),
                (0.47, 0.2),
                (0.56, 0.8),
                (0.5, 1.25),
                (0.3, 1.35),
                (0.0, 1.2),
            ]
        case "bob":
            shape = [(0.2, -0.52), (0.46, -0.25), (0.5, 0.2), (0.48, 0.52), (0.3, 0.56), (0.0, 0.5)]
        case "afro":
            figure.canvas.fill(ellipse(head + xy(0, -0.16), 0.66, 0.62), figure.hair, (), relief=0.4)
            return
        case "bun":
            figure.canvas.fill(ellipse(head + xy(0, -0.62), 0.21, 0.19), figure.hair, (), relief=0.15)
            return
        case "ponytail":
            tail = np.array([(0.25, -0.3), (0.62, -0.1), (0.66, 0.4), (0.5, 0.85), (0.42, 0.4), (0.3, 0.1)])
            side = 1 if figure.body.yaw < 0 else -1
            figure.canvas.fill(spline(tail * (side, 1) + head, closed=True), paint, (), relief=0.12)
            return
        case _:
            return
    figure.canvas.fill(spline(mirror(shape), closed=True, steps=5) + head, paint, (), relief=0.25)


def draw_head(figure: Figure, style: str) -> None:
    """Draw head, face and the hair in front."""
    canvas, skin = figure.canvas, figure.skin
    head, yaw = figure.body.head, figure.body.yaw

    def put(points: Points) -> Points:
        return turn(np.asarray(points), figure.body.tilt) + head

    for side in (-1, 1):
        canvas.fill(
            put(ellipse((side * 0.37 + 0.02 * yaw, 0.04), 0.07, 0.11, n=20)),
            shade(skin, 0.92),
            (),
            relief=0.05,
        )
    jaw = 0.3 if figure.feminine else 0.33
    face = [(0.0, -0.5), (0.26, -0.42), (0.37, -0.12), (0.36, 0.12), (jaw, 0.32), (0.14, 0.48), (0.0, 0.5)]
    right = spline(face)
    canvas.fill(put(mirror(right)), skin, (), relief=0.3, shadow=0.55)
    _draw_face(figure, put)
    _draw_front_hair(figure, style, put)


def _draw_face(figure: Figure, put) -> None:
    canvas, skin, turn_x = figure.canvas, figure.skin, 0.11 * figure.body.yaw
    dark = rgb("2a1c18")
    lip = blend(shade(skin, 0.75), rgb("b8323c"), 0.55 if figure.feminine else 0.2)
    for side in (-1, 1):
        x = turn_x + side * 0.15
        canvas.fill(put(ellipse((x, 0.24), 0.09, 0.07)), rgb("d9604f"), None, opacity=0.16)
        canvas.fill(put(ellipse((x, 0.02), 0.066, 0.045, n=20)), (0.97, 0.96, 0.94), None)
        canvas.fill(put(ellipse((x + 0.12 * turn_x, 0.025), 0.04, 0.045, n=20)), dark, None)
        canvas.line(put(ellipse((x, 0.02), 0.074, 0.055, n=20)[10:]), 0.026, dark, opacity=0.9)
        brow = spline([(x - 0.09, -0.095), (x, -0.125 - 0.01 * figure.feminine), (x + 0.09, -0.095)])
        canvas.line(put(brow), 0.035, blend(shade(figure.hair, 0.6), dark, 0.35), opacity=0.85)
    x = turn_x * 1.3
    canvas.line(put(spline([(x, 0.04), (x + 0.035, 0.17), (x - 0.02, 0.185)])), 0.025, shade(skin, 0.68), opacity=0.7)
    mouth = spline([(x - 0.1, 0.3), (x, 0.325), (x + 0.1, 0.295)])
    canvas.fill(put(np.concatenate([mouth, ellipse((x, 0.31), 0.09, 0.05, n=20)[:10]])), lip, None)
    canvas.line(put(mouth), 0.02, shade(lip, 0.6))


def _draw_front_hair(figure: Figure, style: str, put) -> None:
    canvas, hair = figure.canvas, figure.hair
    if style == "bald":
        return
    part = float(figure.rng.uniform(-0.12, 0.12))
    brow = -0.2 if style in ("bob", "afro") else -0.26
    low = {"long": 0.3, "bob": 0.42, "ponytail": 0.0, "bun": 0.0}.get(style, -0.02)
    inner = 0.35 if low > 0.1 else 0.36
    outer = [
        (-0.4, low),
        (-0.43, -0.15),
        (-0.34, -0.45),
        (-0.1, -0.6),
        (0.1, -0.6),
        (0.34, -0.45),
        (0.43, -0.15),
        (0.4, low),
    ]
    fringe = [
        (inner, low),
        (0.34, -0.12),
        (0.22, brow - 0.02),
        (part, brow - 0.1),
        (-0.2, brow),
        (-0.34, -0.12),
        (-inner, low),
    ]
    shape = np.concatenate([spline(outer), spline(fringe)])
    canvas.fill(put(shape), hair, (), relief=0.14, shadow=0.35)
    for x in (-0.26, -0.14, 0.14, 0.26):
        strand = spline([(part, -0.58), (0.75 * x + 0.25 * part, -0.45), (x, -0.3)])
        canvas.line(put(strand), 0.02, shade(hair, 1.25), opacity=0.35)
