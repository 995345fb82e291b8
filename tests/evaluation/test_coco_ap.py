"""Compare AP and AR with pycocotools, by size and class, with crowd regions."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashion_hydra.evaluation.coco_ap import NAMES, TrueMask, mask_ap
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_coco

SIZE, LABELS = 260, 4


def box(x, y, w, h):
    bitmap = np.zeros((SIZE, SIZE), np.uint8)
    bitmap[y : y + h, x : x + w] = 1
    return runs_to_coco(bitmap_to_runs(bitmap), height=SIZE, width=SIZE)


def make(seed, *, images=25, crowds=True, steps=None):
    """Make truth with labels 0, 1 and 2 (never detected), and detections with labels 0, 1 and 3 (never true).

    Args:
        seed: seed of all random values.
        images: number of images.
        crowds: whether a fifth of the objects are crowd regions.
        steps: scores are multiples of 1 / steps, so that many are equal; None: all scores differ.
    """
    rng, truth, found = np.random.default_rng(seed), {}, {}
    for image in range(images):
        objects, labels, masks = [], [], []
        for _ in range(rng.integers(0, 7)):
            edge = rng.choice([12, 28, 60, 140])  # all three COCO sizes, some at a limit
            x, y, w, h = *rng.integers(0, 90, 2), *rng.integers(edge // 2, edge + 5, 2)
            label, crowd = int(rng.integers(0, 3)), bool(crowds and rng.random() < 0.2)
            mask = box(x, y, w, h)
            listed = float(w * h) * rng.choice([1, 0.9])  # tools list the polygon's area, not the pixels
            objects.append(TrueMask(label, mask, listed, crowd))
            for _ in range(rng.integers(0, 3) if label < 2 else 0):
                labels.append(label)
                moved = max(0, x + rng.integers(-3, 4)), y, w, max(4, h - rng.integers(0, 6))
                masks.append(box(*moved))
                if rng.random() < 0.3:  # the same mask twice, so that overlaps are equal
                    objects.append(TrueMask(label, mask, listed))
        labels += [3, int(rng.integers(0, 2))]
        masks += [box(0, 0, 9, 9), box(*rng.integers(0, 60, 2), *rng.integers(9, 150, 2))]
        scores = rng.random(len(labels))
        scores = np.round(scores * steps) / steps if steps else scores
        order = np.argsort(-scores, kind="stable")
        found[f"{image:03}.jpg"] = Detections(
            f"{image:03}.jpg",
            [labels[i] for i in order],
            [float(scores[i]) for i in order],
            [masks[i] for i in order],
        )
        truth[f"{image:03}.jpg"] = objects
    return truth, found


def reference(truth, found, label=None):
    """Return pycocotools' twelve metrics, for all classes or for one."""
    ids = {name: number for number, name in enumerate(truth, start=1)}
    dataset = COCO()
    annotations = [
        {
            "image_id": ids[name],
            "category_id": one.label,
            "segmentation": one.mask,
            "area": one.area,
            "bbox": coco_mask.toBbox(one.mask).tolist(),
            "iscrowd": int(one.crowd),
        }
        for name, objects in truth.items()
        for one in objects
    ]
    dataset.dataset = {
        "images": [{"id": i, "height": SIZE, "width": SIZE} for i in ids.values()],
        "categories": [{"id": c, "name": str(c)} for c in range(LABELS)],
        "annotations": [{**a, "id": i} for i, a in enumerate(annotations, start=1)],
    }
    results = [
        {"image_id": ids[n], "category_id": c, "segmentation": m, "score": s}
        for n, d in found.items()
        for c, s, m in zip(d.labels, d.scores, d.masks, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(results), "segm")
        if label is not None:
            evaluation.params.catIds = [label]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [np.nan if value == -1 else value for value in evaluation.stats]


@pytest.mark.parametrize(("seed", "crowds", "steps"), [(0, False, None), (1, True, None), (2, True, 8), (3, True, 3)])
def test_all_numbers_are_pycocotools(seed, crowds, steps):
    truth, found = make(seed, crowds=crowds, steps=steps)
    assert any(one.crowd for objects in truth.values() for one in objects) == crowds
    mine = mask_ap(truth, found, labels=LABELS)
    assert tuple(mine.overall) == tuple(mine.of_class) == NAMES
    assert list(mine.overall.values()) == pytest.approx(reference(truth, found), abs=1e-9, nan_ok=True)
    for label in range(LABELS):
        wanted = reference(truth, found, label)
        assert [of_class[label] for of_class in mine.of_class.values()] == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    assert mine.of_class["AP"][2] == 0
    assert np.isnan(mine.of_class["AP"][3])
    assert 0.1 < mine.of_class["AP"][0] < 1
    sizes = [mine.overall[name] for name in ("AP_small", "AP_medium", "AP_large")]
    assert len({mine.overall["AP"], *sizes}) == 4


def test_more_than_a_hundred_detections_of_a_class():
    truth = {"a": [TrueMask(0, box(10 * i, 0, 9, 9), 81.0) for i in range(20)]}
    masks = [box(0, 100, 9, 9)] * 95 + [one.mask for one in truth["a"]]
    found = {"a": Detections("a", [0] * 115, np.linspace(1, 0.1, 115).tolist(), masks)}
    mine = mask_ap(truth, found, labels=LABELS).overall
    assert list(mine.values()) == pytest.approx(reference(truth, found), abs=1e-9, nan_ok=True)
    assert mine["AR_100"] == pytest.approx(5 / 20)


def test_sizes_on_a_smaller_grid_than_the_photos():
    """Both sides measure areas in pixels of the photo; a grid cell covers several of them."""
    truth, found = make(4)
    factor = 6.25
    larger = {n: [TrueMask(t.label, t.mask, factor * t.area, t.crowd) for t in ts] for n, ts in truth.items()}
    mine = mask_ap(larger, found, labels=LABELS, pixel_areas=dict.fromkeys(truth, factor)).overall
    plain = mask_ap(truth, found, labels=LABELS).overall
    assert mine["AP"] == plain["AP"]
    assert mine["AP_large"] != plain["AP_large"]
    counted = mask_ap(larger, found, labels=LABELS, pixel_areas={}).overall
    assert counted["AP_large"] != mine["AP_large"]


def test_nothing_found_and_nothing_true():
    truth, _ = make(0)
    nothing = {name: Detections(name, [], [], []) for name in truth}
    mine = mask_ap(truth, nothing, labels=LABELS)
    assert set(mine.overall.values()) == {0.0}
    assert mine.of_class["AP"][:3].tolist() == [0, 0, 0]
    assert np.isnan(mine.of_class["AP"][3])
    empty = mask_ap({"a": []}, {}, labels=2).overall
    assert (empty["AP"], empty["AP50"], empty["AP75"]) == (0, 0, 0)
    assert np.isnan(empty["AP_small"])
    only_crowd = {"a": [TrueMask(0, box(0, 0, 9, 9), 81.0, crowd=True)]}
    assert mask_ap(only_crowd, {}, labels=1).overall["AP"] == 0
