"""Compare the attributes of detections with a search over every set."""

import itertools

import numpy as np
import pytest
import torch

from fashion_hydra.data.attribute_set import AttributeSet, attribute_set_of
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.attributes import AttributeRule, choose_attributes
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.paste import MaskWindow
from fashion_hydra.utils.errors import UserError

CLASS_IDS = ["6_28_77"] * 5 + ["6_28"] * 3 + ["6"] * 2 + ["3_77"] * 4 + ["9"] * 6 + ["40_1"]
LABELS = {6: 0, 3: 1, 9: 2}
KNOWN = attribute_set_of(CLASS_IDS, LABELS, {28: "plain", 77: "long"})


def rule_of(kind, attribute_thr=0.5, match_thr=0.0):
    return AttributeRule(kind, attribute_thr, match_thr, KNOWN)


def test_attributes_are_those_of_learnt_classes_and_sets_are_counted():
    assert (KNOWN.ids, KNOWN.names) == ((28, 77), ("plain", "long"))
    assert KNOWN.of_label == ((0, 1), (1,), ())
    assert KNOWN.sets == ((((0, 1), 5), ((0,), 3), ((), 2)), (((1,), 4),), (((), 6),))
    assert KNOWN.allowed().tolist() == [[True, True], [False, True], [False, False]]
    # Attribute 28: 8 of 10 masks whose class can have it; attribute 77: 5 of 10 and 4 of 4.
    assert KNOWN.frequencies() == pytest.approx([0.8, 9 / 14])
    assert AttributeSet.from_plain(KNOWN.plain(), classes=3) == KNOWN
    assert KNOWN.suffix((0, 1)) == "_28_77"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ids": [77, 28]}, "ascending"),
        ({"names": ["plain"]}, "without exactly one name each"),
        ({"of_label": [[0, 1], [1]]}, "attributes that are not those of 3 classes"),
        ({"of_label": [[0, 7], [1], []]}, "attributes that are not those of 3 classes"),
        ({"sets": [[[5, 0, 1]], [[4, 0]], []]}, "an invalid set"),
        ({"sets": [[[0, 0]], [], []]}, "an invalid set"),
        ({"sets": [5, [], []]}, "an invalid set"),
        ({"sets": None}, "without ids"),
    ],
)
def test_what_is_no_attribute_set_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        AttributeSet.from_plain({**KNOWN.plain(), **change}, classes=3)


def test_the_expected_set_is_the_most_probable_of_those_seen():
    rng = np.random.default_rng(0)
    probabilities = rng.random((200, 2)).astype(np.float16)
    labels = rng.integers(0, 3, 200)
    chosen = choose_attributes(probabilities, labels, rule_of("expected"))
    for p, label, places, chance in zip(probabilities, labels, chosen.places, chosen.chances, strict=True):
        weights = {
            places_of_set: np.prod(
                [float(p[a]) if a in places_of_set else 1 - float(p[a]) for a in KNOWN.of_label[label]]
            )
            for places_of_set, _ in KNOWN.sets[label]
        }
        assert places == max(weights, key=weights.get)
        assert chance == pytest.approx(weights[places] / sum(weights.values()), abs=2e-3)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_a_threshold_takes_each_attribute_by_itself(threshold):
    rng = np.random.default_rng(1)
    probabilities, labels = rng.random((100, 2)).astype(np.float16), rng.integers(0, 3, 100)
    chosen = choose_attributes(probabilities, labels, rule_of("threshold", threshold))
    for p, label, places, chance in zip(probabilities, labels, chosen.places, chosen.chances, strict=True):
        wanted = tuple(a for a in KNOWN.of_label[label] if p[a] > threshold)
        assert places == wanted
        each = [float(p[a]) if a in wanted else 1 - float(p[a]) for a in KNOWN.of_label[label]]
        assert chance == pytest.approx(np.prod(each), abs=1e-6)


@pytest.mark.parametrize("kind", ["threshold", "expected"])
def test_a_detection_is_answered_alike_alone_and_among_others(kind):
    """Results are bit-identical, because thresholds from tuning must have the same effect in prediction."""
    rng = np.random.default_rng(2)
    wide = attribute_set_of(
        ["_".join(map(str, (6, *sorted(rng.choice(92, rng.integers(0, 6), replace=False) + 100)))) for _ in range(400)],
        {6: 0}, {},
    )  # fmt: skip
    probabilities = rng.random((60, len(wide))).astype(np.float16)
    rule = AttributeRule(kind, 0.5, 0.0, wide)
    together = choose_attributes(probabilities, np.zeros(60, np.int64), rule)
    for i in range(60):
        alone = choose_attributes(probabilities[i : i + 1], np.zeros(1, np.int64), rule)
        assert (alone.places[0], alone.chances[0]) == (together.places[i], together.chances[i])


