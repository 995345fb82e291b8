"""Draw garments that reach below the waist (pants, shorts, skirt, dress, jumpsuit, tights) and the belt."""

import numpy as np

from fashion_hydra.wardrobe.canvas import Instance
from fashion_hydra.wardrobe.colours import BRIGHTS, DENIMS, EARTHS, NEUTRALS, PASTELS, rgb, shade
from fashion_hydra.wardrobe.curves import Points, along, box, mirror, radius_at, spline, tube, xy
from fashion_hydra.wardrobe.fabrics import Fabric, weave
from fashion_hydra.wardrobe.figure import Figure, Sleeve


def draw_pants(figure: Figure, *, slim: bool) -> None:
    """Draw pants, from tight to wide; `slim` forces tight legs that fit into boots."""
    rng = figure.rng
    pattern = str(rng.choice(["denim", "plain", "wool", "check", "camouflage"], p=[0.45, 0.3, 0.12, 0.08, 0.05]))
    cloth = weave(rng, pattern, DENIMS if pattern == "denim" else (*NEUTRALS[2:], *EARTHS[3:7]), period=0.7)
    cut = "tight" if slim else figure.pick("tight", "straight", "straight", "wide leg", "bootcut")
    garment = figure.add(
        "pants", "maxi", "fly", "symmetrical", cut, cloth.attribute,
        "washed" if pattern == "denim" else "no special manufacturing technique", "normal waist",
    )  # fmt: skip
    flare = {"tight": 0.03, "straight": 0.1, "wide leg": 0.2, "bootcut": 0.17}[cut]
    _draw_trousers(
        figure,
        garment,
        cloth,
        end=0.84 if slim else float(rng.uniform(0.92, 0.99)),
        pad=0.05,
        flare=flare,
        knee=cut != "bootcut",
    )


def draw_shorts(figure: Figure) -> None:
    """Draw shorts that end above the knee, with a turned-up hem."""
    rng = figure.rng
    pattern = str(rng.choice(["denim", "plain", "check", "floral", "stripe"], p=[0.35, 0.35, 0.12, 0.1, 0.08]))
    cloth = weave(rng, pattern, DENIMS if pattern == "denim" else (*BRIGHTS, *EARTHS), period=0.6)
    length = float(rng.uniform(0.25, 0.42))
    garment = figure.add(
        "shorts", "mini" if length < 0.32 else "above-the-knee", "fly", "symmetrical", "regular",
        cloth.attribute, "no special manufacturing technique", "normal waist",
    )  # fmt: skip
    _draw_trousers(figure, garment, cloth, end=length, pad=0.09, flare=0.06, knee=False)
    for side in (-1, 1):
        path = figure.body.leg(side)
        r = radius_at(figure.body.leg_radii(0.09), length) + 0.075
        cuff = tube(path, [(0, r), (1, r)], start=length - 0.05, end=length, n=5)
        figure.canvas.fill(cuff, cloth.plain(0.85), clip=garment, relief=0.06, edge=0.4)


def _draw_trousers(
    figure: Figure, garment: Instance, cloth: Fabric, *, end: float, pad: float, flare: float, knee: bool
) -> None:
    body, canvas, rng = figure.body, figure.canvas, figure.rng
    radii = body.leg_radii(pad)
    order = (-1, 1) if body.legs[0].lift >= body.legs[1].lift else (1, -1)
    for side in order:
        path = body.leg(side)
        knots = [(t, radius_at(radii, t * end)) for t in (0.0, 0.3, 0.5, 0.7, 1.0)]
        widen = {0.0: 0.0, 0.3: 0.0, 0.5: 0.6 * flare if knee else 0.0, 0.7: 0.8 * flare, 1.0: 1.1 * flare}
        outline = tube(path, [(t, r + widen[t]) for t, r in knots], end=end, n=36)
        folds = []
        for t in (0.1, 0.46, 0.54, 0.86, 0.94):
            point, direction = along(path, t * end)
            across = np.array([-direction[1], direction[0]]) * rng.uniform(0.1, 0.26)
            line = np.stack([point - across, point + 0.04 * direction, point + across + 0.1 * direction])
            folds.append((line, 0.06, float(rng.uniform(0.15, 0.4))))
        lean = float(np.arctan2(-(path[-1] - path[0])[0], (path[-1] - path[0])[1]))
        canvas.fill(
            outline,
            cloth,
            (garment,),
            relief=0.22,
            shadow=0.4,
            edge=0.4,
            angle=lean,
            anchor=path[0],
            folds=folds,
        )
        crease = tube(path, [(0, 0.001), (1, 0.001)], start=0.1, end=end)[:24]
        figure.seam(garment, crease, shade(cloth.base, 0.7), opacity=0.35)
    _draw_hips(figure, garment, cloth, pad)


