"""Names of published weights: their sources, the parts they fill, and the messages if they are unavailable."""

import urllib.error

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.misc import FrozenBatchNorm2d

from fashion_hydra.cli.main import main
from fashion_hydra.config.compose import compose_config, compose_options
from fashion_hydra.config.places import CONF
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.weights.catalogue import MMDET, coco, imagenet, locate_backbone, locate_model, published
from fashion_hydra.model.weights.load import load_backbone, load_weights
from fashion_hydra.utils import download
from fashion_hydra.utils.download import download_path
from fashion_hydra.utils.errors import UserError
from fashion_hydra.workflows.train import make_detector
from tests.helpers import TINY_HEADS, model_options

CLASSES = ClassSet((6, 23, 31), ("pants", "shoe", "sleeve"))
TRAINING = [p.stem for p in (CONF / "experiment").glob("*.yaml")]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Disable the network and empty the folder of downloads; return this folder."""

    class Offline:
        def open(self, request, timeout):
            raise urllib.error.URLError("no network")

    monkeypatch.setattr(download, "_opener", Offline)
    monkeypatch.setenv("FASHION_HYDRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def backbone_of(model, *options):
    return model_options(model, *options)["backbone"]


@pytest.mark.parametrize(
    ("model", "options", "file"),
    [
        ("htc_r50", (), "download.pytorch.org/models/resnet50-0676ba61.pth"),
        ("htc_r50", ("model.backbone.depth=101",), "download.pytorch.org/models/resnet101-63fe2227.pth"),
        ("htc_r50", ("model/backbone=resnet50_dcn",), "download.pytorch.org/models/resnet50-0676ba61.pth"),
        ("htc_r50", ("model/backbone=resnet50_caffe",), "pretrain/third_party/resnet50_msra-5891d200.pth"),
        ("htc_x101", (), "download.pytorch.org/models/resnext101_64x4d-173b62eb.pth"),
        ("htc_lite", ("model/backbone=convnext_tiny",), "convnext_tiny_1k_224_ema.pth"),
        ("htc_lite", ("model/backbone=swin_tiny",), "swin_tiny_patch4_window7_224.pth"),
        ("htc_lite", ("model/backbone=timm", "model.backbone.name=resnet50"), "resnet50_a1_0-14fe96d1.pth"),
    ],
)
def test_imagenet_weights_are_found_by_the_backbone(model, options, file):
    name = imagenet(backbone_of(model, *options))
    assert any(url.endswith(file) for url in published(name, "weights").urls)


def test_coco_weights_are_found_by_the_backbone():
    assert coco(backbone_of("htc_r50")) == "torchvision:MaskRCNN_ResNet50_FPN_Weights.COCO_V1"
    urls = published(coco(backbone_of("htc_x101")), "weights").urls
    end = "htc_x101_64x4d_fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco_20200312-946fd751.pth"
    assert len(urls) == 3
    assert all(url.endswith(end) for url in urls)
    assert compose_config("train", "experiment=winner").weights == "coco"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:ResNet50_Weights.COCO", "torchvision has no weights ResNet50_Weights.COCO"),
        ("timm:resnet_50", "timm has no such network, the nearest is resnet50"),
        ("mmdet:htc", "not in the catalogue. Choose one of htc_r50_fpn_1x_coco"),
        ("imagenet50", "no such file"),
    ],
)
def test_another_name_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        locate_model(name, {})


@pytest.mark.parametrize("model", ["htc_tiny", "htc_lite"])
def test_no_weights_of_a_backbone_are_said_to_be_none(model):
    options = ("model.backbone.base_channels=16",) if model == "htc_tiny" else ("model/backbone=timm",
               "model.backbone.name=efficientvit_m0", "model.backbone.weights=null")  # fmt: skip
    if model == "htc_tiny":
        with pytest.raises(UserError, match=r"weights=imagenet: no weights known for this ResNet\. Give a file"):
            imagenet(backbone_of(model, *options))
    with pytest.raises(UserError, match=r"weights=coco: no weights known for this"):
        coco(backbone_of(model, *options))


def test_where_there_is_no_network_the_file_and_its_place_are_named(no_network):
    url = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url
    place = download_path(url, no_network)
    with pytest.raises(UserError) as error:
        locate_backbone("imagenet", backbone_of("htc_r50"))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"model.backbone.weights=imagenet: {url}: no network")
    assert f"download {url} on another machine and save it as {place}" in message
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torchvision.models.resnet50().state_dict(), place)
    assert locate_backbone("imagenet", backbone_of("htc_r50")).path == place


def test_another_mirror_is_tried(no_network):
    urls = published(f"mmdet:{next(iter(MMDET))}", "weights").urls
    place = download_path(urls[1], no_network)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"from the second address")
    assert locate_model(f"mmdet:{next(iter(MMDET))}", {}).path == place


def test_the_command_imports_weights_by_name(no_network, tmp_path, capsys):
    enum = "ResNet18_Weights.IMAGENET1K_V1"
    place = download_path(torchvision.models.get_weight(enum).url, no_network)
    place.parent.mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, place)
    out = tmp_path / "resnet18.safetensors"
    assert main(["import-checkpoint", f"torchvision:{enum}", str(out)]) == 0
    assert f"source       torchvision:{enum}\n" in capsys.readouterr().out
    torch.testing.assert_close(load_file(out)["backbone.conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize("name", TRAINING)
def test_every_recipe_builds_its_model_or_names_the_file(name, no_network):
    options = compose_options("train", f"experiment={name}", "name=x", f"paths.output_dir={no_network}")
    try:
        detector = make_detector(options, CLASSES, None)
    except UserError as error:
        assert "on another machine and save it as" in str(error)
    else:
        assert sum(p.numel() for p in detector.parameters()) > 1e6


def test_torchvisions_weights_fill_every_tensor_of_a_plain_and_a_deformable_backbone(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    options = ("model.backbone.weights=null", *TINY_HEADS)
    plain = build_htc(num_classes=3, **model_options("htc_r50", *options)).eval()
    assert "318 tensors loaded" in load_backbone(plain, tmp_path / "resnet50.pth")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for layer, feature in zip((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4),
                                  plain.net.backbone(image), strict=True):  # fmt: skip
            x = layer(x)
            assert torch.allclose(x, feature, rtol=1e-4, atol=1e-5 * float(x.abs().max()))
        deformable = build_htc(
            num_classes=3, **model_options("htc_r50", *options, "model/backbone=resnet50_dcn")
        ).eval()
        load_backbone(deformable, tmp_path / "resnet50.pth")  # its offsets start at zero
        for was, now in zip(plain.net.backbone(image), deformable.net.backbone(image), strict=True):
            assert torch.allclose(was, now, rtol=1e-3, atol=1e-4 * float(was.abs().max()))


def test_mask_rcnn_fills_backbone_pyramid_and_proposal_network(tmp_path):
    torch.manual_seed(0)
    backbone = _resnet_fpn_extractor(torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d), 5)
    theirs = MaskRCNN(backbone, 91).eval()
    for module in theirs.modules():
        if isinstance(module, FrozenBatchNorm2d):
            nn.init.uniform_(module.running_var, 1e-4, 2)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
    overwrite_eps(theirs, 0.0)  # as torchvision does with its COCO_V1 weights
    torch.save(theirs.state_dict(), tmp_path / "mask_rcnn.pth")
    options = model_options("htc_r50", "model.backbone.weights=null")
    ours = build_htc(num_classes=3, **options).eval()
    heads = {name: value.clone() for name, value in ours.net.roi_head.state_dict().items()}
    said = load_weights(ours, tmp_path / "mask_rcnn.pth", CLASSES)
    assert "heads of Mask R-CNN, which a cascade does not use" in said
    assert all(torch.equal(value, heads[name]) for name, value in ours.net.roi_head.state_dict().items())
    image = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        features = list(theirs.backbone(image).values())
        found = ours.net.extract_feat(image)
        logits, deltas = theirs.rpn.head(features)
        our_logits, our_deltas = ours.net.rpn_head(found)
    for wanted, value in zip([*features, *logits, *deltas], [*found, *our_logits, *our_deltas], strict=True):
        assert torch.allclose(wanted, value, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    anchors = theirs.rpn.anchor_generator.cell_anchors
    for wanted, base in zip(anchors, ours.net.rpn_head.prior_generator.base_anchors, strict=True):
        assert (wanted - base).abs().max() <= 0.5  # torchvision rounds anchors to whole pixels


def test_installed_weights_are_those_of_timms_classifier():
    detector = build_htc(num_classes=3, **model_options("htc_lite")).eval()
    assert "296 tensors loaded by timm" in detector.origin
    found = locate_backbone("imagenet", backbone_of("htc_lite"))
    assert found.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    network = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(found.path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = network.forward_intermediates(image, indices=[1, 2, 3, 4], intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(wanted, detector.net.backbone(image), strict=True))


def test_weights_of_another_network_of_timm_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "other.pth")
    detector = build_htc(num_classes=3, **model_options("htc_lite", "model.backbone.weights=null"))
    with pytest.raises(UserError, match=r"other\.pth: not the weights of timm's tf_efficientnet_lite0"):
        load_backbone(detector, tmp_path / "other.pth")
