"""Score all images under any rule in milliseconds, with the same result as predicting and scoring."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from fashion_hydra.evaluation.competition_score import POOLINGS, THRESHOLDS, match, mean, precision
from fashion_hydra.evaluation.matching import CLASS_ID
from fashion_hydra.postprocess.apply import select_detections
from fashion_hydra.postprocess.attributes import NONE, ChosenAttributes, choose_attributes
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.image_table import Family, ImageTable, Key, MeasuredDetections, family_key
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.types import BoolArray, FloatArray, IntArray

_Choice = tuple[str, float]
"""Kind and threshold of an `AttributeRule`."""


@dataclass(frozen=True)
class _Detections:
    """The detections of one family in all images, sorted by image, then best first; see `MeasuredDetections`."""

    image: IntArray
    label: IntArray
    score: FloatArray
    attributes: np.ndarray | None
    area: npt.NDArray[np.int32]
    pair_detection: IntArray
    pair_truth: IntArray
    iou: FloatArray
    mask_thrs: tuple[float, ...]
    score_floor: float


@dataclass(frozen=True)
class AnsweredClass:
    """The N detections that a rule keeps.

    Args:
        image: (N,), index of each detection's image.
        label: (N,).
        score: (N,).
        hits: (N,), number of the ten IoU thresholds at which it is a hit; each true mask is hit at most once.
    """

    image: IntArray
    label: IntArray
    score: FloatArray
    hits: IntArray


@dataclass(frozen=True)
class Grouping:
    """The G groups (image, class) with true masks or detections of a family, before thresholds.

    Args:
        image: (G,), index of each group's image.
        label: (G,).
        true_masks: (G,), number of true masks.
        of_detection: (N,), group of each detection of the family.
        matches: (P,), whether both masks of each pair are in the same group.
    """

    image: IntArray
    label: IntArray
    true_masks: IntArray
    of_detection: IntArray
    matches: BoolArray


@dataclass(frozen=True)
class Groups:
    """Numbers of hits and masks of each group under a rule.

    Args:
        of: the groups.
        hits: (G, 10), hits at each IoU threshold.
        masks: (G,), true and predicted masks together.
    """

    of: Grouping
    hits: IntArray
    masks: IntArray

    def scores(self) -> tuple[FloatArray, BoolArray]:
        """Return the score of each group (0 if it has no masks), and whether it has masks."""
        present = self.masks > 0
        return np.where(present, precision(self.hits, np.maximum(1, self.masks)), 0.0), present


class ScoreTable:
    """Scores of I images under any rule of the families that they were measured for.

    Args:
        image_ids: ids of the images.
        classes: number of labels.
        truth_image: (T,), index of the image of each true mask whose class has a label.
        truth_label: (T,).
        other_classes: (I,), see `ImageTable`.
        other_masks: (I,), see `ImageTable`.
        families: detections of each family.
        truth_class_ids: (T,), ClassId of each true mask, if detections are matched by ClassId; else None.
        category_ids: category id of each label.
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
        truth_class_ids: Sequence[str] | None = None,
        category_ids: Sequence[int] = (),
    ) -> None:
        self.image_ids, self.classes = tuple(image_ids), classes
        self.truth_image, self.truth_label = truth_image, truth_label
        self.other_classes, self.other_masks = other_classes, other_masks
        self._families = dict(families)
        self._truth_class_ids, self._category_ids = truth_class_ids, tuple(category_ids)
        self._known: dict[tuple[Postprocess, str], FloatArray] = {}
        self._groupings: dict[tuple[Key, _Choice | None], Grouping] = {}
        self._chosen: dict[tuple[Key, _Choice], ChosenAttributes] = {}

    @classmethod
    def of(
        cls,
        tables: Sequence[ImageTable],
        category_ids: Sequence[int],
        asked: Mapping[Key, Family],
        *,
        match: str = CLASS_ID,
    ) -> "ScoreTable":
        """Join the tables of single images into a score table.

        Args:
            tables: one table per image.
            category_ids: category id of each label.
            asked: the families that the images were measured for.
            match: what has to match for a hit, and the keys of the measured truth: `class_id` or `category`.
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
                attributes=_stacked_attributes(tables, of_family),
                area=np.concatenate([np.zeros((0, len(thresholds)), np.int32), *(m.areas for m in of_family)]),
                pair_detection=pair_detection,
                pair_truth=pair_truth,
                iou=np.concatenate([np.zeros((0, len(thresholds))), *(m.ious for m in of_family)]),
                mask_thrs=thresholds,
                score_floor=family.rule.score_thr,
            )
        return cls(
            [t.image_id for t in tables],
            len(category_ids),
            np.repeat(np.arange(len(tables)), sizes),
            np.concatenate([np.zeros(0, np.int64), *(t.truth for t in tables)]),
            np.array([t.other_classes for t in tables], np.int64),
            np.array([t.other_masks for t in tables], np.int64),
            families,
            [class_id for t in tables for class_id in t.class_ids] if match == CLASS_ID else None,
            category_ids,
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, images: npt.NDArray[np.integer]) -> "ScoreTable":
        """Return a score table of the images at these ascending indices, without any data of the other images."""
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
                attributes=None if found.attributes is None else found.attributes[kept],
                area=found.area[kept],
                pair_detection=moved[found.pair_detection[pairs]],
                pair_truth=truth_place[found.pair_truth[pairs]],
                iou=found.iou[pairs],
            )
        class_ids = self._truth_class_ids
        part = ScoreTable(
            [self.image_ids[i] for i in images.tolist()],
            self.classes,
            place[self.truth_image[mine]],
            self.truth_label[mine],
            self.other_classes[images],
            self.other_masks[images],
            families,
            None if class_ids is None else [class_ids[i] for i in np.flatnonzero(mine).tolist()],
            self._category_ids,
        )
        part._known = {asked: scores[images] for asked, scores in self._known.items()}
        return part

    def category_table(self) -> npt.NDArray[np.uint8]:
        """Return whether each image has true masks of each label: 0 or 1, (I, C), for stratified folds."""
        table = np.zeros((len(self), self.classes), np.uint8)
        table[self.truth_image, self.truth_label] = 1
        return table

    def image_scores(self, rule: Postprocess, *, pooling: str = "class") -> FloatArray:
        """Return the competition score of each image: (I,).

        The scores are bit-identical to those of the submission that the rule produces from the candidates.
        """
        if pooling not in POOLINGS:
            raise UserError(f"pooling={pooling}: choose one of {', '.join(POOLINGS)}")
        if (rule, pooling) not in self._known:
            groups = self.groups(rule)
            self._known[rule, pooling] = self._by_class(groups) if pooling == "class" else self._pooled(groups)
        return self._known[rule, pooling]

    def _pooled(self, groups: Groups) -> FloatArray:
        hits = np.zeros((len(self), 10), np.int64)
        np.add.at(hits, groups.of.image, groups.hits)
        masks = np.bincount(groups.of.image, groups.masks, len(self)).astype(np.int64) + self.other_masks
        return np.where(masks > 0, precision(hits, np.maximum(1, masks)), 1.0)

    def _by_class(self, groups: Groups) -> FloatArray:
        scores, present = groups.scores()
        counts = np.bincount(groups.of.image[present], minlength=len(self))
        ends = np.cumsum(counts).tolist()
        listed = scores[present].tolist()
        totals = [math.fsum(listed[end - count : end]) for end, count in zip(ends, counts.tolist(), strict=True)]
        classes = counts + self.other_classes
        return np.where(classes > 0, np.array(totals) / np.maximum(1, classes), 1.0)

    def score(self, rule: Postprocess, *, pooling: str = "class") -> float:
        """Return the competition score: the mean over all images."""
        return mean(self.image_scores(rule, pooling=pooling))

    def groups(self, rule: Postprocess, *, by_category: bool = False) -> Groups:
        """Count hits and masks of each group under a rule; with `by_category`, ignore attributes."""
        found, kept, column = self._answer(rule)
        grouping = self.grouping(rule, by_category=by_category)
        group = grouping.of_detection
        masks = grouping.true_masks + np.bincount(group[kept], minlength=len(grouping.image))
        detections, reached = self._hits(found, kept, column, grouping)
        bins = len(THRESHOLDS) + 1
        table = np.bincount(group[detections] * bins + reached, minlength=len(masks) * bins).reshape(-1, bins)
        return Groups(grouping, table[:, :0:-1].cumsum(axis=1)[:, ::-1], masks)

    def answered(self, rule: Postprocess) -> AnsweredClass:
        """Return the detections that a rule keeps, with hits determined by category."""
        found, kept, column = self._answer(rule)
        hits = np.zeros(len(found.score), np.int64)
        detections, reached = self._hits(found, kept, column, self.grouping(rule, by_category=True))
        hits[detections] = reached
        return AnsweredClass(found.image[kept], found.label[kept], found.score[kept], hits[kept])

    def grouping(self, rule: Postprocess, *, by_category: bool = False) -> Grouping:
        """Return the groups (image, class) with true masks or detections of the rule's family.

        Args:
            rule: the rule; only its family (NMS, overlaps) and its attribute options matter.
            by_category: whether to ignore attributes.
        """
        key, choice = family_key(rule), None if by_category else self._choice(rule)
        if (key, choice) not in self._groupings:
            found = self._families[key]
            truth, detected, count = self.truth_label, found.label, self.classes
            if choice is not None:
                assert self._truth_class_ids is not None
                codes: dict[str, int] = {}
                truth = _coded(self._truth_class_ids, codes)
                detected = _coded(self._class_ids(found, rule), codes)
                count = len(codes)
            keys = np.concatenate([self.truth_image * count + truth, found.image * count + detected])
            known, first, group = np.unique(keys, return_index=True, return_inverse=True)
            of_truth, of_detection = group[: len(truth)], group[len(truth) :]
            self._groupings[key, choice] = Grouping(
                image=known // max(1, count),
                label=np.concatenate([self.truth_label, found.label])[first],
                true_masks=np.bincount(of_truth, minlength=len(known)),
                of_detection=of_detection,
                matches=of_detection[found.pair_detection] == of_truth[found.pair_truth],
            )
        return self._groupings[key, choice]

    def _choice(self, rule: Postprocess) -> "_Choice | None":
        """Return a rule's kind and threshold for attributes; None if attributes do not matter."""
        has_attributes = self._families[family_key(rule)].attributes is not None
        if self._truth_class_ids is None or not has_attributes:
            return None
        return (NONE, 0.0) if rule.attributes is None else (rule.attributes.kind, rule.attributes.attribute_thr)

    def _class_ids(self, found: _Detections, rule: Postprocess) -> Iterator[str]:
        """Yield the ClassId of each detection of a rule's family."""
        chosen, known = self._attributes(found, rule), rule.attributes
        for detection, label in enumerate(found.label.tolist()):
            suffix = known.attributes.suffix(chosen.places[detection]) if chosen is not None and known else ""
            yield f"{self._category_ids[label]}{suffix}"

    def _attributes(self, found: _Detections, rule: Postprocess) -> ChosenAttributes | None:
        """Return the attributes of each detection of a rule's family; None if the rule chooses no attributes."""
        if found.attributes is None or rule.attributes is None or not rule.answers_attributes:
            return None
        key = family_key(rule), (rule.attributes.kind, rule.attributes.attribute_thr)
        if key not in self._chosen:
            self._chosen[key] = choose_attributes(found.attributes, found.label, rule.attributes)
        return self._chosen[key]

    def _hits(self, found: _Detections, kept: BoolArray, column: int, grouping: Grouping) -> tuple[IntArray, IntArray]:
        """Return the detections that hit (each true mask at most once) and how many IoU thresholds each exceeds."""
        able = kept[found.pair_detection] & (found.iou[:, column] > THRESHOLDS[0]) & grouping.matches
        pairs = np.flatnonzero(able)
        detections, truths, ious = found.pair_detection[pairs], found.pair_truth[pairs], found.iou[pairs, column]
        made = np.ones(len(pairs), bool)
        for own in _ambiguous(detections, truths, grouping.of_detection[detections]):
            made[own] = _matched(detections[own], truths[own], ious[own])
        return detections[made], np.searchsorted(THRESHOLDS, ious[made], side="left")

    def _answer(self, rule: Postprocess) -> tuple[_Detections, BoolArray, int]:
        """Return the detections of a rule's family, which of them it keeps, and the column of its mask threshold."""
        found = self._families.get(family_key(rule))
        if found is None or rule.mask_thr not in found.mask_thrs or rule.lowest_score_thr < found.score_floor:
            raise ValueError(f"the score table is not measured for {rule}")
        column = found.mask_thrs.index(rule.mask_thr)
        floors = rule.thresholds(torch.arange(self.classes)).double().numpy()
        kept = found.score > floors[found.label]
        if rule.max_per_image < len(kept):
            rank = np.cumsum(kept)
            before = np.concatenate([[0], rank])[np.searchsorted(found.image, np.arange(len(self)))]
            kept &= rank - before[found.image] <= rule.max_per_image
        kept &= found.area[:, column] >= rule.min_area
        attributes = self._attributes(found, rule)
        if rule.calibration is not None:
            left = np.flatnonzero(kept)
            for own in np.split(left, np.flatnonzero(np.diff(found.image[left])) + 1):
                of_image = None if attributes is None else attributes[own]
                kept[own] = False
                kept[own[select_detections(found.score[own], found.label[own], of_image, rule)]] = True
        elif attributes is not None and rule.attributes is not None:
            kept &= found.score * attributes.chances > rule.attributes.match_thr
        return found, kept, column


