"""Options for merging several models and views of an image, and an estimate of the required memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fashion_hydra.structures.batch import PAD_DIVISOR
from fashion_hydra.utils.errors import UserError

FEATURE_CACHES = ("device", "host", "recompute")
MASK_GRID = 56
"""The default of `inference.mask_grid`; validation during training uses it as well."""

_FINEST_GRID = 512


@dataclass(frozen=True)
class Merging:
    """Options for merging sources and caching their features.

    Args:
        flips: views of each scale: `[False]` (the image), `[True]` (mirrored) or both.
        proposal_iou_thr: IoU threshold of the NMS over all sources' proposals.
        max_proposals: maximum number of proposals to keep after that NMS.
        feature_cache: keep features on the `device`, on the `host`, or compute them again for each step (`recompute`).
        in_flight: number of views per batch, 1 or 2; with 2, an image and its mirror image form one batch.
        weights: weight of each model in the averages; empty: all equal.
        mask_grid: align the averaged masks with edges in the image, on a grid of this many cells along an edge (see
            `filter_masks`); None to leave them as they are.
    """

    flips: Sequence[bool] = (False,)
    proposal_iou_thr: float = 0.7
    max_proposals: int = 1000
    feature_cache: str = "device"
    in_flight: int = 2
    weights: Sequence[float] = ()
    mask_grid: int | None = None

    def __post_init__(self) -> None:
        if not self.flips or len(set(self.flips)) != len(self.flips):
            raise UserError(f"tta.flips={list(self.flips)}: give [false], [true] or [false,true]")
        if self.feature_cache not in FEATURE_CACHES:
            raise UserError(f"inference.feature_cache={self.feature_cache}: give {', '.join(FEATURE_CACHES)}")
        if self.in_flight not in (1, 2):
            raise UserError(f"inference.in_flight={self.in_flight}: give 1 or 2")
        if not 0 <= self.proposal_iou_thr <= 1 or self.max_proposals < 1:
            raise UserError(
                f"inference.proposal_iou_thr={self.proposal_iou_thr} inference.max_proposals={self.max_proposals}: "
                "the first must be between 0 and 1, the second at least 1"
            )
        if self.mask_grid is not None and not 1 <= self.mask_grid <= _FINEST_GRID:
            raise UserError(
                f"inference.mask_grid={self.mask_grid}: must be between 1 and {_FINEST_GRID}, or null for masks as the "
                "model predicts them"
            )

    def check_weights(self, models: int) -> None:
        """Raise `UserError` unless there is one weight for each model, or none at all."""
        if self.weights and not (len(self.weights) == models and all(0 < weight < math.inf for weight in self.weights)):
            raise UserError(
                f"ensemble.weights={list(self.weights)}: give a number above 0 for each of the {models} models, or null"
            )

    def batches(self) -> list[tuple[bool, ...]]:
        """Return the flips of each batch."""
        flips = tuple(self.flips)
        return [flips] if self.in_flight >= len(flips) else [(flip,) for flip in flips]


def feature_bytes(levels: Sequence[tuple[int, Sequence[int]]], scales: Sequence[tuple[int, int]], views: int) -> int:
    """Return the maximum memory for the cached float32 features of one image, in bytes.

    Args:
        levels: number of channels and strides of each model's feature pyramid.
        scales: short edge and maximum long edge of each scale.
        views: number of views of each scale, 1 or 2.
    """
    areas = sum(math.prod(-(-edge // PAD_DIVISOR) * PAD_DIVISOR for edge in scale) for scale in scales)
    values_a_pixel = sum(channels * sum(stride**-2 for stride in strides) for channels, strides in levels)
    return int(4 * values_a_pixel * views * areas)
