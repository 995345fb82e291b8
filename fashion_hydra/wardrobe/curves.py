"""Smooth outlines as arrays of shape (N, 2), x to the right and y down, in the unit of the given points."""

from collections.abc import Sequence

import numpy as np

Points = np.ndarray  # (N, 2) float


def xy(x: float, y: float) -> np.ndarray:
    """Return a point or an offset as an array (2,)."""
    return np.array([x, y], dtype=np.float64)


def spline(points: Sequence[Sequence[float] | np.ndarray] | Points, *, closed: bool = False, steps: int = 8) -> Points:
    """Return a Catmull-Rom curve through `points` (N, 2), with `steps` samples per segment.

    With `closed` the curve connects the last point to the first.
    """
    p = np.asarray(points, dtype=np.float64)
    before, after = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    p = np.concatenate([before, p, after])
    p0, p1, p2, p3 = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def mirror(points: Sequence[Sequence[float] | np.ndarray] | Points) -> Points:
    """Complete an outline whose right half is `points`, from top to bottom, with the mirrored left half."""
    right = np.asarray(points, dtype=np.float64)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def ellipse(centre: Sequence[float] | np.ndarray, rx: float, ry: float, *, angle: float = 0.0, n: int = 40) -> Points:
    """Return an ellipse with half axes `rx` and `ry`, rotated by `angle` radians (clockwise on screen)."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return turn(np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1), angle) + np.asarray(centre)


def box(
    centre: Sequence[float] | np.ndarray,
    width: float,
    height: float,
    *,
    angle: float = 0.0,
    soft: float = 0.2,
) -> Points:
    """Return a rectangle whose corner radius is `soft` times half the shorter side."""
    r = soft * min(width, height) / 2
    t = np.linspace(0, np.pi / 2, 5)
    corner = np.stack([np.cos(t), np.sin(t)], axis=1) * r
    inner = np.array([width / 2 - r, height / 2 - r])
    quarter = corner + inner
    parts = [quarter, quarter[::-1] * (-1, 1), quarter * (-1, -1), quarter[::-1] * (1, -1)]
    return turn(np.concatenate(parts), angle) + np.asarray(centre)


def turn(points: Points, angle: float) -> Points:
    """Rotate `points` about the origin by `angle` radians (clockwise on screen)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[c, s], [-s, c]])


def limb_path(joints: Sequence[Sequence[float] | np.ndarray], *, steps: int = 24, rounding: int = 5) -> Points:
    """Return the centre line of an arm or leg through its `joints`, with rounded inner joints."""
    j = np.asarray(joints, dtype=np.float64)
    t = np.linspace(0, len(j) - 1, steps * (len(j) - 1) + 1)
    line = np.stack([np.interp(t, np.arange(len(j)), j[:, k]) for k in (0, 1)], axis=1)
    # A moving average over the line, padded by point reflection at its ends, rounds the joints and keeps the ends.
    head = 2 * line[0] - line[rounding:0:-1]
    tail = 2 * line[-1] - line[-2 : -rounding - 2 : -1]
    padded = np.concatenate([head, line, tail])
    kernel = np.ones(2 * rounding + 1) / (2 * rounding + 1)
    return np.stack([np.convolve(padded[:, k], kernel, mode="valid") for k in (0, 1)], axis=1)


def along(path: Points, t: float) -> tuple[Points, Points]:
    """Return the point and the unit direction at the share `t` (0 start, 1 end) of a path."""
    i = t * (len(path) - 1)
    k = np.arange(len(path))
    point = np.array([np.interp(i, k, path[:, 0]), np.interp(i, k, path[:, 1])])
    lo = int(np.clip(np.floor(i), 0, len(path) - 2))
    direction = path[lo + 1] - path[lo]
    return point, direction / np.linalg.norm(direction)


Radii = Sequence[tuple[float, float]]  # (share of the path, radius) knots


def radius_at(radii: Radii, t: float) -> float:
    """Return the radius at the share `t`, interpolated linearly between the knots."""
    return float(np.interp(t, [k[0] for k in radii], [k[1] for k in radii]))


def tube(
    path: Points,
    radii: Radii,
    *,
    start: float = 0.0,
    end: float = 1.0,
    cap: bool = False,
    n: int = 24,
) -> Points:
    """Return the outline around the section `start`..`end` of `path`.

    The `radii` are (share of the section, radius) knots. With `cap` the start is a half disc instead of a straight cut.
    """
    t = np.linspace(start, end, n)
    k = np.arange(len(path))
    centre = np.stack([np.interp(t * (len(path) - 1), k, path[:, i]) for i in (0, 1)], axis=1)
    direction = np.gradient(centre, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    shares, values = zip(*radii, strict=True)
    # Cosine interpolation between the knots avoids kinks at knees and elbows.
    s = np.linspace(0, 1, n)
    lo = np.clip(np.searchsorted(shares, s, side="right") - 1, 0, len(shares) - 2)
    x0, x1 = np.take(shares, lo), np.take(shares, lo + 1)
    w = (1 - np.cos(np.pi * np.clip((s - x0) / (x1 - x0), 0, 1))) / 2
    r = (np.take(values, lo) * (1 - w) + np.take(values, lo + 1) * w)[:, None]
    sides = [centre + normal * r, (centre - normal * r)[::-1]]
    if cap:
        a = np.linspace(0, np.pi, 9)[1:-1, None]
        sides.append(centre[0] - np.cos(a) * normal[0] * r[0] - np.sin(a) * direction[0] * r[0])
    return np.concatenate(sides)