def _draw_hips(figure: Figure, garment: Instance, cloth: Fabric, pad: float) -> None:
    """Draw waistband, fly and two slanted front pockets."""
    body, canvas = figure.body, figure.canvas
    top = body.waist_y + 0.2
    right = [
        (body.half_width(top) + 0.03, top),
        (body.hip + pad, -0.05),
        (body.hip + pad, 0.2),
        (0.12, 0.34),
        (0, 0.38),
    ]
    seat = body.warp(mirror(spline(right, steps=6)))
    canvas.fill(seat, cloth, (garment,), relief=0.2)
    stitch = shade(cloth.base, 1.55) if cloth.pattern == "denim" else shade(cloth.base, 0.6)
    if cloth.pattern == "denim":
        stitch = rgb("d9a25c")
    fly = body.middle(np.linspace(top + 0.1, 0.3, 6))
    figure.seam(garment, fly, shade(cloth.base, 0.5), width=0.03, opacity=0.9)
    figure.seam(garment, spline([fly[0] + xy(0.11, 0), fly[3] + xy(0.11, 0), fly[5]]), stitch)
    for side in (-1, 1):
        edge = body.hip + pad
        pocket = np.array(
            [(edge * 0.55, top + 0.14), (edge * 0.62, 0.02), (edge * 1.02, 0.14), (edge * 1.02, top + 0.14)]
        )
        figure.pocket(garment, body.warp(spline(pocket * (side, 1), steps=4)), cloth.plain(0.82))
    band = [(body.half_width(top) + 0.04, top - 0.02), (body.half_width(top + 0.15) + 0.04, top + 0.15)]
    canvas.fill(body.warp(mirror(band)), cloth, (garment,), relief=0.06, edge=0.45, shadow=0.25)


def flared(figure: Figure, y0: float, half: float, hem_y: float, hem: float) -> Points:
    """Return the right half of a skirt's outline, from the waist along the scalloped hem, for `mirror`."""
    body = figure.body
    hips = body.hip + 0.07
    mid = (max(hips, 0.55 * hips + 0.45 * hem * (0.1 - y0) / (hem_y - y0)), 0.1)
    points = [(half, y0), mid, (hem, hem_y)] if hem_y > 0.4 else [(half, y0), (hem, hem_y)]
    side = spline(points)
    x = np.linspace(hem, 0, 15)[1:-1]
    wave = 0.022 * np.cos(x / hem * 5 * np.pi) * min(1.0, hem - 0.5)
    bottom = np.stack([x, hem_y + 0.13 * np.sqrt(1 - (x / hem) ** 2) + wave], axis=1)
    return np.concatenate([side, bottom])


def hem_folds(figure: Figure, y0: float, half: float, hem_y: float, hem: float, count: int) -> list:
    """Return folds that fan out from the waist to the hem."""
    folds = []
    for place in np.linspace(-0.85, 0.85, count):
        u = place + float(figure.rng.uniform(-0.08, 0.08))
        start = y0 + float(figure.rng.uniform(0.02, 0.35)) * (hem_y - y0)
        x0 = half + (hem - half) * (start - y0) / (hem_y - y0)
        line = spline([(u * x0 * 0.9, start), (u * (x0 + hem) / 2, (start + hem_y) / 2), (u * hem, hem_y + 0.12)])
        folds.append((figure.body.warp(line), 0.085, float(figure.rng.uniform(0.3, 0.6))))
    return folds


