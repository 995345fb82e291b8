"""AP of each class against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashion_hydra.evaluation.coco_ap import mask_ap, mask_ap_by_class
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_coco

SIZE, LABELS = 96, 4


def box(x, y, w, h):
    bitmap = np.zeros((SIZE, SIZE), np.uint8)
    bitmap[y : y + h, x : x + w] = 1
    return runs_to_coco(bitmap_to_runs(bitmap), height=SIZE, width=SIZE)


@pytest.fixture(scope="module")
def made():
    """Truth of labels 0 and 1, and of 2 which nothing finds; detections of 0, 1 and 3, which is nowhere true."""
    rng, truth, found = np.random.default_rng(0), {}, {}
    for image in range(25):
        objects, labels, masks = [], [], []
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = *rng.integers(0, 50, 2), *rng.integers(8, 45, 2)
            label = int(rng.integers(0, 3))
            objects.append((label, box(x, y, w, h)))
            if label < 2 and rng.random() < 0.8:
                labels.append(label)
                masks.append(box(max(0, x + rng.integers(-3, 4)), y, w, max(4, h - rng.integers(0, 6))))
        labels.append(3)
        masks.append(box(0, 0, 9, 9))
        order = np.argsort(rng.random(len(labels)))
        scores = np.sort(rng.random(len(labels)))[::-1].tolist()
        truth[f"{image}.jpg"] = objects
        found[f"{image}.jpg"] = Detections(
            f"{image}.jpg", [labels[i] for i in order], scores, [masks[i] for i in order]
        )
    return truth, found


def reference(truth, found, label):
    """pycocotools' AP of one class."""
    ids = {name: number for number, name in enumerate(truth, start=1)}
    dataset = COCO()
    annotations = [
        {
            "id": 0,
            "image_id": ids[n],
            "category_id": c,
            "segmentation": m,
            "area": float(coco_mask.area(m)),
            "iscrowd": 0,
        }
        for n, objects in truth.items()
        for c, m in objects
    ]
    dataset.dataset = {
        "images": [{"id": i, "height": SIZE, "width": SIZE} for i in ids.values()],
        "categories": [{"id": c, "name": str(c)} for c in range(LABELS)],
        "annotations": [{**a, "id": i} for i, a in enumerate(annotations, start=1)],
    }
    dataset.createIndex()
    results = [
        {"image_id": ids[n], "category_id": c, "segmentation": m, "score": s}
        for n, d in found.items()
        for c, s, m in zip(d.labels, d.scores, d.masks, strict=True)
    ]
    evaluation = COCOeval(dataset, dataset.loadRes(results), "segm")
    evaluation.params.catIds = [label]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def test_each_class_is_pycocotools(made):
    overall, of_class = mask_ap_by_class(*made, labels=LABELS)
    assert of_class[:3] == pytest.approx([reference(*made, label) for label in range(3)], abs=1e-9)
    assert of_class[2] == 0
    assert np.isnan(of_class[3])
    assert overall["AP"] == pytest.approx(np.nanmean(of_class))
    assert 0.1 < of_class[0] < 1
    assert mask_ap(*made, labels=LABELS) == overall


def test_nothing_found(made):
    nothing = {name: Detections(name, [], [], []) for name in made[0]}
    overall, of_class = mask_ap_by_class(made[0], nothing, labels=LABELS)
    assert set(overall.values()) == {0.0}
    assert of_class[:3].tolist() == [0, 0, 0]
    assert np.isnan(of_class[3])
