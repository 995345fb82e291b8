import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask
from scipy import ndimage

from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.postprocess import steps
from fashion_hydra.postprocess.apply import apply, mask_certainty, survivors
from fashion_hydra.postprocess.nms import select, soft_nms, top_survivors
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.paste import MaskWindow, paste
from fashion_hydra.utils.errors import UserError

RULE = Postprocess(score_thr=0.3, iou_thr=0.5, mask_thr=0.5, max_per_image=100)


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def scene(seed, n=60, classes=4):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=generator) * 40], 1)
    scores = torch.rand(n, generator=generator).sort(descending=True).values
    labels = torch.randint(0, classes, (n,), generator=generator)
    masks = torch.rand(n, 14, 14, generator=generator)
    return Candidates("a.jpg", (120, 100), boxes, scores, labels, masks)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [100, 7])
def test_nms_is_the_greedy_one_within_each_class(seed, limit):
    c = scene(seed)
    kept = []
    for i in c.scores.argsort(descending=True).tolist():
        rivals = [j for j in kept if c.labels[j] == c.labels[i]]
        if c.scores[i] > 0.3 and all(iou(c.boxes[i].tolist(), c.boxes[j].tolist()) <= 0.4 for j in rivals):
            kept.append(i)
    got = select(c.boxes, c.scores, c.labels, score_thr=0.3, iou_thr=0.4, max_per_image=limit)
    assert got.tolist() == kept[:limit]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    loose=st.sampled_from([0.5, 0.7, 1.0]),
    strict=st.sampled_from([0.5, 0.7, 1.0]),
    floor=st.sampled_from([0.1, 0.3]),
    limit=st.sampled_from([5, 1000]),
)
def test_nms_of_the_survivors_at_looser_thresholds_changes_nothing(seed, loose, strict, floor, limit):
    """The survivors of NMS at several thresholds give exact results for each threshold."""
    c = scene(seed)
    pools = [
        select(c.boxes, c.scores, c.labels, score_thr=0.1, iou_thr=thr, max_per_image=1000) for thr in (loose, strict)
    ]
    pool = c[torch.cat(pools).unique()]
    direct = select(c.boxes, c.scores, c.labels, score_thr=floor, iou_thr=strict, max_per_image=limit)
    again = select(pool.boxes, pool.scores, pool.labels, score_thr=floor, iou_thr=strict, max_per_image=limit)
    assert torch.equal(pool.boxes[again], c.boxes[direct])


def greedy(c, keeps, floors, limit):
    """Run plain greedy NMS; `keeps(i, j)` tells whether i may be kept together with j."""
    kept = []
    for i in sorted(range(len(c)), key=lambda i: -c.scores[i]):
        label = int(c.labels[i])
        if label in floors and c.scores[i] > floors[label]:
            rivals = [j for j in kept if c.labels[j] == c.labels[i]]
            if len(kept) < limit and all(keeps(i, j) for j in rivals):
                kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [6, 100])
def test_thresholds_of_single_labels_and_dropped_labels_which_take_no_places(seed, limit):
    c = scene(seed)
    rule = replace(RULE, label_score_thr={1: 0.7, 3: 0.1}, dropped_labels=(2,), max_per_image=limit, iou_thr=0.4)
    expected = greedy(
        c,
        lambda i, j: iou(c.boxes[i].tolist(), c.boxes[j].tolist()) <= 0.4,
        {0: 0.3, 1: 0.7, 3: 0.1},
        limit,
    )
    assert survivors(c.boxes, c.scores, c.labels, rule).tolist() == expected
    answer = apply(c, rule, size=c.size)
    assert set(answer.scores) <= set(c.scores[expected].tolist())
    assert rule.lowest_score_thr == 0.1
    assert {0, 1, 3} >= set(answer.labels)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("limit", [6, 100])
def test_scores_are_weighed_by_the_ious_of_masks_after_nms_on_boxes(power, limit):
    c = scene(3)
    c = replace(c, mask_ious=torch.rand(len(c), generator=torch.Generator().manual_seed(1)))
    product = (c.scores.double() * c.mask_ious.double() ** power).tolist()
    kept = greedy(
        c, lambda i, j: iou(c.boxes[i].tolist(), c.boxes[j].tolist()) <= 0.4, dict.fromkeys(range(4), 0.0), 1000
    )
    expected = sorted((i for i in kept if product[i] > 0.3), key=lambda i: -product[i])[:limit]
    rule = replace(RULE, mask_iou_power=power, max_per_image=limit, iou_thr=0.4, suppress_overlaps=False)
    answer = apply(c, rule, size=c.size)
    assert answer.scores == pytest.approx([product[i] for i in expected], rel=1e-6)
    assert list(answer.labels) == c.labels[expected].tolist()


