"""Hints of the report about the grid."""

import numpy as np

from fashion_hydra.tuning.grid import Grid
from fashion_hydra.tuning.summary import edge_lines

GRID = Grid(
    score_thr=[0.2, 0.4, 0.6],
    iou_thr=[0.3, 0.2, 0.5],
    mask_thr=[0.4, 0.5],
    min_area=[1, 20, 100],
    max_per_image=[100],
    drop={"all": (), "parts": (3,)},
)


def hints(score_of):
    """Return the axes with a hint if `score_of` gives the score of each point."""
    scores = np.array([[score_of(point)] for point in GRID.points()])
    return [line.split("the best ")[1] for line in edge_lines(GRID, scores)]


def test_a_score_that_rises_toward_the_edge_is_hinted_at():
    assert hints(lambda p: p["score_thr"] - p["iou_thr"]) == [
        "score_thr=0.6 is the grid's highest: add values beyond it",
        "iou_thr=0.2 is the grid's lowest: add values beyond it",
    ]


def test_flat_axes_short_axes_and_best_values_inside_are_not():
    assert hints(lambda p: -abs(p["score_thr"] - 0.4) - abs(p["iou_thr"] - 0.3) - 1e-5 * p["min_area"]) == []
    assert hints(lambda p: p["mask_thr"] - (p["iou_thr"] - 0.3) ** 2 - (p["score_thr"] - 0.4) ** 2) == []
