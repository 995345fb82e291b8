"""Fixed batch norms applied to the weights of convolutions give the outputs and gradients of the plain network."""

import copy

import pytest
import torch
from torch import nn

from fashion_hydra.model.fixed_norms import apply_fixed_norms_to_weights
from fashion_hydra.model.htc import build_htc
from tests.helpers import model_options

BACKBONES = [
    ("htc_lite", ()),
    ("htc_lite", ("model.backbone.drop_path_rate=0.2",)),
    ("htc_r50", ("model.backbone.weights=null", "model.backbone.norm_eval=true")),
    ("htc_r50", ("model.backbone.weights=null", "model/backbone=resnet50_dcn")),
]


def make(model="htc_lite", *changes):
    """Return a model's backbone in the mode of training, with norms that do something."""
    torch.manual_seed(0)
    backbone = build_htc(num_classes=3, **model_options(model, *changes)).net.backbone
    backbone.train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
    return backbone


def apply_to(backbone):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return apply_fixed_norms_to_weights(backbone, lambda: backbone(images))


def outputs_and_gradients(backbone, images):
    torch.manual_seed(1)  # stochastic depth
    outputs = backbone(images)
    sum((level**2).mean() for level in outputs).backward()
    return outputs, {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("model", "changes"), BACKBONES)
def test_outputs_and_gradients_are_those_of_the_plain_backbone(model, changes):
    plain = make(model, *changes)
    joined = copy.deepcopy(plain)
    assert apply_to(joined) > 30
    assert list(joined.state_dict()) == list(plain.state_dict())
    assert [m.training for m in joined.modules()] == [m.training for m in plain.modules()]
    images = torch.randn(2, 3, 96, 72, generator=torch.Generator().manual_seed(2))
    (outputs, gradients), (expected, wanted) = (outputs_and_gradients(net, images) for net in (joined, plain))
    assert list(gradients) == list(wanted)
    for level, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4 * float(other.detach().abs().max()))
    for name, gradient in gradients.items():
        error = float((gradient - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-12))
        assert error < 1e-3, f"{name}: {error}"


def test_norms_that_learn_statistics_stay():
    backbone = make("htc_lite", "model.backbone.norm_eval=false", "model.backbone.frozen_stages=-1")
    assert apply_to(backbone) == 0
    assert any(type(module) is nn.Conv2d for module in backbone.modules())


def test_statistics_learnt_later_are_learnt_as_in_a_plain_backbone():
    plain = make()
    joined = copy.deepcopy(plain)
    apply_to(joined)
    images = torch.randn(2, 3, 64, 64)
    for net in (plain, joined):
        for module in net.modules():
            module.training = True  # mmdet's train() would keep norms fixed
        net(images)
    torch.testing.assert_close(joined.state_dict(), plain.state_dict())


def test_a_copy_and_a_norm_that_is_replaced():
    plain = make()
    joined = copy.deepcopy(plain)
    apply_to(joined)
    copied = copy.deepcopy(joined)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.zero_()
        torch.testing.assert_close(joined(images), plain(images), rtol=1e-4, atol=1e-4)
        replaced = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
        replaced[1].running_mean.fill_(0.5)
        assert apply_fixed_norms_to_weights(replaced, lambda: [replaced(images)]) == 1
        expected = replaced(images)
        norm = nn.BatchNorm2d(4).eval()
        norm.load_state_dict(replaced[1].state_dict())
        replaced[1] = norm
        torch.testing.assert_close(replaced(images), expected)


def test_a_network_that_runs_in_another_order_stays():
    class Crossed(nn.Module):
        """The norm registered after a convolution follows another one."""

        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.second = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return [self.norm(self.second(self.first(x)))]

    network = Crossed().eval()
    network.norm.running_mean.fill_(0.7)
    images = torch.randn(1, 3, 8, 8)
    expected = network(images)
    assert apply_fixed_norms_to_weights(network, lambda: network(images)) == 0
    assert type(network.first) is nn.Conv2d
    assert type(network.norm) is nn.BatchNorm2d
    torch.testing.assert_close(network(images), expected)
