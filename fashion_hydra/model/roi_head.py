"""mmdet's heads of Hybrid Task Cascade, with faster pooling and with what heads on the last mask stage read."""

from typing import Any

from mmdet.models import HybridTaskCascadeRoIHead
from torch import Tensor

from fashion_hydra.model.mask_stages import mask_logits


class CascadeRoIHead(HybridTaskCascadeRoIHead):
    """mmdet's heads; `semantic_roi_extractor` has to be a `fashion_hydra.model.roi_align.PreciseRoIExtractor`."""

    @property
    def reads_mask_stages(self) -> bool:
        """Whether a training step needs the outputs of all mask stages for the last stage's boxes."""
        return False

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