def test_certainty_is_the_mean_probability_inside_the_mask():
    c = scene(0, n=6)
    masks = torch.cat([c.masks, torch.full((1, 14, 14), 0.3)])
    expected = [np.mean([p for p in mask.flatten().tolist() if p > 0.5]) for mask in c.masks]
    assert mask_certainty(masks).tolist() == pytest.approx([*expected, 0.0])
    rule = replace(RULE, mask_certainty_power=2.0, iou_thr=1.0, suppress_overlaps=False, score_thr=0.0)
    answer = apply(c, rule, size=c.size)
    scores = [score * certainty**2 for score, certainty in zip(c.scores.tolist(), expected, strict=True)]
    assert answer.scores == pytest.approx(sorted(scores, reverse=True))


@pytest.mark.parametrize("limit", [6, 100])
def test_nms_on_masks_goes_by_the_weighed_scores(limit):
    c = scene(3)
    ious = torch.rand(len(c), generator=torch.Generator().manual_seed(1))
    rule = replace(RULE, nms="mask", max_per_image=limit, iou_thr=0.2, suppress_overlaps=False)
    order = (c.scores * ious).sort(descending=True, stable=True).indices
    expected = apply(replace(c, scores=c.scores * ious)[order], rule, size=c.size)
    answer = apply(replace(c, mask_ious=ious), rule, size=c.size)
    assert answer.scores == expected.scores
    assert answer.masks == expected.masks


def test_a_score_at_its_threshold_is_left_out():
    """0.3 is not representable in float32: the threshold is rounded like the score."""
    c = scene(0)[torch.tensor([0, 1])]
    c = Candidates("a.jpg", c.size, c.boxes, torch.tensor([0.3, 0.3]), torch.tensor([0, 1]), c.masks)
    for rule in (RULE, replace(RULE, score_thr=0.1, label_score_thr={0: 0.3, 1: 0.3})):
        for nms in ("box", "mask", "soft"):
            assert len(apply(c, replace(rule, nms=nms), size=c.size)) == 0


def soft_nms_written_out(c, floors, sigma, limit):
    left = {i: float(c.scores[i]) for i in range(len(c)) if c.scores[i] > floors[int(c.labels[i])]}
    kept = []
    while left and len(kept) < limit:
        best = max(left, key=lambda i: (left[i], -i))
        kept.append((best, left.pop(best)))
        for i in list(left):
            if c.labels[i] == c.labels[best]:
                left[i] *= math.exp(-(iou(c.boxes[i].tolist(), c.boxes[best].tolist()) ** 2) / sigma)
                if left[i] <= floors[int(c.labels[i])]:
                    del left[i]
    return kept


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sigma=st.sampled_from([0.1, 0.5, 2.0]),
    limit=st.sampled_from([3, 1000]),
    floor=st.sampled_from([0.0, 0.4]),
)
def test_soft_nms_is_the_one_written_out(seed, sigma, limit, floor):
    c = scene(seed, n=40, classes=2)
    floors = {0: floor, 1: 0.2}
    expected = soft_nms_written_out(c, floors, sigma, limit)
    score_thr = torch.tensor([floors[label] for label in c.labels.tolist()])
    index, scores = soft_nms(c.boxes, c.scores, c.labels, score_thr=score_thr, sigma=sigma, max_per_image=limit)
    assert index.tolist() == [i for i, _ in expected]
    assert scores.tolist() == pytest.approx([score for _, score in expected], rel=1e-6)


