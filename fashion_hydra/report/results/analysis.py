"""Compare a prediction with the ground truth: scores, classes and errors of each image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from fashion_hydra.evaluation.attribute_ap import attribute_ap
from fashion_hydra.evaluation.attribute_scores import AttributeScores
from fashion_hydra.evaluation.bootstrap import Interval, bootstrap
from fashion_hydra.evaluation.boundary import boundary_iou
from fashion_hydra.evaluation.coco_ap import TrueMask, mask_ap
from fashion_hydra.evaluation.competition_score import ClassMasks, Score, combine, count_image
from fashion_hydra.evaluation.confusion import Confusions, confusions
from fashion_hydra.evaluation.error_kinds import HIT, ErrorCounts, MaskResult, OneMask, classify_errors
from fashion_hydra.evaluation.matching import masks_to_match
from fashion_hydra.evaluation.score_submission import match_images
from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.formats.submission import SUBMISSION_GRID
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE, Postprocess
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError

BOUNDARY_AP = "boundary AP"


@dataclass(frozen=True)
class PredictionFiles:
    """A prediction and its ground truth, as read from files.

    Args:
        folder: folder written by predict.py.
        truth: ImageId -> ClassId, or the part of it that has to match -> true masks on the submission's grid.
        predicted: predicted masks, in the form of `truth`.
        cache: cached candidates; None if there are none.
        rule: rule that turned the candidates into the predicted masks; None if unknown.
    """

    folder: Path
    truth: Mapping[str, ClassMasks]
    predicted: Mapping[str, ClassMasks]
    cache: CandidateCache | None
    rule: Postprocess | None

    def to_match(self, match: str) -> "PredictionFiles":
        """Return the files with masks grouped by what has to match, see `fashion_hydra.evaluation.matching`."""
        truth, predicted = (dict(masks_to_match(masks, match)) for masks in (self.truth, self.predicted))
        return replace(self, truth=truth, predicted=predicted)


@dataclass(frozen=True)
class AnalysedImage:
    """The comparison of one image.

    Args:
        name: image id in the truth.
        answer: image id in the prediction; None if the prediction lacks the image.
        frame: height and width of the photo, from the candidates; None if unknown.
        score: score of the image.
        predicted: result of each predicted mask.
        true: result of each true mask.
        confidence: score of each predicted mask; None if unknown.
        wrong_attributes: number of missed and wrong attributes on matched masks.
    """

    name: str
    answer: str | None
    frame: Size | None
    score: float
    predicted: tuple[MaskResult, ...]
    true: tuple[MaskResult, ...]
    confidence: tuple[float | None, ...]
    wrong_attributes: int

    @property
    def errors(self) -> int:
        """Number of false positives and misses at IoU 0.5."""
        return sum(result.kind != HIT for result in (*self.predicted, *self.true))


@dataclass(frozen=True)
class Analysis:
    """The comparison of a whole prediction.

    Args:
        answers: compared files.
        pooling: pooling of the score, `class` or `image`.
        score: the score that `fashion-hydra score` prints.
        interval: bootstrap interval of the mean over images.
        average_precision: COCO's metrics of the candidates, `boundary AP`, and `AP_F1` if the model predicts
            attributes; None without candidates.
        class_ap: category id -> COCO's AP, AP50 and AP75, and `boundary AP`.
        confusions: confusions between true and predicted masks.
        error_counts: ClassId -> number of its masks per kind of error.
        attributes: scores of the predicted attributes.
        attribute_ap: attribute id -> COCO's AP of the candidates with this attribute; empty without candidates.
        images: comparison of each image, in the order of the truth.
    """

    answers: PredictionFiles
    pooling: str
    score: Score
    interval: Interval
    average_precision: Mapping[str, float] | None
    class_ap: Mapping[int, Mapping[str, float]]
    confusions: Confusions
    error_counts: Mapping[str, ErrorCounts]
    attributes: AttributeScores
    attribute_ap: Mapping[int, float]
    images: Sequence[AnalysedImage]

    @property
    def missing(self) -> list[str]:
        """Names of the images that the prediction lacks."""
        return [image.name for image in self.images if image.answer is None]

    @property
    def confident(self) -> bool:
        """Whether the scores of all predicted masks are known."""
        return all(value is not None for image in self.images for value in image.confidence)

    @property
    def rule(self) -> Postprocess | None:
        """The rule of the prediction; None if it is unknown or does not reproduce the predicted masks."""
        return self.answers.rule if self.confident else None


def flatten_masks(masks: ClassMasks) -> list[OneMask]:
    """Return the masks of an image in the order that `AnalysedImage` uses."""
    return [(class_id, mask) for class_id, of_class in masks.items() for mask in of_class]


def analyse(answers: PredictionFiles, *, pooling: str) -> Analysis:
    """Compare every image of the truth with its prediction.

    Args:
        answers: prediction and truth.
        pooling: pooling of the score, `class` or `image`.

    Raises:
        UserError: there are no images, predicted images are missing in the truth, or candidates are damaged.
    """
    names = match_images(answers.truth, answers.predicted)
    counts, images = {}, []
    error_counts: dict[str, ErrorCounts] = {}
    ap_detections: dict[str, Detections] = {}
    confused, attributes = Confusions(), AttributeScores()
    for name, answer in tqdm(names.items(), desc=f"analysing {answers.folder.name}", unit=" images", disable=None):
        truth = answers.truth[name]
        predicted = answers.predicted[answer] if answer is not None else {}
        counts[name] = count_image(truth, predicted)
        masks, true_masks = flatten_masks(predicted), flatten_masks(truth)
        results, true_results = classify_errors(masks, true_masks)
        confused.update(confusions(masks, true_masks))
        wrong_attributes = attributes.update(truth, predicted)
        for (class_id, _), result in zip(masks, results, strict=True):
            error_counts.setdefault(class_id, ErrorCounts.empty()).predicted[result.kind] += 1
        for (class_id, _), result in zip(true_masks, true_results, strict=True):
            error_counts.setdefault(class_id, ErrorCounts.empty()).true[result.kind] += 1
        candidates = _candidates(answers.cache, answer)
        if candidates is not None:
            ap_detections[name] = apply(candidates, _ap_rule(answers), size=SUBMISSION_GRID)
        confidence = _confidence(masks, candidates, answers)
        frame = candidates.size if candidates is not None and min(candidates.size) > 1 else None
        results_of = results, true_results, confidence
        images.append(AnalysedImage(name, answer, frame, 0.0, *results_of, wrong_attributes))
    score = combine(counts, pooling=pooling)
    images = [replace(image, score=score.per_image[image.name]) for image in images]
    interval = bootstrap(np.array([image.score for image in images]), seed=0)
    frames = {image.name: image.frame for image in images if image.frame is not None}
    average_precision, class_ap, of_attribute = _average_precision(answers, ap_detections, frames)
    return Analysis(
        answers,
        pooling,
        score,
        interval,
        average_precision,
        class_ap,
        confused,
        error_counts,
        attributes,
        of_attribute,
        images,
    )


def _candidates(cache: CandidateCache | None, answer: str | None) -> Candidates | None:
    if cache is None or answer is None or not cache.path(answer).is_file():
        return None
    return cache.read(answer)


def _ap_rule(answers: PredictionFiles) -> Postprocess:
    """Return the rule for average precision: the closest to COCO's rule for which the cached candidates are exact.

    Attributes are predicted by the prediction's own rule.
    """
    assert answers.cache is not None
    manifest = answers.cache.manifest
    iou_thr = min(manifest.iou_grid, key=lambda thr: abs(thr - COCO_RULE.iou_thr))
    rule = replace(COCO_RULE, score_thr=max(COCO_RULE.score_thr, manifest.score_floor), iou_thr=iou_thr)
    answered = None if answers.rule is None else answers.rule.attributes
    return replace(rule, attributes=answered and replace(answered, match_thr=0.0))


def _confidence(
    masks: Sequence[OneMask], candidates: Candidates | None, answers: PredictionFiles
) -> tuple[float | None, ...]:
    """Return the score of each predicted mask, found by applying the rule to the candidates again."""
    if candidates is None or answers.rule is None or answers.cache is None or not masks:
        return (None,) * len(masks)
    ids = answers.cache.manifest.class_ids
    made = apply(candidates, answers.rule, size=SUBMISSION_GRID)
    triples = zip(made.labels, made.masks, made.scores, strict=True)
    # Category and mask identify a prediction: masks of a category share no pixel, so attributes are not needed.
    scores = {(int(ids[label]), _key(mask)): float(score) for label, mask, score in triples}
    return tuple(scores.get((category_of(class_id), _key(mask))) for class_id, mask in masks)


def _key(mask: CocoRLE) -> bytes:
    counts = mask["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def _average_precision(
    answers: PredictionFiles, ap_detections: Mapping[str, Detections], frames: Mapping[str, Size]
) -> tuple[dict[str, float] | None, dict[int, dict[str, float]], dict[int, float]]:
    """Return COCO's AP of the candidates on the submission's grid: overall, by category and by attribute.

    If a photo's size is known, mask areas are converted from pixels of the grid to pixels of the photo.
    """
    if answers.cache is None or len(ap_detections) < len(answers.predicted):
        return None, {}, {}
    ids = answers.cache.manifest.class_ids
    cells = SUBMISSION_GRID[0] * SUBMISSION_GRID[1]
    pixel_areas = {name: height * width / cells for name, (height, width) in frames.items()}
    truth = {name: list(_objects(answers.truth[name], ids, pixel_areas.get(name, 1.0))) for name in answers.truth}
    plain = mask_ap(truth, ap_detections, labels=len(ids), pixel_areas=pixel_areas)
    edges = mask_ap(truth, ap_detections, labels=len(ids), overlap=boundary_iou)
    overall = {**plain.overall, BOUNDARY_AP: edges.overall["AP"]}
    columns = {**{name: plain.of_class[name] for name in ("AP", "AP50", "AP75")}, BOUNDARY_AP: edges.of_class["AP"]}
    of_class = {
        category: {name: float(values[label]) for name, values in columns.items()}
        for label, category in enumerate(ids)
        if not np.isnan(plain.of_class["AP"][label])
    }
    known = set(answers.cache.manifest.attributes.ids)
    if not known:
        return overall, of_class, {}
    known |= {attribute for objects in truth.values() for one in objects for attribute in one.attributes}
    attributed = attribute_ap(truth, ap_detections, labels=len(ids), vocabulary=len(known), pixel_areas=pixel_areas)
    return {**overall, "AP_F1": attributed.overall["AP_F1"]}, of_class, _ap_of_attributes(truth, ap_detections)


def _ap_of_attributes(truth: Mapping[str, Sequence[TrueMask]], found: Mapping[str, Detections]) -> dict[int, float]:
    """Return AP by attribute id, using a mask's attributes as its labels and ignoring its category."""
    ids = sorted({attribute for objects in truth.values() for one in objects for attribute in one.attributes})
    label_of = {attribute: label for label, attribute in enumerate(ids)}
    true = {
        name: [replace(one, label=label_of[attribute]) for one in objects for attribute in one.attributes]
        for name, objects in truth.items()
    }
    answered = {}
    for name, detections in found.items():
        of_attributes = enumerate(detections.attribute_ids)
        pairs = [
            (n, label_of[attribute]) for n, of_mask in of_attributes for attribute in of_mask if attribute in label_of
        ]
        areas = detections.areas
        answered[name] = Detections(
            name,
            [label for _, label in pairs],
            [detections.scores[n] for n, _ in pairs],
            [detections.masks[n] for n, _ in pairs],
            [areas[n] for n, _ in pairs],
        )
    ap = mask_ap(true, answered, labels=len(ids)).of_class["AP"]
    return {attribute: float(ap[label]) for label, attribute in enumerate(ids)}


def _objects(truth: ClassMasks, ids: Sequence[int], pixel_area: float) -> Iterator[TrueMask]:
    """Yield the true masks of the categories in `ids`."""
    label_of = {category: label for label, category in enumerate(ids)}
    for class_id, mask in flatten_masks(truth):
        if (label := label_of.get(category_of(class_id))) is not None:
            area = pixel_area * float(coco_mask.area(mask))
            yield TrueMask(label, mask, area, attributes=attributes_of(class_id))


def paired_difference(first: Analysis, other: Analysis) -> Interval | None:
    """Return the gain of `other` over `first`, paired by image; None if their images differ."""
    by_name = {image.name: image.score for image in other.images}
    if set(by_name) != {image.name for image in first.images}:
        return None
    return bootstrap(np.array([by_name[image.name] - image.score for image in first.images]), seed=0)


def check_images(analysis: Analysis) -> None:
    """Raise `UserError` if the prediction has none of the truth's images."""
    if len(analysis.missing) == len(analysis.images):
        raise UserError(
            f"{analysis.answers.folder}: none of its images is in the truth (first image of the truth: "
            f"{analysis.images[0].name}). Give the truth of the predicted images"
        )
