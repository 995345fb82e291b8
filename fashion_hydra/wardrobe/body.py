"""Proportions and pose of a figure: positions of joints and widths, in head heights.

The origin is the middle of the hips, x points right in the picture and y down. `side` is -1 for the limb on the left of
the picture and +1 for the limb on the right.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fashion_hydra.wardrobe.curves import Points, limb_path, mirror, radius_at, spline, turn

SIDES = (-1, 1)


@dataclass(frozen=True)
class ArmPose:
    """Angles of an arm in radians from straight down, outwards positive; `bend` is added at the elbow."""

    raise_: float
    bend: float
    in_front: bool = True


@dataclass(frozen=True)
class LegPose:
    """Angles of a leg, measured as in `ArmPose`; `lift` shortens the shin of a leg that steps back."""

    spread: float
    bend: float
    lift: float = 0.0


@dataclass(frozen=True)
class Body:
    """Proportions and pose of one figure."""

    shoulder: float  # half widths
    chest: float
    waist: float
    hip: float
    torso: float  # lengths
    thigh: float
    shin: float
    limb: float  # thickness of arms and legs, 1 is average
    lean: float  # sideways shift of the shoulders
    yaw: float  # how far the chest is turned to the picture's right, -1..1
    tilt: float  # tilt of the head in radians
    arms: tuple[ArmPose, ArmPose]  # left and right in the picture
    legs: tuple[LegPose, LegPose]

    @property
    def neck(self) -> Points:
        """Position of the pit of the neck."""
        return np.array([self.lean, -self.torso])

    @property
    def head(self) -> Points:
        """Position of the centre of the head, which has a half height of 0.5."""
        return self.neck + np.array([0.5 * self.lean + 0.06 * self.yaw, -0.72])

    @property
    def waist_y(self) -> float:
        """Y coordinate of the waist."""
        return -0.36 * self.torso

    @property
    def armpit_y(self) -> float:
        """Y coordinate of the armpits."""
        return -self.torso + 0.52

    def warp(self, points: Points) -> Points:
        """Shift points of an upright torso by the lean of the spine."""
        points = np.array(points, dtype=np.float64)
        share = np.clip(-points[:, 1] / self.torso, 0, 1.2)
        points[:, 0] += self.lean * share**1.5
        return points

    def middle(self, y: float | np.ndarray) -> np.ndarray:
        """Return points (N, 2) on the middle line of the chest at heights `y`, for buttons and zippers."""
        y = np.atleast_1d(np.asarray(y, dtype=np.float64))
        return self.warp(np.stack([0.38 * self.yaw * self._half_widths(y), y], axis=1))

    def half_width(self, y: float) -> float:
        """Return half the width of the unclothed torso at height `y`."""
        return float(self._half_widths(np.array(y)))

    def _half_widths(self, y: np.ndarray) -> np.ndarray:
        stations = [-self.torso, self.armpit_y, self.waist_y, 0.0, 0.4]
        widths = [0.9 * self.shoulder, self.chest, self.waist, self.hip, 0.97 * self.hip]
        return np.asarray(np.interp(y, stations, widths))

    def bodice(
        self,
        hem_y: float,
        *,
        ease: float,
        hem: float | None = None,
        shoulder: float = 0.0,
        neck: float = 0.24,
        cinch: float = 1.0,
    ) -> Points:
        """Return a garment's outline from the neck to `hem_y`, `ease` wider than the body, with half width `hem`."""
        hem = self.half_width(min(hem_y, 0.4)) + ease if hem is None else hem
        tip = (self.shoulder - 0.05 + shoulder, -self.torso + 0.1)
        sides = [
            (self.shoulder - 0.02 + shoulder, -self.torso + 0.2),
            (self.chest + ease, self.armpit_y),
        ]
        if hem_y > self.waist_y + 0.15:
            sides.append((self.waist + ease * cinch, self.waist_y))
        if hem_y > 0.2:
            share = 0.45 if hem_y < 0.8 else 0.12
            sides.append((max((self.hip + ease) * (1 - share) + hem * share, self.hip + 0.03), 0.0))
        sides.append((hem, hem_y))
        right = [
            (neck, -self.torso - 0.1),
            (0.62 * tip[0] + 0.3 * neck, -self.torso - 0.02),
            *spline([tip, *sides]),
        ]
        return self.warp(mirror(right))

    @cached_property
    def _arm_paths(self) -> tuple[Points, Points]:
        return self._arm(-1), self._arm(1)

    @cached_property
    def _leg_paths(self) -> tuple[Points, Points]:
        return self._leg(-1), self._leg(1)

    def arm(self, side: int) -> Points:
        """Return the centre line from shoulder to wrist."""
        return self._arm_paths[side > 0]

    def leg(self, side: int) -> Points:
        """Return the centre line from hip to ankle."""
        return self._leg_paths[side > 0]

    def _arm(self, side: int) -> Points:
        pose = self.arms[side > 0]
        start = self.neck + np.array([side * (self.shoulder - 0.17), 0.27])
        down = np.array([[0.0, 1.0]])
        elbow = start + 0.92 * turn(down, -side * pose.raise_)[0]
        wrist = elbow + 0.86 * turn(down, -side * (pose.raise_ + pose.bend))[0]
        return limb_path([start, elbow, wrist])

    def _leg(self, side: int) -> Points:
        pose = self.legs[side > 0]
        start = np.array([side * 0.5 * self.hip, 0.12])
        down = np.array([[0.0, 1.0]])
        knee = start + self.thigh * turn(down, -side * pose.spread)[0]
        ankle = knee + self.shin * (1 - pose.lift) * turn(down, -side * (pose.spread + pose.bend))[0]
        return limb_path([start, knee, ankle])

    def legs_reach(self, y: float) -> float:
        """Return how far the legs extend sideways above height `y`: the minimum half width of a hem at `y`."""
        reach = [0.0]
        for side in SIDES:
            path = self.leg(side)
            radii = [radius_at(self.leg_radii(), t) for t in np.linspace(0, 1, len(path))]
            above = (path[:, 1] < y) & (path[:, 1] > 0.4)
            reach += (np.abs(path[:, 0]) + radii)[above].tolist()
        return max(reach)

    def arm_radii(self, pad: float = 0.0) -> list[tuple[float, float]]:
        """Return the knots of the arm's radius plus `pad`, for `tube`."""
        return [(0, 0.19 * self.limb + pad), (0.5, 0.145 * self.limb + pad), (1, 0.105 * self.limb + pad)]

    def leg_radii(self, pad: float = 0.0) -> list[tuple[float, float]]:
        """Return the knots of the leg's radius plus `pad`, for `tube`."""
        k = self.limb
        knots = [
            (0, 0.52 * self.hip * 1.02),
            (0.3, 0.27 * k),
            (0.5, 0.2 * k),
            (0.66, 0.2 * k),
            (1, 0.115 * k),
        ]
        return [(t, r + pad) for t, r in knots]


