"""All images measured: the score of each under any rule, in milliseconds, equal to predicting and scoring."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from fashion_hydra.evaluation.competition_score import POOLINGS, THRESHOLDS, match, mean, precision
from fashion_hydra.postprocess.expected_score import choose
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.image_table import Family, ImageTable, Key, family_key
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class _Detections:
    """The detections of one family in all images, image by image, the best first; see `Measured`."""

    image: IntArray
    label: IntArray
    score: FloatArray
    area: npt.NDArray[np.int32]
    pair_detection: IntArray
    pair_truth: IntArray
    iou: FloatArray
    mask_thrs: tuple[float, ...]
    score_floor: float


@dataclass(frozen=True)
class AnsweredClass:
    """What a rule answers with.

    Args:
        image: (N,) of each detection.
        label: (N,).
        score: (N,).
        hits: (N,), at how many of the ten IoU thresholds it is a hit, when each true mask is hit once at most.
    """

    image: IntArray
    label: IntArray
    score: FloatArray
    hits: IntArray


@dataclass(frozen=True)
class Groups:
    """The classes of the images: hits and masks of each under a rule.

    Args:
        hits: (G, 10), at each IoU threshold.
        masks: (G,), true and predicted.
    """

    hits: IntArray
    masks: IntArray

    def scores(self) -> tuple[FloatArray, BoolArray]:
        """Score of each group (0 where it has no masks), and whether it has any."""
        present = self.masks > 0
        return np.where(present, precision(self.hits, np.maximum(1, self.masks)), 0.0), present


class ScoreTable:
    """The score of images under any rule of the families that they were measured for.

    Args:
        image_ids: of the images.
        classes: number of labels.
        truth_image: (T,), image of each true mask that a label stands for.
        truth_label: (T,).
        other_classes: (I,), see `ImageTable`.
        other_masks: (I,).
        families: detections of each.
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        classes: int,
        truth_image: IntArray,
        truth_label: IntArray,
        other_classes: IntArray,
        other_masks: IntArray,
        families: Mapping[Key, _Detections],
    ) -> None:
        self.image_ids, self.classes = tuple(image_ids), classes
        self.truth_image, self.truth_label = truth_image, truth_label
        self.other_classes, self.other_masks = other_classes, other_masks
        self._families = dict(families)
        self._known: dict[tuple[Postprocess, str], FloatArray] = {}
        used = np.zeros((len(self.image_ids), classes), bool)
        used[truth_image, truth_label] = True
        for found in self._families.values():
            used[found.image, found.label] = True
        self.group_image, self.group_label = np.nonzero(used)
        group_of = np.full(used.shape, -1)
        group_of[self.group_image, self.group_label] = np.arange(len(self.group_image))
        self._groups = {key: group_of[found.image, found.label] for key, found in self._families.items()}
        self._true_masks = np.bincount(group_of[truth_image, truth_label], minlength=len(self.group_image))

    @classmethod
    def of(cls, tables: Sequence[ImageTable], classes: int, asked: Mapping[Key, Family]) -> "ScoreTable":
        """The score table of images measured one by one.

        Args:
            tables: one an image.
            classes: number of labels.
            asked: the families that they were measured for.
        """
        sizes = [len(t.truth) for t in tables]
        first_truth = np.concatenate([[0], np.cumsum(sizes)])
        families = {}
        for key, family in asked.items():
            thresholds = family.mask_thrs
            of_family = [t.measured[key] for t in tables]
            counts = [len(m.labels) for m in of_family]
            first = np.concatenate([[0], np.cumsum(counts)])
            pairs = [m.pairs + np.array([first[i], first_truth[i]]) for i, m in enumerate(of_family)]
            pair_detection, pair_truth = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
            families[key] = _Detections(
                image=np.repeat(np.arange(len(tables)), counts),
                label=np.concatenate([np.zeros(0, np.int64), *(m.labels for m in of_family)]),
                score=np.concatenate([np.zeros(0), *(m.scores for m in of_family)]),
                area=np.concatenate([np.zeros((0, len(thresholds)), np.int32), *(m.areas for m in of_family)]),
                pair_detection=pair_detection,
                pair_truth=pair_truth,
                iou=np.concatenate([np.zeros((0, len(thresholds))), *(m.ious for m in of_family)]),
                mask_thrs=thresholds,
                score_floor=family.rule.score_thr,
            )
        return cls(
            [t.image_id for t in tables],
            classes,
            np.repeat(np.arange(len(tables)), sizes),
            np.concatenate([np.zeros(0, np.int64), *(t.truth for t in tables)]),
            np.array([t.other_classes for t in tables], np.int64),
            np.array([t.other_masks for t in tables], np.int64),
            families,
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, images: npt.NDArray[np.integer]) -> "ScoreTable":
        """The score table of some of the images, given by ascending indices, with nothing left in it of the others."""
        place = np.full(len(self), -1)
        place[images] = np.arange(len(images))
        mine = place[self.truth_image] >= 0
        truth_place = np.cumsum(mine) - 1
        families = {}
        for key, found in self._families.items():
            kept = place[found.image] >= 0
            moved = np.cumsum(kept) - 1
            pairs = kept[found.pair_detection]
            families[key] = replace(
                found,
                image=place[found.image[kept]],
                label=found.label[kept],
                score=found.score[kept],
                area=found.area[kept],
                pair_detection=moved[found.pair_detection[pairs]],
                pair_truth=truth_place[found.pair_truth[pairs]],
                iou=found.iou[pairs],
            )
        part = ScoreTable(
            [self.image_ids[i] for i in images.tolist()],
            self.classes,
            place[self.truth_image[mine]],
            self.truth_label[mine],
            self.other_classes[images],
            self.other_masks[images],
            families,
        )
        part._known = {asked: scores[images] for asked, scores in self._known.items()}
        return part

    def category_table(self) -> npt.NDArray[np.uint8]:
        """Which labels the truth of each image has: (I, C), for stratified folds."""
        table = np.zeros((len(self), self.classes), np.uint8)
        table[self.truth_image, self.truth_label] = 1
        return table

    def image_scores(self, rule: Postprocess, *, pooling: str = "class") -> FloatArray:
        """The competition score of each image: (I,).

        Equal, to the last bit, to that of the submission which the rule makes of the candidates.
        """
        if pooling not in POOLINGS:
            raise UserError(f"pooling={pooling}: choose one of {', '.join(POOLINGS)}")
        if (rule, pooling) not in self._known:
            groups = self.groups(rule)
            self._known[rule, pooling] = self._by_class(groups) if pooling == "class" else self._pooled(groups)
        return self._known[rule, pooling]

    def _pooled(self, groups: Groups) -> FloatArray:
        hits = np.zeros((len(self), 10), np.int64)
        np.add.at(hits, self.group_image, groups.hits)
        masks = np.bincount(self.group_image, groups.masks, len(self)).astype(np.int64) + self.other_masks
        return np.where(masks > 0, precision(hits, np.maximum(1, masks)), 1.0)

    def _by_class(self, groups: Groups) -> FloatArray:
        scores, present = groups.scores()
        counts = np.bincount(self.group_image[present], minlength=len(self))
        ends = np.cumsum(counts).tolist()
        listed = scores[present].tolist()
        totals = [math.fsum(listed[end - count : end]) for end, count in zip(ends, counts.tolist(), strict=True)]
        classes = counts + self.other_classes
        return np.where(classes > 0, np.array(totals) / np.maximum(1, classes), 1.0)

    def score(self, rule: Postprocess, *, pooling: str = "class") -> float:
        """The competition score of all images."""
        return mean(self.image_scores(rule, pooling=pooling))

    def groups(self, rule: Postprocess) -> Groups:
        """Hits and masks of each group under a rule."""
        found, kept, column = self._answer(rule)
        group = self._groups[family_key(rule)]
        masks = self._true_masks + np.bincount(group[kept], minlength=len(self._true_masks))
        detections, reached = self._hits(found, kept, column, group)
        bins = len(THRESHOLDS) + 1
        table = np.bincount(group[detections] * bins + reached, minlength=len(masks) * bins).reshape(-1, bins)
        return Groups(table[:, :0:-1].cumsum(axis=1)[:, ::-1], masks)

    def answered(self, rule: Postprocess) -> AnsweredClass:
        """The detections that a rule answers with, each a hit or not, see `AnsweredClass`."""
        found, kept, column = self._answer(rule)
        hits = np.zeros(len(found.score), np.int64)
        detections, reached = self._hits(found, kept, column, self._groups[family_key(rule)])
        hits[detections] = reached
        return AnsweredClass(found.image[kept], found.label[kept], found.score[kept], hits[kept])

    def _hits(self, found: _Detections, kept: BoolArray, column: int, group: IntArray) -> tuple[IntArray, IntArray]:
        """The detections that hit, each true mask once at most, and how many IoU thresholds each is above."""
        pairs = np.flatnonzero(kept[found.pair_detection] & (found.iou[:, column] > THRESHOLDS[0]))
        detections, truths, ious = found.pair_detection[pairs], found.pair_truth[pairs], found.iou[pairs, column]
        made = np.ones(len(pairs), bool)
        for own in _ambiguous(detections, truths, group[detections]):
            made[own] = _matched(detections[own], truths[own], ious[own])
        return detections[made], np.searchsorted(THRESHOLDS, ious[made], side="left")

    def _answer(self, rule: Postprocess) -> tuple[_Detections, BoolArray, int]:
        """A family's detections, which of them a rule answers with, and the column of its mask threshold."""
        found = self._families.get(family_key(rule))
        if found is None or rule.mask_thr not in found.mask_thrs or rule.lowest_score_thr < found.score_floor:
            raise ValueError(f"not measured for {rule}")
        column = found.mask_thrs.index(rule.mask_thr)
        floors = rule.thresholds(torch.arange(self.classes)).double().numpy()
        kept = found.score > floors[found.label]
        if rule.max_per_image < len(kept):
            rank = np.cumsum(kept)
            before = np.concatenate([[0], rank])[np.searchsorted(found.image, np.arange(len(self)))]
            kept &= rank - before[found.image] <= rule.max_per_image
        kept &= found.area[:, column] >= rule.min_area
        if rule.calibration is not None:
            left = np.flatnonzero(kept)
            for own in np.split(left, np.flatnonzero(np.diff(found.image[left])) + 1):
                kept[own] = choose(found.score[own], found.label[own], rule.calibration)
        return found, kept, column


def _ambiguous(detections: IntArray, truths: IntArray, groups: IntArray) -> list[IntArray]:
    """The pairs, group by group, where one detection matches two true masks or two match one."""
    twice = np.zeros(len(detections), bool)
    for values in (detections, truths):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        twice |= counts[inverse] > 1
    return [np.flatnonzero(groups == group) for group in np.unique(groups[twice])]


def _matched(detections: IntArray, truths: IntArray, ious: FloatArray) -> BoolArray:
    """Which pairs are made in one group whose pairs compete."""
    rows, row = np.unique(detections, return_inverse=True)
    columns, column = np.unique(truths, return_inverse=True)
    matrix = np.zeros((len(rows), len(columns)))
    matrix[row, column] = ious
    made = np.zeros(matrix.shape, bool)
    made[tuple(match(matrix).T)] = True
    return made[row, column]