def _stacked_attributes(tables: Sequence[ImageTable], measured: Sequence[MeasuredDetections]) -> np.ndarray | None:
    """Return the attribute probabilities of a family's detections: (N, A); None if the model learns none."""
    parts = [t.attributes[m.candidates] for t, m in zip(tables, measured, strict=True) if t.attributes is not None]
    return np.concatenate(parts) if parts else None


def _coded(texts: Iterable[str], codes: dict[str, int]) -> IntArray:
    """Return a number for each text; equal texts get equal numbers, and new texts are added to `codes`."""
    return np.array([codes.setdefault(text, len(codes)) for text in texts], np.int64)


def _ambiguous(detections: IntArray, truths: IntArray, groups: IntArray) -> list[IntArray]:
    """Return the pairs of each group in which a detection matches two true masks, or two detections match one."""
    twice = np.zeros(len(detections), bool)
    for values in (detections, truths):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        twice |= counts[inverse] > 1
    return [np.flatnonzero(groups == group) for group in np.unique(groups[twice])]


def _matched(detections: IntArray, truths: IntArray, ious: FloatArray) -> BoolArray:
    """Return which pairs of one group are matched, when pairs compete for a detection or true mask."""
    rows, row = np.unique(detections, return_inverse=True)
    columns, column = np.unique(truths, return_inverse=True)
    matrix = np.zeros((len(rows), len(columns)))
    matrix[row, column] = ious
    made = np.zeros(matrix.shape, bool)
    made[tuple(match(matrix).T)] = True
    return made[row, column]
