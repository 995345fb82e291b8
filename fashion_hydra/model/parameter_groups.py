"""Learning rate and weight decay for each parameter."""

from typing import Any

import torch
from torch import nn

from fashion_hydra.model.detector import Detector


def stage_of_parameters(backbone: nn.Module) -> dict[str, int]:
    """Return, for each parameter of a backbone, the index of the first output that depends on the parameter.

    Gradients determine the dependence, because backbones share no naming convention. A parameter that no output
    depends on gets the last index.
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
    """Sort the trainable parameters into optimizer groups.

    Args:
        detector: detector on any device.
        backbone_lr: learning rate of the backbone's last stage, as a share of the base learning rate.
        layer_decay: learning rate of each earlier stage, as a share of the next stage's.
        decay_norms: whether weight decay applies to norms and biases, the parameters with one dimension.

    Returns:
        Groups in the order of their first parameters, each with `params`, `share` (of the learning rate), and
        `weight_decay` 0 for groups without decay.
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