def _arm_pose(rng: np.random.Generator) -> ArmPose:
    kind = rng.choice(["hang", "hip", "out", "wave", "fold"], p=[0.52, 0.2, 0.12, 0.06, 0.10])
    wobble = rng.uniform(-0.06, 0.06)
    match kind:
        case "hip":
            return ArmPose(0.68 + wobble, -1.45 + wobble)
        case "out":
            return ArmPose(0.55 + 4 * wobble, 0.25 + 4 * wobble)
        case "wave":
            return ArmPose(1.05 + 2 * wobble, 1.5 + 3 * wobble)
        case "fold":
            return ArmPose(0.3 + wobble, -2.0 + 2 * wobble)
    return ArmPose(float(rng.uniform(0.12, 0.32)), float(rng.uniform(-0.28, 0.02)))


def draw_body(rng: np.random.Generator, *, feminine: bool) -> Body:
    """Draw a random build and pose."""
    build = float(np.clip(rng.normal(1.0, 0.08), 0.86, 1.2))
    legs: tuple[LegPose, LegPose]
    stance = rng.choice(["straight", "wide", "contrapposto", "walk"], p=[0.3, 0.22, 0.26, 0.22])
    spread = float(rng.uniform(0.0, 0.05))
    match stance:
        case "wide":
            legs = (LegPose(spread + 0.1, -0.02), LegPose(spread + 0.1, -0.02))
        case "contrapposto":
            legs = (LegPose(0.02, 0.02), LegPose(0.2, -0.24, 0.03))
        case "walk":
            legs = (LegPose(0.02, -0.06), LegPose(0.06, -0.08, float(rng.uniform(0.1, 0.22))))
        case _:
            legs = (LegPose(spread, 0.0), LegPose(spread, 0.0))
    if rng.random() < 0.5:
        legs = legs[::-1]
    return Body(
        shoulder=(0.74 if feminine else 0.86) * build,
        chest=(0.54 if feminine else 0.62) * build,
        waist=(0.43 if feminine else 0.55) * build,
        hip=(0.58 if feminine else 0.57) * build,
        torso=float(rng.uniform(1.85, 2.05)),
        thigh=float(rng.uniform(1.4, 1.6)),
        shin=float(rng.uniform(1.3, 1.5)),
        limb=build * (0.94 if feminine else 1.1),
        lean=float(rng.normal(0, 0.06)),
        yaw=float(rng.uniform(-0.55, 0.55)),
        tilt=float(rng.normal(0, 0.06)),
        arms=(_arm_pose(rng), _arm_pose(rng)),
        legs=legs,
    )
