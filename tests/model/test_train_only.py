"""Training some parts of a model: nothing else moves, not even the statistics of batch norms."""

import pytest
import torch

from fashion_hydra.model.htc import build_htc
from fashion_hydra.utils.errors import UserError
from tests.helpers import model_options, training_batch


@pytest.fixture(scope="module")
def batch(wardrobe):
    return training_batch(wardrobe, [31, 23, 10], images=2)[1]


def tiny():
    torch.manual_seed(0)
    return build_htc(num_classes=3, **{**model_options(), "mask_scoring": True, "norm": "BN"}).train()


@pytest.mark.parametrize("parts", [["roi_head.mask_iou_head"], ["neck", "roi_head.mask_head.2"], ["backbone"]])
def test_a_step_changes_the_named_parts_alone(batch, parts):
    detector = tiny()
    detector.train_only(parts)
    detector.eval()
    detector.train()  # as after a validation
    before = {name: value.clone() for name, value in detector.net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    torch.stack(list(detector.loss(batch, [1, 2]).values())).sum().backward()
    optimizer.step()
    changed = {name for name, value in detector.net.state_dict().items() if not torch.equal(value, before[name])}
    assert all(any(name.startswith(f"{part}.") for part in parts) for name in changed)
    assert all(any(name.startswith(f"{part}.") for name in changed) for part in parts)


def test_frozen_stages_stay_frozen(batch):
    torch.manual_seed(0)
    options = model_options("htc_r50", "model.backbone.weights=null", "model.backbone.frozen_stages=1")
    detector = build_htc(num_classes=3, **options)
    frozen = {name for name, p in detector.named_parameters() if not p.requires_grad}
    detector.train_only(["backbone"])
    assert {n for n, p in detector.named_parameters() if not p.requires_grad and "backbone" in n} == frozen


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("head", r"schedule\.train_only=\[head\]: the model has no such part .* backbone, neck, roi_head, rpn_head"),
        ("roi_head.box", r"it has .*roi_head\.bbox_head, roi_head\.mask_head, roi_head\.mask_iou_head"),
        ("roi_head.bbox_roi_extractor", r"no such part with parameters to train"),
    ],
)
def test_a_part_that_is_not_there_is_refused(part, message):
    with pytest.raises(UserError, match=message):
        tiny().train_only([part])
