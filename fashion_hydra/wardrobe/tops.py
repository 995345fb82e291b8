"""Draw garments of the upper body: shirt, t-shirt, sweater and tie."""

import numpy as np

from fashion_hydra.wardrobe.colours import BRIGHTS, EARTHS, NEUTRALS, PASTELS, against, shade
from fashion_hydra.wardrobe.curves import Points, box, ellipse, mirror, spline, xy
from fashion_hydra.wardrobe.fabrics import Fabric, weave
from fashion_hydra.wardrobe.figure import Figure, Sleeve


def torso_folds(figure: Figure, *, count: int = 4) -> list[tuple[Points, float, float]]:
    """Return creases that run from the sides of the torso towards the middle of the waist."""
    body, rng = figure.body, figure.rng
    folds = []
    for _ in range(count):
        side = rng.choice([-1, 1])
        y = float(rng.uniform(body.armpit_y, 0.0))
        x = side * body.half_width(y)
        end = (x * rng.uniform(0.2, 0.6), y + rng.uniform(0.1, 0.45))
        line = body.warp(spline([(x, y), (x * 0.75, y + 0.05), end]))
        folds.append((line, float(rng.uniform(0.05, 0.09)), float(rng.uniform(0.2, 0.42))))
    return folds


def draw_tshirt(figure: Figure, *, tucked: bool) -> None:
    """Draw a t-shirt with a contrasting neck band and often a print on the chest."""
    body, rng = figure.body, figure.rng
    pattern = str(rng.choice(["plain", "stripe", "dot", "camouflage", "leopard"], p=[0.62, 0.22, 0.08, 0.04, 0.04]))
    cloth = weave(rng, pattern, (*BRIGHTS, *BRIGHTS, "f2ede4", "25262b"), period=0.75)
    printed = pattern == "plain" and figure.chance(0.75)
    hem = body.waist_y + 0.25 if tucked else float(rng.uniform(0.22, 0.42))
    ease = float(rng.uniform(0.03, 0.12))
    garment = figure.add(
        "top", "hip", "no opening", "symmetrical", "loose" if ease > 0.09 else "regular", cloth.attribute,
        "printed" if printed else "no special manufacturing technique", "no waistline",
    )  # fmt: skip
    outline = body.bodice(hem, ease=ease, hem=None if tucked else body.hip + ease + 0.02)
    figure.canvas.fill(outline, cloth, (garment,), relief=0.22, shadow=0.35, edge=0.4, folds=torso_folds(figure))
    if printed:
        _draw_print(figure, garment, cloth)
    trim = cloth.plain(0.72) if figure.chance(0.3) else Fabric("plain", cloth.accent, cloth.base, 0.5, cloth.seed)
    if figure.chance(0.7):
        figure.neckline(garment, trim, depth=float(rng.uniform(0.12, 0.26)), width=0.26, band=0.12)
    else:
        figure.vneck(garment, trim, depth=float(rng.uniform(0.4, 0.55)), width=0.26, band=0.1)
    figure.seam(garment, outline[np.argsort(-outline[:, 1])[:2]] - xy(0, 0.06), shade(cloth.base, 0.6))
    figure.sleeve = Sleeve(garment, cloth, end=float(rng.uniform(0.36, 0.44)), pad=0.07, flare=0.03, cuff=trim)


def _draw_print(figure: Figure, garment, cloth: Fabric) -> None:
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    centre = body.middle(body.armpit_y + 0.3)[0]
    ink, second = cloth.accent, against(cloth.accent, rng)
    match figure.pick("sun", "heart", "star", "wave", "bars"):
        case "sun":
            canvas.fill(ellipse(centre, 0.3, 0.3), ink, clip=garment)
            canvas.fill(ellipse(centre + xy(0, 0.14), 0.3, 0.16), second, clip=garment)
        case "heart":
            right = [(0, -0.14), (0.13, -0.27), (0.29, -0.2), (0.28, -0.02), (0, 0.28)]
            canvas.fill(mirror(spline(right)) + centre, ink, clip=garment)
        case "star":
            a = np.arange(10) * np.pi / 5 - np.pi / 2
            r = np.where(np.arange(10) % 2, 0.14, 0.33)[:, None]
            canvas.fill(centre + r * np.stack([np.cos(a), np.sin(a)], axis=1), ink, clip=garment)
        case "wave":
            for i, tone in enumerate((ink, second, ink)):
                x = np.linspace(-0.34, 0.34, 24)
                line = np.stack([x, 0.06 * np.sin(9 * x + i) + 0.15 * (i - 1)], axis=1) + centre
                canvas.line(line, 0.075, tone, clip=garment)
        case _:
            for i, width in enumerate((0.52, 0.36, 0.52)):
                canvas.fill(box(centre + xy(0, 0.14 * (i - 1)), width, 0.09), ink if i != 1 else second, clip=garment)


