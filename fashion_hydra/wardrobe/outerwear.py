"""Draw outerwear: jacket with hood and zipper, coat with lapels, cape."""

import numpy as np

from fashion_hydra.wardrobe.bottoms import hem_folds
from fashion_hydra.wardrobe.canvas import Instance
from fashion_hydra.wardrobe.colours import BRIGHTS, EARTHS, NEUTRALS, against, rgb, shade
from fashion_hydra.wardrobe.curves import Points, box, mirror, spline, xy
from fashion_hydra.wardrobe.fabrics import Fabric, weave
from fashion_hydra.wardrobe.figure import Figure, Sleeve
from fashion_hydra.wardrobe.tops import torso_folds


def _open_halves(figure: Figure, outline: Points, hem_y: float, gap: tuple[float, float]) -> tuple[Points, Points]:
    """Return the two halves of an open garment: `outline` cut at `gap` = (top, bottom) from the middle line."""
    body = figure.body
    half = len(outline) // 2
    y = np.linspace(hem_y, -body.torso - 0.05, 10)
    width = np.interp(y, [-body.torso, -body.torso + 0.6, hem_y], [0.2, gap[0], gap[1]])
    middle = body.middle(y)
    right = np.concatenate([outline[:half], middle + np.stack([width, 0 * y], 1)])
    left = np.concatenate([outline[half:][::-1], middle - np.stack([width, 0 * y], 1)])
    return left, right


def _hood_back(figure: Figure) -> Points:
    """Return the outline of a lowered hood behind the neck."""
    right = [(0.0, -0.52), (0.34, -0.5), (0.62, -0.3), (0.72, 0.0), (0.5, 0.25), (0.0, 0.3)]
    return figure.body.warp(mirror(spline(right)) + xy(0, -figure.body.torso))


def draw_jacket(figure: Figure, *, closed: bool) -> None:
    """Draw a hip-length jacket: zipper, ribbed hem and cuffs, slanted pockets, stand-up collar or hood."""
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    pattern = str(rng.choice(["plain", "quilt", "denim", "camouflage"], p=[0.42, 0.36, 0.12, 0.1]))
    colours = ("3a5a83", "6d8fb5") if pattern == "denim" else (*BRIGHTS, *NEUTRALS[5:7], *EARTHS[3:6])
    cloth = weave(rng, pattern, colours, period=0.62)
    hem = float(rng.uniform(0.12, 0.26))
    garment = figure.add(
        "jacket", "hip", "zip-up", "symmetrical", "regular", cloth.attribute,
        "quilted" if pattern == "quilt" else "no special manufacturing technique", "no waistline",
    )  # fmt: skip
    outline = body.bodice(hem, ease=0.17, hem=body.hip + 0.14, cinch=1.3, shoulder=0.05)
    gap = (0.0, 0.0) if closed else (0.16, float(rng.uniform(0.16, 0.28)))
    shapes = [outline] if closed else list(_open_halves(figure, outline, hem, gap))
    hood = figure.add("hood") if figure.chance(0.55) else None
    if hood is not None:
        canvas.fill(_hood_back(figure), cloth.plain(0.5), (garment, hood), relief=0.2, edge=0.3)
    for shape in shapes:
        canvas.fill(shape, cloth, (garment,), relief=0.24, shadow=0.5, edge=0.5, folds=torso_folds(figure))
    band = body.warp(mirror([(body.hip + 0.18, hem - 0.14), (body.hip + 0.1, hem + 0.05)]))
    rib = cloth.ribbed(0.6)
    canvas.fill(band, rib, clip=garment, relief=0.06, edge=0.4)
    _draw_jacket_pockets(figure, garment, cloth, hem)
    _draw_zippers(figure, garment, cloth, hem, gap, closed=closed)
    if hood is not None:
        _draw_hood_front(figure, garment, hood, cloth)
    else:
        _draw_stand_collar(figure, garment, cloth, closed=closed)
    figure.sleeve = Sleeve(garment, cloth, end=1.0, pad=0.13, puff=0.01, cuff=rib)


def _draw_jacket_pockets(figure: Figure, garment: Instance, cloth: Fabric, hem: float) -> None:
    body = figure.body
    for side in (-1, 1):
        centre = body.warp(np.array([(side * (body.hip * 0.62 + 0.12), hem - 0.45)]))[0]
        figure.pocket(garment, box(centre, 0.36, 0.4, angle=side * 0.25, soft=0.4), cloth.plain(0.7))


