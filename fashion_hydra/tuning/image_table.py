"""Compare one image's candidates with its truth, for all thresholds at once.

An image's detections change little from rule to rule. Raising the score threshold only removes the detections with the
lowest scores from the result of greedy NMS, and a mask loses pixels only to better masks of its class. So a score
threshold, `max_per_image`, a dropped class and `min_area` remove detections but never change the remaining ones. Rules
with the same NMS and overlap options form a *family*. For each family, this module counts once, for all mask thresholds
together (`fashion_hydra.structures.paste.Levels`), each detection's pixels and the pixels that it shares with each true
mask. At the k-th mask threshold, a pixel belongs to a detection if the detection's level there is above k and no better
detection's level there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from fashion_hydra.evaluation.competition_score import THRESHOLDS, ClassMasks
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.formats.submission import SUBMISSION_GRID, SUBMISSION_SIZE
from fashion_hydra.postprocess.apply import mask_nms, rank
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.paste import Levels, MaskWindow, paste_levels
from fashion_hydra.structures.rle import coco_to_runs, runs_to_box, runs_to_crop
from fashion_hydra.utils.types import FloatArray, IntArray


@dataclass(frozen=True)
class Family:
    """Rules with the same NMS and overlap options.

    Args:
        rule: the loosest rule of the family.
        mask_thrs: mask thresholds, ascending; only one with NMS on masks, whose result depends on it.
    """

    rule: Postprocess
    mask_thrs: tuple[float, ...]


Key = tuple[str, float, float, bool, float, float, float]


def family_key(rule: Postprocess) -> Key:
    """Return the key of a rule's family."""
    return (
        rule.nms,
        rule.iou_thr if rule.nms != "soft" else 0.0,
        rule.soft_nms_sigma if rule.nms == "soft" else 0.0,
        rule.suppress_overlaps,
        rule.mask_thr if rule.nms == "mask" else 0.0,
        rule.mask_iou_power,
        rule.mask_certainty_power,
    )


def families(rules: Sequence[Postprocess]) -> dict[Key, Family]:
    """Group rules into families, each with the mask thresholds of its rules."""
    floor = min(rule.lowest_score_thr for rule in rules)
    members: dict[Key, list[Postprocess]] = {}
    for rule in rules:
        members.setdefault(family_key(rule), []).append(rule)
    return {
        key: Family(
            replace(
                of_family[0],
                score_thr=floor,
                label_score_thr={},
                max_per_image=NO_LIMIT,
                min_area=1,
                dropped_labels=(),
                calibration=None,
                attributes=None,
            ),
            tuple(sorted({rule.mask_thr for rule in of_family})),
        )
        for key, of_family in members.items()
    }


@dataclass(frozen=True)
class MeasuredDetections:
    """The K detections of one family in one image, best first.

    Args:
        candidates: int64 (K,), each detection's index among the image's candidates.
        labels: int64 (K,).
        scores: float64 (K,).
        areas: int32 (K, M), pixels at each mask threshold, after overlaps are suppressed.
        pairs: int64 (P, 2), indices of detections and true masks of one class that match at some mask threshold.
        ious: float64 (P, M), IoU of each pair at each mask threshold.
    """

    candidates: IntArray
    labels: IntArray
    scores: FloatArray
    areas: npt.NDArray[np.int32]
    pairs: IntArray
    ious: FloatArray


@dataclass(frozen=True)
class ImageTable:
    """Measurements for scoring one image under any rule of some families.

    Args:
        image_id: id of the image.
        truth: int64 (T,), labels of the true masks whose class has a label.
        class_ids: (T,), the keys of these masks in the truth: ClassIds or categories.
        other_classes: number of the truth's ClassIds without a label. If attributes are learnt, a label covers all
            ClassIds of its category.
        other_masks: number of true masks of these ClassIds.
        attributes: (N, A), attribute probabilities of the image's candidates; None if the model learns none.
        measured: the detections of each family.
    """

    image_id: str
    truth: IntArray
    class_ids: tuple[str, ...]
    other_classes: int
    other_masks: int
    attributes: np.ndarray | None
    measured: Mapping[Key, MeasuredDetections]


