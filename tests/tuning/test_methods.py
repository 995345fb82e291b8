"""Ways to find rules, against trying everything."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fashion_hydra.evaluation.bootstrap import bootstrap
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.build import gather
from fashion_hydra.tuning.calibration import KNOTS, fit_calibration
from fashion_hydra.tuning.cross_validation import cross_fit, judge, winner_of
from fashion_hydra.tuning.grid import AXES, Grid, scores_of
from fashion_hydra.tuning.methods import BestOf, Expected, Fixed, PerClass, Search
from fashion_hydra.utils.errors import UserError

BASE = Postprocess(score_thr=0.05, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
GRID = Grid([0.2, 0.4, 0.6], [0.3, 0.7], [0.45, 0.5], [1, 50], [100, 4], {"none": (), "first": (0,)})


@pytest.fixture(scope="module")
def board(scenes):
    return gather(*scenes, [BASE, *GRID.rules(BASE)], workers=1)


@pytest.fixture(scope="module")
def best():
    return BestOf(GRID.rules(BASE))


def test_the_grid_is_every_combination_in_its_axes_order():
    rules, points = GRID.rules(replace(BASE, dropped_labels=(2,))), list(GRID.points())
    assert len(rules) == len(points) == len(GRID) == 3 * 2 * 2 * 2 * 2 * 2
    for rule, point in zip(rules, points, strict=True):
        assert {axis: getattr(rule, axis) for axis in AXES[:-1]} == {k: v for k, v in point.items() if k != "drop"}
        assert rule.dropped_labels == ((2,) if point["drop"] == "none" else (0, 2))
    assert [tuple(point.values()) for point in points] == list(
        itertools.product([0.2, 0.4, 0.6], [0.3, 0.7], [0.45, 0.5], [1, 50], [100, 4], ["none", "first"])
    )
    with pytest.raises(UserError, match=r"grid\.mask_thr"):
        replace(GRID, mask_thr=[])
    with pytest.raises(UserError, match=r"grid\.score_thr"):
        replace(GRID, score_thr=[0.5, 0.5])


def test_the_best_of_a_grid(board, best):
    every = [board.score(rule) for rule in GRID.rules(BASE)]
    assert board.score(best(board)) == max(every)
    assert np.allclose(scores_of(board, GRID.rules(BASE), pooling="class").mean(axis=1), every)


def search(best, trials=25):
    return Search(best, (0.1, 0.9), (0.3, 0.7), (0.45, 0.5), (1, 500), (1, 100), trials, seed=3)


def test_a_search_starts_from_the_grids_best_and_repeats_itself(board, best):
    found = search(best)(board)
    assert board.score(found) >= board.score(best(board))
    assert search(best)(board) == found
    assert search(best, trials=1)(board) == best(board)
    assert found.iou_thr in (0.3, 0.7)
    assert 0.1 <= found.score_thr <= 0.9


def test_ascent_over_two_classes_finds_what_no_single_step_betters(board, best):
    values = (0.1, 0.3, 0.5, 0.7, 1.0)
    rule = replace(best(board), dropped_labels=())
    found = PerClass(Fixed(rule), values, shrinkage=0)(board)
    reached = board.score(found)
    assert reached >= board.score(rule)
    thresholds = {label: found.label_score_thr.get(label, rule.score_thr) for label in range(3)}
    for label, value in itertools.product(range(3), values):
        assert board.score(replace(found, label_score_thr={**thresholds, label: value})) <= reached + 1e-9


def test_thresholds_of_rare_classes_stay_near_the_common_one(board, best):
    free, shrunk, stiff = (PerClass(best, (0.1, 0.3, 0.5, 0.7, 1.0), s)(board).label_score_thr for s in (0, 10, 1e9))
    common = best(board).score_thr
    masks = np.bincount(board.truth_label, minlength=3)
    assert free
    for label, threshold in free.items():
        expected = common + masks[label] / (masks[label] + 10) * (threshold - common)
        assert shrunk[label] == pytest.approx(expected, abs=1e-4)
    assert stiff == {}


def test_calibrated_probabilities_rise_with_the_score_and_fall_with_the_iou(board):
    calibration = fit_calibration(board, BASE, weight=5)
    assert (np.diff(calibration.hits, axis=1) >= 0).all()
    assert (np.diff(calibration.hits, axis=2) <= 0).all()
    fine = calibration.probabilities(np.linspace(0, 1, 1001), 1)
    assert (np.diff(fine, axis=0) >= -1e-12).all()
    assert calibration.hits[:, -1, 0].min() > calibration.hits[:, 0, 0].max()


def test_the_calibration_is_right_on_average(board):
    """Isotonic regression keeps the mean: as many hits as were counted."""
    answered = board.answered(BASE)
    calibration = fit_calibration(board, BASE, weight=1e9)  # one curve for all classes
    told = calibration.probabilities(answered.score, 0)
    counted = (answered.hits[:, None] > np.arange(10)).mean(axis=0)
    assert np.allclose(told.mean(axis=0), counted, atol=0.03)
    own = fit_calibration(board, BASE, weight=0.01)
    for label in range(3):
        mine = answered.label == label
        told = own.probabilities(answered.score[mine], label)[:, 0].mean()
        assert told == pytest.approx((answered.hits[mine] > 0).mean(), abs=0.05)
    assert len(KNOTS) == len(own.scores)


def test_expected_scores_choose_better_than_no_threshold(board):
    fit = Expected(Fixed(BASE), 0.05, 5)
    rule = fit(board)
    assert rule.calibration is not None
    assert board.score(rule) > board.score(BASE)


FOLDS = np.arange(45) % 3


def test_cross_fitting_scores_each_image_with_the_rule_of_the_other_folds(board, best):
    method = cross_fit(board, "grid", best, FOLDS)
    assert method.rule == best(board)
    for fold in range(3):
        rule = best(board[np.flatnonzero(fold != FOLDS)])
        assert method.fold_rules[fold] == rule
        assert np.array_equal(method.held_out[fold == FOLDS], board.image_scores(rule)[fold == FOLDS])
    assert cross_fit(board, "none", Fixed(BASE), FOLDS).fold_rules == ()


def without_truth(board, images):
    """The same board, but that nothing is true in these images."""
    spoilt = board[np.arange(len(board))]
    kept = ~np.isin(board.truth_image, images)
    moved = np.cumsum(kept) - 1
    families = {}
    for key, found in board._families.items():
        pairs = kept[found.pair_truth]
        changed = {"pair_truth": moved[found.pair_truth[pairs]], "pair_detection": found.pair_detection[pairs]}
        families[key] = replace(found, **changed, iou=found.iou[pairs])
    return type(board)(
        spoilt.image_ids, board.classes, board.truth_image[kept], board.truth_label[kept],
        board.other_classes, board.other_masks, families,
    )  # fmt: skip


def depends_on_its_own_fold(board, make_fit):
    """Whether some fold's rule changes with the truth of that very fold."""
    for fold in range(3):
        spoilt = without_truth(board, np.flatnonzero(fold == FOLDS))
        one, other = (cross_fit(b, "x", make_fit(b), FOLDS).fold_rules[fold] for b in (board, spoilt))
        if replace(one, calibration=None) != replace(other, calibration=None):
            return True
        if one.calibration is not None and not np.array_equal(one.calibration.hits, other.calibration.hits):
            return True
    return False


