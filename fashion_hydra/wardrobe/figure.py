"""The state shared by all drawing functions of one person, and the parts that several garments use."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fashion_hydra.data.imaterialist import NUM_WITH_ATTRIBUTES, attribute_id, category_id
from fashion_hydra.wardrobe.body import Body
from fashion_hydra.wardrobe.canvas import Canvas, Colour, Instance
from fashion_hydra.wardrobe.colours import rgb, shade
from fashion_hydra.wardrobe.curves import Points, along, box, ellipse, mirror, radius_at, spline, tube, xy
from fashion_hydra.wardrobe.fabrics import Fabric

_category = lru_cache(category_id)
_attribute = lru_cache(attribute_id)


@dataclass(frozen=True)
class Sleeve:
    """A sleeve that is drawn later, together with the arms; `end` is the share of the arm that it covers."""

    garment: Instance
    fabric: Fabric
    end: float
    pad: float
    flare: float = 0.0
    puff: float = 0.0
    cuff: Fabric | None = None


@dataclass
class Figure:
    """One person being drawn."""

    canvas: Canvas
    body: Body
    rng: np.random.Generator
    skin: Colour
    hair: Colour
    feminine: bool
    sleeve: Sleeve | None = None

    def add(self, name: str, *attributes: str | int) -> Instance:
        """Add an instance; a garment gets the given attributes, or none in 6 % of cases, as in the real data."""
        category = _category(name)
        ids = [a if isinstance(a, int) else _attribute(a) for a in attributes]
        bare = category >= NUM_WITH_ATTRIBUTES or self.rng.random() < 0.06
        return self.canvas.add(category, () if bare else ids)

    def chance(self, share: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < share)

    def pick(self, *options: str) -> str:
        """Return a random option."""
        return options[int(self.rng.integers(len(options)))]

    def buttons(
        self,
        garment: Instance,
        y0: float,
        y1: float,
        count: int,
        *,
        xs: tuple[float, ...] = (0.0,),
        size: float = 0.04,
    ) -> None:
        """Draw a row of buttons down the chest for each of `xs`, the offset from the middle line."""
        colour = (0.2, 0.17, 0.15) if self.chance(0.6) else (0.93, 0.9, 0.82)
        for x in xs:
            for point in self.body.middle(np.linspace(y0, y1, count)):
                disc = ellipse(point + xy(x, 0), size, size, n=16)
                self.canvas.fill(disc, colour, clip=garment, relief=size, edge=0.3, shadow=0.3)

    def seam(
        self, garment: Instance, points: Points, colour: Colour, *, width: float = 0.025, opacity: float = 0.6
    ) -> None:
        """Draw a seam or a row of stitches on a garment."""
        self.canvas.line(points, width, colour, clip=garment, opacity=opacity)

    def zipper(
        self, garment: Instance, part: Instance, middle: Points, half: float, cloth: Fabric, *, slider: bool
    ) -> None:
        """Draw a zipper's band of half width `half` along `middle`, with teeth and, if wanted, a slider at its top."""
        canvas, teeth = self.canvas, rgb("e9dfc0")
        band = np.concatenate([middle - xy(half, 0), (middle + xy(half, 0))[::-1]])
        canvas.fill(band, shade(cloth.base, 0.4), (garment, part), clip=garment, edge=0.3)
        canvas.line(middle, 0.06, teeth, clip=part)
        for k in np.linspace(0, len(middle) - 1.01, 40):
            at = middle[int(k)] + (middle[int(k) + 1] - middle[int(k)]) * (k % 1)
            canvas.line(np.array([at - xy(0.03, 0), at + xy(0.03, 0)]), 0.012, shade(teeth, 0.45), clip=part)
        if slider:
            pull = box(middle[1] + xy(0, 0.04), 0.09, 0.2, soft=0.6)
            canvas.fill(pull, teeth, clip=garment, relief=0.04, shadow=0.4, edge=0.4)

    def pocket(self, garment: Instance, outline: Points, fabric: Fabric, *, shadow: float = 0.35) -> None:
        """Draw a pocket on a garment."""
        part = self.add("pocket")
        self.canvas.fill(outline, fabric, (garment, part), clip=garment, relief=0.06, shadow=shadow, edge=0.55)
        inner = (outline - outline.mean(axis=0)) * 0.84 + outline.mean(axis=0)
        self.seam(garment, np.concatenate([inner, inner[:1]]), shade(fabric.base, 1.5), opacity=0.5)

    def neckline(self, garment: Instance, fabric: Fabric, *, depth: float, width: float, band: float = 0.13) -> None:
        """Draw a neck hole that reaches `depth` below the pit of the neck, with a band around it."""
        body = self.body
        top = -body.torso - 0.12

        def hole(grow: float) -> Points:
            low = (0.0, -body.torso + depth + grow)
            right = [(width + grow, top), (width * 0.8 + grow, -body.torso + 0.35 * depth), low]
            return body.warp(mirror(spline(right, steps=8)))

        part = self.add("neckline")
        self.canvas.fill(hole(band), fabric, (garment, part), clip=garment, relief=0.05, edge=0.4, shadow=0.2)
        self._bare(garment, hole(0.0))

    def vneck(self, garment: Instance, fabric: Fabric, *, depth: float, width: float, band: float = 0.13) -> None:
        """Draw a neckline like `neckline`, but V-shaped."""
        body = self.body
        top = -body.torso - 0.12

        def hole(grow: float) -> Points:
            right = [(width + grow, top), (0.0, -body.torso + depth + 1.8 * grow)]
            return body.warp(mirror(right))

        part = self.add("neckline")
        self.canvas.fill(hole(band), fabric, (garment, part), clip=garment, relief=0.05, edge=0.4, shadow=0.2)
        self._bare(garment, hole(0.0))

    def _bare(self, garment: Instance, hole: Points) -> None:
        """Draw skin and neck inside a neck hole, with a shadow along the rim."""
        self.canvas.fill(hole, shade(self.skin, 0.93), (), clip=garment)
        self.canvas.line(hole, 0.035, shade(self.skin, 0.62), opacity=0.5)
        self.draw_neck()

    def draw_neck(self) -> None:
        """Draw the neck, from the chin to the collar bones."""
        right = np.array([(0.18, -0.5), (0.18, -0.14), (0.23, 0.0), (0.14, 0.12), (0, 0.15)])
        right += xy(0, -self.body.torso)
        self.canvas.fill(self.body.warp(mirror(right)), self.skin, (), relief=0.16)

    def draw_sleeve(self, side: int, sleeve: Sleeve) -> None:
        """Draw the sleeve of one arm; its pixels belong to the sleeve and to the garment."""
        body, canvas = self.body, self.canvas
        part = self.add("sleeve")
        path = body.arm(side)
        pad, end = sleeve.pad, sleeve.end
        radii = body.arm_radii(pad)
        # A set-in sleeve is no wider at the shoulder than the shoulder is high.
        radii[0] = (0, min(radii[0][1], 0.25))
        knots = [(t, radius_at(radii, t * end)) for t in (0.0, 0.35, 0.7, 1.0)]
        extra = {0.0: 0.0, 0.35: sleeve.puff, 0.7: sleeve.puff * 0.9 + sleeve.flare * 0.4, 1.0: sleeve.flare}
        outline = tube(path, [(t, r + extra[t]) for t, r in knots], end=end, cap=True)
        owners = (sleeve.garment, part)
        _, direction = along(path, end / 2)
        angle = float(np.arctan2(-direction[0], direction[1]))
        folds = self._sleeve_folds(path, end, knots[1][1])
        canvas.fill(
            outline,
            sleeve.fabric,
            owners,
            relief=0.16,
            shadow=0.4,
            edge=0.35,
            angle=angle,
            anchor=path[0],
            folds=folds,
        )
        if sleeve.cuff is not None:
            width = 0.12 if end < 0.8 else 0.13
            wrist = knots[-1][1] + sleeve.flare
            ring = tube(path, [(0, wrist + 0.012), (1, wrist - 0.012)], start=end - width / 1.4, end=end, n=6)
            canvas.fill(ring, sleeve.cuff, owners, relief=0.1, edge=0.45, angle=angle, anchor=path[0])

    def _sleeve_folds(self, path: Points, end: float, radius: float) -> list[tuple[Points, float, float]]:
        folds = []
        centres = [0.42, 0.5, 0.58] if end > 0.7 else [end * 0.7]
        for centre in centres:
            t = centre + float(self.rng.uniform(-0.04, 0.04))
            if t > end - 0.05:
                continue
            point, direction = along(path, t)
            across = np.array([-direction[1], direction[0]])
            a = point - across * radius * self.rng.uniform(0.2, 1.0)
            b = point + across * radius * self.rng.uniform(0.2, 1.0) + direction * self.rng.uniform(-0.12, 0.12)
            folds.append((np.stack([a, (a + b) / 2 + 0.03 * direction, b]), 0.05, float(self.rng.uniform(0.25, 0.5))))
        return folds
