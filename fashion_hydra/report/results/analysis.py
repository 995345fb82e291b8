"""One prediction against its truth: scores, classes and errors, image by image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fashion_hydra.evaluation.bootstrap import Interval, bootstrap
from fashion_hydra.evaluation.coco_ap import mask_ap_by_class
from fashion_hydra.evaluation.competition_score import ClassMasks, Score, combine, count_image
from fashion_hydra.evaluation.error_kinds import HIT, ErrorCounts, ImageErrors, OneMask, classify_errors
from fashion_hydra.evaluation.score_submission import match_images
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.formats.submission import SUBMISSION_GRID, MaskTable
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE, Postprocess
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError


@dataclass(frozen=True)
class PredictionFiles:
    """A prediction and its truth, as files have them.

    Args:
        folder: that predict.py wrote.
        truth: ImageId -> ClassId -> masks on the submission's grid.
        predicted: likewise.
        cache: of candidates, where they are there.
        rule: that made the answers of the candidates, where it is known.
    """

    folder: Path
    truth: MaskTable
    predicted: MaskTable
    cache: CandidateCache | None
    rule: Postprocess | None


@dataclass(frozen=True)
class AnalysedImage:
    """One image.

    Args:
        name: as the truth names it.
        answer: as the prediction names it; None where it is missing there.
        frame: height and width of the photo, where the candidates tell.
        score: of the image.
        predicted: kind of each predicted mask.
        true: kind of each true mask.
        confidence: of each predicted mask; None where it is not known.
    """

    name: str
    answer: str | None
    frame: Size | None
    score: float
    predicted: tuple[ImageErrors, ...]
    true: tuple[ImageErrors, ...]
    confidence: tuple[float | None, ...]

    @property
    def errors(self) -> int:
        """False positives and misses at IoU 0.5."""
        return sum(judged.kind != HIT for judged in (*self.predicted, *self.true))


@dataclass(frozen=True)
class Analysis:
    """What a prediction is worth.

    Args:
        answers: what was judged.
        pooling: of the score.
        score: as `fashion-hydra score` gives it.
        interval: of the mean over images.
        average_precision: COCO's numbers of the candidates; None without them.
        class_ap: category id -> COCO's AP.
        error_counts: ClassId -> what its masks were judged.
        images: in the truth's order.
    """

    answers: PredictionFiles
    pooling: str
    score: Score
    interval: Interval
    average_precision: Mapping[str, float] | None
    class_ap: Mapping[int, float]
    error_counts: Mapping[str, ErrorCounts]
    images: Sequence[AnalysedImage]

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Of each image, (I,)."""
        return np.array([image.score for image in self.images])

    @property
    def missing(self) -> list[str]:
        """The images that the prediction lacks."""
        return [image.name for image in self.images if image.answer is None]

    @property
    def confident(self) -> bool:
        """Whether the scores of all predicted masks are known."""
        return all(value is not None for image in self.images for value in image.confidence)

    @property
    def rule(self) -> Postprocess | None:
        """The rule in force: None too where the one that the folder tells does not make its answers."""
        return self.answers.rule if self.confident else None


def listed(masks: ClassMasks) -> list[OneMask]:
    """The masks of an image one after the other, as `AnalysedImage` orders them."""
    return [(class_id, mask) for class_id, of_class in masks.items() for mask in of_class]


