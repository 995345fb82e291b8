"""Compare tuning methods with exhaustive search."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fashion_hydra.evaluation.bootstrap import bootstrap
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.build import build_score_table
from fashion_hydra.tuning.calibration import KNOTS, fit_calibration
from fashion_hydra.tuning.cross_validation import best_method, compare_methods, cross_fit
from fashion_hydra.tuning.grid import AXES, Grid, scores_of
from fashion_hydra.tuning.methods import BestOnGrid, ClassThresholds, ExpectedScore, FixedRule, Search
from fashion_hydra.utils.errors import UserError

BASE = Postprocess(score_thr=0.05, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
GRID = Grid([0.2, 0.4, 0.6], [0.3, 0.7], [0.45, 0.5], [1, 50], [100, 4], {"none": (), "first": (0,)})


@pytest.fixture(scope="module")
def score_table(scenes):
    return build_score_table(*scenes, [BASE, *GRID.rules(BASE)], workers=1)


@pytest.fixture(scope="module")
def best():
    return BestOnGrid(GRID.rules(BASE))


def test_the_grid_is_every_combination_in_its_axes_order():
    grid = replace(GRID, mask_certainty_power=[0.0, 1.5])
    rules, points = grid.rules(replace(BASE, dropped_labels=(2,))), list(grid.points())
    assert len(rules) == len(points) == len(grid) == 3 * 2 * 2 * 2 * 2 * 2 * 2
    for rule, point in zip(rules, points, strict=True):
        assert {axis: getattr(rule, axis) for axis in AXES[:-1]} == {k: v for k, v in point.items() if k != "drop"}
        assert rule.dropped_labels == ((2,) if point["drop"] == "none" else (0, 2))
    assert [tuple(point.values()) for point in points] == list(
        itertools.product([0.2, 0.4, 0.6], [0.3, 0.7], [0.45, 0.5], [1, 50], [100, 4], [0.0, 1.5], ["none", "first"])
    )
    with pytest.raises(UserError, match=r"grid\.mask_thr"):
        replace(GRID, mask_thr=[])
    with pytest.raises(UserError, match=r"grid\.score_thr"):
        replace(GRID, score_thr=[0.5, 0.5])


def test_the_best_of_a_grid(score_table, best):
    every = [score_table.score(rule) for rule in GRID.rules(BASE)]
    assert score_table.score(best(score_table)) == max(every)
    assert np.allclose(scores_of(score_table, GRID.rules(BASE), pooling="class").mean(axis=1), every)


def search(best, trials=25):
    return Search(best, (0.1, 0.9), (0.3, 0.7), (0.45, 0.5), (1, 500), (1, 100), trials, seed=3)


def test_a_search_starts_from_the_grids_best_and_repeats_itself(score_table, best):
    found = search(best)(score_table)
    assert score_table.score(found) >= score_table.score(best(score_table))
    assert search(best)(score_table) == found
    assert search(best, trials=1)(score_table) == best(score_table)
    assert found.iou_thr in (0.3, 0.7)
    assert 0.1 <= found.score_thr <= 0.9


def test_ascent_over_two_classes_finds_what_no_single_step_betters(score_table, best):
    values = (0.1, 0.3, 0.5, 0.7, 1.0)
    rule = replace(best(score_table), dropped_labels=())
    found = ClassThresholds(FixedRule(rule), values, shrinkage=0)(score_table)
    reached = score_table.score(found)
    assert reached >= score_table.score(rule)
    thresholds = {label: found.label_score_thr.get(label, rule.score_thr) for label in range(3)}
    for label, value in itertools.product(range(3), values):
        assert score_table.score(replace(found, label_score_thr={**thresholds, label: value})) <= reached + 1e-9


def test_thresholds_of_rare_classes_stay_near_the_common_one(score_table, best):
    free, shrunk, stiff = (
        ClassThresholds(best, (0.1, 0.3, 0.5, 0.7, 1.0), s)(score_table).label_score_thr for s in (0, 10, 1e9)
    )
    common = best(score_table).score_thr
    masks = np.bincount(score_table.truth_label, minlength=3)
    assert free
    for label, threshold in free.items():
        expected = common + masks[label] / (masks[label] + 10) * (threshold - common)
        assert shrunk[label] == pytest.approx(expected, abs=1e-4)
    assert stiff == {}


def test_calibrated_probabilities_rise_with_the_score_and_fall_with_the_iou(score_table):
    calibration = fit_calibration(score_table, BASE, weight=5)
    assert (np.diff(calibration.hits, axis=1) >= 0).all()
    assert (np.diff(calibration.hits, axis=2) <= 0).all()
    fine = calibration.probabilities(np.linspace(0, 1, 1001), 1)
    assert (np.diff(fine, axis=0) >= -1e-12).all()
    assert calibration.hits[:, -1, 0].min() > calibration.hits[:, 0, 0].max()


def test_the_calibration_is_right_on_average(score_table):
    """Isotonic regression keeps the mean: the expected number of hits equals the counted number."""
    answered = score_table.answered(BASE)
    calibration = fit_calibration(score_table, BASE, weight=1e9)  # one curve for all classes
    predicted = calibration.probabilities(answered.score, 0)
    counted = (answered.hits[:, None] > np.arange(10)).mean(axis=0)
    assert np.allclose(predicted.mean(axis=0), counted, atol=0.03)
    own = fit_calibration(score_table, BASE, weight=0.01)
    for label in range(3):
        mine = answered.label == label
        predicted = own.probabilities(answered.score[mine], label)[:, 0].mean()
        assert predicted == pytest.approx((answered.hits[mine] > 0).mean(), abs=0.05)
    assert len(KNOTS) == len(own.scores)


def test_expected_scores_choose_better_than_no_threshold(score_table):
    fit = ExpectedScore(FixedRule(BASE), 0.05, 5)
    rule = fit(score_table)
    assert rule.calibration is not None
    assert score_table.score(rule) > score_table.score(BASE)


FOLDS = np.arange(45) % 3


def test_cross_fitting_scores_each_image_with_the_rule_of_the_other_folds(score_table, best):
    method = cross_fit(score_table, "grid", best, FOLDS)
    assert method.rule == best(score_table)
    for fold in range(3):
        rule = best(score_table[np.flatnonzero(fold != FOLDS)])
        assert method.fold_rules[fold] == rule
        assert np.array_equal(method.held_out[fold == FOLDS], score_table.image_scores(rule)[fold == FOLDS])
    assert cross_fit(score_table, "none", FixedRule(BASE), FOLDS).fold_rules == ()


def without_truth(score_table, images):
    """Return the score table without the true masks of these images."""
    spoilt = score_table[np.arange(len(score_table))]
    kept = ~np.isin(score_table.truth_image, images)
    moved = np.cumsum(kept) - 1
    families = {}
    for key, found in score_table._families.items():
        pairs = kept[found.pair_truth]
        changed = {"pair_truth": moved[found.pair_truth[pairs]], "pair_detection": found.pair_detection[pairs]}
        families[key] = replace(found, **changed, iou=found.iou[pairs])
    return type(score_table)(
        spoilt.image_ids, score_table.classes, score_table.truth_image[kept], score_table.truth_label[kept],
        score_table.other_classes, score_table.other_masks, families,
        [score_table._truth_class_ids[i] for i in np.flatnonzero(kept)], score_table._category_ids,
    )  # fmt: skip


def depends_on_its_own_fold(score_table, make_fit):
    """Return whether the rule of any fold depends on the truth of the same fold."""
    for fold in range(3):
        spoilt = without_truth(score_table, np.flatnonzero(fold == FOLDS))
        one, other = (cross_fit(b, "x", make_fit(b), FOLDS).fold_rules[fold] for b in (score_table, spoilt))
        if replace(one, calibration=None) != replace(other, calibration=None):
            return True
        if one.calibration is not None and not np.array_equal(one.calibration.hits, other.calibration.hits):
            return True
    return False


def fine_fit(name):
    """Return a method with so many choices that different sets of images rarely have the same best rule."""
    values = np.round(np.arange(0.06, 0.96, 0.01), 2).tolist()
    grid = BestOnGrid(replace(GRID, score_thr=values, min_area=[1], max_per_image=[100]).rules(BASE))
    made = {"grid": grid, "search": search(grid, trials=8), "per_class": ClassThresholds(grid, values, 5)}
    return made.get(name) or ExpectedScore(grid, 0.05, 5)


NAMES = ["grid", "search", "per_class", "expected"]


@pytest.mark.parametrize("name", NAMES)
def test_no_fit_sees_the_fold_that_it_is_scored_on(score_table, name):
    assert not depends_on_its_own_fold(score_table, lambda table: fine_fit(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_leak_is_caught(score_table, name):
    def leaking(table):
        return lambda part: fine_fit(name)(table)  # uses all images instead of `part`

    assert depends_on_its_own_fold(score_table, leaking)


def test_the_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    interval = bootstrap(values, seed=1)
    assert interval.value == pytest.approx(values.mean())
    spread = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - spread, abs=0.004)
    assert interval.high == pytest.approx(values.mean() + spread, abs=0.004)


def test_differences_within_noise_are_labelled_as_such(score_table):
    good = replace(BASE, score_thr=0.5)
    methods = [cross_fit(score_table, name, FixedRule(rule), FOLDS) for name, rule in
               [("worst", BASE), ("good", good), ("same", replace(good, min_area=2))]]  # fmt: skip
    worst, better, same = compare_methods(methods, seed=0)
    assert worst.gain is None
    assert better.simpler == "worst"
    assert better.beyond_noise
    assert same.simpler == "good"
    assert not same.beyond_noise
    assert best_method([worst, better, same]).method.name == "good"
