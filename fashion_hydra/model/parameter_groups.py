"""Which parameters learn at which share of the learning rate, and which are decayed."""

from typing import Any

import torch
from torch import nn

from fashion_hydra.model.detector import Detector


def stage_of_parameters(backbone: nn.Module) -> dict[str, int]:
    """Return for each parameter of a backbone the first of its outputs that depends on it, from 0.

    The gradients tell: no convention of names holds for all backbones. A parameter that no output depends on counts
    for the last.
    """
    parameters = dict(backbone.named_parameters())
    was_training, needed = backbone.training, {name: p.requires_grad for name, p in parameters.items()}
    backbone.eval()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        outputs = backbone(torch.zeros(1, 3, 64, 64, device=next(iter(parameters.values())).device))
    stages = dict.fromkeys(parameters, len(outputs) - 1)
    for stage in reversed(range(len(outputs))):
        gradients = torch.autograd.grad(
            outputs[stage].sum(), list(parameters.values()), allow_unused=True, retain_graph=stage > 0
        )
        stages |= {name: stage for name, g in zip(parameters, gradients, strict=True) if g is not None}
    for name, parameter in parameters.items():
        parameter.requires_grad_(needed[name])
    backbone.train(was_training)
    return stages


def parameter_groups(
    detector: Detector, *, backbone_lr: float = 1.0, layer_decay: float = 1.0, decay_norms: bool = True
) -> list[dict[str, Any]]:
    """Sort the parameters that learn into an optimizer's groups.

    Args:
        detector: on any device.
        backbone_lr: the last stage's share of the learning rate.
        layer_decay: each stage's share of the next one's.
        decay_norms: whether norms and biases, the parameters of one dimension, are decayed.

    Returns:
        Groups in the order of their first parameters: `params`, `share` of the learning rate, and `weight_decay` 0
        where there is to be none. One group where all parameters learn alike.
    """
    stages: dict[str, int] = {}
    if backbone_lr != 1 or layer_decay != 1:
        stages = {f"net.backbone.{name}": stage for name, stage in stage_of_parameters(detector.net.backbone).items()}
    last = max(stages.values(), default=0)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            share = backbone_lr * layer_decay ** (last - stages[name]) if name in stages else 1.0
            groups.setdefault((share, decay_norms or parameter.ndim > 1), []).append(parameter)
    return [
        {"params": params, "share": share, **({} if is_decayed else {"weight_decay": 0.0})}
        for (share, is_decayed), params in groups.items()
    ]
