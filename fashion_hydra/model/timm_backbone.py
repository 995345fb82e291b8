"""Networks of timm as backbones: whatever its `features_only` gives at strides 4, 8, 16 and 32."""

import difflib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fashion_hydra.model.outline import outline
from fashion_hydra.utils.errors import UserError

TARGET = "fashion_hydra.model.timm_backbone.TimmBackbone"
"""`model.backbone.type` of these networks."""
_STRIDES = (4, 8, 16, 32)
_IN_STAGE = re.compile(r"(?:layers?|stages?|blocks?)[._]?\d")  # everything else before the first output is the stem


@dataclass(frozen=True)
class TimmNetwork:
    """What timm knows of a network.

    Args:
        out_indices: of the features at strides 4, 8, 16 and 32.
        channels: of each.
        mean: of each channel, RGB on 0-255.
        std: the same.
        pretrained: where its published weights are.
        any_size: arguments without which the network takes images of one size alone.
    """

    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: PretrainedCfg
    any_size: Mapping[str, Any]


@cache
def describe_network(name: str) -> TimmNetwork:
    """Return what timm knows of a network, without allocating its parameters.

    Args:
        name: timm's, with or without the tag of its weights: `resnet50`, `convnext_tiny.fb_in1k`.

    Raises:
        UserError: timm has no such network, or it has no features at strides 4, 8, 16 and 32.
    """
    option = f"model.backbone.name={name}"
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 1)
        raise UserError(f"{option}: timm has no such network" + (f", the nearest is {close[0]}" if close else ""))
    pretrained = timm.get_pretrained_cfg(name) or PretrainedCfg()
    any_size = {"strict_img_size": False} if pretrained.fixed_input_size else {}
    try:
        with outline():
            info = _create(name, **any_size).feature_info
    except Exception as error:  # timm's networks refuse in many ways
        if any_size and "strict_img_size" in str(error):
            edges = "x".join(map(str, pretrained.input_size[1:]))
            raise UserError(f"{option}: takes images of {edges} pixels alone. Choose another network") from error
        raise UserError(f"{option}: timm cannot take features out of it ({error}). Choose another network") from error
    at_stride = {int(entry["reduction"]): index for index, entry in enumerate(info.info)}
    if missing := [stride for stride in _STRIDES if stride not in at_stride]:
        raise UserError(
            f"{option}: no features at stride {missing[0]} (it has {sorted(at_stride)}); a pyramid needs them at "
            "4, 8, 16 and 32"
        )
    indices = [at_stride[stride] for stride in _STRIDES]
    return TimmNetwork(
        tuple(indices),
        tuple(info.channels(indices)),
        tuple(255 * value for value in pretrained.mean),
        tuple(255 * value for value in pretrained.std),
        pretrained,
        any_size,
    )


def _create(name: str, **options: Any) -> Any:
    """Return a network of timm that gives features; its attributes are typed nowhere."""
    return timm.create_model(name, features_only=True, **options)


class TimmBackbone(nn.Module):
    """A network of timm that gives features at strides 4, 8, 16 and 32.

    Args:
        name: timm's, with or without the tag of its weights.
        frozen_stages: stages that do not learn: 0 the stem, 1 the first stage too, and so on; -1 none.
        norm_eval: batch norms keep the statistics of the weights that training starts from.
        drop_path_rate: share of residual branches left out in training (stochastic depth).
        with_cp: recompute activations in the backward pass to save memory.

    Raises:
        UserError: see `describe_network`; or more stages to freeze than there are.
    """

    def __init__(
        self,
        name: str,
        *,
        frozen_stages: int = -1,
        norm_eval: bool = True,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if not -1 <= frozen_stages <= len(_STRIDES):
            raise UserError(f"model.backbone.frozen_stages={frozen_stages}: between -1 and {len(_STRIDES)} expected")
        self.name, self.network = name, describe_network(name)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self._arguments = {**self.network.any_size, **({"drop_path_rate": drop_path_rate} if drop_path_rate else {})}
        self.body = self._create()
        self._is_channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self._frozen = self._freeze(frozen_stages)
        if with_cp:
            self.body.set_grad_checkpointing(True)

    def _create(self, **options: Any) -> Any:
        return _create(self.name, out_indices=self.network.out_indices, **self._arguments, **options)

    def init_weights(self) -> None:
        """Do nothing: timm has set the weights, and mmdet calls this on each of its parts."""

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the network with published weights, whose names timm knows how to convert.

        Args:
            tensors: of the whole network, as published; its classifier is left out.

        Raises:
            UserError: they are not of this network.
        """
        logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # it lists the classifier's tensors
        try:
            state = self._in_timms_names(dict(tensors))
            filled = self._create(pretrained=True, pretrained_cfg_overlay={"state_dict": state})
        except Exception as error:  # names and shapes of another network
            first = str(error).strip().splitlines()
            raise UserError(f"not the weights of timm's {self.name} ({' '.join(first[:2])})") from error
        self.body.load_state_dict(filled.state_dict())

    def _in_timms_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of EfficientNets that call their stem `_conv_stem`, which are in timm's order."""
        if "_conv_stem.weight" not in tensors:
            return tensors
        with outline():
            names = timm.create_model(self.name).state_dict()
        return dict(zip(names, tensors.values(), strict=True))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (B, 3, H, W) -> features (B, C, H / stride, W / stride) at strides 4, 8, 16, 32."""
        features = self.body(images)
        return tuple(f.permute(0, 3, 1, 2).contiguous() if self._is_channels_last else f for f in features)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; frozen layers, and norms with `norm_eval`, stay in evaluation."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self, stages: int) -> list[nn.Module]:
        """Stop the parameters that the first stages' features depend on from learning; return their modules.

        Which those are, the gradients tell: no convention of names holds for all of timm's networks.
        """
        if stages < 0:
            return []
        self.body.eval()
        parameters = dict(self.body.named_parameters())
        feature = self.body(torch.zeros(1, 3, 64, 64))[max(stages, 1) - 1]
        gradients = torch.autograd.grad(feature.sum(), list(parameters.values()), allow_unused=True)
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            if gradient is not None and (stages > 0 or not _IN_STAGE.match(name)):
                parameter.requires_grad_(False)
        return [
            module
            for module in self.body.modules()
            if (own := list(module.parameters())) and not any(parameter.requires_grad for parameter in own)
        ]