def candidates(count=4):
    boxes = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 8, 8.0] for i in range(count)])
    attributes = torch.tensor([[0.9, 0.9], [0.9, 0.1], [0.6, 0.55], [0.5, 0.5]])[:count].half()
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6])[:count], torch.tensor([0, 0, 1, 2])[:count]
    return Candidates("x", (8, 64), boxes, scores, labels, torch.ones(count, 4, 4), attributes)


@pytest.mark.parametrize(
    ("kind", "match_thr", "wanted"),
    [
        ("none", 0.0, ["6", "6", "3", "9"]),
        ("threshold", 0.0, ["6_28_77", "6_28", "3_77", "9"]),
        ("expected", 0.0, ["6_28_77", "6_28", "3_77", "9"]),
        ("threshold", 0.61, ["6_28_77", "6_28"]),  # 0.9 x 0.81, 0.8 x 0.81, 0.7 x 0.55, 0.6 x 1
        ("expected", 0.65, ["6_28_77", "6_28", "3_77"]),  # 3 has one known set, so its probability is 1: 0.7 x 1
    ],
)
def test_detections_are_answered_with_their_attributes(kind, match_thr, wanted):
    rule = Postprocess(0.1, 0.5, 0.5, 100, attributes=rule_of(kind, match_thr=match_thr))
    found = apply(candidates(), rule, size=(8, 64))
    assert found.class_ids([6, 3, 9]) == wanted
    assert list(found.by_class_id([6, 3, 9])) == list(dict.fromkeys(wanted))


def test_steps_keep_attributes_or_say_that_they_are_lost(monkeypatch):
    loses = {"loses": lambda found, size: [(MaskWindow(m.pixels, m.x0, m.y0), *rest) for m, *rest in found]}
    load = __import__("fashion_hydra.postprocess.steps", fromlist=["load"]).load
    monkeypatch.setattr("fashion_hydra.postprocess.steps.load", lambda name: loses.get(name) or load(name))
    kept = Postprocess(0.1, 0.5, 0.5, 100, steps=("fill_holes",), attributes=rule_of("expected"))
    assert apply(candidates(), kept, size=(8, 64)).class_ids([6, 3, 9])[0] == "6_28_77"
    lost = Postprocess(0.1, 0.5, 0.5, 100, steps=("loses",), attributes=rule_of("expected"))
    with pytest.raises(UserError, match=r"MaskWindow without its candidate.*mask\._replace"):
        apply(candidates(), lost, size=(8, 64))


@pytest.mark.parametrize(
    ("options", "attributes", "message"),
    [
        ({"attributes": "all"}, KNOWN, "postprocess.attributes=all: choose one of none, threshold, expected"),
        ({"attribute_thr": 2}, KNOWN, "postprocess.attribute_thr=2.0: must be between 0 and 1"),
        ({"match_thr": "high"}, KNOWN, "postprocess.match_thr=high: must be between 0 and 1"),
        ({"attributes": "expected"}, AttributeSet(), "postprocess.attributes=expected: the model learns no attributes"),
    ],
)
def test_options_that_cannot_be(options, attributes, message):
    plain = {"score_thr": 0.5, "iou_thr": 0.5, "mask_thr": 0.5, "max_per_image": 100}
    with pytest.raises(UserError, match=message):
        build_rule({**plain, **options}, ClassSet((6, 3, 9), ("a", "b", "c"), attributes=attributes))


def test_attributes_are_answered_unless_told_otherwise():
    plain = {"score_thr": 0.5, "iou_thr": 0.5, "mask_thr": 0.5, "max_per_image": 100}
    made = [
        build_rule(plain, ClassSet((6, 3, 9), ("a", "b", "c"), attributes=known)) for known in (KNOWN, AttributeSet())
    ]
    kinds = [None if rule.attributes is None else rule.attributes.kind for rule in made]
    assert kinds == ["expected", None]


def test_which_class_ids_can_be_answered():
    classes = ClassSet((6, 3, 9), ("a", "b", "c"), drop=(9,), attributes=KNOWN)
    able = ["6", "6_28", "6_28_77", "6_77", "3", "3_77"]
    assert [c for c in itertools.chain(able, ["3_28", "6_99", "9", "40", "40_1"]) if classes.can_answer(c)] == able
