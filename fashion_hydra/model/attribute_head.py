"""Multi-label classification of garment attributes in each box head, on the box's own features.

The attribute branch of Fashionpedia's Attribute-Mask R-CNN (Jia et al., ECCV 2020, arXiv:2004.12276) in a cascade. The
loss covers the attributes that occur with the object's class; for an object without attributes, all are negatives.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import Shared2FCBBoxHead
from mmdet.models.task_modules import SamplingResult
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from fashion_hydra.model.mask_scoring import MaskScoringRoIHead

LOSSES = ("bce", "balanced", "focal")
_RAREST = 0.01
"""Lower limit of the frequencies, so that rare attributes do not get too much weight."""


class AttributeBoxHead(Shared2FCBBoxHead):
    """A box head that also predicts attributes.

    Args:
        num_attributes: number of attributes.
        arguments: arguments of mmdet's `Shared2FCBBoxHead`.
    """

    def __init__(self, *, num_attributes: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.fc_attribute = nn.Linear(self.fc_out_channels, num_attributes)
        self._attribute_logits: Tensor | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and box deltas of RoI features (N, C, 7, 7); keep the logits of the attributes."""
        shared = x.flatten(1)
        for layer in self.shared_fcs:
            shared = self.relu(layer(shared))
        self._attribute_logits = self.fc_attribute(shared)
        return self.fc_cls(shared), self.fc_reg(shared)

    def take_attribute_logits(self) -> Tensor:
        """Return the attribute logits (N, A) of the last `forward`, once."""
        logits, self._attribute_logits = self._attribute_logits, None
        assert logits is not None, "call forward first"
        return logits


class AttributeRoIHead(MaskScoringRoIHead):
    """Hybrid Task Cascade's RoI head with attributes in the box heads.

    Args:
        allowed: C lists of A booleans: which attributes each class can have.
        frequencies: frequency of each attribute among the objects that can have the attribute.
        attribute_loss: one of `LOSSES`.
        attribute_weight: weight of the attribute loss.
        arguments: arguments of `MaskScoringRoIHead`.
    """

    allowed: Tensor
    positive_weight: Tensor

    def __init__(
        self,
        *,
        allowed: Sequence[Sequence[bool]],
        frequencies: Sequence[float],
        attribute_loss: str,
        attribute_weight: float,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.attribute_loss, self.attribute_weight = attribute_loss, attribute_weight
        share = torch.tensor(frequencies, dtype=torch.float32).clamp(_RAREST, 1 - _RAREST)
        self.register_buffer("allowed", torch.tensor(allowed, dtype=torch.bool), persistent=False)
        self.register_buffer("positive_weight", (1 - share) / share, persistent=False)
        for head in self.bbox_head:  # the initial probability of an attribute is its frequency
            nn.init.normal_(head.fc_attribute.weight, std=0.01)
            with torch.no_grad():
                head.fc_attribute.bias.copy_(torch.log(share / (1 - share)))
        self.counted: dict[str, int] = {}
        self._truth: list[Tensor] = []

    def _bbox_forward(
        self, stage: int, x: tuple[Tensor], rois: Tensor, semantic_feat: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return mmdet's result and `attribute_logits` (N, A)."""
        result: dict[str, Tensor] = super()._bbox_forward(stage, x, rois, semantic_feat)
        return {**result, "attribute_logits": self.bbox_head[stage].take_attribute_logits()}

    def loss(self, x: tuple[Tensor], rpn_results_list: InstanceList, batch_data_samples: SampleList) -> dict:
        """Return mmdet's losses and `loss_attribute`; each sample needs `gt_instances.attributes`, bool (N, A)."""
        self.counted, self._truth = {}, [sample.gt_instances.attributes for sample in batch_data_samples]
        losses: dict = super().loss(x, rpn_results_list, batch_data_samples)
        self._truth = []
        return losses

    def bbox_loss(
        self,
        stage: int,
        x: tuple[Tensor],
        sampling_results: list[SamplingResult],
        semantic_feat: Tensor | None = None,
    ) -> dict:
        """Return mmdet's result and `loss_attribute`, a mean over the allowed attributes of the positive boxes."""
        result: dict = super().bbox_loss(stage, x, sampling_results, semantic_feat)
        pairs = zip(sampling_results, self._truth, strict=True)
        truth = torch.cat([of_image[sampled.pos_assigned_gt_inds] for sampled, of_image in pairs])
        labels = torch.cat([sampled.pos_gt_labels for sampled in sampling_results])
        logits = result["attribute_logits"][_positions(sampling_results)]
        counts = self.allowed[labels]
        self.counted[f"s{stage}.loss_attribute"] = count = int(counts.sum())
        each = self._loss_of_each(logits.float(), truth.to(logits.device, torch.float32))
        result["loss_bbox"]["loss_attribute"] = self.attribute_weight * (each * counts).sum() / max(1, count)
        return result

    def _loss_of_each(self, logits: Tensor, truth: Tensor) -> Tensor:
        if self.attribute_loss == "focal":  # alpha and gamma of Lin et al. 2017, as in Fashionpedia
            return sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0, reduction="none")
        weight = self.positive_weight if self.attribute_loss == "balanced" else None
        return F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none")


def _positions(sampling_results: Sequence[SamplingResult]) -> Tensor:
    """Return the indices of the positive boxes among the boxes of all images; in each image, positives come first."""
    first, places = 0, []
    for sampled in sampling_results:
        count = len(sampled.pos_gt_labels)
        places.append(torch.arange(first, first + count, device=sampled.pos_gt_labels.device))
        first += count + len(sampled.neg_inds)
    return torch.cat(places)