def test_soft_nms_lowers_a_score_and_keeps_the_box():
    """With an IoU of 1/2, the worse box keeps exp(-0.25 / 0.5) of its score; a box of another class keeps all."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5]])
    scores, masks = torch.tensor([0.9, 0.8, 0.7]), torch.ones(3, 14, 14)
    c = Candidates("a.jpg", (20, 20), boxes, scores, torch.tensor([0, 0, 1]), masks)
    rule = replace(RULE, nms="soft", suppress_overlaps=False)
    assert apply(c, rule, size=c.size).scores == pytest.approx([0.9, 0.7, 0.8 * math.exp(-0.5)])
    assert apply(c, replace(rule, score_thr=0.5), size=c.size).labels == [0, 1]
    assert apply(c, replace(rule, nms="box", iou_thr=0.4), size=c.size).labels == [0, 1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("thr", "limit"), [(0.2, 100), (0.4, 100), (0.2, 5)])
def test_mask_nms_is_the_greedy_one_by_pycocotools_iou_of_bitmaps(seed, thr, limit):
    c, size = scene(seed), (60, 50)
    frames = []
    for mask, box in zip(c.masks.numpy(), c.boxes.double().numpy() / 2, strict=True):
        pixels, x0, y0, _ = paste(mask, box, size=size, mask_thr=0.5)
        frames.append(np.zeros(size, np.uint8, order="F"))
        frames[-1][y0 : y0 + pixels.shape[0], x0 : x0 + pixels.shape[1]] = pixels
    encoded = [coco_mask.encode(frame) for frame in frames]
    ious = coco_mask.iou(encoded, encoded, [0] * len(encoded))
    expected = greedy(c, lambda i, j: ious[i, j] <= thr, {0: 0.3, 1: 0.3, 2: 0.1}, limit)
    rule = replace(RULE, nms="mask", iou_thr=thr, max_per_image=limit, label_score_thr={2: 0.1}, dropped_labels=(3,))
    answer = apply(c, replace(rule, suppress_overlaps=False), size=size)
    drawn = [i for i in expected if frames[i].any()]
    assert answer.scores == c.scores[drawn].tolist()
    assert answer.masks == [encoded[i] for i in drawn]
    apart = apply(c, rule, size=size)
    assert set(apart.scores) <= set(answer.scores)


@pytest.mark.parametrize("nms", ["mask", "soft"])
def test_box_nms_at_a_loose_threshold_goes_before_masks_are_computed(nms):
    c = scene(3)
    rule = replace(RULE, nms=nms, iou_thr=0.2, max_per_image=2)
    expected = greedy(
        c, lambda i, j: iou(c.boxes[i].tolist(), c.boxes[j].tolist()) <= 0.7, dict.fromkeys(range(4), 0.3), 1000
    )
    assert survivors(c.boxes, c.scores, c.labels, rule).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_a_class_do_not_overlap_and_the_better_one_keeps_its_pixels(seed):
    c = scene(seed)
    answer = apply(c, RULE, size=(64, 64))
    free = apply(c, replace(RULE, suppress_overlaps=False), size=(64, 64))
    assert answer.scores == sorted(answer.scores, reverse=True)
    for label in set(answer.labels):
        mine = np.stack([coco_mask.decode(m) for m, k in zip(answer.masks, answer.labels, strict=True) if k == label])
        before = np.stack([coco_mask.decode(m) for m, k in zip(free.masks, free.labels, strict=True) if k == label])
        assert mine.sum(0).max() == 1
        assert (mine.sum(0) == before.max(0)).all()
        assert (mine[0] == before[0]).all()


def test_small_and_emptied_masks_are_left_out():
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 30, 30], [50, 50, 53, 53]])
    c = Candidates(
        "a.jpg",
        (64, 64),
        boxes,
        torch.tensor([0.9, 0.8, 0.7]),
        torch.zeros(3, dtype=torch.int64),
        torch.ones(3, 28, 28),
    )
    loose = Postprocess(score_thr=0.1, iou_thr=1.0, mask_thr=0.5, max_per_image=10)
    assert apply(c, loose, size=(64, 64)).scores == pytest.approx([0.9, 0.7])
    strict = Postprocess(score_thr=0.1, iou_thr=1.0, mask_thr=0.5, max_per_image=10, min_area=20)
    assert apply(c, strict, size=(64, 64)).scores == pytest.approx([0.9])


def test_dropped_classes_do_not_take_places():
    c = scene(1)
    answer = apply(c, replace(RULE, max_per_image=5, dropped_labels=(0, 2)), size=(64, 64))
    assert set(answer.labels) == {1, 3}
    assert len(answer) == 5


def test_the_grid_stretches_the_image():
    c = scene(2)
    answer = apply(c, RULE, size=(512, 512))
    assert all(m["size"] == [512, 512] for m in answer.masks)
    assert len(apply(c[c.scores > 2], RULE, size=(512, 512))) == 0


@pytest.mark.parametrize("nms", ["box", "mask", "soft"])
def test_nothing_is_found_among_nothing(nms):
    c = scene(2)
    rule = replace(RULE, nms=nms)
    assert len(apply(c[c.scores > 2], rule, size=(30, 30))) == 0
    assert len(apply(c, replace(rule, dropped_labels=(0, 1, 2, 3)), size=(30, 30))) == 0
    assert len(survivors(c.boxes[:0], c.scores[:0], c.labels[:0], rule)) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"score_thr": 1.5},
        {"iou_thr": -0.1},
        {"mask_thr": 2},
        {"max_per_image": 0},
        {"min_area": 0},
        {"label_score_thr": {3: 1.5}},
        {"nms": "masks"},
        {"soft_nms_sigma": 0},
    ],
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(UserError, match=f"postprocess.*{next(iter(wrong))}"):
        replace(RULE, **wrong)


@pytest.mark.parametrize("count", [1, 7, 40, 1000])
def test_the_top_survivors_of_nms_are_found_without_looking_at_all(count):
    from torchvision.ops import nms

    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(300, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 5 + torch.rand(300, 2, generator=generator) * 30], 1)
    scores = (torch.rand(300, generator=generator) * 50).round() / 50  # with ties
    wanted = nms(boxes, scores, 0.5)[:count]
    assert torch.equal(top_survivors(boxes, scores, iou_thr=0.5, count=count), wanted)


def blob(seed, size=40):
    """Make a mask with holes and islands, in a window inside the frame."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((size, size)), (0, 0), 2)
    return MaskWindow(np.asfortranarray(noise > np.quantile(noise, 0.55)), 3 * seed, 2 * seed)


