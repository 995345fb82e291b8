"""The attribute head: its loss equals the definition, and other outputs do not change."""

import numpy as np
import pytest
import torch

from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSpec
from fashion_hydra.data.dataset import TrainDataset, collate
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.inference.cascade import find_candidates
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model.attribute_head import AttributeRoIHead
from fashion_hydra.model.htc import build_htc
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.batch import ScaledImage
from fashion_hydra.utils.errors import UserError
from tests.helpers import model_options, record_results, training_batch


@pytest.fixture(scope="module")
def data(wardrobe):
    """Classes with their attributes, and a batch."""
    annotations, _ = read_annotations(wardrobe)
    return *training_batch(wardrobe, [31, 23, 10, 6, 1, 32, 4], images=4, attributes=True, flip=0.5), annotations


def tiny(classes, **changes):
    torch.manual_seed(0)
    options = {**model_options(), "attributes": True, "attribute_set": classes.attributes, **changes}
    return build_htc(num_classes=len(classes), **options)


def test_targets_are_those_of_the_annotations(data):
    classes, batch, annotations = data
    index = {str(name): i for i, name in enumerate(annotations.image_ids)}
    seen = 0
    for image_id, targets in zip(batch.image_ids, batch.targets, strict=True):
        wanted = [str(annotations.class_ids[m]) for m in annotations.instances(index[image_id])]
        wanted = [c for c in wanted if int(c.split("_")[0]) in classes.ids]
        made = [
            "_".join([str(classes.ids[label]), *(str(classes.attributes.ids[a]) for a in np.flatnonzero(row))])
            for label, row in zip(targets.labels, targets.attributes.numpy(), strict=True)
        ]
        assert made == wanted
        seen += int(targets.attributes.sum())
    assert seen > 10


@pytest.mark.parametrize("kind", ["bce", "balanced", "focal"])
def test_the_loss_is_the_mean_over_attributes_that_count(data, kind, monkeypatch):
    classes, batch, _ = data
    detector = tiny(classes, attribute_loss=kind, attribute_weight=3.0).train()
    sampled = []
    original = AttributeRoIHead.bbox_loss

    def spy(self, stage, x, sampling_results, semantic_feat=None):
        result = original(self, stage, x, sampling_results, semantic_feat)
        sampled.append((stage, sampling_results, result["attribute_logits"].detach()))
        return result

    monkeypatch.setattr(AttributeRoIHead, "bbox_loss", spy)
    losses = detector.loss(batch)
    assert [stage for stage, *_ in sampled] == [0, 1, 2]
    frequency = np.clip(classes.attributes.frequencies(), 0.01, 0.99)
    for stage, results, logits in sampled:
        row, terms = 0, []
        for one, targets in zip(results, batch.targets, strict=True):
            for i in range(len(one.priors)):
                if i < len(one.pos_inds):
                    truth = int(one.pos_assigned_gt_inds[i])
                    for a in classes.attributes.of_label[int(targets.labels[truth])]:
                        p, has = float(torch.sigmoid(logits[row, a].double())), bool(targets.attributes[truth, a])
                        right = p if has else 1 - p
                        factor = {
                            "bce": 1.0,
                            "balanced": (1 - frequency[a]) / frequency[a] if has else 1.0,
                            "focal": (0.25 if has else 0.75) * (1 - right) ** 2,
                        }[kind]
                        terms.append(-factor * np.log(right))
                row += 1
        assert row == len(logits)
        assert len(terms) > 20
        stage_weight = (1.0, 0.5, 0.25)[stage]
        assert float(losses[f"s{stage}.loss_attribute"]) == pytest.approx(stage_weight * 3 * np.mean(terms), rel=1e-4)


def test_the_other_losses_are_those_without_attributes(data):
    classes, batch, _ = data
    with_them, without = tiny(classes).train(), tiny(classes, attributes=False).train()
    state = {k: v for k, v in with_them.net.state_dict().items() if ".fc_attribute." not in k}
    without.net.load_state_dict(state)
    seeds = [1, 2, 3, 4]
    mine, theirs = with_them.loss(batch, seeds), without.loss(batch, seeds)
    assert mine.keys() - theirs.keys() == {f"s{stage}.loss_attribute" for stage in range(3)}
    for name, value in theirs.items():
        assert value.item() == pytest.approx(mine[name].item(), rel=1e-6), name
    torch.stack(list(mine.values())).sum().backward()
    assert [n for n, p in with_them.named_parameters() if p.grad is None] == []
    assert not hasattr(without.net.roi_head, "allowed")


def test_attributes_begin_as_frequent_as_they_are(data):
    classes, batch, _ = data
    detector = tiny(classes).eval()
    found = find_candidates(detector, batch, [COCO_RULE])
    shares = torch.cat([one.attributes for one in found]).float().mean(0).numpy()
    assert shares == pytest.approx(np.clip(classes.attributes.frequencies(), 0.01, 0.99), abs=0.05)


def test_images_without_objects_train(data):
    classes, _, annotations = data
    from dataclasses import replace

    nothing = replace(ClassSpec("none here", [20]).resolve(annotations.names, []), attributes=classes.attributes)
    dataset = TrainDataset(annotations, np.arange(2), nothing, Augment(short_edge=[100, 100], long_edge=160), seed=0)
    losses = tiny(classes).train().loss(collate([dataset[0, 0], dataset[0, 1]]))
    assert all(float(losses[f"s{stage}.loss_attribute"]) == 0 for stage in range(3))
    torch.stack(list(losses.values())).sum().backward()


def test_probabilities_are_means_over_stages_views_and_models(data):
    """As for classes, logits are averaged over stages, and then probabilities over sources."""
    from fashion_hydra.inference.cascade import merge_sources

    classes, batch, _ = data
    detectors = [tiny(classes).eval(), tiny(classes).eval()]
    for seed, detector in enumerate(detectors):
        torch.manual_seed(seed)
        for head in detector.net.roi_head.bbox_head:
            torch.nn.init.normal_(head.fc_attribute.weight, std=0.5)
            torch.nn.init.normal_(head.fc_cls.weight, std=0.5)
    image = batch.images[0][:, : batch.sizes[0][0], : batch.sizes[0][1]]
    scaled = ScaledImage("x", batch.sizes[0], (image,))
    results = record_results(detectors, "refine")
    found = merge_sources(detectors, scaled, [COCO_RULE], Merging(flips=[False, True]), device=torch.device("cpu"))
    seen = [one.attributes for one in results]
    assert len(seen) == 4  # two models, each on the image and its mirror image
    mean = torch.stack(seen).mean(0).half()
    assert all((mean == row).all(1).any() for row in found.attributes)
    assert found.attributes.dtype == torch.float16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attribute_set": None}, r"model\.attributes=true: no attributes given\. Use data with attributes"),
        ({"attribute_loss": "mse"}, r"model\.attribute_loss=mse .*must be a loss among bce, balanced, focal"),
        ({"attribute_weight": 0}, r"attribute_weight=0: must be a loss among .* and a weight above 0"),
    ],
)
def test_options_that_cannot_be(data, changes, message):
    with pytest.raises(UserError, match=message):
        tiny(data[0], **changes)
