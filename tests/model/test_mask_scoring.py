"""Mask scoring: targets against full bitmaps, the loss as it is defined, and nothing else of the model changed."""

import numpy as np
import pytest
import torch

from fashion_hydra.inference.cascade import find_candidates, merge_sources
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model import mask_scoring
from fashion_hydra.model.htc import build_htc
from fashion_hydra.postprocess.rule import COCO_RULE, Postprocess
from fashion_hydra.structures.batch import ScaledImage
from tests.helpers import losses_without, model_options, record_results, training_batch


@pytest.fixture(scope="module")
def batch(wardrobe):
    return training_batch(wardrobe, [31, 23, 10, 6, 1, 32, 4], images=4, flip=0.5)[1]


def tiny(**changes):
    torch.manual_seed(0)
    return build_htc(num_classes=7, **{**model_options(), "mask_scoring": True, **changes})


def spread(detector):
    """Give the new head outputs that differ from RoI to RoI."""
    torch.nn.init.normal_(detector.net.roi_head.mask_iou_head.fc_mask_iou.weight, std=0.5)
    return detector


def test_targets_are_the_ious_of_full_bitmaps():
    rng = np.random.default_rng(0)
    cells, frame = 8, 120
    masks, targets, boxes, areas, expected = [], [], [], [], []
    for _ in range(30):
        cell = int(rng.integers(1, 6))
        x, y = rng.integers(10, frame - 10 - cells * cell, 2)
        mask, inside = rng.random((2, cells, cells)) < rng.uniform(0, 1, (2, 1, 1))
        truth, predicted = np.zeros((2, frame, frame), bool)
        truth[rng.random((frame, frame)) < 0.02] = True  # parts of the object outside the box
        window = slice(y, y + cells * cell), slice(x, x + cells * cell)
        truth[window] = np.kron(inside, np.ones((cell, cell), bool))
        predicted[window] = np.kron(mask, np.ones((cell, cell), bool))
        expected.append((truth & predicted).sum() / (truth | predicted).sum())
        masks.append(mask)
        targets.append(inside)
        boxes.append([x, y, x + cells * cell, y + cells * cell])
        areas.append(truth.sum())
    arrays = torch.tensor(np.array(masks)), torch.tensor(np.array(targets))
    found = mask_scoring.mask_ious(*arrays, torch.tensor(boxes).float(), torch.tensor(areas).float())
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_no_masks_and_empty_masks_have_targets():
    nothing = torch.zeros(0, 8, 8, dtype=torch.bool)
    assert len(mask_scoring.mask_ious(nothing, nothing, torch.zeros(0, 4), torch.zeros(0))) == 0
    empty = torch.zeros(1, 8, 8, dtype=torch.bool)
    assert mask_scoring.mask_ious(empty, empty, torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([0.0])).tolist() == [0]


def test_areas_are_the_pixels_of_the_masks(batch):
    from fashion_hydra.model.mask_targets import GroundTruthMasks

    for targets in batch.targets:
        assert GroundTruthMasks(targets.masks).areas.tolist() == targets.masks.bitmaps().sum((1, 2)).tolist()


@pytest.mark.parametrize("semantic_convs", [0, 2])
def test_the_other_losses_are_those_without_mask_scoring(batch, semantic_convs):
    with_head = tiny(semantic_convs=semantic_convs).train()
    without = tiny(mask_scoring=False, semantic_convs=semantic_convs).train()
    assert losses_without(without, with_head, batch, "mask_iou_head") == {"s2.loss_mask_iou"}


def test_the_loss_is_the_mean_cross_entropy_and_trains_only_the_head(batch, monkeypatch):
    detector = spread(tiny().train())
    head, seen = detector.net.roi_head.mask_iou_head, {}
    ious = mask_scoring.mask_ious

    def spy_ious(*arguments):
        seen["wanted"] = ious(*arguments)
        return seen["wanted"]

    def spy_head(module, arguments, output):
        seen["logits"] = output.detach()

    def spy_labels(self, masks):
        seen["labels"] = torch.cat([sampled.pos_gt_labels for sampled in masks.sampled])
        return original(self, masks)

    original = mask_scoring.PointRoIHead.losses_of_last_masks
    monkeypatch.setattr(mask_scoring, "mask_ious", spy_ious)
    monkeypatch.setattr(mask_scoring.PointRoIHead, "losses_of_last_masks", spy_labels)
    head.register_forward_hook(spy_head)
    loss = detector.loss(batch)["s2.loss_mask_iou"]
    chosen = seen["logits"][torch.arange(len(seen["labels"])), seen["labels"]].double().sigmoid().numpy()
    wanted = seen["wanted"].double().numpy()
    assert len(wanted) > 8
    assert wanted.std() > 0
    terms = -(wanted * np.log(chosen) + (1 - wanted) * np.log(1 - chosen))
    assert loss.item() == pytest.approx(0.25 * terms.mean(), rel=1e-4)  # the last stage's weight
    loss.backward()
    reached = {name for name, parameter in detector.named_parameters() if parameter.grad is not None}
    assert reached == {f"net.roi_head.mask_iou_head.{name}" for name, _ in head.named_parameters()}


def test_images_without_objects_train(batch, wardrobe):
    _, empty = training_batch(wardrobe, [20], images=2, short_edge=[100, 100])
    losses = tiny().train().loss(empty)
    assert float(losses["s2.loss_mask_iou"]) == 0
    torch.stack(list(losses.values())).sum().backward()


def test_ious_are_means_over_the_views_and_models_that_predict_them(batch):
    detectors = [spread(tiny()).eval(), spread(tiny()).eval(), tiny(mask_scoring=False).eval()]
    for seed, detector in enumerate(detectors):
        torch.manual_seed(seed)
        for head in detector.net.roi_head.bbox_head:
            torch.nn.init.normal_(head.fc_cls.weight, std=0.5)
    image = batch.images[0][:, : batch.sizes[0][0], : batch.sizes[0][1]]
    scaled = ScaledImage("x", batch.sizes[0], (image,))
    results = record_results(detectors, "segment")
    found = merge_sources(detectors, scaled, [COCO_RULE], Merging(flips=[False, True]), device=torch.device("cpu"))
    seen = [one.ious for one in results if one.ious is not None]
    assert len(seen) == 4  # two of the three models, each on the image and its mirror image
    assert len(found) > 10
    assert torch.allclose(found.mask_ious, torch.stack(seen).mean(0))
    assert found.mask_ious.std() > 0


def test_masks_of_every_survivor_of_nms_are_scored(batch):
    """The best so many are chosen by the product of both scores, which is not known before."""
    rule = Postprocess(score_thr=0.05, iou_thr=0.5, mask_thr=0.5, max_per_image=2)
    detector = tiny().eval()
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=0.1)
    assert max(len(found) for found in find_candidates(detector, batch, [rule])) > 2


@pytest.mark.parametrize("attributes", [False, True])
def test_a_step_reaches_every_parameter(batch, wardrobe, attributes):
    changes = {}
    if attributes:
        classes, batch = training_batch(wardrobe, [31, 23, 10, 6, 1, 32, 4], images=4, attributes=True)
        changes = {"attributes": True, "attribute_set": classes.attributes}
    detector = tiny(**changes).train()
    torch.stack(list(detector.loss(batch).values())).sum().backward()
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []
