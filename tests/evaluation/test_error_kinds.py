"""Kinds of errors: cases by hand, and sums compared with the counts of the competition score."""

import numpy as np
import pytest

from fashion_hydra.evaluation.competition_score import count_image
from fashion_hydra.evaluation.error_kinds import FALSE_POSITIVES, MISSES, ErrorCounts, classify_errors
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_coco


def bar(start, stop, row=0):
    """Make a mask one pixel high on a grid of 100 x 100, so that IoUs are ratios of lengths."""
    bitmap = np.zeros((100, 100), np.uint8)
    bitmap[row, start:stop] = 1
    return runs_to_coco(bitmap_to_runs(bitmap), height=100, width=100)


def kinds(predicted, true):
    return tuple([judged.kind for judged in side] for side in classify_errors(predicted, true))


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([("6", bar(0, 10))], [("6", bar(0, 12))], (["hit"], ["hit"])),
        # an IoU of exactly 0.5 is not a hit, and exactly 0.1 is not a poor mask
        ([("6", bar(0, 10))], [("6", bar(0, 20))], (["poor mask"], ["poor mask"])),
        ([("6", bar(0, 2))], [("6", bar(0, 20))], (["background"], ["missed"])),
        ([("6", bar(0, 10))], [("7", bar(0, 12))], (["wrong class"], ["wrong class"])),
        ([("6", bar(0, 10))], [("6_28", bar(0, 12))], (["wrong class"], ["wrong class"])),
        ([("6", bar(0, 10))], [("7", bar(0, 20))], (["background"], ["missed"])),
        ([("6", bar(0, 10))], [], (["background"], [])),
        ([], [("6", bar(0, 10))], ([], ["missed"])),
        ([], [], ([], [])),
        # a remainder on a true mask that another prediction hits; the higher IoU is the hit, in any order
        ([("6", bar(0, 3)), ("6", bar(3, 20))], [("6", bar(0, 20))], (["duplicate", "hit"], ["hit"])),
        ([("6", bar(0, 20)), ("6", bar(0, 20))], [("6", bar(0, 20))], (["hit", "duplicate"], ["hit"])),
        # exactly half of the prediction on that true mask is not more than half
        ([("6", bar(0, 18)), ("6", bar(18, 22))], [("6", bar(0, 20))], (["hit", "background"], ["hit"])),
        # both halves are poor masks, and nothing hits the true mask
        ([("6", bar(0, 10)), ("6", bar(10, 20))], [("6", bar(0, 20))], (["poor mask"] * 2, ["poor mask"])),
        # wrong class takes precedence over poor mask, for the prediction and for the true mask
        (
            [("6", bar(0, 10))],
            [("7", bar(0, 10)), ("6", bar(0, 30))],
            (["wrong class"], ["wrong class", "missed"]),
        ),
        (
            [("6", bar(0, 9)), ("7", bar(0, 18))],
            [("6", bar(0, 20))],
            (["poor mask", "wrong class"], ["wrong class"]),
        ),
        # a hit of another class does not turn a miss into a wrong class
        (
            [("7", bar(0, 20))],
            [("7", bar(0, 20)), ("6", bar(0, 20))],
            (["hit"], ["hit", "missed"]),
        ),
    ],
)
def test_by_hand(predicted, true, expected):
    assert kinds(predicted, true) == expected


def test_ious_are_those_of_the_masks_that_decide():
    found, lost = classify_errors(
        [("6", bar(0, 10)), ("6", bar(50, 60)), ("7", bar(0, 12)), ("8", bar(98, 100))],
        [("6", bar(0, 12)), ("6", bar(58, 78)), ("8", bar(0, 100))],
    )
    assert [j.iou for j in found] == pytest.approx([10 / 12, 2 / 28, 1.0, 2 / 100])
    assert [j.iou for j in lost] == pytest.approx([10 / 12, 2 / 28, 2 / 100])
    assert [j.partner for j in found] == [0, -1, 0, -1]
    assert [j.partner for j in lost] == [0, -1, -1]


def random_masks(rng, count):
    masks = []
    for _ in range(count):
        x, y, w, h = *rng.integers(0, 40, 2), *rng.integers(4, 30, 2)
        bitmap = np.zeros((64, 64), np.uint8)
        bitmap[y : y + h, x : x + w] = 1
        masks.append((str(rng.integers(0, 3)), runs_to_coco(bitmap_to_runs(bitmap), height=64, width=64)))
    return masks


def test_every_false_positive_and_every_miss_is_counted_once():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        predicted, true = random_masks(rng, rng.integers(0, 20)), random_masks(rng, rng.integers(0, 10))
        predicted += true[: rng.integers(0, 3)]
        judged, tallies = classify_errors(predicted, true), {}
        for side, masks, of_side in zip(("predicted", "true"), (predicted, true), judged, strict=True):
            for (class_id, _), verdict in zip(masks, of_side, strict=True):
                getattr(tallies.setdefault(class_id, ErrorCounts.empty()), side)[verdict.kind] += 1
        by_class = [{c: [m for i, m in masks if i == c] for c in "012"} for masks in (true, predicted)]
        for class_id, counts in count_image(*by_class).items():
            tally, hits = tallies[class_id], int(counts.true_positives[0])
            assert tally.hits == tally.true["hit"] == hits
            assert sum(tally.predicted[k] for k in FALSE_POSITIVES) == tally.false_positives
            assert tally.false_positives == counts.n_predicted - hits
            assert sum(tally.true[k] for k in MISSES) == tally.misses == counts.n_true - hits
        total = ErrorCounts.total(tallies.values())
        assert sum(map(total.cost, ("hit", *FALSE_POSITIVES, "missed"))) == total.judged
        seen |= set(total.predicted) | set(total.true)
    assert seen == {"hit", "missed", *FALSE_POSITIVES}
