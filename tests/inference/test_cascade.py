"""Compare the merging of views and models with the plain scheme, and test symmetries."""

import numpy as np
import pytest
import torch

import fashion_hydra.model  # noqa: F401 - must be imported before mmdet
from fashion_hydra.inference.cascade import _padded, merge_sources
from fashion_hydra.inference.merging import FEATURE_CACHES, Merging, feature_bytes
from fashion_hydra.model.htc import build_htc
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.batch import ScaledImage
from fashion_hydra.utils.errors import UserError

RULE = Postprocess(score_thr=0.2, iou_thr=0.5, mask_thr=0.5, max_per_image=10**6)
BOTH = (False, True)
CPU = torch.device("cpu")


def model(seed, *, mask_roi_size=8, depth=18):
    """Build a small cascade whose scores differ clearly between boxes."""
    torch.manual_seed(seed)
    detector = build_htc(
        num_classes=5,
        backbone={"type": "ResNet", "depth": depth, "base_channels": 8, "channels": [8, 16, 32, 64],
                  "mean": [120.0] * 3, "std": [60.0] * 3, "channel_order": "rgb"},
        neck_channels=16, fc_channels=32, mask_channels=16, mask_convs=1, mask_roi_size=mask_roi_size,
        anchor_scale=4, anchor_ratios=[0.5, 1.0, 2.0], rpn_batch=64, train_proposals=50, test_proposals=40,
        proposal_iou_thr=0.7, rois_per_stage=16, stage_ious=[0.5, 0.6, 0.7], stage_weights=[1.0, 0.5, 0.25],
        roi_sampling_ratio=1, norm=None, gradient_checkpointing=False,
    )  # fmt: skip
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=0.8)
        torch.nn.init.normal_(head.fc_reg.weight, std=0.05)
    return detector.eval()


def image(short_edges=(64, 80, 96), seed=0, mirrored=False):
    """Make a picture at several scales, with edges that are whole pixels at every scale."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 255, (1, 3, 12, 8))).float()
    scales = []
    for edge in short_edges:
        scaled = torch.nn.functional.interpolate(coarse, size=(edge * 3 // 2, edge), mode="bilinear")[0].round().byte()
        scales.append(scaled.flip(-1) if mirrored else scaled)
    return ScaledImage("one", (192, 128), tuple(scales))


def merged(detectors, scaled, **how):
    return merge_sources(detectors, scaled, [RULE], Merging(**how), device=CPU)


@pytest.fixture(scope="module")
def two():
    return [model(0), model(1)]


def test_the_scheme_is_the_one_written_out(two):
    from benchmarks.plain_scheme import plain_scheme

    scaled = image()
    found = merged(two, scaled, flips=BOTH)
    boxes, scores, labels, masks = plain_scheme(two, scaled.images, BOTH, scaled.size, score_thr=0.2, iou_thr=0.5)
    assert len(labels) > 10
    assert len(set(labels.tolist())) > 1
    assert found.labels.tolist() == labels.tolist()
    torch.testing.assert_close(found.boxes, boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=0)


def test_three_copies_of_a_model_are_one(two):
    one, three = (merged([two[0]] * n, image(), flips=BOTH) for n in (1, 3))
    assert len(one) > 5
    assert three.labels.tolist() == one.labels.tolist()
    torch.testing.assert_close(three.boxes, one.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(three.scores, one.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(three.masks, one.masks, atol=1e-5, rtol=0)


def test_a_model_of_weight_two_counts_twice(two):
    thrice = merged([two[0], two[0], two[1]], image(), flips=BOTH)
    weighted = merged(two, image(), flips=BOTH, weights=[3.0, 1.5])
    equal = merged(two, image(), flips=BOTH)
    assert len(weighted) > 5
    assert weighted.labels.tolist() == thrice.labels.tolist()
    torch.testing.assert_close(weighted.boxes, thrice.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(weighted.scores, thrice.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(weighted.masks, thrice.masks, atol=1e-5, rtol=0)
    assert len(equal) != len(weighted) or (equal.scores - weighted.scores).abs().max() > 1e-3


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_cannot_be(weights):
    with pytest.raises(UserError, match=r"ensemble\.weights=.*give a number above 0 for each of the 2 models"):
        Merging(weights=weights).check_weights(2)


def test_a_mirrored_image_has_the_mirrored_answer(two):
    found, mirror = (merged(two, image(mirrored=m), flips=BOTH) for m in BOTH)
    assert mirror.labels.tolist() == found.labels.tolist()
    x0, y0, x1, y1 = found.boxes.unbind(1)
    torch.testing.assert_close(mirror.boxes, torch.stack([128 - x1, y0, 128 - x0, y1], 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(mirror.scores, found.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(mirror.masks, found.masks.flip(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cache", FEATURE_CACHES)
@pytest.mark.parametrize("in_flight", [1, 2])
def test_where_features_live_changes_nothing(two, cache, in_flight):
    wanted = merged(two, image(), flips=BOTH)
    found = merged(two, image(), flips=BOTH, feature_cache=cache, in_flight=in_flight)
    assert found.labels.tolist() == wanted.labels.tolist()
    torch.testing.assert_close(found.boxes, wanted.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.masks, wanted.masks, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("cache", "times"), [("device", 1), ("host", 1), ("recompute", 3)])
def test_how_often_each_sources_features_are_computed(two, cache, times, monkeypatch):
    seen = []
    for detector in two:
        plain = detector.features
        monkeypatch.setattr(detector, "features", lambda i, s, plain=plain: (seen.append(len(i)), plain(i, s))[1])
    merged(two, image(), flips=BOTH, feature_cache=cache)
    assert seen == [2] * (2 * 3 * times)  # image and mirror image share a batch


def test_models_of_other_architecture_and_mask_grid_merge(two):
    found = merged([two[0], model(5, mask_roi_size=14, depth=34)], image())
    assert found.masks.shape[1:] == (28, 28)
    assert 0 <= float(found.masks.min()) <= float(found.masks.max()) <= 1


def test_nothing_found_is_no_error(two):
    rule = Postprocess(score_thr=1.0, iou_thr=0.5, mask_thr=0.5, max_per_image=10)
    found = merge_sources(two, image(), [rule], Merging(flips=BOTH), device=CPU)
    assert len(found) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": []}, "tta.flips"),
        ({"flips": [True, True]}, "tta.flips"),
        ({"feature_cache": "disk"}, "give device, host, recompute"),
        ({"in_flight": 3}, "give 1 or 2"),
        ({"max_proposals": 0}, "inference.max_proposals=0"),
        ({"mask_grid": 0}, "inference.mask_grid=0: must be between 1 and 512, or null"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Merging(**options)


def test_kept_features_take_what_is_stated(two):
    scaled = image()
    wanted = sum(
        level.numel() * 4
        for detector in two
        for picture in scaled.images
        for level in detector.features(_padded(picture, BOTH), [tuple(picture.shape[1:])] * 2)
    )
    scales = [(picture.shape[2], picture.shape[1]) for picture in scaled.images]
    assert feature_bytes([(d.channels, d.strides) for d in two], scales, 2) == pytest.approx(wanted, rel=0.02)