def _draw_zippers(
    figure: Figure, garment: Instance, cloth: Fabric, hem: float, gap: tuple[float, float], *, closed: bool
) -> None:
    """Draw the zipper as one mask: a band down the front, or a band on each edge of an open jacket."""
    body = figure.body
    part = figure.add("zipper")
    y = np.linspace(-body.torso + (0.2 if closed else 0.45), hem, 12)
    for side in (0,) if closed else (-1, 1):
        width = np.interp(y, [-body.torso, -body.torso + 0.6, hem], [0.2, gap[0], gap[1]])
        middle = body.middle(y) + np.stack([side * (width + 0.06), 0 * y], 1)
        figure.zipper(garment, part, middle, 0.095 if closed else 0.06, cloth, slider=closed)


def _draw_hood_front(figure: Figure, garment: Instance, hood: Instance, cloth: Fabric) -> None:
    body, canvas = figure.body, figure.canvas
    roll = np.array(
        [
            (0.2, -0.26),
            (0.36, -0.44),
            (0.62, -0.34),
            (0.74, -0.02),
            (0.6, 0.2),
            (0.3, 0.34),
            (0.08, 0.42),
            (0.1, 0.2),
        ]
    )
    for side in (-1, 1):
        outline = body.warp(spline(roll * (side, 1) + xy(0, -body.torso), closed=True))
        canvas.fill(outline, cloth, (garment, hood), relief=0.13, shadow=0.5, edge=0.5)
        start = body.warp(np.array([(side * 0.12, -body.torso + 0.36)]))[0]
        cord = spline([start, start + xy(side * 0.03, 0.2), start + xy(0, 0.42)])
        canvas.line(cord, 0.035, (0.95, 0.94, 0.9), clip=garment)


def _draw_stand_collar(figure: Figure, garment: Instance, cloth: Fabric, *, closed: bool) -> None:
    body, part = figure.body, figure.add("collar")
    wing = np.array([(0.0 if closed else 0.14, 0.22), (0.2, -0.3), (0.34, -0.24), (0.4, 0.06), (0.16, 0.3)])
    for side in (-1, 1):
        points = body.warp(wing * (side, 1) + xy(0, -body.torso))
        figure.canvas.fill(points, cloth.ribbed(0.65), (garment, part), relief=0.07, shadow=0.5, edge=0.6)


def draw_coat(figure: Figure, *, closed: bool) -> None:
    """Draw a coat that ends above, at or below the knee: lapels, buttons, pockets."""
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    pattern = str(rng.choice(["wool", "plain", "check"], p=[0.55, 0.25, 0.2]))
    cloth = weave(rng, pattern, (*NEUTRALS[1:8], *NEUTRALS[1:4], *EARTHS), period=0.8)
    length, hem_y = [("above-the-knee", 1.1), ("knee", 1.55), ("below the knee", 2.0)][int(rng.integers(3))]
    hem = max(body.hip + 0.16 + 0.12 * hem_y, body.legs_reach(hem_y) + 0.1)
    garment = figure.add(
        "coat", length, "double breasted" if closed else "single breasted", "symmetrical", "loose",
        cloth.attribute, "no special manufacturing technique" if closed else "lining", "no waistline",
    )  # fmt: skip
    outline = body.bodice(hem_y, ease=0.16, hem=hem, shoulder=0.07)
    gap = (0.1, float(rng.uniform(0.24, 0.4)))
    shapes = [outline] if closed else list(_open_halves(figure, outline, hem_y, gap))
    folds = hem_folds(figure, -0.2, body.hip, hem_y, hem, 4)
    for shape in shapes:
        canvas.fill(
            shape,
            cloth,
            (garment,),
            relief=0.24,
            shadow=0.6,
            edge=0.5,
            folds=folds + torso_folds(figure, count=3),
        )
    if closed:
        front = body.middle(np.linspace(-body.torso + 0.75, hem_y, 8)) - xy(0.16, 0)
        figure.seam(garment, front, shade(cloth.base, 0.45), width=0.035, opacity=0.8)
        figure.buttons(garment, -body.torso + 0.95, -0.1, 3, xs=(-0.17, 0.17), size=0.055)
    else:
        _draw_lining(figure, garment, cloth, hem_y, gap)
    for side in (-1, 1):
        centre = body.warp(np.array([(side * (body.hip * 0.6 + 0.13), 0.22)]))[0]
        figure.pocket(garment, box(centre, 0.44, 0.42, soft=0.25), cloth.plain(0.88), shadow=0.5)
    _draw_lapels(figure, garment, cloth, closed=closed)
    figure.sleeve = Sleeve(garment, cloth, end=0.98, pad=0.13, flare=0.03, cuff=cloth.plain(0.85))


