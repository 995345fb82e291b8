"""Grid of rules: every combination of some thresholds."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.score_table import ScoreTable
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import FloatArray

AXES = ("score_thr", "iou_thr", "mask_thr", "min_area", "max_per_image", "mask_certainty_power", "drop")


@dataclass(frozen=True)
class Grid:
    """Values to combine, one list per axis, see `fashion_hydra.postprocess.rule.Postprocess`.

    Args:
        score_thr: score thresholds.
        iou_thr: IoU thresholds of NMS.
        mask_thr: mask thresholds.
        min_area: minimum mask areas.
        max_per_image: maximum numbers of candidates per image.
        drop: name of a class-removal set -> labels to drop.
        mask_certainty_power: powers of the masks' certainty in the scores.

    Raises:
        UserError: an axis has no values or a duplicate value.
    """

    score_thr: Sequence[float]
    iou_thr: Sequence[float]
    mask_thr: Sequence[float]
    min_area: Sequence[int]
    max_per_image: Sequence[int]
    drop: Mapping[str, tuple[int, ...]]
    mask_certainty_power: Sequence[float] = (0.0,)

    def __post_init__(self) -> None:
        for axis in AXES:
            values = self.values(axis)
            if not values or len(set(values)) < len(values):
                raise UserError(f"grid.{axis}={values}: give one or more values without duplicates")

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis."""
        return tuple(len(self.values(axis)) for axis in AXES)

    def values(self, axis: str) -> list[Any]:
        """Return the values of an axis; for `drop`, the names of the sets."""
        return list(getattr(self, axis))

    def points(self) -> Iterator[dict[str, float | int | str]]:
        """Yield the combinations; the last axis varies fastest."""
        for values in itertools.product(*map(self.values, AXES)):
            yield dict(zip(AXES, values, strict=True))

    def rules(self, base: Postprocess) -> list[Postprocess]:
        """Return the combinations as rules; `base` gives all options that are not an axis."""
        made = []
        for point in self.points():
            dropped = {*base.dropped_labels, *self.drop[str(point.pop("drop"))]}
            made.append(replace(base, **point, dropped_labels=tuple(sorted(dropped))))  # type: ignore[arg-type]
        return made


def scores_of(score_table: ScoreTable, rules: Sequence[Postprocess], *, pooling: str, desc: str = "") -> FloatArray:
    """Return the score of each image under each rule: (R, I); with `desc`, show a progress bar of that name."""
    shown = tqdm(rules, desc=desc, unit=" rules", disable=None if desc else True)
    return np.array([score_table.image_scores(rule, pooling=pooling) for rule in shown])
