"""The losses of the box heads' classes, and the class probabilities that belong to them.

Seesaw loss (Wang et al., CVPR 2021, arXiv:2008.10032) weakens the negative gradients that frequent classes send to rare
ones, by the number of objects of each class seen so far. A box head then has two outputs instead of one for the
background: object and background.
"""

from typing import Any

import torch
from mmdet.models.losses import SeesawLoss
from torch import Tensor

from fashion_hydra.model.sampling import sum_over_ranks
from fashion_hydra.utils.errors import UserError


class SeesawClassLoss(SeesawLoss):
    """mmdet's Seesaw loss, which in distributed training counts the objects of all ranks."""

    def forward(self, cls_score: Tensor, labels: Tensor, *args: Any, **options: Any) -> dict[str, Tensor]:
        """Return the losses of objectness and of the classes, see mmdet."""
        mine = torch.bincount(labels, minlength=self.num_classes + 1).to(self.cum_samples)
        self.cum_samples += sum_over_ranks(mine) - mine  # mmdet adds this rank's
        losses: dict[str, Tensor] = super().forward(cls_score, labels, *args, **options)
        return losses


def class_loss(name: str, num_classes: int) -> dict[str, Any]:
    """Return the config of a loss: `cross_entropy` or `seesaw`.

    Raises:
        UserError: there is no loss of that name.
    """
    choices: dict[str, dict[str, Any]] = {
        "cross_entropy": {"type": "CrossEntropyLoss", "use_sigmoid": False},
        "seesaw": {"type": SeesawClassLoss, "num_classes": num_classes},
    }
    if name not in choices:
        raise UserError(f"model.class_loss={name}: choose one of {', '.join(choices)}")
    return choices[name]


def class_probabilities(box_head: Any, logits: Tensor) -> Tensor:
    """Return class probabilities (N, C + 1), background last, from a box head's logits, (N, C + 1) or (N, C + 2)."""
    if box_head.custom_activation:
        probabilities: Tensor = box_head.loss_cls.get_activation(logits)
        return probabilities
    return logits.softmax(-1)