def draw_skirt(figure: Figure) -> None:
    """Draw a skirt, from a pencil skirt to a pleated circle skirt."""
    body, rng = figure.body, figure.rng
    pattern = str(
        rng.choice(["plain", "check", "denim", "leopard", "dot", "stripe"], p=[0.4, 0.24, 0.1, 0.1, 0.08, 0.08])
    )
    cloth = weave(rng, pattern, (*BRIGHTS, *EARTHS, *PASTELS[:5]), period=0.6)
    cut = figure.pick("pencil", "a-line", "a-line", "circle")
    length, hem_y = [("mini", 0.95), ("above-the-knee", 1.35), ("knee", 1.65), ("midi", 2.2)][int(rng.integers(4))]
    hem = {
        "pencil": body.hip + 0.02,
        "a-line": body.hip + 0.22 + 0.12 * hem_y,
        "circle": body.hip + 0.4 + 0.2 * hem_y,
    }[cut]
    hem = max(hem, body.legs_reach(hem_y) + 0.05)
    pleated = cut != "pencil" and figure.chance(0.5)
    garment = figure.add(
        "skirt", length, "zip-up", "symmetrical", cut, cloth.attribute,
        "pleat" if pleated else "no special manufacturing technique", "high waist",
    )  # fmt: skip
    top = body.waist_y
    half = body.half_width(top) + 0.05
    outline = body.warp(mirror(flared(figure, top, half, hem_y, hem)))
    count = {"pencil": 2, "a-line": 5, "circle": 8}[cut]
    folds = hem_folds(figure, top, half, hem_y, hem, count + 4 * pleated)
    figure.canvas.fill(outline, cloth, (garment,), relief=0.3, shadow=0.45, edge=0.4, folds=folds)
    band = mirror([(half + 0.01, top - 0.03), (half + 0.05, top + 0.15)])
    figure.canvas.fill(body.warp(band), cloth.plain(0.75), (garment,), relief=0.06, edge=0.5, shadow=0.3)
    front = body.middle(np.linspace(top, min(hem_y - 0.25, 0.55), 12))
    figure.zipper(garment, figure.add("zipper"), front, 0.075, cloth, slider=True)


def draw_dress(figure: Figure) -> None:
    """Draw a dress with a bodice and a skirt; with short or puff sleeves, or sleeveless."""
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    pattern = str(rng.choice(["floral", "dot", "plain", "geometric", "stripe"], p=[0.45, 0.2, 0.2, 0.1, 0.05]))
    cloth = weave(rng, pattern, (*PASTELS, *BRIGHTS, "25262b", "43506b"), period=0.85)
    length, hem_y = [("mini", 0.95), ("knee", 1.5), ("midi", 2.0), ("maxi", 2.65)][int(rng.integers(4))]
    cut = figure.pick("a-line", "fit and flare", "straight")
    hem = {"a-line": 0.3 + 0.16 * hem_y, "fit and flare": 0.5 + 0.2 * hem_y, "straight": 0.1}[cut] + body.hip
    hem = max(hem, body.legs_reach(hem_y) + 0.05)
    garment = figure.add(
        "dress", length, "no opening", "symmetrical", cut, cloth.attribute,
        "gathering" if cut == "fit and flare" else "no special manufacturing technique", "normal waist",
    )  # fmt: skip
    bare = figure.chance(0.35)
    top = body.waist_y + 0.02
    half = body.waist + 0.05
    skirt = body.warp(mirror(flared(figure, top, half, hem_y, hem)))
    folds = hem_folds(figure, top, half, hem_y, hem, 3 if cut == "straight" else 8)
    canvas.fill(skirt, cloth, (garment,), relief=0.3, shadow=0.45, edge=0.4, folds=folds)
    bodice = body.bodice(top + 0.06, ease=0.03, shoulder=-0.16 if bare else 0.0, hem=half)
    canvas.fill(bodice, cloth, (garment,), relief=0.2, shadow=0.3, edge=0.4)
    if cut == "fit and flare":
        sash = mirror([(half + 0.02, top - 0.08), (half + 0.03, top + 0.1)])
        canvas.fill(body.warp(sash), cloth.plain(0.7), (garment,), relief=0.06, edge=0.4)
    trim = Fabric("plain", cloth.accent, cloth.base, 1.0, cloth.seed)
    if figure.chance(0.5):
        figure.vneck(garment, trim, depth=0.55, width=0.3, band=0.09)
    else:
        figure.neckline(garment, trim, depth=0.34, width=0.34, band=0.12)
    if not bare:
        puff = float(rng.choice([0.0, 0.14]))
        figure.sleeve = Sleeve(garment, cloth, end=0.34, pad=0.08, flare=0.04 if puff else 0.12, puff=puff, cuff=None)