def measure_image(
    candidates: Candidates, truth: ClassMasks, class_ids: Sequence[int], asked: Mapping[Key, Family]
) -> ImageTable:
    """Measure one image for some families of rules.

    Args:
        candidates: the image's candidates.
        truth: ClassId -> masks on the submission grid.
        class_ids: category id of each label.
        asked: the families.
    """
    labels = {str(category): label for label, category in enumerate(class_ids)}
    with_attributes = candidates.attributes is not None
    label_of = {c: labels.get(str(category_of(c)) if with_attributes else c) for c in truth}
    known = [(c, mask) for c, masks in truth.items() if label_of[c] is not None for mask in masks]
    unknown = [masks for class_id, masks in truth.items() if label_of[class_id] is None and masks]
    true_masks = [_crop(mask) for _, mask in known]
    true_labels = np.array([label_of[class_id] for class_id, _ in known], np.int64)
    drawings: dict[tuple[float, ...], _Drawing] = {}
    measured = {}
    for key, family in asked.items():
        if family.mask_thrs not in drawings:
            drawings[family.mask_thrs] = _Drawing(candidates, family.mask_thrs, true_masks, true_labels)
        measured[key] = _measure(candidates, drawings[family.mask_thrs], family)
    return ImageTable(
        candidates.image_id,
        true_labels,
        tuple(class_id for class_id, _ in known),
        len(unknown),
        sum(map(len, unknown)),
        None if candidates.attributes is None else candidates.attributes.numpy(),
        measured,
    )


def _crop(mask: object) -> MaskWindow:
    runs = coco_to_runs(mask)  # type: ignore[arg-type]
    box = runs_to_box(runs, height=SUBMISSION_SIZE)
    return MaskWindow(np.asfortranarray(runs_to_crop(runs, height=SUBMISSION_SIZE, box=box)), box[0], box[1])


