"""Compare competition_score.py with the definition, computed with pixel sets and fractions."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fashion_hydra.evaluation.competition_score import iou_matrix, score_image, score_images, true_positives
from fashion_hydra.utils.errors import UserError

HEIGHT, WIDTH = 6, 5
N_PIXELS = HEIGHT * WIDTH


def encode(pixels, n_pixels=N_PIXELS, height=HEIGHT):
    """Encode a set of column-major pixel indices as COCO RLE."""
    flat = np.zeros(n_pixels, np.uint8)
    flat[list(pixels)] = 1
    return coco_mask.encode(flat.reshape((height, -1), order="F"))


def encode_all(image):
    return {class_id: [encode(pixels) for pixels in masks] for class_id, masks in image.items()}


def oracle_hits(truth, predicted, threshold):
    """Return the size of the largest one-to-one matching with IoU > threshold, by trying every assignment."""

    def hit(a, b):
        union = len(a | b)
        return union > 0 and Fraction(len(a & b), union) > threshold

    few, many = sorted([truth, predicted], key=len)
    return max(sum(map(hit, few, order)) for order in permutations(many, len(few)))


def oracle_score(truth, predicted, pooling):
    """Compute the score by definition: class by class and threshold by threshold, without rounding."""
    thresholds = [Fraction(k, 100) for k in range(50, 100, 5)]
    classes = [c for c in {*truth, *predicted} if truth.get(c) or predicted.get(c)]
    if not classes:
        return Fraction(1)
    total = Fraction(0)
    for t in thresholds:
        numbers = []
        for c in classes:
            true, masks = truth.get(c, []), predicted.get(c, [])
            tp = oracle_hits(true, masks, t)
            numbers.append((tp, len(masks) - tp, len(true) - tp))
        if pooling == "class":
            total += sum((Fraction(tp, tp + fp + fn) for tp, fp, fn in numbers), Fraction(0)) / len(classes)
        else:
            total += Fraction(sum(n[0] for n in numbers), sum(sum(n) for n in numbers))
    return total / len(thresholds)


@st.composite
def scenes(draw):
    """Draw (truth, predicted), each a mapping ClassId -> pixel sets.

    True masks may overlap. Predictions of a class do not overlap; most are a true mask with a few pixels changed.
    """
    pixel = st.integers(0, N_PIXELS - 1)
    truth: dict[str, list[frozenset[int]]] = {}
    predicted: dict[str, list[frozenset[int]]] = {}
    for class_id in draw(st.lists(st.sampled_from(["0", "6", "6_28", "31"]), unique=True, max_size=3)):
        spans = draw(st.lists(st.tuples(pixel, st.integers(1, 15)), max_size=3))
        truth[class_id] = [frozenset(range(a, min(a + n, N_PIXELS))) for a, n in spans]
        masks: list[frozenset[int]] = []
        taken: set[int] = set()
        for mask in truth[class_id] + draw(st.lists(st.frozensets(pixel, max_size=4), max_size=1)):
            if draw(st.integers(0, 3)):
                masks.append(frozenset(mask ^ draw(st.frozensets(pixel, max_size=3))) - taken)
                taken |= masks[-1]
        predicted_class = draw(st.sampled_from([class_id, class_id, class_id, "9"]))
        predicted.setdefault(predicted_class, [])
        if not any(a & b for a in masks for b in predicted[predicted_class]):
            predicted[predicted_class] += draw(st.permutations(masks))
    return truth, predicted


@settings(max_examples=300)
@given(scenes(), st.sampled_from(["class", "image"]))
def test_score_equals_the_definition(scene, pooling):
    truth, predicted = scene
    score = score_image(encode_all(truth), encode_all(predicted), pooling=pooling)
    assert score == pytest.approx(float(oracle_score(truth, predicted, pooling)), abs=1e-12)


@given(scenes(), st.sampled_from(["class", "image"]))
def test_a_perfect_prediction_scores_one(scene, pooling):
    truth, _ = scene
    assert score_image(encode_all(truth), encode_all(truth), pooling=pooling) == 1.0


@given(scenes(), st.randoms(use_true_random=False), st.sampled_from(["class", "image"]))
def test_the_order_of_masks_classes_and_images_is_irrelevant(scene, random, pooling):
    truth, predicted = (encode_all(image) for image in scene)

    def shuffled(mapping):
        items = [(key, random.sample(masks, len(masks))) for key, masks in mapping.items()]
        return dict(random.sample(items, len(items)))

    images = {"a": (truth, predicted), "b": (truth, {}), "c": (predicted, truth)}
    plain = score_images({k: v[0] for k, v in images.items()}, {k: v[1] for k, v in images.items()}, pooling=pooling)
    mixed = score_images(
        {k: shuffled(images[k][0]) for k in "cab"},
        {k: shuffled(images[k][1]) for k in "bca"},
        pooling=pooling,
    )
    assert mixed == plain


@given(scenes(), st.sampled_from(["class", "image"]))
def test_a_false_positive_lowers_the_score(scene, pooling):
    truth, predicted = (encode_all(image) for image in scene)
    found = [c for c in truth if score_image({c: truth[c]}, {c: predicted.get(c, [])}) > 0 and truth[c]]
    assume(found)
    before = score_image(truth, predicted, pooling=pooling)
    for class_id in [found[0], "45"]:
        worse = {**predicted, class_id: [*predicted.get(class_id, []), encode([])]}
        assert score_image(truth, worse, pooling=pooling) < before


@pytest.mark.parametrize("k", range(10, 20))
@pytest.mark.parametrize("scale", [1, 7, 331, 12_345])
def test_iou_equal_to_a_threshold_is_no_hit(k, scale):
    """The true mask has 20 units; the prediction has the first k units, or one pixel less or more."""
    n = 20 * scale
    truth = encode(range(n), n, height=1)
    for size in [k * scale - 1, k * scale, k * scale + 1]:
        hits = true_positives(iou_matrix([encode(range(size), n, height=1)], [truth]))
        assert hits.tolist() == [Fraction(size, n) > Fraction(j, 20) for j in range(10, 20)]


def test_a_threshold_holds_at_the_size_of_the_largest_photo():
    """One pixel of 70 million above 0.55 is a hit."""
    n = 20 * 3_500_000
    truth = coco_mask.frPyObjects({"size": [1, n], "counts": [0, n]}, 1, n)
    for extra, hits in [(0, 1), (1, 2)]:
        size = n // 20 * 11 + extra
        predicted = coco_mask.frPyObjects({"size": [1, n], "counts": [0, size, n - size]}, 1, n)
        assert true_positives(iou_matrix([predicted], [truth])).sum() == hits


def test_scores_worked_by_hand():
    """Compare with a calculation by hand.

    Class 6: IoU 9/10 passes eight of ten thresholds (0.50 to 0.85), so 0.8. Class 31: one of two true masks is found
    exactly, so 1/2. Class 9: one false positive, so 0. By class: (0.8 + 0.5 + 0) / 3. Pooled: 2 hits, 1 false positive
    and 1 miss at eight thresholds; 1 hit, 2 false positives and 2 misses at two, so (8 * 2/4 + 2 * 1/5) / 10.
    """
    truth = encode_all({"6": [set(range(10))], "31": [{20, 21}, {25}]})
    predicted = encode_all({"6": [set(range(9))], "31": [{25}], "9": [{12}]})
    assert score_image(truth, predicted) == pytest.approx(1.3 / 3)
    assert score_image(truth, predicted, pooling="image") == pytest.approx(0.44)


def test_a_second_prediction_of_a_matched_truth_is_a_false_positive():
    """Both predictions pass 0.5; the better one is the hit at all ten thresholds, so each threshold gives 1/2."""
    truth = encode_all({"6": [set(range(10))]})
    predicted = encode_all({"6": [set(range(9)), set(range(10))]})
    assert score_image(truth, predicted) == 0.5


def test_attributes_are_part_of_the_class():
    truth, predicted = encode_all({"6_28": [{1, 2}]}), encode_all({"6": [{1, 2}]})
    assert score_image(truth, predicted) == 0.0
    assert score_image(truth, encode_all({"6_28": [{1, 2}]})) == 1.0


def test_images_without_masks_score_one_and_missing_images_are_empty_predictions():
    mask = [encode({3})]
    truth = {"a": {}, "b": {"6": mask}, "c": {"6": mask, "7": mask}, "d": {"8": []}}
    score = score_images(truth, {"c": {"6": mask}, "d": {}})
    assert score.per_image == {"a": 1.0, "b": 0.0, "c": 0.5, "d": 1.0}
    assert score.value == 0.625
    summary = score.per_class["6"]
    assert (summary.score, summary.n_images, summary.n_true, summary.n_predicted) == (0.5, 2, 2, 1)
    assert score.per_class.keys() == {"6", "7"}


def test_mistakes_are_named():
    with pytest.raises(UserError, match="pooling=mask: choose one of class, image"):
        score_images({"a": {}}, {}, pooling="mask")
    with pytest.raises(UserError, match="2 predicted images are not in the truth, the first x"):
        score_images({"a": {}}, {"a": {}, "x": {}, "y": {}})
    with pytest.raises(UserError, match="the truth is empty"):
        score_images({}, {})
    other_size = encode({1}, n_pixels=4, height=2)
    with pytest.raises(ValueError, match=r"one size, got \[\(2, 2\), \(6, 5\)\]"):
        score_image({"6": [encode({1})]}, {"6": [other_size]})
