"""Losses of the heads that options choose, against torchvision's functions and against their definitions."""

import numpy as np
import pytest
import torch
from mmdet.models.losses import SeesawLoss
from torchvision.ops import generalized_box_iou_loss

from fashion_hydra.model.class_loss import SeesawClassLoss
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.mask_loss import MaskLoss
from fashion_hydra.utils.errors import UserError
from tests.helpers import model_options, training_batch


@pytest.fixture(scope="module")
def batch(wardrobe):
    return training_batch(wardrobe, [31, 23, 10], images=2)[1]


def tiny(**changes):
    torch.manual_seed(0)
    return build_htc(num_classes=3, **{**model_options(), **changes}).train()


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_mask_loss_is_cross_entropy_and_dice_of_each_mask(weight):
    rng = np.random.default_rng(0)
    logits, targets, labels = rng.normal(size=(5, 3, 6, 6)), rng.random((5, 6, 6)) < 0.4, rng.integers(0, 3, 5)
    targets[4] = False
    entropies, dices = [], []
    for mask, truth, label in zip(logits, targets, labels, strict=True):
        p = 1 / (1 + np.exp(-mask[label]))
        entropies.append(-np.where(truth, np.log(p), np.log(1 - p)).mean())
        dices.append(1 - 2 * p[truth].sum() / ((p**2).sum() + truth.sum()))
    arguments = torch.tensor(logits), torch.tensor(targets).double(), torch.tensor(labels)
    assert MaskLoss(weight)(*arguments).item() == pytest.approx(np.mean(entropies) + weight * np.mean(dices), rel=1e-6)


def test_dice_is_part_of_the_mask_losses_alone(batch):
    plain, with_dice = (tiny(dice_weight=weight).loss(batch, [1, 2]) for weight in (0.0, 1.0))
    assert plain.keys() == with_dice.keys()
    for name, value in plain.items():
        assert (with_dice[name].item() > value.item() + 1e-3) == ("loss_mask" in name), name
        if "loss_mask" not in name:
            assert with_dice[name].item() == value.item()


def test_giou_is_torchvisions_of_decoded_boxes(batch, monkeypatch):
    detector, seen = tiny(box_loss="giou"), []
    head = detector.net.roi_head
    original = type(head).bbox_loss

    def spy(self, stage, x, sampling_results, semantic_feat=None):
        result = original(self, stage, x, sampling_results, semantic_feat)
        seen.append((stage, sampling_results, result["bbox_pred"].detach()))
        return result

    monkeypatch.setattr(type(head), "bbox_loss", spy)
    losses = detector.loss(batch, [1, 2])
    for stage, sampled, deltas in seen:
        coder, first, terms, count = head.bbox_head[stage].bbox_coder, 0, 0.0, 0
        for of_image in sampled:
            own = deltas[first : first + len(of_image.pos_inds)]
            first += len(of_image.priors)
            count += len(of_image.priors)
            decoded = coder.decode(of_image.pos_priors, own)
            terms += generalized_box_iou_loss(decoded, of_image.pos_gt_bboxes, reduction="sum").item()
        weight = [1.0, 0.5, 0.25][stage]
        assert losses[f"s{stage}.loss_bbox"].item() == pytest.approx(weight * 10 * terms / count, rel=1e-4)


def test_seesaw_is_that_of_the_paper(batch, monkeypatch):
    detector, seen = tiny(class_loss="seesaw"), []
    head = detector.net.roi_head
    for box_head in head.bbox_head:
        torch.nn.init.normal_(box_head.fc_cls.weight, std=0.5)
    original = SeesawLoss.forward

    def spy(self, scores, labels, *args, **options):
        seen.append((scores.detach().double().numpy(), labels.numpy()))
        return original(self, scores, labels, *args, **options)

    monkeypatch.setattr(SeesawLoss, "forward", spy)
    losses = detector.loss(batch, [1, 2])
    assert len(seen) == 3
    for stage, (scores, labels) in enumerate(seen):
        objects = labels < 3
        counts = np.bincount(labels, minlength=4)
        assert head.bbox_head[stage].loss_cls.cum_samples.tolist() == counts.tolist()
        objectness = scores[:, 3:] - np.log(np.exp(scores[:, 3:]).sum(1, keepdims=True))
        expected = -objectness[np.arange(len(labels)), (~objects).astype(int)].sum() / len(labels)
        weight = [1.0, 0.5, 0.25][stage]
        assert losses[f"s{stage}.loss_cls_objectness"].item() == pytest.approx(weight * expected, rel=1e-4)
        terms = 0.0  # equations 4 to 7
        for row, label in zip(scores[objects, :3], labels[objects], strict=True):
            shares = np.exp(row) / np.exp(row).sum()
            mitigation = np.minimum(np.maximum(counts[:3], 1) / max(counts[label], 1), 1) ** 0.8
            compensation = np.where(shares > shares[label], (shares / max(shares[label], 0.01)) ** 2.0, 1)
            factors = mitigation * compensation
            factors[label] = 1
            terms -= row[label] - np.log((factors * np.exp(row)).sum())
        assert losses[f"s{stage}.loss_cls_classes"].item() == pytest.approx(weight * terms / len(labels), rel=1e-4)


def test_with_seesaw_probabilities_sum_to_one(batch):
    detector = tiny(class_loss="seesaw").eval()
    for box_head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(box_head.fc_cls.weight, std=0.5)
    features = detector.features(batch.images, batch.sizes)
    boxes = [boxes for boxes, _ in detector.propose(features, batch.sizes)]
    for refined in detector.refine(features, boxes, batch.sizes):
        assert refined.probabilities.shape == (len(refined.boxes), 4)
        assert refined.probabilities.sum(1).tolist() == pytest.approx([1.0] * len(refined.boxes), abs=1e-5)
        assert refined.probabilities.std(0).min() > 0


def count_half_of_the_objects(rank, address, counts):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    loss = SeesawClassLoss(num_classes=3)
    loss(torch.zeros(3, 5), torch.tensor([[0, 1, 3], [1, 1, 2]][rank]), avg_factor=3)
    counts[rank] = loss.cum_samples.tolist()
    torch.distributed.destroy_process_group()


def test_seesaw_counts_the_objects_of_all_ranks(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    with context.Manager() as manager:
        counts = manager.dict()
        address = f"file://{tmp_path}/meeting"
        ranks = [context.Process(target=count_half_of_the_objects, args=(rank, address, counts)) for rank in (0, 1)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        assert dict(counts) == {0: [1, 3, 1, 1], 1: [1, 3, 1, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_loss": "focal"}, r"model\.class_loss=focal: choose one of cross_entropy, seesaw"),
        ({"box_loss": "iou"}, r"model\.box_loss=iou: choose one of smooth_l1, giou"),
        ({"dice_weight": -1}, r"model\.dice_weight=-1: must be at least 0"),
    ],
)
def test_options_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)
