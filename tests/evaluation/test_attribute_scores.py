"""Compare F1 of attributes and shares of correct sets with counts by hand."""

import math

import numpy as np
import pytest

from fashion_hydra.cli.main import main
from fashion_hydra.evaluation.attribute_scores import score_attributes
from fashion_hydra.formats.submission import write_truth
from fashion_hydra.structures.rle import runs_to_coco


def mask(start, length=4000):
    return runs_to_coco(np.array([[start, length]]), height=512, width=512)


TRUTH = {
    "a": {"6_28_77": [mask(0)], "6": [mask(10_000)], "3_77": [mask(20_000)], "23": [mask(30_000)]},
    "b": {"6_28": [mask(0)], "6_77": [mask(50_000)]},
    "c": {"3_28": [mask(0)]},
}
PREDICTED = {
    # pairs: {28,77} with {28}; {} with {77}; {77} with {77}; {} with {}
    "a": {"6_28": [mask(100)], "6_77": [mask(10_100)], "3_77": [mask(20_000)], "23": [mask(30_000)]},
    # {28} with {28}; the other mask does not overlap
    "b": {"6_28": [mask(0)], "6": [mask(90_000)]},
    "c": {"6_28": [mask(0)]},  # a different category
}


def test_counts_are_those_by_hand():
    scores = score_attributes(TRUTH, PREDICTED)
    assert dict(scores.hits) == {28: 2, 77: 1}
    assert dict(scores.false_positives) == {77: 1}
    assert dict(scores.misses) == {77: 1}
    assert scores.mistakes == {(frozenset({77}), frozenset()): 1, (frozenset(), frozenset({77})): 1}
    assert scores.f1(28) == 1
    assert scores.f1(77) == pytest.approx(0.5)
    assert scores.mean_f1() == pytest.approx(0.75)
    assert math.isnan(scores.f1(5))
    assert scores.sets_right() == (5, 3)
    assert [scores.sets_right(count=count) for count in (0, 1, 2)] == [(2, 1), (2, 2), (1, 0)]
    assert scores.sets_right(category=6) == (3, 1)
    assert (scores.with_some, scores.right_with_some) == (4, 2)
    assert math.isnan(score_attributes({}, {}).mean_f1())


def test_the_command_prints_them(tmp_path, capsys):
    write_truth(tmp_path / "truth.csv", TRUTH)
    write_truth(tmp_path / "found.csv", PREDICTED)
    assert main(["score", str(tmp_path / "truth.csv"), str(tmp_path / "found.csv"), "--per-attribute"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["28", "1.000000", "2", "0", "0"]
    assert lines[2].split() == ["77", "0.500000", "1", "1", "1"]
    assert lines[3] == "mean F1 0.750000"
    assert [line.split() for line in lines[6:9]] == [
        ["0", "2", "1", "0.5000"], ["1", "2", "2", "1.0000"], ["2", "1", "0", "0.0000"],
    ]  # fmt: skip
    assert lines[-1].startswith("score ")
