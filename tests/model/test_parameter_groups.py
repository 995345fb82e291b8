import pytest
import torch
from torch import nn

from fashion_hydra.config.compose import compose_config
from fashion_hydra.model.builder import build_detector
from fashion_hydra.model.parameter_groups import parameter_groups, stage_of_parameters
from tests.helpers import TINY_BACKBONE, TINY_HEADS, model_options


def detector(*overrides):
    model = compose_config("train", "model=htc_tiny", *TINY_HEADS, *overrides).model
    return build_detector(
        {**model_options("htc_tiny", *TINY_HEADS, *overrides), "_target_": model._target_}, num_classes=3
    )


@pytest.fixture(scope="module")
def tiny():
    return detector(*TINY_BACKBONE)


class Plain(nn.Module):
    """A backbone with three stages, the second frozen, and an unused layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.unread = nn.Conv2d(4, 4, 1)
        self.second.requires_grad_(False)

    def forward(self, images):
        a = self.first(images)
        b = self.second(a)
        return a, b, self.third(b)


def test_a_parameter_belongs_to_the_first_output_that_depends_on_it():
    backbone = Plain()
    stages = stage_of_parameters(backbone)
    assert {name.partition(".")[0]: stage for name, stage in stages.items()} == {
        "first": 0, "second": 1, "third": 2, "unread": 2
    }  # fmt: skip
    assert [p.requires_grad for p in backbone.parameters()] == [True, True, False, False, True, True, True, True]
    assert all(p.grad is None for p in backbone.parameters())
    assert backbone.training


def test_stages_of_a_resnet_are_its_own(tiny):
    for name, stage in stage_of_parameters(tiny.net.backbone).items():
        assert stage == (int(name[5]) - 1 if name.startswith("layer") else 0), name


def test_all_alike_is_one_group_in_the_models_order(tiny):
    [group] = parameter_groups(tiny)
    assert group["share"] == 1
    assert "weight_decay" not in group
    assert [id(p) for p in group["params"]] == [id(p) for p in tiny.parameters() if p.requires_grad]


def test_rates_fall_from_stage_to_stage_and_norms_are_not_decayed(tiny):
    groups = parameter_groups(tiny, backbone_lr=0.5, layer_decay=0.1, decay_norms=False)
    found = {id(p): (g["share"], g.get("weight_decay")) for g in groups for p in g["params"]}
    learning = [(name, p) for name, p in tiny.named_parameters() if p.requires_grad]
    assert len(found) == sum(len(g["params"]) for g in groups) == len(learning)
    for name, parameter in learning:
        share, decay = found[id(parameter)]
        layer = int(name.split("layer")[1][0]) if ".layer" in name else 1
        assert share == pytest.approx(0.5 * 0.1 ** (4 - layer) if "backbone" in name else 1), name
        assert decay == (0.0 if parameter.ndim == 1 else None), name


def test_frozen_parameters_are_in_no_group():
    frozen = detector(*TINY_BACKBONE, "model.backbone.frozen_stages=2")
    learning = {id(p) for group in parameter_groups(frozen, layer_decay=0.5) for p in group["params"]}
    assert learning == {id(p) for p in frozen.parameters() if p.requires_grad}
    assert not any(id(p) in learning for p in frozen.net.backbone.layer1.parameters())
    assert isinstance(next(frozen.parameters()), torch.Tensor)
