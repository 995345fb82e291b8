"""How candidates become an answer: a frozen rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fashion_hydra.postprocess import steps
from fashion_hydra.postprocess.attributes import NONE, AttributeRule
from fashion_hydra.postprocess.expected_score import Calibration
from fashion_hydra.utils.errors import UserError

NO_LIMIT = 2**31
"""`max_per_image` that leaves nothing out."""


NMS_KINDS = ("box", "mask", "soft")


@dataclass(frozen=True)
class Postprocess:
    """How candidates become an answer, in label space.

    Args:
        score_thr: scores at or below are left out.
        iou_thr: within a class, boxes (or masks) that overlap a better one by more are left out.
        mask_thr: mask probability from which a pixel belongs to the object.
        max_per_image: the best so many are kept.
        min_area: masks of fewer pixels, on the grid of the answer and after overlaps, are left out.
        suppress_overlaps: within a class each mask loses the pixels that a better one has.
        label_score_thr: label -> threshold, where it is another than `score_thr`.
        dropped_labels: left out before `max_per_image` counts.
        nms: on what `iou_thr` is measured, `box` or `mask`; or `soft`, which knows no `iou_thr`, see `soft_nms`.
        soft_nms_sigma: how slowly overlap lowers scores, with `nms=soft`.
        calibration: with it, what is left after all the other rules is chosen from for the highest expected score,
            see `fashion_hydra.postprocess.expected_score`.
        attributes: which attributes detections are answered with; None: none, for a model that learns none.
        mask_iou_power: where a model predicts the IoU of its masks, a candidate's score is its class score times the
            IoU to this power, from NMS on; 0 leaves class scores as they are.
        steps: names of modules in `fashion_hydra.postprocess.steps`: what is done to masks before overlaps are
            suppressed.

    Raises:
        UserError: a value out of its range.
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

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("score_thr", "iou_thr", "mask_thr")}
        shares |= {f"label_score_thr[{label}]": thr for label, thr in self.label_score_thr.items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UserError(f"postprocess.{name}={value}: between 0 and 1 expected")
        if self.max_per_image < 1 or self.min_area < 1:
            raise UserError(
                f"postprocess.max_per_image={self.max_per_image} postprocess.min_area={self.min_area}: "
                "at least 1 expected"
            )
        if self.nms not in NMS_KINDS:
            raise UserError(f"postprocess.nms={self.nms}: choose one of {', '.join(NMS_KINDS)}")
        if not 0 <= self.mask_iou_power <= 10:
            raise UserError(f"postprocess.mask_iou_power={self.mask_iou_power}: between 0 and 10 expected")
        if not self.soft_nms_sigma > 0:
            raise UserError(f"postprocess.soft_nms_sigma={self.soft_nms_sigma}: more than 0 expected")

        for name in self.steps:
            steps.load(name)

    @property
    def answers_attributes(self) -> bool:
        """Whether detections are answered with more than the bare category."""
        return self.attributes is not None and self.attributes.kind != NONE

    @property
    def lowest_score_thr(self) -> float:
        """No candidate at or below this is kept, whatever its label."""
        return min([self.score_thr, *self.label_score_thr.values()])

    def thresholds(self, labels: Tensor) -> Tensor:
        """The score threshold of each candidate, float32 (N,); infinite for dropped labels."""
        values = torch.full(labels.shape, self.score_thr, dtype=torch.float32, device=labels.device)
        for label, threshold in self.label_score_thr.items():
            values[labels == label] = threshold
        for label in self.dropped_labels:
            values[labels == label] = torch.inf
        return values


COCO_RULE = Postprocess(score_thr=0.001, iou_thr=0.5, mask_thr=0.5, max_per_image=100, suppress_overlaps=False)
"""What COCO average precision is measured with (mmdet's test settings of Hybrid Task Cascade)."""
