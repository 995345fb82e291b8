"""Make a data set of photos without masks, from a model's predictions and, if known, the photos' tags."""

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fashion_hydra.data.annotation_cache import AnnotationReader, load_annotations
from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.image_list import ImageList, list_folder
from fashion_hydra.data.split import read_split, stratified_folds, write_split
from fashion_hydra.formats.csv_files import read_rows
from fashion_hydra.formats.kaggle_rows import TRAIN_COLUMNS
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.tagged import choose_tagged
from fashion_hydra.structures.rle import coco_to_runs, runs_to_kaggle
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write, file_sha256, folder_beside
from fashion_hydra.utils.text import shorten

TAG_COLUMNS = ("image", "categories")
_USUAL = 0.95
"""Quantile of a class's masks per labelled photo with the class: the maximum number per pseudo-labelled photo."""


@dataclass(frozen=True)
class PseudoLabelRule:
    """Rule that selects a photo's masks and the photos to use.

    Args:
        score_thr: minimum score of a mask.
        tag_thr: minimum score of the first mask of a tagged class.
        mask_thr: mask probability from which a pixel belongs to the mask.
        missing: photos with more than this number of tagged classes without a mask are left out.
    """

    score_thr: float
    tag_thr: float
    mask_thr: float
    missing: int

    def __post_init__(self) -> None:
        for name in ("score_thr", "tag_thr", "mask_thr"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be between 0 and 1")
        if self.missing < 0:
            raise UserError(f"--missing {self.missing}: must be at least 0")


@dataclass
class PseudoLabels:
    """Counts of a pseudo-labelled data set.

    Args:
        labelled: photos of the labelled data set.
        faults: faults of the labelled data set, which are left out.
        added: photos with pseudo-labels.
        left_out: reason -> photos that are left out.
        masks: category -> pseudo-labelled masks.
        tagged: category -> photos tagged with it.
        found: category -> photos tagged with it that have a mask of it.
    """

    labelled: int = 0
    faults: int = 0
    added: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    masks: Counter[int] = field(default_factory=Counter)
    tagged: Counter[int] = field(default_factory=Counter)
    found: Counter[int] = field(default_factory=Counter)


def write_pseudo_labelled(
    reader: AnnotationReader,
    predictions: Path,
    pictures: Path,
    out: Path,
    *,
    rule: PseudoLabelRule,
    tags: Path | None = None,
    split: Path | None = None,
) -> tuple[PseudoLabels, Mapping[int, str]]:
    """Write a folder in Kaggle's layout with a labelled data set and pseudo-labelled pictures.

    Its `split.csv` has the data set's folds and one additional, last fold with the pictures, so they are never used for
    validation. Image files are hard links if the file system supports them.

    Args:
        reader: reader of the labelled data set.
        predictions: the folder that predict.py wrote for the pictures, with their candidates.
        pictures: the folder of pictures that predict.py read.
        out: the folder to write, atomically.
        rule: rule that selects masks and pictures.
        tags: CSV of the pictures' classes; None if unknown.
        split: CSV of the data set's folds; None for train.py's default folds.

    Returns:
        The counts, and category id -> name.

    Raises:
        UserError: a file or folder is missing or damaged, `out` is not empty, or a picture and an image share a name.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; name another folder")
    annotations, faults = load_annotations(reader)
    cache = CandidateCache(predictions / "candidates")
    listed = list_folder(pictures)
    known = set(annotations.image_ids.tolist())
    if double := next((i for i in listed.image_ids if i in known), None):
        raise UserError(f"{pictures}: {double} is also the name of an image of the data set. Rename one of them")
    shown = None if tags is None else _read_tags(tags, listed.image_ids, annotations.names)
    if split is None:
        fold_of = stratified_folds(annotations.category_table(), folds=10, seed=777)
    else:
        left_out = frozenset(fault.image_id for fault in faults)
        fold_of = read_split(split, annotations.image_ids, left_out=left_out)
    result = PseudoLabels(labelled=len(annotations), faults=len(faults))
    with folder_beside(out) as folder:
        (folder / "train").mkdir()
        _describe_labels(reader, annotations.names, folder / "label_descriptions.json")
        added: list[str] = []
        with atomic_write(folder / "train.csv") as stream:
            writer = csv.writer(stream)
            writer.writerow(TRAIN_COLUMNS)
            writer.writerows(_labelled_rows(annotations))
            for index, rows in _pseudo_rows(listed, cache, annotations, shown, rule, result):
                writer.writerows(rows)
                added.append(listed.image_ids[index])
                _link(listed.folder / listed.files[index], folder / "train" / added[-1])
        for file in annotations.files.tolist():
            _link(annotations.folder / file, folder / "train" / file)
        last = int(fold_of.max()) + 1
        ids = np.array([*annotations.image_ids.tolist(), *added])
        write_split(folder / "split.csv", ids, np.append(fold_of, np.full(len(added), last)))
        if out.is_dir():
            out.rmdir()
        os.replace(folder, out)
    result.added = len(added)
    return result, annotations.names


def _read_tags(path: Path, image_ids: Sequence[str], names: Mapping[int, str]) -> dict[str, frozenset[int]]:
    """Read the categories that each picture shows.

    Raises:
        UserError: the file is missing, or a column or row is invalid.
    """
    if not path.is_file():
        raise UserError(f"--tags {path}: no such file. Give a CSV with the columns {','.join(TAG_COLUMNS)}")
    rows = read_rows(path, f"reading {path.name}")
    header = next(rows)[1]
    if not set(TAG_COLUMNS) <= set(header):
        written = shorten(",".join(header), 80)
        raise UserError(f"{path}: expected columns {','.join(TAG_COLUMNS)}, got {written or 'none'}")
    places = [header.index(name) for name in TAG_COLUMNS]
    known, shown = set(image_ids), dict[str, frozenset[int]]()
    for line, values in rows:
        where = f"{path}, row {line}"
        image_id, text = (values[place] if place < len(values) else "" for place in places)
        if image_id in shown:
            raise UserError(f"{where}: {shorten(image_id, 80)} occurs twice. Remove one of the rows")
        if image_id not in known:
            raise UserError(f"{where}: no picture {shorten(image_id, 80)!r}. Give the name of its file")
        if wrong := [word for word in text.split() if not re.fullmatch("[0-9]{1,6}", word) or int(word) not in names]:
            raise UserError(
                f"{where}: {shorten(wrong[0], 40)!r} is not a category of the data set. Give ids separated by spaces, "
                f"such as {' '.join(map(str, list(names)[:3]))}"
            )
        shown[image_id] = frozenset(map(int, text.split()))
    return shown


def _labelled_rows(annotations: Annotations) -> Iterator[tuple[str, str, int, int, str]]:
    """Yield a row for each mask of the data set, and an empty row for each photo without masks."""
    for image, image_id in enumerate(annotations.image_ids.tolist()):
        height, width = annotations.sizes[image].tolist()
        if not annotations.instances(image):
            yield image_id, "", height, width, ""
        for mask in annotations.instances(image):
            runs = runs_to_kaggle(annotations.runs_of(mask))
            yield image_id, runs, height, width, str(annotations.class_ids[mask])


def _pseudo_rows(
    listed: ImageList,
    cache: CandidateCache,
    annotations: Annotations,
    shown: Mapping[str, frozenset[int]] | None,
    rule: PseudoLabelRule,
    result: PseudoLabels,
) -> Iterator[tuple[int, list[tuple[str, str, int, int, str]]]]:
    """Yield the index and the rows of each picture to use; count used and left-out pictures in `result`."""
    category_of = cache.manifest.class_ids
    most = _most_per_photo(annotations)
    content = {file_sha256(annotations.folder / file) for file in annotations.files.tolist()}
    for index in tqdm(range(len(listed)), desc="labelling", unit="photo", disable=None):
        image_id = listed.image_ids[index]
        present = None if shown is None else shown.get(image_id, frozenset()) & set(category_of)
        allowed = {
            label: most[c] for label, c in enumerate(category_of) if c in most and (present is None or c in present)
        }
        if fault := cache.read_fault(image_id):
            result.left_out[f"unreadable ({fault.partition(':')[0]})"] += 1
        elif not allowed:
            result.left_out["no tag of a class to learn"] += 1
        elif file_sha256(listed.folder / listed.files[index]) in content:
            result.left_out["a photo of the data set under another name"] += 1
        else:
            candidates = cache.read(image_id)
            found = choose_tagged(
                candidates,
                allowed,
                score_thr=rule.score_thr,
                tag_thr=rule.score_thr if present is None else rule.tag_thr,
                mask_thr=rule.mask_thr,
            )
            kinds = {category_of[label] for label in found.labels}
            result.tagged.update(present or ())
            result.found.update(kinds & (present or set()))
            if len((present or set()) - kinds) > rule.missing:
                result.left_out[f"more than {rule.missing} tags without a mask"] += 1
            elif not kinds:
                result.left_out["no mask found"] += 1
            else:
                result.masks.update(category_of[label] for label in found.labels)
                yield (
                    index,
                    [
                        (image_id, runs_to_kaggle(coco_to_runs(mask)), *candidates.size, str(category_of[label]))
                        for label, mask in zip(found.labels, found.masks, strict=True)
                    ],
                )


def _most_per_photo(annotations: Annotations) -> dict[int, int]:
    """Return category -> maximum number of masks per photo, for the categories of the data set; see `_USUAL`."""
    pairs = np.stack([annotations.owners(), annotations.categories], axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return {
        int(c): int(np.quantile(counts[unique[:, 1] == c], _USUAL, method="inverted_cdf"))
        for c in np.unique(unique[:, 1])
    }


def _describe_labels(reader: AnnotationReader, names: Mapping[int, str], path: Path) -> None:
    """Write the category names: a copy of Kaggle's file if there is one, since it also names attributes."""
    kaggle = reader.folder.parent / path.name
    if kaggle.is_file():
        shutil.copy2(kaggle, path)
    else:
        described = {"categories": [{"id": i, "name": name} for i, name in names.items()]}
        path.write_text(json.dumps(described, indent=1), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """Create a hard link to a file, or a copy if the file system does not support hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
