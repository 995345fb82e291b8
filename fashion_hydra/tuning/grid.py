"""Every combination of some thresholds."""

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

AXES = ("score_thr", "iou_thr", "mask_thr", "min_area", "max_per_image", "drop")


@dataclass(frozen=True)
class Grid:
    """Values to combine, one list an axis.

    Args:
        score_thr: see `fashion_hydra.postprocess.rule.Postprocess`, as the others.
        iou_thr: see there.
        mask_thr: see there.
        min_area: see there.
        max_per_image: see there.
        drop: labels that are left out, by the name of the class-removal set.

    Raises:
        UserError: an axis without values, or with one twice.
    """

    score_thr: Sequence[float]
    iou_thr: Sequence[float]
    mask_thr: Sequence[float]
    min_area: Sequence[int]
    max_per_image: Sequence[int]
    drop: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        for axis in AXES:
            values = self.values(axis)
            if not values or len(set(values)) < len(values):
                raise UserError(f"grid.{axis}={values}: one or more values expected, each once")

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(self.values(axis)) for axis in AXES)

    def values(self, axis: str) -> list[Any]:
        """The values of an axis; of `drop` the sets' names."""
        return list(getattr(self, axis))

    def points(self) -> Iterator[dict[str, float | int | str]]:
        """The combinations, the last axis running fastest."""
        for values in itertools.product(*map(self.values, AXES)):
            yield dict(zip(AXES, values, strict=True))

    def rules(self, base: Postprocess) -> list[Postprocess]:
        """The combinations as rules, `base` in what is not on an axis."""
        made = []
        for point in self.points():
            dropped = {*base.dropped_labels, *self.drop[str(point.pop("drop"))]}
            made.append(replace(base, **point, dropped_labels=tuple(sorted(dropped))))  # type: ignore[arg-type]
        return made


def scores_of(score_table: ScoreTable, rules: Sequence[Postprocess], *, pooling: str, desc: str = "") -> FloatArray:
    """The score of each image under each rule: (R, I); `desc` names the progress bar, without it there is none."""
    shown = tqdm(rules, desc=desc, unit=" rules", disable=None if desc else True)
    return np.array([score_table.image_scores(rule, pooling=pooling) for rule in shown])
