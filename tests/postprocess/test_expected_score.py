"""Compare the choice with the highest expected score with a search over every choice and every outcome."""

import itertools
import math

import numpy as np
import pytest

from fashion_hydra.postprocess.expected_score import Calibration, best_sizes, choose, options
from fashion_hydra.utils.errors import UserError

UNSEEN = 12  # more undetected true objects are too improbable to matter


def random_hits(rng, n):
    """Return hit probabilities (n, 10) that decrease along both axes, as for detections by descending score."""
    table = rng.random((n, 10))
    table = np.sort(np.sort(table, axis=0)[::-1], axis=1)[:, ::-1]
    return np.minimum.accumulate(np.minimum.accumulate(table, axis=0), axis=1)


def poisson(mean):
    return np.array([math.exp(-mean) * mean**k / math.factorial(k) for k in range(UNSEEN)])


def expected_by_hand(hits, missed, chosen):
    """Return E[TP / (TP + FP + FN)] for predicting `chosen`, and P(truth or prediction is not empty)."""
    n, total, nothing = len(hits), 0.0, 0.0
    unseen = poisson(missed)
    for threshold in range(10):
        shares = [(1 - hits[i, 0], hits[i, 0] - hits[i, threshold], hits[i, threshold]) for i in range(n)]
        for states in itertools.product((0, 1, 2), repeat=n):
            chance = math.prod(share[state] for share, state in zip(shares, states, strict=True))
            if chance == 0:
                continue
            true = sum(state > 0 for state in states)
            tp = sum(states[i] == 2 for i in chosen)
            for u, its in enumerate(unseen):
                if true + u + len(chosen):
                    total += chance * its * tp / (true + u + len(chosen) - tp)
                elif threshold == 0:
                    nothing += chance * its
    return total / 10, 1 - nothing if not chosen else 1.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("missed", [0.0, 0.3])
def test_expected_scores_are_those_of_all_outcomes(seed, missed):
    hits = random_hits(np.random.default_rng(seed), 3)
    found = options(hits, missed)
    for size in range(4):
        score, present = expected_by_hand(hits, missed, range(size))
        assert found.scores[size] == pytest.approx(score, abs=1e-6)
        assert found.present[size] == pytest.approx(present, abs=1e-6)


def jaccard_of_subsets(hits, missed):
    """Return {bits: E} for every subset of up to ten detections whose probabilities do not depend on the threshold."""
    n = len(hits)
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1  # (2^n, n), used for outcomes and for subsets
    chance = np.where(bits == 1, hits[:, 0], 1 - hits[:, 0]).prod(axis=1)
    true, size = bits.sum(1), bits.sum(1)
    both = bits @ bits.T  # (subset, outcome)
    value = np.zeros(2**n)
    for u, its in enumerate(poisson(missed)):
        union = true[None] + u + size[:, None] - both
        value += its * (chance[None] * np.where(union > 0, both / np.maximum(1, union), 0)).sum(axis=1)
    return value, bits


@pytest.mark.parametrize("n", [1, 4, 7, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5])
def test_no_subset_of_up_to_ten_detections_is_expected_to_score_more(n, ratio):
    rng = np.random.default_rng(n)
    hits = np.repeat(np.sort(rng.random(n))[::-1, None], 10, axis=1)
    values, bits = jaccard_of_subsets(hits, 0.4)
    nothing = np.prod(1 - hits[:, 0]) * math.exp(-0.4)
    worth = values - ratio * np.where(bits.any(1), 1.0, 1 - nothing)
    found = options(hits, 0.4)
    ours = found.scores - ratio * found.present
    assert ours.max() == pytest.approx(worth.max(), abs=1e-9)
    best = bits[int(worth.argmax())]
    assert best.tolist() == (np.arange(n) < int(ours.argmax())).astype(int).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_with_ten_different_iou_thresholds_too_the_best_scores_are_best(seed):
    hits = random_hits(np.random.default_rng(seed), 3)
    every = [s for size in range(4) for s in itertools.combinations(range(3), size)]
    found = options(hits, 0.2)
    for ratio in (0.0, 0.4):
        by_hand = max(score - ratio * present for score, present in (expected_by_hand(hits, 0.2, s) for s in every))
        assert (found.scores - ratio * found.present).max() == pytest.approx(by_hand, abs=1e-6)


def test_the_sizes_maximise_the_ratio_over_all_classes_of_the_image():
    rng = np.random.default_rng(0)
    for _ in range(20):
        of_classes = [options(random_hits(rng, n), rng.uniform(0, 0.5)) for n in (2, 3, 1)]
        others = rng.uniform(0, 2)

        def ratio(sizes, of_classes=of_classes, others=others):
            pairs = list(zip(of_classes, sizes, strict=True))
            return sum(o.scores[k] for o, k in pairs) / (sum(o.present[k] for o, k in pairs) + others)

        best = max(itertools.product(range(3), range(4), range(2)), key=ratio)
        assert ratio(best_sizes(of_classes, others=others)) == pytest.approx(ratio(best))


def calibration(**changes):
    scores = np.array([0.0, 0.5, 1.0])
    rising = np.array([0.0, 0.2, 0.9])[None, :, None] * np.linspace(1, 0.3, 10)
    return Calibration(
        **{"scores": scores, "hits": np.repeat(rising, 2, axis=0), "missed": np.zeros((2, 2)), "others": 0.0, **changes}
    )


def test_probabilities_lie_between_the_knots():
    found = calibration().probabilities(np.array([0.0, 0.25, 0.5, 0.75, 1.0]), 0)
    assert found[:, 0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.55, 0.9])
    assert calibration(scores=np.array([0.1, 0.5, 0.6])).probabilities(np.array([0.05, 0.9]), 1)[:, 0].tolist() == [
        0.0,
        0.9,
    ]


def test_sure_detections_stay_and_doubtful_ones_beside_them_go():
    kept = choose(np.array([0.95, 0.9, 0.3, 0.2]), np.array([0, 1, 0, 1]), calibration())
    assert kept.tolist() == [True, True, False, False]
    assert choose(np.zeros(0), np.zeros(0, np.int64), calibration()).tolist() == []


def test_a_doubtful_detection_is_answered_where_its_class_is_surely_there():
    scores, labels = np.array([0.5]), np.array([0])
    assert choose(scores, labels, calibration(missed=np.array([[0, 4.0], [0, 0]]))).tolist() == [True]
    assert choose(np.array([0.95, 0.2]), np.array([1, 0]), calibration()).tolist() == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"hits": np.full((2, 3, 10), 1.5)},
        {"hits": np.repeat(np.linspace(1, 0, 3)[None, :, None], 10, axis=2).repeat(2, axis=0)},
        {"missed": np.zeros((3, 2))},
        {"scores": np.array([0.5, 0.5, 1.0])},
        {"others": -1.0},
    ],
)
def test_an_invalid_calibration_is_refused(changes):
    with pytest.raises(UserError, match="calibration"):
        calibration(**changes)