class _Drawing:
    """An image's candidates, each drawn once for all mask thresholds, with cached pixel counts.

    Args:
        candidates: the image's candidates.
        mask_thrs: M mask thresholds.
        true_masks: the image's true masks.
        true_labels: the labels of the true masks.
    """

    def __init__(
        self,
        candidates: Candidates,
        mask_thrs: tuple[float, ...],
        true_masks: Sequence[MaskWindow],
        true_labels: IntArray,
    ) -> None:
        self.levels, self.thresholds = Levels(mask_thrs), len(mask_thrs)
        self.labels = candidates.labels.numpy()
        self.masks = candidates.masks.numpy()
        stretch = np.array([SUBMISSION_SIZE / candidates.size[1], SUBMISSION_SIZE / candidates.size[0]] * 2)
        self.boxes = candidates.boxes.double().numpy() * stretch
        self.true_masks = true_masks
        self.true_areas = np.array([np.count_nonzero(mask.pixels) for mask in true_masks], np.int64)
        self.true_labels = true_labels
        self._drawn: dict[int, MaskWindow] = {}
        self._whole: dict[int, list[IntArray]] = {}
        self._counted: dict[tuple[int, tuple[int, ...]], list[IntArray]] = {}

    def drawn(self, index: int) -> MaskWindow:
        """Return a candidate's mask as levels, drawn on first use."""
        if index not in self._drawn:
            box = self.boxes[index]
            self._drawn[index] = paste_levels(self.masks[index], box, size=SUBMISSION_GRID, levels=self.levels)
        return self._drawn[index]

    def rivals(self, index: int) -> list[int]:
        """Return the indices of the true masks of a candidate's class."""
        return np.flatnonzero(self.true_labels == self.labels[index]).tolist()

    def count(self, index: int, better: Sequence[int]) -> list[IntArray]:
        """Count a candidate's pixels that no better candidate has: in total, and in each true mask of its class.

        Args:
            index: index of the candidate.
            better: indices of the better candidates.

        Returns:
            The counts at each mask threshold, int64 (M,): the total first, then one array per true mask.
        """
        mask = self.drawn(index)
        shared = [(other, views) for other in better if (views := mask.windows_shared_with(self.drawn(other)))]
        key = (index, tuple(other for other, _ in shared))
        if key not in self._counted:
            if index not in self._whole:
                self._whole[index] = list(self._counts(mask, index))
            counts = self._whole[index]
            if shared:
                highest = np.zeros(mask.pixels.shape, np.uint8, order="F")
                covered = MaskWindow(highest, mask.x0, mask.y0)
                for other, _ in shared:
                    views = covered.windows_shared_with(self.drawn(other))
                    assert views is not None
                    np.maximum(*views, out=views[0])
                np.minimum(highest, mask.pixels, out=highest)
                counts = [a - b for a, b in zip(counts, self._counts(covered, index), strict=True)]
            self._counted[key] = counts
        return self._counted[key]

    def _counts(self, mask: MaskWindow, index: int) -> Iterator[IntArray]:
        """Count the pixels above each level: in total, and inside each true mask of the candidate's class."""
        yield self._above(mask.pixels, None)
        for true in self.rivals(index):
            views = mask.windows_shared_with(self.true_masks[true])
            yield self._above(*views) if views else np.zeros(self.thresholds, np.int64)

    def _above(self, levels: np.ndarray, where: np.ndarray | None) -> IntArray:
        """Count the pixels with a level above k, for k = 0 ... M - 1; if `where` is given, only where it is not 0."""
        if levels.size == 0:
            return np.zeros(self.thresholds, np.int64)
        bins = self.thresholds + 1
        histogram = cv2.calcHist([levels.T], [0], None if where is None else where.T, [bins], [0, bins])
        return histogram.ravel()[:0:-1].cumsum(dtype=np.int64)[::-1]  # shape (bins, 1) in OpenCV 4, (bins,) in 5


def _measure(candidates: Candidates, drawing: _Drawing, family: Family) -> MeasuredDetections:
    index, scores = (values.numpy() for values in rank(candidates, family.rule))
    if family.rule.nms == "mask":
        index, scores = _after_mask_nms(index, scores, drawing, family.rule)
    areas = np.zeros((len(index), drawing.thresholds), np.int32)
    pairs, ious = [], []
    better: dict[int, list[int]] = {}
    for rank_of, candidate in enumerate(index.tolist()):
        of_class = better.setdefault(int(drawing.labels[candidate]), [])
        area, *shared = drawing.count(candidate, of_class if family.rule.suppress_overlaps else ())
        areas[rank_of] = area
        of_class.append(candidate)
        for true, both in zip(drawing.rivals(candidate), shared, strict=True):
            iou = both / np.maximum(1, area + drawing.true_areas[true] - both)
            if (iou > THRESHOLDS[0]).any():
                pairs.append((rank_of, true))
                ious.append(iou)
    return MeasuredDetections(
        candidates=index.astype(np.int64),
        labels=drawing.labels[index].astype(np.int64),
        scores=scores.astype(np.float64),
        areas=areas,
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        ious=np.array(ious, np.float64).reshape(-1, drawing.thresholds),
    )


def _after_mask_nms(
    index: np.ndarray, scores: np.ndarray, drawing: _Drawing, rule: Postprocess
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and scores that NMS on masks keeps at the family's only mask threshold."""
    masks = [MaskWindow(drawn.pixels.view(bool), *drawn[1:]) for drawn in map(drawing.drawn, index.tolist())]
    place = {id(mask): i for i, mask in enumerate(masks)}
    found = zip(masks, drawing.labels[index].tolist(), scores.tolist(), strict=True)
    kept = [place[id(mask)] for mask, *_ in mask_nms(found, rule)]
    return index[kept], scores[kept]
