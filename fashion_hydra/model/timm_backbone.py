"""timm networks as backbones: any network whose `features_only` model has features at strides 4, 8, 16 and 32."""

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
"""`model.backbone.type` of timm networks."""
_STRIDES = (4, 8, 16, 32)
_IN_STAGE = re.compile(r"(?:layers?|stages?|blocks?)[._]?\d")  # does not match parameters of the stem


@dataclass(frozen=True)
class TimmNetwork:
    """Properties of a timm network.

    Args:
        out_indices: indices of the features at strides 4, 8, 16 and 32.
        channels: number of channels of each of these features.
        mean: per-channel mean, RGB, on the 0-255 scale.
        std: per-channel standard deviation, RGB, on the 0-255 scale.
        pretrained: source of the published weights.
        any_size: arguments that make a network of fixed input size accept images of any size.
    """

    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: PretrainedCfg
    any_size: Mapping[str, Any]


@cache
def describe_network(name: str) -> TimmNetwork:
    """Return the properties of a timm network without allocating its parameters.

    Args:
        name: timm's name, with or without the tag of the weights: `resnet50`, `convnext_tiny.fb_in1k`.

    Raises:
        UserError: timm has no such network, or the network has no features at strides 4, 8, 16 and 32.
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
    except Exception as error:  # timm's networks raise many types of errors
        if any_size and "strict_img_size" in str(error):
            edges = "x".join(map(str, pretrained.input_size[1:]))
            raise UserError(f"{option}: accepts only images of {edges} pixels. Choose another network") from error
        raise UserError(f"{option}: timm cannot extract features ({error}). Choose another network") from error
    at_stride = {int(entry["reduction"]): index for index, entry in enumerate(info.info)}
    if missing := [stride for stride in _STRIDES if stride not in at_stride]:
        raise UserError(
            f"{option}: no features at stride {missing[0]} (available: {sorted(at_stride)}). Choose a network with "
            "features at strides 4, 8, 16 and 32"
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
    """Create a timm network that returns features; `Any`, because timm does not type its attributes."""
    return timm.create_model(name, features_only=True, **options)


class TimmBackbone(nn.Module):
    """A timm network that returns features at strides 4, 8, 16 and 32.

    Args:
        name: timm's name, with or without the tag of the weights.
        frozen_stages: number of frozen stages after the stem: 0 freezes only the stem, -1 nothing.
        norm_eval: whether batch norms keep their initial statistics in training.
        drop_path_rate: share of residual branches dropped in training (stochastic depth).
        with_cp: recompute activations in the backward pass to save memory.

    Raises:
        UserError: see `describe_network`; or `frozen_stages` is out of range.
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
            raise UserError(f"model.backbone.frozen_stages={frozen_stages}: must be between -1 and {len(_STRIDES)}")
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
        """Do nothing: timm has initialised the weights, but mmdet calls this method on each part of a detector."""

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Load published weights, whose names timm converts.

        Args:
            tensors: all tensors of the network as published; the classifier's are ignored.

        Raises:
            UserError: the tensors belong to another network.
        """
        logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # lists the classifier's tensors otherwise
        try:
            state = self._in_timms_names(dict(tensors))
            filled = self._create(pretrained=True, pretrained_cfg_overlay={"state_dict": state})
        except Exception as error:  # names and shapes of another network
            first = str(error).strip().splitlines()
            raise UserError(f"not the weights of timm's {self.name} ({' '.join(first[:2])})") from error
        self.body.load_state_dict(filled.state_dict())

    def _in_timms_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of EfficientNets whose stem is called `_conv_stem`; their order is timm's."""
        if "_conv_stem.weight" not in tensors:
            return tensors
        with outline():
            names = timm.create_model(self.name).state_dict()
        return dict(zip(names, tensors.values(), strict=True))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features (B, C, H / stride, W / stride) at strides 4, 8, 16, 32 of normalised images (B, 3, H, W)."""
        features = self.body(images)
        return tuple(f.permute(0, 3, 1, 2).contiguous() if self._is_channels_last else f for f in features)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen layers and, with `norm_eval`, batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self, stages: int) -> list[nn.Module]:
        """Freeze the parameters that the first stages' features depend on, and return their modules.

        Gradients determine these parameters, because timm's networks share no naming convention.
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
