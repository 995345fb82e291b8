"""mmdet's heads of Hybrid Task Cascade, with faster pooling and with what heads on the last mask stage read."""

from typing import Any, NamedTuple

import torch
from mmdet.models import HybridTaskCascadeRoIHead
from mmdet.models.task_modules import SamplingResult
from mmdet.utils import InstanceList
from torch import Tensor

from fashion_hydra.model.mask_stages import mask_logits, mask_probabilities


class LastMasks(NamedTuple):
    """What heads after the last mask stage read in a training step, for the P positive boxes of all images.

    Args:
        pyramid: the feature pyramid.
        sampled: the sampled boxes of each image.
        truth: the true objects of each image.
        labels: int64 (P,), the classes of the boxes' objects.
        masks: (P, M, M), mask probabilities averaged over the stages.
        targets: (P, M, M), the true masks on the same grids.
        features: (P, C, S, S), features of the last mask stage.
    """

    pyramid: tuple[Tensor, ...]
    sampled: list[SamplingResult]
    truth: InstanceList
    labels: Tensor
    masks: Tensor
    targets: Tensor
    features: Tensor


class CascadeRoIHead(HybridTaskCascadeRoIHead):
    """mmdet's heads; `semantic_roi_extractor` has to be a `fashion_hydra.model.roi_align.PreciseRoIExtractor`."""

    @property
    def reads_mask_stages(self) -> bool:
        """Whether a training step needs the outputs of all mask stages for the last stage's boxes."""
        return False

    def losses_of_last_masks(self, seen: LastMasks) -> dict[str, Tensor]:
        """Return the losses of the heads after the last mask stage, by name."""
        return {}

    def _bbox_forward(
        self, stage: int, x: tuple[Tensor], rois: Tensor, semantic_feat: Tensor | None = None
    ) -> dict[str, Any]:
        """Return mmdet's result. mmdet pools semantic features to the size of mask heads and averages them to the size
        of box heads; here they are pooled to the latter."""
        extract = self.bbox_roi_extractor[stage]
        pooled = extract(x[: extract.num_inputs], rois)
        if self.with_semantic:
            pooled = pooled + self.semantic_roi_extractor.averaged([semantic_feat], rois, size=pooled.shape[-1])
        scores, deltas = self.bbox_head[stage](pooled)
        return {"cls_score": scores, "bbox_pred": deltas}

    def _mask_forward(
        self,
        stage: int,
        x: tuple[Tensor],
        rois: Tensor,
        semantic_feat: Tensor | None = None,
        training: bool = True,
    ) -> dict[str, Any]:
        """Return mmdet's result; with `reads_mask_stages`, on the last stage of a training step also the logits of all
        `stages` and the last stage's `features`."""
        if not (self.reads_mask_stages and training and stage == self.num_stages - 1):
            result: dict[str, Any] = super()._mask_forward(stage, x, rois, semantic_feat, training)
            return result
        extract = self.mask_roi_extractor[stage]
        pooled = extract(x[: extract.num_inputs], rois)
        if self.with_semantic:
            pooled = pooled + self.semantic_roi_extractor([semantic_feat], rois)
        stages, features = mask_logits(self.mask_head, pooled)
        return {"mask_preds": stages[-1], "stages": stages, "features": features}

    def mask_loss(
        self,
        stage: int,
        x: tuple[Tensor],
        sampling_results: list[SamplingResult],
        batch_gt_instances: InstanceList,
        semantic_feat: Tensor | None = None,
    ) -> dict:
        """Return mmdet's result; on the last stage with the losses of the heads after it."""
        result: dict = super().mask_loss(stage, x, sampling_results, batch_gt_instances, semantic_feat)
        if "stages" in result:
            labels = torch.cat([sampled.pos_gt_labels for sampled in sampling_results])
            masks = mask_probabilities(result["stages"], labels).mean(0)
            result["loss_mask"] |= self.losses_of_last_masks(
                LastMasks(
                    x, sampling_results, batch_gt_instances, labels, masks, result["mask_targets"], result["features"]
                )
            )
        return result
