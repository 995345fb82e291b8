"""mmdet's heads of Hybrid Task Cascade, with faster pooling of the semantic branch's features."""

from typing import Any

from mmdet.models import HybridTaskCascadeRoIHead
from torch import Tensor


class CascadeRoIHead(HybridTaskCascadeRoIHead):
    """mmdet's heads; `semantic_roi_extractor` has to be a `fashion_hydra.model.roi_align.PreciseRoIExtractor`."""

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
