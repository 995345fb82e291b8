import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from fashion_hydra.errors import UserError
from fashion_hydra.postprocess import Postprocess, apply, paste, select
from fashion_hydra.structures import Candidates

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


def test_nms_of_the_survivors_at_a_looser_threshold_changes_nothing():
    c = scene(9)
    loose = select(c.boxes, c.scores, c.labels, score_thr=0.1, iou_thr=0.7, max_per_image=1000)
    survivors = c[loose]
    for thr in (0.2, 0.5, 0.7):
        direct = select(c.boxes, c.scores, c.labels, score_thr=0.3, iou_thr=thr, max_per_image=1000)
        strict = select(
            survivors.boxes, survivors.scores, survivors.labels, score_thr=0.3, iou_thr=thr, max_per_image=1000
        )
        if thr == 0.7:
            assert torch.equal(survivors.scores[strict], c.scores[direct])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mask_thr", [0.3, 0.5])
def test_pasting_is_mmdets(seed, mask_thr):
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    import fashion_hydra.model  # noqa: F401 - before mmdet

    rng = np.random.default_rng(seed)
    size = (70, 90)
    for _ in range(12):
        mask = rng.random((28, 28), dtype=np.float32)
        x0, y0 = rng.uniform(-8, 70), rng.uniform(-8, 50)
        box = np.array([x0, y0, x0 + rng.uniform(0.5, 60), y0 + rng.uniform(0.5, 60)])
        whole, _ = _do_paste_mask(
            torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None].float(), *size, skip_empty=False
        )
        crop, x, y = paste(mask, box, size=size, mask_thr=mask_thr)
        drawn = np.zeros(size, bool)
        drawn[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        sure = np.abs(whole[0].numpy() - mask_thr) > 1e-4
        assert (drawn == (whole[0].numpy() >= mask_thr))[sure].all()


def test_a_box_outside_the_frame_draws_nothing():
    crop, _, _ = paste(np.ones((28, 28), np.float32), np.array([200.0, 10, 240, 30]), size=(70, 90), mask_thr=0.5)
    assert crop.size == 0


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_a_class_do_not_overlap_and_the_better_one_keeps_its_pixels(seed):
    c = scene(seed)
    answer = apply(c, RULE, size=(64, 64))
    free = apply(c, Postprocess(**{**vars(RULE), "suppress_overlaps": False}), size=(64, 64))
    assert answer.scores == sorted(answer.scores, reverse=True)
    for label in set(answer.labels):
        mine = np.stack([coco_mask.decode(m) for m, k in zip(answer.masks, answer.labels, strict=True) if k == label])
        whole = np.stack([coco_mask.decode(m) for m, k in zip(free.masks, free.labels, strict=True) if k == label])
        assert mine.sum(0).max() == 1
        assert (mine.sum(0) == whole.max(0)).all()
        assert (mine[0] == whole[0]).all()


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
    answer = apply(c, Postprocess(**{**vars(RULE), "max_per_image": 5}), size=(64, 64), dropped_labels=[0, 2])
    assert set(answer.labels) == {1, 3}
    assert len(answer) == 5


def test_the_grid_stretches_the_image():
    c = scene(2)
    answer = apply(c, RULE, size=(512, 512))
    assert all(m["size"] == [512, 512] for m in answer.masks)
    assert len(apply(c[c.scores > 2], RULE, size=(512, 512))) == 0


@pytest.mark.parametrize(
    "wrong", [{"score_thr": 1.5}, {"iou_thr": -0.1}, {"mask_thr": 2}, {"max_per_image": 0}, {"min_area": 0}]
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(UserError, match=f"postprocess.*{next(iter(wrong))}"):
        Postprocess(**{**vars(RULE), **wrong})
