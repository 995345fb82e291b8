"""How several models and views of an image are merged, and what memory that takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fashion_hydra.structures.batch import PAD_DIVISOR
from fashion_hydra.utils.errors import UserError

FEATURE_CACHES = ("device", "host", "recompute")


@dataclass(frozen=True)
class Merging:
    """How sources are merged, and where their features stay meanwhile.

    Args:
        flips: which mirrorings of each scale are looked at: `[False]`, `[True]` or both.
        proposal_iou_thr: of the NMS over all sources' proposals.
        max_proposals: the best so many go on.
        feature_cache: features stay on the `device`, on the `host`, or are thrown away and made again (`recompute`).
        in_flight: views that go through a detector as one batch, 1 or 2: with 2 an image and its mirror image do.
    """

    flips: Sequence[bool] = (False,)
    proposal_iou_thr: float = 0.7
    max_proposals: int = 1000
    feature_cache: str = "device"
    in_flight: int = 2

    def __post_init__(self) -> None:
        if not self.flips or len(set(self.flips)) != len(self.flips):
            raise UserError(f"tta.flips={list(self.flips)}: give [false], [true] or [false,true]")
        if self.feature_cache not in FEATURE_CACHES:
            raise UserError(f"inference.feature_cache={self.feature_cache}: give {', '.join(FEATURE_CACHES)}")
        if self.in_flight not in (1, 2):
            raise UserError(f"inference.in_flight={self.in_flight}: give 1 or 2")
        if not 0 <= self.proposal_iou_thr <= 1 or self.max_proposals < 1:
            raise UserError(
                f"inference.proposal_iou_thr={self.proposal_iou_thr} "
                f"inference.max_proposals={self.max_proposals}: between 0 and 1, and at least 1 expected"
            )

    def batches(self) -> list[tuple[bool, ...]]:
        """The mirrorings, those that go together in one tuple."""
        flips = tuple(self.flips)
        return [flips] if self.in_flight >= len(flips) else [(flip,) for flip in flips]


def feature_bytes(levels: Sequence[tuple[int, Sequence[int]]], scales: Sequence[tuple[int, int]], views: int) -> int:
    """Memory that the features of one image take at most while they are kept, in float32.

    Args:
        levels: channels of each model's features, and the strides that it has them at.
        scales: short edge and bound of the long edge.
        views: mirrorings of each scale.
    """
    areas = sum(math.prod(-(-edge // PAD_DIVISOR) * PAD_DIVISOR for edge in scale) for scale in scales)
    values_a_pixel = sum(channels * sum(stride**-2 for stride in strides) for channels, strides in levels)
    return int(4 * values_a_pixel * views * areas)
