"""Score one file of masks against another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pycocotools import mask as coco_mask
from tqdm import tqdm

from fashion_hydra.evaluation.competition_score import Score, combine, count_image
from fashion_hydra.evaluation.matching import Reach, reach_of_masks
from fashion_hydra.formats.class_id import image_stem
from fashion_hydra.formats.csv_files import PROGRESS_AFTER_S
from fashion_hydra.formats.submission import read_masks
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError


def find_overlaps(masks: Mapping[str, Mapping[str, Sequence[CocoRLE]]]) -> list[tuple[str, str]]:
    """Return each (ImageId, ClassId) whose masks overlap, which the competition forbids within a submission."""
    return [
        (image, class_id)
        for image, by_class in masks.items()
        for class_id, rles in by_class.items()
        if len(rles) > 1 and coco_mask.area(coco_mask.merge(list(rles))) < coco_mask.area(list(rles)).sum()
    ]


def score_masks(
    truth: Mapping[str, Mapping[str, Sequence[CocoRLE]]],
    predicted: Mapping[str, Mapping[str, Sequence[CocoRLE]]],
    *,
    pooling: str = "class",
) -> tuple[Score, list[str]]:
    """Score two tables from `read_masks`; also return the images missing in `predicted`, by their names in `truth`.

    A missing image counts as one without predictions. Raises UserError for predicted images missing in `truth`.
    """
    answered = match_images(truth, predicted)
    counts = {}
    for name in tqdm(truth, desc="scoring", unit=" images", delay=PROGRESS_AFTER_S, disable=None):
        answer = answered[name]
        counts[name] = count_image(truth[name], predicted[answer] if answer is not None else {})
    return combine(counts, pooling=pooling), [name for name, answer in answered.items() if answer is None]


def reach_of(
    truth: Mapping[str, Mapping[str, Sequence[CocoRLE]]],
    predicted: Mapping[str, Mapping[str, Sequence[CocoRLE]]],
    *,
    pooling: str = "class",
) -> Reach:
    """Return the `Reach` of a submission without attributes; one with any attributes is assumed to predict all."""
    knows = any("_" in class_id for by_class in predicted.values() for class_id in by_class)
    return reach_of_masks(truth, lambda class_id: knows or "_" not in class_id, pooling=pooling)


def match_images(truth: Mapping[str, object], predicted: Mapping[str, object]) -> dict[str, str | None]:
    """Return each image's name in `truth` -> its name in `predicted`, or None if it is missing there.

    Names are compared without suffixes such as `.jpg`, because the 2019 files have `name.jpg` and the 2020 files
    `name`. Raises UserError for predicted images missing in `truth`.
    """
    by_stem = _keyed_by_stem(predicted)
    known = _keyed_by_stem(truth)
    unknown = [name for stem, name in by_stem.items() if stem not in known]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(predicted)} predicted images are not in the truth, the first "
            f"{unknown[0]}. Check that both files are of the same image set, or remove these rows"
        )
    return {name: by_stem.get(stem) for stem, name in known.items()}


def score_files(truth: str | Path, submission: str | Path, *, pooling: str = "class") -> tuple[Score, list[str]]:
    """Read both files and score them with `score_masks`."""
    return score_masks(read_masks(truth), read_masks(submission), pooling=pooling)


def _keyed_by_stem(images: Mapping[str, object]) -> dict[str, str]:
    """Return ImageId without image suffix -> ImageId."""
    stems: dict[str, str] = {}
    for name in images:
        stem = image_stem(name)
        if stem in stems:
            raise UserError(f"images {stems[stem]} and {name} are in one file: use one name per image")
        stems[stem] = name
    return stems