def draw_dungarees(figure: Figure, *, slim: bool) -> None:
    """Draw a jumpsuit with a bib, straps and a large front pocket, worn over a t-shirt."""
    body, rng, canvas = figure.body, figure.rng, figure.canvas
    pattern = str(rng.choice(["denim", "plain"], p=[0.6, 0.4]))
    cloth = weave(rng, pattern, DENIMS if pattern == "denim" else EARTHS, period=0.7)
    garment = figure.add(
        "jumpsuit", "maxi", "buckled", "symmetrical", "loose", cloth.attribute,
        "no special manufacturing technique", "normal waist",
    )  # fmt: skip
    _draw_trousers(
        figure,
        garment,
        cloth,
        end=0.84 if slim else float(rng.uniform(0.86, 0.97)),
        pad=0.1,
        flare=-0.04 if slim else 0.12,
        knee=True,
    )
    top = -body.torso + 0.62
    bib = [(0.42, top), (0.46, top + 0.4), (body.waist + 0.09, body.waist_y - 0.05), (body.hip + 0.08, -0.1)]
    for side in (-1, 1):
        strap = np.array(
            [(0.3, top + 0.16), (0.34, -body.torso - 0.02), (0.52, -body.torso - 0.02), (0.47, top + 0.16)]
        )
        canvas.fill(body.warp(strap * (side, 1)), cloth, (garment,), relief=0.05, shadow=0.4, edge=0.5)
    canvas.fill(body.warp(mirror(spline(bib))), cloth, (garment,), relief=0.16, shadow=0.5, edge=0.5)
    stitch = rgb("d9a25c") if pattern == "denim" else shade(cloth.base, 1.4)
    figure.seam(garment, body.warp(np.array([(-0.4, top + 0.07), (0.4, top + 0.07)])), stitch)
    centre = body.middle(top + 0.42)[0]
    figure.pocket(garment, box(centre, 0.56, 0.44, soft=0.3), cloth)
    for side in (-1, 1):
        button = body.warp(np.array([(side * 0.38, top + 0.07)]))[0]
        canvas.fill(box(button, 0.12, 0.14), rgb("c9a050"), clip=garment, relief=0.04, edge=0.4, shadow=0.4)


def draw_tights(figure: Figure) -> None:
    """Draw plain or patterned tights over both legs, as one mask."""
    rng = figure.rng
    pattern = str(rng.choice(["plain", "dot", "stripe"], p=[0.6, 0.2, 0.2]))
    codes = ("25262b", "3c3a3e", "5a2c3e", "43506b", "8f3445", "6b3a6b", "2e4a4f")
    cloth = weave(rng, pattern, codes, period=0.36)
    part = figure.add("tights")
    for side in (-1, 1):
        outline = tube(figure.body.leg(side), figure.body.leg_radii(0.012), n=36)
        figure.canvas.fill(outline, cloth, (part,), relief=0.2, shadow=0.3, edge=0.2)


def draw_belt(figure: Figure, *, y: float) -> None:
    """Draw a broad belt with a large buckle at height `y`."""
    body, rng = figure.body, figure.rng
    leather = rgb(("5b3a24", "25262b", "8a4b2a", "b5793f", "7a1f24")[int(rng.integers(5))])
    belt = figure.add("belt")
    band = mirror([(body.half_width(y) + 0.07, y - 0.11), (body.half_width(y + 0.11) + 0.07, y + 0.12)])
    figure.canvas.fill(body.warp(band), leather, (belt,), relief=0.08, shadow=0.5, edge=0.5)
    buckle = figure.add("buckle")
    centre = body.middle(y)[0]
    metal = rgb("e2bf63") if figure.chance(0.6) else rgb("d5d8dc")
    figure.canvas.fill(box(centre, 0.42, 0.34, soft=0.35), metal, (belt, buckle), relief=0.07, shadow=0.6, edge=0.6)
    figure.canvas.fill(box(centre, 0.24, 0.17, soft=0.3), shade(leather, 0.7), clip=buckle)
    pin = np.array([(-0.14, -0.025), (0.14, -0.02), (0.14, 0.02), (-0.14, 0.025)]) + centre
    figure.canvas.fill(pin, shade(metal, 0.85), clip=buckle)
