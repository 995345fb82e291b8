"""Refined masks: targets, points and features against mmdet's PointRend, and nothing else of the model changed."""

import numpy as np
import pytest
import torch
from mmcv.ops import point_sample, rel_roi_point_to_rel_img_point
from mmdet.models.roi_heads.mask_heads import MaskPointHead
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from fashion_hydra.inference.cascade import find_candidates, merge_sources
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model import mask_points
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.mask_targets import GroundTruthMasks
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.batch import ScaledImage
from tests.helpers import losses_without, model_options, record_results, training_batch


@pytest.fixture(scope="module")
def batch(wardrobe):
    return training_batch(wardrobe, [31, 23, 10, 6, 1, 32, 4], images=4, flip=0.5)[1]


def tiny(**changes):
    torch.manual_seed(0)
    return build_htc(num_classes=7, **{**model_options(), "mask_refinements": 2, **changes})


def spread(detector):
    """Give the new head outputs that differ from point to point."""
    torch.nn.init.normal_(detector.net.roi_head.mask_point_head.fc_logits.weight, std=1.0)
    return detector


def test_values_at_points_are_mmdets(batch):
    targets = batch.targets[0]
    bitmaps = targets.masks.bitmaps().numpy()
    torch.manual_seed(0)
    height, width = targets.masks.size
    corners = torch.rand(12, 2, 2).sort(1).values * torch.tensor([width, height])
    rois = torch.cat([torch.zeros(12, 1), corners.flatten(1)], 1)
    inds, points = torch.randint(len(bitmaps), (12,)), torch.rand(12, 50, 2)
    truth = InstanceData(masks=BitmapMasks(list(bitmaps), height, width))
    head = MaskPointHead(num_classes=1, in_channels=4)
    wanted = head._get_targets_single(rois, points, inds, truth, ConfigDict(num_points=50))
    boxes = rois[:, 1:]
    places = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]
    found = GroundTruthMasks(targets.masks).values_at(places, inds)
    assert 0.05 < wanted.mean() < 0.95
    assert torch.allclose(found, wanted, atol=1e-4)


def test_features_at_points_are_mmcvs():
    torch.manual_seed(0)
    level, points = torch.randn(1, 5, 20, 30), torch.rand(6, 9, 2)
    corners = (torch.rand(6, 2, 2).sort(1).values * 80).flatten(1)
    rois = torch.cat([torch.zeros(6, 1), corners], 1)
    places = rel_roi_point_to_rel_img_point(rois, points, level.shape[2:], spatial_scale=0.25)
    wanted = torch.stack([point_sample(level, of_roi[None], padding_mode="border")[0] for of_roi in places])
    assert torch.allclose(mask_points._sample_level(level, 4, corners, points), wanted, atol=1e-5)


def test_points_are_the_least_certain_of_the_drawn_and_a_quarter_at_random():
    ramp = torch.linspace(0, 1, 28).expand(2, 28, 28)  # uncertain in the middle of the width
    points = mask_points.draw_points(ramp, [3])
    assert points.shape == (2, 196, 2)
    assert ((points >= 0) & (points <= 1)).all()
    apart = (points[..., 0] - 0.5).abs()
    assert apart[:, :147].max() < 0.2  # a quarter of evenly spread points, the nearest, is within an eighth
    assert apart[:, 147:].max() > 0.4
    assert torch.equal(points, mask_points.draw_points(ramp, [3]))
    assert not torch.equal(points, mask_points.draw_points(ramp, [4]))


def test_only_the_least_certain_cells_change():
    detector = spread(tiny(mask_refinements=1)).eval()
    torch.manual_seed(0)
    masks, level = torch.rand(3, 16, 16), torch.randn(1, detector.channels, 25, 25)
    boxes = torch.tensor([[10.0, 20, 60, 90], [0, 0, 100, 100], [30, 30, 34, 33]])
    refined = detector.net.roi_head.refine_masks(level, boxes, masks)
    plain = torch.nn.functional.interpolate(masks[:, None], scale_factor=2, mode="bilinear")[:, 0]
    assert ((refined >= 0) & (refined <= 1)).all()
    changed = (refined != plain).flatten(1)
    assert (changed.sum(1) <= 256).all()
    for cells, certainty in zip(changed, (plain - 0.5).abs().flatten(1), strict=True):
        assert cells.any()
        assert certainty[cells].max() <= certainty[~cells].min()


