"""Draw bags and umbrellas."""

import numpy as np

from fashion_hydra.wardrobe.colours import BRIGHTS, PASTELS, rgb, shade
from fashion_hydra.wardrobe.curves import Points, along, box, ellipse, spline, tube, xy
from fashion_hydra.wardrobe.fabrics import weave
from fashion_hydra.wardrobe.figure import Figure


def draw_bag_strap(figure: Figure, side: int) -> None:
    """Draw a cross-body bag at one hip."""
    body, canvas, rng = figure.body, figure.canvas, figure.rng
    part = figure.add("bag")
    leather = _leather(figure)
    hip = np.array([side * (body.hip + 0.14), 0.42])
    shoulder = body.warp(np.array([(-side * 0.42, -body.torso + 0.0)]))[0]
    line = spline([shoulder, (shoulder + hip) / 2 + xy(side * 0.1, 0), hip - xy(side * 0.1, 0.25)])
    normal = np.array([0.055, 0.035 * side])
    canvas.fill(
        np.concatenate([line - normal, (line + normal)[::-1]]),
        shade(leather, 0.75),
        (part,),
        shadow=0.5,
        edge=0.3,
    )
    _draw_bag(figure, part, hip, leather, width=float(rng.uniform(0.72, 0.9)), height=float(rng.uniform(0.54, 0.68)))


def draw_handbag(figure: Figure, side: int) -> None:
    """Draw a bag that hangs from one hand."""
    body, canvas = figure.body, figure.canvas
    part = figure.add("bag")
    leather = _leather(figure)
    wrist, direction = along(body.arm(side), 1.0)
    hand = wrist + 0.22 * direction
    top = hand + xy(0, 0.42)
    handle = np.concatenate([ellipse(top, 0.25, 0.46, n=40)[20:], [top + xy(0.25, 0)]])
    inner = np.concatenate([ellipse(top, 0.18, 0.38, n=40)[20:], [top + xy(0.18, 0)]])
    canvas.fill(np.concatenate([handle, inner[::-1]]), shade(leather, 0.7), (part,), shadow=0.4, relief=0.05)
    _draw_bag(figure, part, top + xy(0, 0.3), leather, width=float(figure.rng.uniform(0.8, 1.05)), height=0.66)


def _leather(figure: Figure):
    codes = (
        "5b3a24",
        "8a4b2a",
        "25262b",
        "b5793f",
        "c0392b",
        "e3c58f",
        "2f5d50",
        "d76b8a",
        "31456e",
        "f0e6d6",
    )
    return rgb(codes[int(figure.rng.integers(len(codes)))])


def _draw_bag(figure: Figure, part, centre, leather, *, width: float, height: float) -> None:
    canvas = figure.canvas
    w, h = width / 2, height / 2
    shape = spline(
        [(-0.86 * w, -h), (0.86 * w, -h), (w, 0.6 * h), (0.9 * w, h), (-0.9 * w, h), (-w, 0.6 * h)],
        closed=True,
        steps=5,
    )
    canvas.fill(shape + centre, leather, (part,), relief=0.12, shadow=0.6, edge=0.5)
    flap = spline(
        [(-0.9 * w, -h), (0.9 * w, -h), (0.85 * w, -0.1 * h), (0.0, 0.35 * h), (-0.85 * w, -0.1 * h)],
        closed=True,
        steps=5,
    )
    canvas.fill(flap + centre, shade(leather, 0.82), clip=part, relief=0.08, edge=0.5, shadow=0.4)
    canvas.fill(box(centre + np.array([0, 0.25 * h]), 0.15, 0.13), rgb("e2bf63"), clip=part, relief=0.04, edge=0.4)


def _umbrella_ends(figure: Figure, side: int) -> tuple[Points, Points]:
    """Return the point where the hand holds the shaft, and the tip."""
    wrist, direction = along(figure.body.arm(side), 1.0)
    hand = wrist + 0.15 * direction
    return hand, xy(0.55 * hand[0], figure.body.head[1] - 1.15)


def draw_umbrella(figure: Figure, side: int) -> None:
    """Draw an open umbrella held in one hand, with the canopy behind the head."""
    canvas, rng = figure.canvas, figure.rng
    part = figure.add("umbrella")
    hand, top = _umbrella_ends(figure, side)
    cloth = weave(rng, "plain", (*BRIGHTS, *PASTELS[:3]), period=1.0)
    other = cloth.accent if figure.chance(0.5) else shade(cloth.base, 0.75)
    shaft = np.array([hand + xy(0, 0.25), top])
    normal = np.array([0.035, 0.0])
    r, ribs = float(rng.uniform(1.5, 1.75)), 6
    edges = np.linspace(-r, r, ribs + 1)
    base = top[1] + 0.88
    for i in range(ribs):
        a, b = edges[i], edges[i + 1]
        left = spline([top, top + xy(0.72 * a, 0.2), (top[0] + a, base + 0.12 * abs(a) / r)])
        right = spline([top, top + xy(0.72 * b, 0.2), (top[0] + b, base + 0.12 * abs(b) / r)])
        scallop = spline([right[-1], ((left[-1] + right[-1]) / 2) - xy(0, 0.1), left[-1]])
        panel = np.concatenate([left[::-1], right, scallop[1:-1]])
        tone = cloth.base if i % 2 else other
        canvas.fill(panel, tone, (part,), relief=0.2, edge=0.35)
    canvas.fill(np.concatenate([shaft - normal, (shaft + normal)[::-1]]), rgb("6b4a2f"), (part,))
    canvas.fill(np.array([top - xy(0.03, 0), top + xy(0.03, 0), top - xy(0, 0.18)]), rgb("6b4a2f"), (part,))


def draw_umbrella_handle(figure: Figure, side: int) -> None:
    """Draw the part of the handle in front of the body; call this just before drawing the hand."""
    hand, top = _umbrella_ends(figure, side)
    axis = (top - hand) / np.linalg.norm(top - hand)
    hook = tube(np.array([hand + 0.5 * axis, hand, hand - 0.4 * axis]), [(0, 0.04), (1, 0.05)], n=8)
    part = next(i for i in reversed(figure.canvas.instances) if i.category == 26)
    figure.canvas.fill(hook, rgb("6b4a2f"), (part,), relief=0.04)
