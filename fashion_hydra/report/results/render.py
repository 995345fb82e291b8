"""The page: one HTML file without anything from outside, written image by image."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from fashion_hydra.evaluation import error_kinds
from fashion_hydra.evaluation.bootstrap import Interval
from fashion_hydra.evaluation.error_kinds import ErrorCounts
from fashion_hydra.evaluation.ladder import Rung
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.report.results import charts
from fashion_hydra.report.results.analysis import Analysis, paired_difference
from fashion_hydra.report.results.gallery import Category, GalleryImage, categories_of, gallery_images
from fashion_hydra.report.results.photos import Photos
from fashion_hydra.report.results.read_folders import TrainingRun, Tuning
from fashion_hydra.tuning.summary import describe_rule
from fashion_hydra.utils.files import atomic_write

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Args:
        title: of the page.
        predictions: judged; classes, errors and gallery are of the first.
        photos: of its images.
        names: category id -> name, as far as they are known.
        notes: what a reader has to know, such as what could not be had.
        ladders: folder -> rungs.
        tunings: tuning folders.
        trainings: training runs.
    """

    title: str
    predictions: Sequence[Analysis]
    photos: Photos
    names: Mapping[int, str]
    notes: Sequence[str]
    ladders: Mapping[Path, Sequence[Rung]]
    tunings: Sequence[Tuning]
    trainings: Sequence[TrainingRun]


@dataclass(frozen=True)
class Compared:
    """A prediction in the table of all.

    Args:
        analysis: of it.
        gain: over the first; None for the first and where the images differ.
        rule: in one line.
        predicted: number of masks.
    """

    analysis: Analysis
    gain: Interval | None
    rule: str
    predicted: int


@dataclass(frozen=True)
class ClassRow:
    """A class in the tables: a category's plain ClassId, or all its ClassIds with attributes together.

    Args:
        category: of it.
        with_attributes: whether it is the latter.
        score: mean over the pairs of an image and a ClassId that is in its truth or prediction.
        images: how many pairs these are.
        ap: COCO's AP; None where attributes are part of the class, and without candidates.
        tally: of its masks.
        threshold: the score from which it is answered, in words where it is no number.
    """

    category: Category
    with_attributes: bool
    score: float
    images: int
    ap: float | None
    tally: ErrorCounts
    threshold: str

    @property
    def name(self) -> str:
        """For a person."""
        return self.category.name


def write_page(path: Path, content: Content) -> None:
    """Write the page; readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals |= {"charts": charts, "breakdown": error_kinds, "zip": zip}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    with atomic_write(path, "wb") as stream:
        for piece in environment.get_template("page.html").generate(**_values(content)):
            stream.write(piece.encode(errors="replace"))


def _values(content: Content) -> dict[str, Any]:
    """What the template is given; `images` is read once, and `index` is complete after that."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    first = content.predictions[0] if content.predictions else None
    categories = categories_of(first, content.names) if first else []
    index: list[dict[str, Any]] = []
    return {
        "content": content,
        "style": style,
        "script": script,
        # Should a name ever slip through unescaped, the browser still runs no script but this one and asks nobody.
        "policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{_digest(script)}'",
        "first": first,
        "compared": [_compared(first, analysis) for analysis in content.predictions] if first else [],
        "rows": _class_rows(first, categories) if first else [],
        "total": ErrorCounts.total(first.tallies.values()) if first else ErrorCounts.empty(),
        "categories": categories,
        "place": {category.id: place for place, category in enumerate(categories)},
        "palette": [{"name": category.name, "colour": category.colour} for category in categories],
        "images": _images(first, content.photos, categories, index) if first else iter(()),
        "index": index,
    }


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _compared(first: Analysis, analysis: Analysis) -> Compared:
    gain = None if analysis is first else paired_difference(first, analysis)
    rule = analysis.rule
    predicted = ErrorCounts.total(analysis.tallies.values()).predicted.total()
    return Compared(analysis, gain, "not known" if rule is None else describe_rule(rule), predicted)


def _images(
    analysis: Analysis, photos: Photos, categories: Sequence[Category], index: list[dict[str, Any]]
) -> Iterator[GalleryImage]:
    for image in gallery_images(analysis, photos, categories, desc="drawing"):
        index.append(image.entry)
        yield image


def _class_rows(analysis: Analysis, categories: Sequence[Category]) -> list[ClassRow]:
    """The classes, those with the most true masks first."""
    groups: dict[tuple[int, bool], list[str]] = {}
    for class_id in analysis.tallies:
        groups.setdefault((category_of(class_id), "_" in class_id), []).append(class_id)
    by_id = {category.id: category for category in categories}
    manifest = analysis.answers.cache.manifest if analysis.answers.cache is not None else None
    label_of = {category: label for label, category in enumerate(manifest.class_ids)} if manifest else {}
    rows = []
    for (category, with_attributes), class_ids in groups.items():
        summaries = [analysis.score.per_class[class_id] for class_id in class_ids]
        images = sum(summary.n_images for summary in summaries)
        label = None if with_attributes else label_of.get(category)
        row = ClassRow(
            category=by_id[category],
            with_attributes=with_attributes,
            score=sum(summary.score * summary.n_images for summary in summaries) / images,
            images=images,
            ap=None if with_attributes else analysis.class_ap.get(category),
            tally=ErrorCounts.total(analysis.tallies[class_id] for class_id in class_ids),
            threshold=_threshold(analysis.rule, label) if manifest else "not known",
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.tally.true.total(), -row.tally.predicted.total(), row.category.id))


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
