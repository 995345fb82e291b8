"""Write the page about runs, thresholds and predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion_hydra.evaluation import error_kinds
from fashion_hydra.evaluation.bootstrap import Interval
from fashion_hydra.evaluation.error_kinds import ErrorCounts
from fashion_hydra.evaluation.ladder import Rung
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.report import html
from fashion_hydra.report.results import charts
from fashion_hydra.report.results.analysis import BOUNDARY_AP, Analysis, paired_difference
from fashion_hydra.report.results.attribute_table import attribute_table
from fashion_hydra.report.results.confusion_table import confusion_table
from fashion_hydra.report.results.gallery import Category, GalleryImage, categories_of, gallery_images
from fashion_hydra.report.results.photos import Photos
from fashion_hydra.report.results.read_folders import TrainingRun, Tuning
from fashion_hydra.tuning.summary import describe_rule

AP_COLUMNS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "AP_small": "small",
    "AP_medium": "medium",
    "AP_large": "large",
    BOUNDARY_AP: "boundary",
    "AP_F1": "with attributes",
    "AR_100": "recall",
}
"""Metric of an analysis -> its column name in the table of average precision."""


@dataclass(frozen=True)
class ResultsPage:
    """Content of the page.

    Args:
        title: title of the page.
        predictions: analysed predictions; classes, errors and gallery show the first one.
        photos: photos of the first prediction's images.
        names: category id -> name, as far as known.
        attribute_names: attribute id -> name, as far as known.
        attribute_groups: attribute id -> group, such as `length`, as far as known.
        notes: notes for the reader, such as missing files.
        ladders: folder -> rungs.
        tunings: tuning results.
        trainings: training runs.
    """

    title: str
    predictions: Sequence[Analysis]
    photos: Photos
    names: Mapping[int, str]
    attribute_names: Mapping[int, str]
    attribute_groups: Mapping[int, str]
    notes: Sequence[str]
    ladders: Mapping[Path, Sequence[Rung]]
    tunings: Sequence[Tuning]
    trainings: Sequence[TrainingRun]


@dataclass(frozen=True)
class ComparedPrediction:
    """A row of the table of predictions.

    Args:
        analysis: analysis of the prediction.
        gain: gain over the first prediction; None for the first prediction and for a prediction on other images.
        rule: one-line description of the rule.
        predicted: number of predicted masks.
    """

    analysis: Analysis
    gain: Interval | None
    rule: str
    predicted: int


@dataclass(frozen=True)
class ClassRow:
    """A row of the tables of classes: a category's plain ClassId, or all its ClassIds with attributes together.

    Args:
        category: category of the class.
        with_attributes: whether the row is about the ClassIds with attributes.
        score: mean over all pairs of an image and a ClassId in its truth or prediction.
        images: number of these pairs.
        ap: COCO's metrics; empty for ClassIds with attributes, or without candidates.
        error_counts: number of masks per kind of error.
        threshold: score threshold, or a phrase if there is no threshold.
    """

    category: Category
    with_attributes: bool
    score: float
    images: int
    ap: Mapping[str, float]
    error_counts: ErrorCounts
    threshold: str

    @property
    def name(self) -> str:
        """Name of the category."""
        return self.category.name


def write_results_page(path: Path, page: ResultsPage) -> None:
    """Write the page atomically, streaming one image at a time."""
    html.write_page(path, "results", _values(page))


def _values(page: ResultsPage) -> dict[str, Any]:
    """Return the template's variables; `images` can be iterated once, and `index` is complete only afterwards."""
    first = page.predictions[0] if page.predictions else None
    categories = categories_of(first, page.names) if first else []
    index: list[dict[str, Any]] = []
    attributes = attribute_table(first, page.attribute_names, page.attribute_groups) if first else None
    return {
        "page": page,
        "sections": _sections(page, with_attributes=attributes is not None),
        "charts": charts,
        "AP_COLUMNS": _ap_columns(page.predictions),
        "CLASS_AP": ("AP", "AP50", BOUNDARY_AP),
        "error_kinds": error_kinds,
        "first": first,
        "compared": [_compare(first, analysis) for analysis in page.predictions] if first else [],
        "rows": _class_rows(first, categories) if first else [],
        "attributes": attributes,
        "confusion": confusion_table(first.confusions, page.names) if first else None,
        "total": ErrorCounts.total(first.error_counts.values()) if first else ErrorCounts.empty(),
        "categories": categories,
        "position": {category.id: i for i, category in enumerate(categories)},
        "palette": [{"name": category.name, "colour": category.colour} for category in categories],
        "images": _images(first, page.photos, categories, index) if first else iter(()),
        "index": index,
    }