def draw_shirt(figure: Figure, *, tucked: bool, tie: bool) -> None:
    """Draw a shirt with a collar, a button placket and often a breast pocket."""
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    pattern = str(rng.choice(["plain", "check", "stripe", "dot", "floral"], p=[0.34, 0.3, 0.22, 0.05, 0.09]))
    cloth = weave(rng, pattern, (*PASTELS, "f2ede4", "f2ede4"), period=0.42 if pattern == "stripe" else 0.7)
    hem = body.waist_y + 0.25 if tucked else float(rng.uniform(0.3, 0.5))
    ease = float(rng.uniform(0.03, 0.1))
    garment = figure.add(
        "shirt", "hip", "single breasted", "symmetrical", "regular", cloth.attribute,
        "no special manufacturing technique", "no waistline",
    )  # fmt: skip
    outline = body.bodice(hem, ease=ease, hem=None if tucked else body.hip + ease)
    canvas.fill(outline, cloth, (garment,), relief=0.2, shadow=0.35, edge=0.4, folds=torso_folds(figure))
    middle = body.middle(np.linspace(-body.torso + 0.1, hem, 9))
    placket = np.concatenate([middle - xy(0.075, 0), (middle + xy(0.075, 0))[::-1]])
    canvas.fill(placket, cloth, clip=garment, relief=0.05, edge=0.4, shadow=0.2)
    figure.buttons(garment, -body.torso + 0.42, hem - 0.12, 5, size=0.042)
    if figure.chance(0.65) and not tie:
        at = body.warp(np.array([(0.33 + 0.1 * body.yaw, body.armpit_y + 0.18)]))[0]
        flap = np.array([(-0.19, -0.19), (0.19, -0.19), (0.19, 0.13), (0, 0.22), (-0.19, 0.13)]) + at
        figure.pocket(garment, flap, cloth)
    canvas.fill(_throat(figure), figure.skin, (), clip=garment)
    if tie:
        draw_tie(figure)
    collar = cloth.plain(1.0) if figure.chance(0.6) else Fabric("plain", (0.96, 0.95, 0.92), cloth.base, 1.0, 1)
    draw_collar(figure, garment, collar)
    figure.sleeve = Sleeve(garment, cloth, end=0.97 if figure.chance(0.7) else 0.62, pad=0.075, cuff=collar)


def _throat(figure: Figure) -> Points:
    body = figure.body
    return body.warp(mirror([(0.22, -body.torso - 0.12), (0.0, -body.torso + 0.3)]))


def draw_collar(figure: Figure, garment, cloth: Fabric, *, size: float = 1.0) -> None:
    """Draw the two wings of a collar as one mask."""
    body, part = figure.body, figure.add("collar")
    wing = np.array([(0.06, 0.16), (0.2, -0.22), (0.3, -0.14), (0.48, 0.08), (0.34, 0.36)])
    for side in (-1, 1):
        points = wing * (side * size, size) + xy(0, -body.torso)
        figure.canvas.fill(body.warp(points), cloth, (garment, part), relief=0.07, shadow=0.6, edge=0.6)


def draw_tie(figure: Figure) -> None:
    """Draw a tie with a knot and a blade down to the waist."""
    body, rng = figure.body, figure.rng
    cloth = weave(rng, str(rng.choice(["stripe", "plain", "dot"])), (*BRIGHTS, "7a3b2e", "25262b"), period=0.28)
    part = figure.add("tie")
    y0 = -body.torso + 0.1
    y = np.linspace(y0 + 0.22, body.waist_y + 0.3, 8)
    width = np.linspace(0.075, 0.19, 8)
    middle = body.middle(y)
    sides = [middle - np.stack([width, 0 * y], 1), (middle + np.stack([width, 0 * y], 1))[::-1]]
    tip = middle[-1] + xy(0, 0.2)
    blade = np.concatenate([sides[0], [tip], sides[1]])
    figure.canvas.fill(blade, cloth, (part,), relief=0.1, shadow=0.6, edge=0.4, angle=0.6)
    knot = np.array([(-0.13, 0), (0.13, 0), (0.08, 0.25), (-0.08, 0.25)]) + body.middle(y0)[0]
    figure.canvas.fill(knot, cloth, (part,), relief=0.08, shadow=0.4, edge=0.5, angle=-0.6)


def draw_sweater(figure: Figure, *, tucked: bool) -> None:
    """Draw a thick sweater with ribbed hem, cuffs and neck."""
    body, rng = figure.body, figure.rng
    pattern = str(rng.choice(["knit", "fair isle", "argyle", "stripe"], p=[0.55, 0.25, 0.12, 0.08]))
    cloth = weave(rng, pattern, (*EARTHS, *NEUTRALS[:3], *PASTELS[:5]), period=0.85)
    if pattern == "knit":
        cloth = Fabric("knit", cloth.base, cloth.accent, 0.8, cloth.seed)
    hem = body.waist_y + 0.25 if tucked else float(rng.uniform(0.2, 0.34))
    garment = figure.add(
        "sweater", "hip", "no opening", "symmetrical", "loose", cloth.attribute,
        "no special manufacturing technique", "no waistline",
    )  # fmt: skip
    outline = body.bodice(
        hem, ease=0.15, hem=body.waist + 0.05 if tucked else body.hip + 0.14, cinch=1.25, shoulder=0.04
    )
    figure.canvas.fill(outline, cloth, (garment,), relief=0.3, shadow=0.5, edge=0.45, folds=torso_folds(figure))
    rib = cloth.ribbed(0.88)
    band = body.warp(mirror([(body.hip + 0.17, hem - 0.16), (body.hip + 0.1, hem + 0.06)]))
    if not tucked:
        figure.canvas.fill(band, rib, (garment,), relief=0.08, edge=0.5, shadow=0.2)
    if figure.chance(0.4):
        roll = [(0.23, -0.3), (0.28, -0.2), (0.27, -0.04), (0.33, 0.06), (0, 0.14)]
        part = figure.add("neckline")
        points = body.warp(mirror(spline(roll)) + xy(0, -body.torso))
        figure.canvas.fill(points, rib, (garment, part), relief=0.12, edge=0.5, shadow=0.5)
    else:
        figure.neckline(garment, rib, depth=0.16, width=0.25, band=0.16)
    figure.sleeve = Sleeve(garment, cloth, end=1.0, pad=0.12, puff=0.02, cuff=rib)