def analyse(answers: PredictionFiles, *, pooling: str) -> Analysis:
    """Judge every image of the truth.

    Args:
        answers: prediction and truth.
        pooling: of the score.

    Raises:
        UserError: no images, predicted images without truth, damaged candidates.
    """
    names = match_images(answers.truth, answers.predicted)
    counts, images = {}, []
    error_counts: dict[str, ErrorCounts] = {}
    loose: dict[str, Detections] = {}
    for name, answer in tqdm(names.items(), desc=f"judging {answers.folder.name}", unit=" images", disable=None):
        truth = answers.truth[name]
        predicted = answers.predicted[answer] if answer is not None else {}
        counts[name] = count_image(truth, predicted)
        masks, true_masks = listed(predicted), listed(truth)
        found, lost = classify_errors(masks, true_masks)
        for (class_id, _), judged in zip(masks, found, strict=True):
            error_counts.setdefault(class_id, ErrorCounts.empty()).predicted[judged.kind] += 1
        for (class_id, _), judged in zip(true_masks, lost, strict=True):
            error_counts.setdefault(class_id, ErrorCounts.empty()).true[judged.kind] += 1
        candidates = _candidates(answers.cache, answer)
        if candidates is not None:
            loose[name] = apply(candidates, _loosest(answers), size=SUBMISSION_GRID)
        confidence = _confidence(masks, candidates, answers)
        frame = candidates.size if candidates is not None and min(candidates.size) > 1 else None
        images.append(AnalysedImage(name, answer, frame, 0.0, found, lost, confidence))
    score = combine(counts, pooling=pooling)
    images = [replace(image, score=score.per_image[image.name]) for image in images]
    interval = bootstrap(np.array([image.score for image in images]), seed=0)
    average_precision, class_ap = _average_precision(answers, loose)
    return Analysis(answers, pooling, score, interval, average_precision, class_ap, error_counts, images)


def _candidates(cache: CandidateCache | None, answer: str | None) -> Candidates | None:
    if cache is None or answer is None or not cache.path(answer).is_file():
        return None
    return cache.read(answer)


def _loosest(answers: PredictionFiles) -> Postprocess:
    """The rule that average precision is measured with, as near as the candidates are exact for."""
    assert answers.cache is not None
    manifest = answers.cache.manifest
    iou_thr = min(manifest.iou_grid, key=lambda thr: abs(thr - COCO_RULE.iou_thr))
    return replace(COCO_RULE, score_thr=max(COCO_RULE.score_thr, manifest.score_floor), iou_thr=iou_thr)


def _confidence(
    masks: Sequence[OneMask], candidates: Candidates | None, answers: PredictionFiles
) -> tuple[float | None, ...]:
    """Scores of the answer's masks: of those that the rule makes of the candidates, the ones that are the same."""
    if candidates is None or answers.rule is None or answers.cache is None or not masks:
        return (None,) * len(masks)
    ids = answers.cache.manifest.class_ids
    made = apply(candidates, answers.rule, size=SUBMISSION_GRID)
    triples = zip(made.labels, made.masks, made.scores, strict=True)
    scores = {(str(ids[label]), _key(mask)): float(score) for label, mask, score in triples}
    return tuple(scores.get((class_id, _key(mask))) for class_id, mask in masks)


def _key(mask: CocoRLE) -> bytes:
    counts = mask["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def _average_precision(
    answers: PredictionFiles, loose: Mapping[str, Detections]
) -> tuple[dict[str, float] | None, dict[int, float]]:
    """COCO's AP of the candidates on the submission's grid: of all classes, and by category."""
    if answers.cache is None or len(loose) < len(answers.predicted):
        return None, {}
    ids = answers.cache.manifest.class_ids
    truth = {name: list(_by_label(answers.truth[name], ids)) for name in answers.truth}
    whole, of_label = mask_ap_by_class(truth, loose, labels=len(ids))
    return whole, {category: float(ap) for category, ap in zip(ids, of_label, strict=True) if not np.isnan(ap)}


def _by_label(truth: ClassMasks, ids: Sequence[int]) -> Iterator[tuple[int, CocoRLE]]:
    """True masks by label, attributes aside, as AP knows none; categories that are not learnt are left out."""
    label_of = {category: label for label, category in enumerate(ids)}
    for class_id, mask in listed(truth):
        if (label := label_of.get(category_of(class_id))) is not None:
            yield label, mask


def paired_difference(first: Analysis, other: Analysis) -> Interval | None:
    """The gain of another prediction over the first, image by image; None where they are not of the same images."""
    by_name = {image.name: image.score for image in other.images}
    if set(by_name) != {image.name for image in first.images}:
        return None
    return bootstrap(np.array([by_name[image.name] - image.score for image in first.images]), seed=0)


def check_images(analysis: Analysis) -> None:
    """Raise `UserError` for a prediction that has none of the truth's images."""
    if len(analysis.missing) == len(analysis.images):
        raise UserError(
            f"{analysis.answers.folder}: none of its images is in the truth, whose first is {analysis.images[0].name}. "
            "Give the truth of these images"
        )
