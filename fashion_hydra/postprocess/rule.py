"""The rule that turns candidates into detections."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fashion_hydra.postprocess import steps
from fashion_hydra.postprocess.attributes import NONE, AttributeRule
from fashion_hydra.postprocess.expected_score import Calibration
from fashion_hydra.utils.errors import UserError

NO_LIMIT = 2**31
"""Value of `max_per_image` that keeps all detections."""


NMS_KINDS = ("box", "mask", "soft")


@dataclass(frozen=True)
class Postprocess:
    """Rule that turns candidates into detections, in label space.

    Args:
        score_thr: candidates with a score at or below this are dropped.
        iou_thr: within a class, boxes (or masks) whose IoU with a better one is above this are dropped.
        mask_thr: mask probability from which a pixel belongs to the object.
        max_per_image: maximum number of candidates to keep after NMS.
        min_area: masks with fewer pixels, on the output grid and after overlaps are suppressed, are dropped.
        suppress_overlaps: remove from each mask the pixels of better masks of its class.
        label_score_thr: label -> threshold, for labels whose threshold is not `score_thr`.
        dropped_labels: labels to drop before `max_per_image` is applied.
        nms: `box` or `mask`, the shapes whose IoU `iou_thr` limits; or `soft`, which ignores `iou_thr`, see `soft_nms`.
        soft_nms_sigma: with `nms=soft`, the width of the penalty; the higher, the less overlap lowers scores.
        calibration: if given, the last step selects the detections with the highest expected score, see
            `fashion_hydra.postprocess.expected_score`.
        attributes: options for choosing attributes; None for a model without attributes.
        mask_iou_power: for a model that predicts the IoU of its masks, scores after NMS on boxes are class scores times
            this power of the IoU; 0 for class scores alone.
        mask_certainty_power: scores after NMS on boxes are also multiplied by this power of the mask's certainty, see
            `fashion_hydra.postprocess.apply.mask_certainty`; 0 for no such factor.
        steps: names of modules in `fashion_hydra.postprocess.steps` that change masks before overlaps are suppressed.

    Raises:
        UserError: a value is out of range.
    """

    score_thr: float
    iou_thr: float
    mask_thr: float
    max_per_image: int
    min_area: int = 1
    suppress_overlaps: bool = True
    label_score_thr: Mapping[int, float] = field(default_factory=dict, hash=False)
    dropped_labels: tuple[int, ...] = ()
    nms: str = "box"
    soft_nms_sigma: float = 0.5
    calibration: Calibration | None = None
    attributes: AttributeRule | None = None
    steps: tuple[str, ...] = ()
    mask_iou_power: float = 1.0
    mask_certainty_power: float = 0.0

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("score_thr", "iou_thr", "mask_thr")}
        shares |= {f"label_score_thr[{label}]": thr for label, thr in self.label_score_thr.items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UserError(f"postprocess.{name}={value}: must be between 0 and 1")
        if self.max_per_image < 1 or self.min_area < 1:
            raise UserError(
                f"postprocess.max_per_image={self.max_per_image} postprocess.min_area={self.min_area}: "
                "must be at least 1"
            )
        if self.nms not in NMS_KINDS:
            raise UserError(f"postprocess.nms={self.nms}: choose one of {', '.join(NMS_KINDS)}")
        for name in ("mask_iou_power", "mask_certainty_power"):
            if not 0 <= (value := getattr(self, name)) <= 10:
                raise UserError(f"postprocess.{name}={value}: must be between 0 and 10")
        if not self.soft_nms_sigma > 0:
            raise UserError(f"postprocess.soft_nms_sigma={self.soft_nms_sigma}: must be above 0")

        for name in self.steps:
            steps.load(name)

    def rescores(self, *, has_mask_ious: bool) -> bool:
        """Return whether scores depend on masks, for candidates with or without predicted IoUs."""
        return self.mask_certainty_power > 0 or (has_mask_ious and self.mask_iou_power > 0)

    @property
    def answers_attributes(self) -> bool:
        """Whether detections can have attributes in addition to the category."""
        return self.attributes is not None and self.attributes.kind != NONE

    @property
    def lowest_score_thr(self) -> float:
        """The lowest score threshold of all labels."""
        return min([self.score_thr, *self.label_score_thr.values()])

    def thresholds(self, labels: Tensor) -> Tensor:
        """Return the score threshold of each candidate, float32 (N,); infinity for dropped labels."""
        values = torch.full(labels.shape, self.score_thr, dtype=torch.float32, device=labels.device)
        for label, threshold in self.label_score_thr.items():
            values[labels == label] = threshold
        for label in self.dropped_labels:
            values[labels == label] = torch.inf
        return values


COCO_RULE = Postprocess(score_thr=0.001, iou_thr=0.5, mask_thr=0.5, max_per_image=100, suppress_overlaps=False)
"""Rule for measuring COCO average precision (mmdet's test settings of Hybrid Task Cascade)."""