def _ap_columns(predictions: Sequence[Analysis]) -> dict[str, str]:
    """Return the entries of `AP_COLUMNS` that at least one prediction has."""
    known = {name for analysis in predictions for name in analysis.average_precision or ()}
    return {name: title for name, title in AP_COLUMNS.items() if name in known}


def _sections(page: ResultsPage, *, with_attributes: bool) -> list[tuple[str, str]]:
    """Return (id, title) of each section with content."""
    sections = (
        ("scores", page.predictions),
        ("ladder", page.ladders),
        ("classes", page.predictions),
        ("errors", page.predictions),
        ("attributes", with_attributes),
        ("thresholds", page.tunings),
        ("training", page.trainings),
        ("gallery", page.predictions),
    )
    return [(name, name.capitalize()) for name, shown in sections if shown]


def _compare(first: Analysis, analysis: Analysis) -> ComparedPrediction:
    gain = None if analysis is first else paired_difference(first, analysis)
    rule = analysis.rule
    predicted = ErrorCounts.total(analysis.error_counts.values()).predicted.total()
    return ComparedPrediction(analysis, gain, "not known" if rule is None else describe_rule(rule), predicted)


def _images(
    analysis: Analysis, photos: Photos, categories: Sequence[Category], index: list[dict[str, Any]]
) -> Iterator[GalleryImage]:
    for image in gallery_images(analysis, photos, categories, desc="drawing"):
        index.append(image.entry)
        yield image


def _class_rows(analysis: Analysis, categories: Sequence[Category]) -> list[ClassRow]:
    """Return the classes, those with the most true masks first."""
    groups: dict[tuple[int, bool], list[str]] = {}
    for class_id in analysis.error_counts:
        groups.setdefault((category_of(class_id), "_" in class_id), []).append(class_id)
    by_id = {category.id: category for category in categories}
    manifest = analysis.answers.cache.manifest if analysis.answers.cache is not None else None
    label_of = {category: label for label, category in enumerate(manifest.class_ids)} if manifest else {}
    rows = []
    for (category, with_attributes), class_ids in groups.items():
        summaries = [analysis.score.per_class[class_id] for class_id in class_ids]
        images = sum(summary.n_images for summary in summaries)
        answers_attributes = manifest is not None and bool(manifest.attributes)
        label = None if with_attributes and not answers_attributes else label_of.get(category)
        row = ClassRow(
            category=by_id[category],
            with_attributes=with_attributes,
            score=sum(summary.score * summary.n_images for summary in summaries) / images,
            images=images,
            ap={} if with_attributes else analysis.class_ap.get(category, {}),
            error_counts=ErrorCounts.total(analysis.error_counts[class_id] for class_id in class_ids),
            threshold=_threshold(analysis.rule, label) if manifest else "not known",
        )
        rows.append(row)
    return sorted(rows, key=_by_masks)


def _by_masks(row: ClassRow) -> tuple[int, int, int]:
    return -row.error_counts.true.total(), -row.error_counts.predicted.total(), row.category.id


def _threshold(rule: Postprocess | None, label: int | None) -> str:
    if label is None:
        return "not learnt"
    if rule is None:
        return "not known"
    if label in rule.dropped_labels:
        return "left out"
    if rule.calibration is not None:
        return "expected score"
    return f"{rule.label_score_thr.get(label, rule.score_thr):g}"