def test_a_head_that_corrects_nothing_keeps_even_masks():
    detector = tiny().eval()
    head = detector.net.roi_head.mask_point_head
    torch.nn.init.zeros_(head.fc_logits.weight)
    torch.nn.init.zeros_(head.fc_logits.bias)
    masks = torch.tensor([0.1, 0.5, 0.93])[:, None, None].expand(3, 16, 16)
    boxes = torch.tensor([[10.0, 20, 60, 90]]).expand(3, 4)
    refined = detector.net.roi_head.refine_masks(torch.randn(1, detector.channels, 25, 25), boxes, masks)
    assert refined.shape == (3, 64, 64)
    assert torch.allclose(refined, masks[:, :1, :1].expand_as(refined), atol=1e-6)


@pytest.mark.parametrize("mask_scoring", [False, True])
def test_the_other_losses_are_those_without_the_head(batch, mask_scoring):
    with_head = tiny(mask_scoring=mask_scoring).train()
    without = tiny(mask_refinements=0, mask_scoring=mask_scoring).train()
    assert losses_without(without, with_head, batch, "mask_point_head") == {"s2.loss_mask_points"}


def test_the_loss_is_the_mean_cross_entropy(batch, monkeypatch):
    detector, seen = spread(tiny().train()), {"logits": [], "wanted": []}

    def spy(owner, name, key):
        original = getattr(owner, name)

        def recorded(*arguments):
            result = original(*arguments)
            seen[key].append(result.detach())
            return result

        monkeypatch.setattr(owner, name, recorded)

    spy(mask_points.PointRoIHead, "_logits", "logits")
    spy(GroundTruthMasks, "values_at", "wanted")
    loss = detector.loss(batch)["s2.loss_mask_points"]
    p = torch.cat(seen["logits"]).double().sigmoid().numpy()
    wanted = torch.cat(seen["wanted"]).double().numpy()
    assert p.shape == wanted.shape
    assert p.size > 8 * 196
    terms = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
    assert loss.item() == pytest.approx(0.25 * terms.mean(), rel=1e-4)  # the last stage's weight


def test_an_image_has_its_own_seed(batch, monkeypatch):
    seeds, original = [], mask_points.draw_points
    monkeypatch.setattr(mask_points, "draw_points", lambda masks, seed: seeds.append(seed) or original(masks, seed))
    detector = tiny().train()
    detector.loss(batch, [100, 200, 300, 400])
    assert [seed // 100 for (seed,) in seeds] == [1, 2, 3, 4]
    boxes = {sampler.seeds[0] for sampler in [detector.net.rpn_head.sampler, *detector.net.roi_head.bbox_sampler]}
    assert min(abs(seeds[0][0] - seed) for seed in boxes) >= 16


def test_images_without_objects_train(wardrobe):
    _, empty = training_batch(wardrobe, [20], images=2, short_edge=[100, 100])
    losses = tiny().train().loss(empty)
    assert losses["s2.loss_mask_points"].item() == 0
    torch.stack(list(losses.values())).sum().backward()


@pytest.mark.parametrize("mask_scoring", [False, True])
def test_a_step_reaches_every_parameter(batch, mask_scoring):
    detector = spread(tiny(mask_scoring=mask_scoring)).train()
    torch.stack(list(detector.loss(batch).values())).sum().backward()
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []


def test_refined_masks_merge_with_coarse_ones(batch):
    detectors = [spread(tiny(mask_refinements=1)).eval(), tiny(mask_refinements=0).eval()]
    image = batch.images[0][:, : batch.sizes[0][0], : batch.sizes[0][1]]
    scaled = ScaledImage("x", batch.sizes[0], (image,))
    results = record_results(detectors, "segment")
    found = merge_sources(detectors, scaled, [COCO_RULE], Merging(flips=[False, True]), device=torch.device("cpu"))
    assert [one.masks.shape[-1] for one in results] == [32, 32, 16, 16]
    upright = [one.masks if i % 2 == 0 else one.masks.flip(-1) for i, one in enumerate(results)]
    finer = [torch.nn.functional.interpolate(m[None], size=(32, 32), mode="bilinear")[0] for m in upright]
    assert len(found) > 10
    assert torch.allclose(found.masks, torch.stack(finer).mean(0), atol=1e-6)


def test_masks_do_not_depend_on_the_other_images_of_a_batch(batch):
    detector = spread(tiny()).eval()
    together = find_candidates(detector, batch, [COCO_RULE])
    for i, found in enumerate(together):
        one = {name: value[i : i + 1] for name, value in vars(batch).items()}
        assert torch.equal(found.masks, find_candidates(detector, type(batch)(**one), [COCO_RULE])[0].masks)


def test_training_the_head_alone_brings_masks_closer_to_the_truth(batch):
    detector = tiny().train()
    detector.train_only(["roi_head.mask_point_head"])
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(25):
        loss = detector.loss(batch, [1, 2, 3, 4])["s2.loss_mask_points"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