def fine_fit(name):
    """A fit with so many choices that hardly two sets of images have the same best."""
    values = np.round(np.arange(0.06, 0.96, 0.01), 2).tolist()
    grid = BestOf(replace(GRID, score_thr=values, min_area=[1], max_per_image=[100]).rules(BASE))
    made = {"grid": grid, "search": search(grid, trials=8), "per_class": PerClass(grid, values, 5)}
    return made.get(name) or Expected(grid, 0.05, 5)


NAMES = ["grid", "search", "per_class", "expected"]


@pytest.mark.parametrize("name", NAMES)
def test_no_fit_sees_the_fold_that_it_is_scored_on(board, name):
    assert not depends_on_its_own_fold(board, lambda whole: fine_fit(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_leak_is_caught(board, name):
    def leaking(whole):
        return lambda part: fine_fit(name)(whole)  # looks at all images, whatever it is given

    assert depends_on_its_own_fold(board, leaking)


def test_the_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    interval = bootstrap(values, seed=1)
    assert interval.value == pytest.approx(values.mean())
    spread = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - spread, abs=0.004)
    assert interval.high == pytest.approx(values.mean() + spread, abs=0.004)


def test_what_is_not_better_beyond_noise_is_said_to_be_so(board):
    good = replace(BASE, score_thr=0.5)
    methods = [cross_fit(board, name, Fixed(rule), FOLDS) for name, rule in
               [("worst", BASE), ("good", good), ("same", replace(good, min_area=2))]]  # fmt: skip
    worst, better, same = judge(methods, seed=0)
    assert worst.gain is None
    assert better.simpler == "worst"
    assert better.beyond_noise
    assert same.simpler == "good"
    assert not same.beyond_noise
    assert winner_of([worst, better, same]).method.name == "good"
