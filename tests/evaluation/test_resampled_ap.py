"""Compare AP of images drawn with replacement with pycocotools on a data set that contains copies."""

import numpy as np
import pytest

from fashion_hydra.evaluation.resampled_ap import ResampledAP
from tests.evaluation.test_coco_ap import LABELS, make, reference


@pytest.mark.parametrize("crowds", [False, True])
def test_weights_are_copies(crowds):
    truth, found = make(5, crowds=crowds, images=12)
    ap = ResampledAP(truth, found, labels=LABELS)
    rng = np.random.default_rng(0)
    for weights in (np.ones(12), np.bincount(rng.integers(0, 12, 12), minlength=12), np.arange(12) == 3):
        copies = {f"{name}, {k}": name for name, w in zip(truth, weights, strict=True) for k in range(int(w))}
        wanted = reference({c: truth[n] for c, n in copies.items()}, {c: found[n] for c, n in copies.items()})
        mine = ap(weights.astype(float))
        assert [mine.mean(), mine[0], mine[5]] == pytest.approx(wanted[:3], abs=1e-9)


def test_images_without_detections_count_as_empty():
    truth, found = make(6, images=6)
    first = next(iter(found))
    empty = {name: one for name, one in found.items() if name != first}
    alone = np.zeros(6)
    alone[0] = 1
    assert ResampledAP(truth, empty, labels=LABELS)(alone).tolist() == [0.0] * 10
    assert ResampledAP(truth, {}, labels=LABELS)(np.ones(6)).tolist() == [0.0] * 10
    assert ResampledAP({"a": []}, {}, labels=LABELS)(np.ones(1)).tolist() == [0.0] * 10
