"""Each backbone of mmdet and timm is built, trained for a step, and compared before and after `for_inference`."""

import pytest
import torch
from torch import nn

from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.timm_backbone import TARGET, TimmBackbone
from fashion_hydra.utils.errors import UserError
from tests.helpers import TINY_HEADS, model_options

PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "channel_order": "rgb", "weights": None}
RESNET = {"type": "ResNet", "depth": 18, "base_channels": 8, "channels": [8, 16, 32, 64]}
DCN = {"dcn": {"type": "DCN", "deform_groups": 1, "fallback_on_stride": False}}
MMDET = {
    "ResNet": RESNET,
    "ResNet with group norms": {**RESNET, "norm_cfg": {"type": "GN", "num_groups": 4}, "norm_eval": False},
    "ResNet with deformable convolutions": {
        "type": "ResNet", "depth": 50, "base_channels": 8, "channels": [32, 64, 128, 256],
        "stage_with_dcn": [False, True, True, True], **DCN,
    },
    "RegNet": {"type": "RegNet", "arch": "regnetx_400mf", "channels": [32, 64, 160, 384]},
    "MobileNetV2": {"type": "MobileNetV2", "widen_factor": 0.5, "out_indices": [1, 2, 4, 6],
                    "channels": [16, 16, 48, 160]},
    "Res2Net": {"type": "Res2Net", "depth": 50, "base_channels": 16, "base_width": 8, "scales": 4,
                "deep_stem": True, "avg_down": True, "channels": [64, 128, 256, 512]},
    "SwinTransformer": {"type": "SwinTransformer", "embed_dims": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4],
                        "channels": [24, 48, 96, 192]},
    "PyramidVisionTransformer": {"type": "PyramidVisionTransformer", "embed_dims": 8, "num_layers": [1, 1, 1, 1],
                                 "channels": [8, 16, 40, 64], "pretrain_img_size": 64},
    "weight-standardised convolutions": {
        "type": "DetectoRS_ResNet", "depth": 50, "base_channels": 8, "channels": [32, 64, 128, 256],
        "conv_cfg": {"type": "ConvAWS"},
    },
}  # fmt: skip
TIMM = ("tf_efficientnet_lite0", "resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "mobilenetv3_small_050")


def build(backbone, *options):
    torch.manual_seed(0)
    return build_htc(num_classes=3, **{**model_options("htc_tiny", *TINY_HEADS, *options), "backbone": backbone})


def timm_backbone(name, **arguments):
    return {"type": TARGET, "name": name, "frozen_stages": -1, "norm_eval": False, "channel_order": "rgb",
            "weights": None, **arguments}  # fmt: skip


CASES = {**{name: {**PIXELS, **backbone} for name, backbone in MMDET.items()},
         **{f"timm's {name}": timm_backbone(name) for name in TIMM}}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_backbone_trains_and_predicts_the_same_once_prepared(name):
    detector = build(CASES[name])
    detector.train()
    image = torch.randn(2, 3, 64, 96)
    features = detector.net.backbone(image)
    sum(feature.square().mean() for feature in features).backward()
    learnt = [p for p in detector.net.backbone.parameters() if p.requires_grad]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in learnt)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):  # make the norm differ from the identity
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    detector.eval()
    with torch.no_grad():
        before = detector.net.extract_feat(image)
        after = detector.for_inference(torch.device("cpu")).net.extract_feat(image)
    for was, now in zip(before, after, strict=True):
        assert torch.allclose(was, now, rtol=1e-3, atol=1e-4 * float(was.abs().max()))


def test_plain_batch_norms_are_folded_and_others_are_not():
    def norms(backbone):
        net = build(backbone).for_inference(torch.device("cpu")).net.backbone
        return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())

    assert norms(CASES["ResNet"]) == 0
    assert norms(CASES["timm's resnet18"]) == 0
    assert norms(CASES["weight-standardised convolutions"]) > 0
    assert norms(CASES["timm's tf_efficientnet_lite0"]) > 0


@pytest.mark.parametrize(("backbone", "works"), [("SwinTransformer", True), ("PyramidVisionTransformer", False)])
def test_activations_are_recomputed_where_the_backbone_can(backbone, works):
    if works:
        assert build(CASES[backbone], "model.gradient_checkpointing=true")
        return
    with pytest.raises(UserError, match=f"gradient_checkpointing=true: {backbone} cannot"):
        build(CASES[backbone], "model.gradient_checkpointing=true")


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("stages", [0, 1, 3])
def test_frozen_stages_do_not_learn(name, stages):
    backbone = TimmBackbone(name, frozen_stages=stages, norm_eval=False).train()
    outputs = backbone(torch.randn(2, 3, 64, 64))
    frozen = [p for p in backbone.parameters() if not p.requires_grad]
    assert frozen
    if stages:  # features after the frozen stages depend on trained parameters; earlier features do not
        assert not outputs[stages - 1].requires_grad
        assert outputs[stages].requires_grad
    else:
        assert outputs[0].requires_grad
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training == any(p.requires_grad for p in m.parameters()) for m in norms)


def test_batch_norms_keep_their_statistics():
    backbone = TimmBackbone("resnet18", norm_eval=True).train()
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tinny", "timm has no such network, the nearest is convnext_tiny"),
        ("vit_base_patch16_224", "accepts only images of 224x224 pixels"),
        ("efficientvim_m1", "no features at stride 4"),
    ],
)
def test_a_network_that_has_no_pyramid_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        build(timm_backbone(name))


def test_pixels_and_channels_are_timms_unless_given():
    detector = build(timm_backbone("tf_efficientnet_lite0"))
    assert detector.mean.flatten().tolist() == [127.5] * 3
    detector = build(timm_backbone("tf_efficientnet_lite0", mean=[127.0] * 3, std=[128.0] * 3))
    assert detector.std.flatten().tolist() == [128.0] * 3