@pytest.mark.parametrize("seed", range(6))
def test_steps_do_what_scipy_says(seed):
    mask = blob(seed)
    [(filled, label, score)] = steps.load("fill_holes")([(mask, 2, 0.5)], (128, 128))
    assert (label, score, filled.x0, filled.y0) == (2, 0.5, mask.x0, mask.y0)
    # A hole that touches the outside only at a corner is closed, both for OpenCV and for a 4-connected background.
    assert np.array_equal(filled.pixels, ndimage.binary_fill_holes(mask.pixels))
    [(largest, *_)] = steps.load("largest_part")([(mask, 2, 0.5)], (128, 128))
    parts, count = ndimage.label(mask.pixels, np.ones((3, 3)))
    areas = ndimage.sum_labels(mask.pixels, parts, range(1, count + 1))
    assert count > 1
    assert np.count_nonzero(largest.pixels) == areas.max()
    assert np.array_equal(largest.pixels & mask.pixels, largest.pixels)


def test_steps_come_before_overlaps_and_unknown_ones_are_refused():
    """A filled ring takes the pixels of a dot of its class inside the ring."""
    ring = np.zeros((1, 28, 28), np.float32)
    ring[:, 2:26, 2:26], ring[:, 10:18, 10:18] = 1, 0
    masks = torch.from_numpy(np.concatenate([ring, np.ones((1, 28, 28), np.float32)]))
    boxes = torch.tensor([[0.0, 0, 100, 100], [40, 40, 60, 60]])
    given = Candidates("a", (100, 100), boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 1]), masks)
    plain = apply(given, RULE, size=(100, 100))
    closed = apply(given, replace(RULE, steps=("fill_holes",)), size=(100, 100))
    assert (len(plain), len(closed)) == (2, 1)
    assert coco_mask.area(closed.masks[0]) > coco_mask.area(plain.masks[0]) + 500
    with pytest.raises(UserError, match=r"no step 'grow'; there are fill_holes, largest_part"):
        replace(RULE, steps=("grow",))


CLASSES = ClassSet((3, 23, 31), ("bag, wallet", "shoe", "sleeve"), drop=(31, 40))


def built(**options):
    config = OmegaConf.load(PROJECT_ROOT / "conf" / "postprocess" / "mmdet_default.yaml")
    return build_rule({**OmegaConf.to_container(config), **options}, CLASSES)


def test_the_config_names_categories_and_the_rule_labels():
    assert built().dropped_labels == (2,)  # from the class set's drop; the model does not have 40
    rule = built(class_score_thr={23: 0.6, "Bag, wallet": 0.4}, drop_classes=["shoe", 31], nms="soft")
    assert rule.label_score_thr == {1: 0.6, 0: 0.4}
    assert rule.dropped_labels == (1, 2)
    assert rule.nms == "soft"
    assert built(class_score_thr={"23": 1}, drop_classes=["3"]).label_score_thr == {1: 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"class_score_thr": {"shoos": 0.5}},
            "postprocess.class_score_thr: no category named 'shoos'; nearest: 'shoe'",
        ),
        ({"drop_classes": [0]}, "postprocess.drop_classes: no category 0; ids are 3 to 31"),
        ({"class_score_thr": {"shoe": 1.5}}, r"postprocess.class_score_thr=\{shoe: 1.5\}: must be between 0 and 1"),
        ({"class_score_thr": {"shoe": "high"}}, r"postprocess.class_score_thr=\{shoe: high\}: must be between 0 and 1"),
        ({"steps": 0.5}, "postprocess.steps=0.5: must be a list of names"),
        ({"class_score_thr": 0.5}, "postprocess.class_score_thr=0.5: must map categories to thresholds"),
        ({"drop_classes": "shoe"}, "postprocess.drop_classes=shoe: must be a list"),
        ({"score": 0.5}, "postprocess.score: no such option; postprocess has score_thr, .*class_score_thr"),
        ({"label_score_thr": {0: 0.5}}, "postprocess.label_score_thr: no such option"),
        ({"score_thr": "high"}, "postprocess: "),
    ],
)
def test_mistakes_in_the_config_are_named(options, message):
    with pytest.raises(UserError, match=message):
        built(**options)