def _draw_lining(figure: Figure, garment: Instance, cloth: Fabric, hem_y: float, gap: tuple[float, float]) -> None:
    """Draw the lining where the two edges of an open coat are turned out, widest at the hem."""
    body = figure.body
    lining = Fabric("plain", against(cloth.base, figure.rng), cloth.base, 1.0, cloth.seed)
    y = np.linspace(-body.torso + 0.8, hem_y, 10)
    inner = np.interp(y, [-body.torso + 0.6, hem_y], gap)
    outer = inner + np.linspace(0.1, 0.2, len(y))
    for side in (-1, 1):
        edges = [body.middle(y) + np.stack([side * x, 0 * y], 1) for x in (inner - 0.02, outer)]
        strip = np.concatenate([edges[0], edges[1][::-1]])
        figure.canvas.fill(strip, lining, clip=garment, relief=0.05, edge=0.5, shadow=0.4)


def _draw_lapels(figure: Figure, garment: Instance, cloth: Fabric, *, closed: bool) -> None:
    """Draw two lapels as one mask, and the collar above their notches as another."""
    body, canvas = figure.body, figure.canvas
    lapel, collar = figure.add("lapel"), figure.add("collar")
    if closed:
        throat = body.warp(mirror([(0.24, -body.torso - 0.12), (0.0, -body.torso + 0.62)]))
        canvas.fill(throat, _inside(figure), (), clip=garment)
    low = 0.82 if closed else 0.95
    wing = np.array([(0.0 if closed else 0.1, low), (0.1, 0.2), (0.26, 0.02), (0.44, 0.12), (0.6, 0.2), (0.5, 0.42)])
    neck = np.array([(0.2, -0.26), (0.34, -0.2), (0.54, 0.06), (0.46, 0.16), (0.3, 0.12), (0.12, 0.1)])
    for side in (-1, 1):
        points = body.warp(wing * (side, 1) + xy(0, -body.torso))
        canvas.fill(points, cloth.plain(0.8), (garment, lapel), relief=0.07, shadow=0.7, edge=0.65)
    for side in (-1, 1):
        points = body.warp(neck * (side, 1) + xy(0, -body.torso))
        canvas.fill(points, cloth.plain(0.68), (garment, collar), relief=0.07, shadow=0.6, edge=0.65)


def _inside(figure: Figure) -> tuple[float, float, float]:
    return figure.skin if figure.chance(0.5) else rgb("e9e2d5")


def draw_cape(figure: Figure) -> None:
    """Draw a cape over shoulders and arms, with a trim, a collar and buttons."""
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    pattern = str(rng.choice(["wool", "check", "plain", "leopard"], p=[0.35, 0.35, 0.2, 0.1]))
    cloth = weave(rng, pattern, (*EARTHS, *BRIGHTS[5:8], *NEUTRALS[3:6]), period=0.9)
    hem_y = float(rng.uniform(0.0, 0.6))
    garment = figure.add(
        "cape", "hip", "single breasted", "symmetrical", "tent", cloth.attribute,
        "no special manufacturing technique", "no waistline",
    )  # fmt: skip
    hem = body.shoulder + 0.75
    side = spline(
        [
            (0.24, -body.torso - 0.12),
            (body.shoulder + 0.06, -body.torso + 0.14),
            (body.shoulder + 0.42, -0.9),
            (hem, hem_y - 0.25),
        ]
    )
    x = np.linspace(hem, 0, 15)[1:]
    bottom = np.stack([x, hem_y - 0.25 + 0.34 * np.sqrt(1 - (x / hem) ** 2) + 0.03 * np.cos(x * 11)], axis=1)
    outline = body.warp(mirror(np.concatenate([side, bottom])))
    folds = hem_folds(figure, -body.torso + 0.2, body.shoulder, hem_y, hem, 7)
    canvas.fill(outline, cloth, (garment,), relief=0.3, shadow=0.6, edge=0.5, folds=folds)
    trim = body.warp(mirror(bottom))
    canvas.line(trim - xy(0, 0.05), 0.09, shade(cloth.base, 0.55), clip=garment, opacity=0.9)
    front = body.middle(np.linspace(-body.torso + 0.2, hem_y + 0.1, 8))
    canvas.crease(front, 0.06, 0.7, clip=garment)
    figure.buttons(garment, -body.torso + 0.4, -body.torso + 0.75, 2, size=0.08)
    collar_cloth = cloth.plain(0.6)
    part = figure.add("collar")
    wing = np.array([(0.04, 0.2), (0.2, -0.24), (0.34, -0.16), (0.62, 0.14), (0.36, 0.42)])
    for s in (-1, 1):
        points = body.warp(spline(wing * (s, 1) + xy(0, -body.torso), closed=True, steps=4))
        canvas.fill(points, collar_cloth, (garment, part), relief=0.1, shadow=0.6, edge=0.6)
