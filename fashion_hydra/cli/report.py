"""`fashion-hydra report`: write one HTML page about training runs, thresholds, predictions and ladders."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.utils.errors import UserError

if TYPE_CHECKING:  # `--help` must not wait for torch
    from fashion_hydra.formats.submission import MaskTable
    from fashion_hydra.inference.candidate_cache import CandidateCache
    from fashion_hydra.postprocess.rule import Postprocess
    from fashion_hydra.report.results.analysis import Analysis, PredictionFiles
    from fashion_hydra.report.results.photos import Photos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "folders",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="folders of train.py, tune_thresholds.py or predict.py, or with a ladder.csv, in any combination",
    )
    parser.add_argument("--out", type=Path, metavar="HTML", help="default: report.html in the first folder")
    parser.add_argument("--title", metavar="TEXT", help="default: name of the first folder")
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="TRUTH.csv",
        help="ground-truth masks of the predicted images, a train.csv or a submission (default: the truth.csv of each "
        "prediction)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="folder of the photos (default: the folder that was predicted)"
    )
    parser.add_argument(
        "--pooling", choices=("class", "image"), default="class", help="see `fashion-hydra score --help`"
    )
    parser.add_argument(
        "--match",
        choices=("class_id", "category"),
        help="what must be equal, see `fashion-hydra score --help` (default: class_id, or category if the model cannot "
        "predict any ClassId of the truth)",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate the predictions, write the page, and print its path."""
    from fashion_hydra.evaluation.ladder import FILE_NAME, read_ladder
    from fashion_hydra.report.results.folders import kinds_of
    from fashion_hydra.report.results.page import ResultsPage, write_results_page
    from fashion_hydra.report.results.photo_folders import photos_of
    from fashion_hydra.report.results.photos import Photos
    from fashion_hydra.report.results.read_folders import read_training, read_tuning

    folders = list(dict.fromkeys(args.folders))
    kinds = {folder: kinds_of(folder) for folder in folders}
    out = args.out or folders[0] / "report.html"
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; name a file, such as {out / 'report.html'}")
    if args.images is not None and not args.images.is_dir():
        raise UserError(f"--images {args.images}: no such folder. Give the folder with the photos")
    notes: list[str] = []
    predicted = [folder for folder in folders if "prediction" in kinds[folder]]
    analyses = _judge(predicted, args, notes)
    photos = Photos([args.images]) if args.images else photos_of(predicted[0]) if predicted else Photos([])
    if analyses:
        notes += _about(analyses[0], photos)
    names, attribute_names, groups = _names(analyses, [*photos.folders, *([args.truth] if args.truth else [])])
    page = ResultsPage(
        title=args.title or folders[0].resolve().name,
        predictions=analyses,
        photos=photos,
        names=names,
        attribute_names=attribute_names,
        attribute_groups=groups,
        notes=notes,
        ladders={folder: read_ladder(folder / FILE_NAME) for folder in folders if "ladder" in kinds[folder]},
        tunings=[read_tuning(folder) for folder in folders if "tuning" in kinds[folder]],
        trainings=[read_training(folder) for folder in folders if "training" in kinds[folder]],
    )
    write_results_page(out, page)
    for note in notes:
        print(f"note: {note}")
    for analysis in analyses:
        print(f"{analysis.answers.folder}: {len(analysis.images)} images, score {analysis.score.value:.6f}")
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _judge(folders: Sequence[Path], args: argparse.Namespace, notes: list[str]) -> "list[Analysis]":
    """Evaluate the predictions; a ground truth shared by several predictions is read once."""
    from fashion_hydra.evaluation.matching import choose_match, describe_match
    from fashion_hydra.evaluation.score_submission import reach_of
    from fashion_hydra.formats.submission import read_masks
    from fashion_hydra.report.results.analysis import analyse, check_images

    tables: dict[Path, MaskTable] = {}
    analyses = []
    for folder in folders:
        file = args.truth or folder / "truth.csv"
        if not file.is_file():
            raise UserError(
                f"{file}: no such file, so the true masks are unknown. Give --truth TRUTH.csv, the true masks of the "
                "predicted images"
            )
        if file not in tables:
            tables[file] = read_masks(file)
        answers = _answers(folder, tables[file], notes)
        found = reach_of(answers.truth, answers.predicted, pooling=args.pooling)
        if remark := describe_match(args.match, found):
            notes.append(f"{folder}: scored {remark}")
        analysis = analyse(answers.to_match(choose_match(args.match, found)), pooling=args.pooling)
        check_images(analysis)
        analyses.append(analysis)
    return analyses


def _answers(folder: Path, truth: "MaskTable", notes: list[str]) -> "PredictionFiles":
    from fashion_hydra.formats.submission import read_masks
    from fashion_hydra.inference.candidate_cache import CandidateCache
    from fashion_hydra.report.results.analysis import PredictionFiles

    there = (folder / "candidates" / "manifest.json").is_file()
    cache = CandidateCache(folder / "candidates") if there else None
    rule = _rule(folder, cache, notes)
    return PredictionFiles(folder, truth, read_masks(folder / "submission.csv"), cache, rule)


def _rule(folder: Path, cache: "CandidateCache | None", notes: list[str]) -> "Postprocess | None":
    """Return the rule in force, or add a note and return None if it is unknown, so that the page is still written."""
    from fashion_hydra.report.results.prediction_rule import rule_in_force

    if cache is None:
        return None
    manifest = cache.manifest
    try:
        return rule_in_force(folder, manifest.classes, manifest.members)
    except UserError as error:
        notes.append(f"{folder}: the thresholds in force are unknown ({error})")
        return None


def _about(analysis: "Analysis", photos: "Photos") -> list[str]:
    """Return notes that a reader of the gallery needs."""
    notes, folder = [], analysis.answers.folder
    images = len(analysis.images)
    if missing := analysis.missing:
        notes.append(f"{folder}: {len(missing)} of {images} images are missing and count as empty, first {missing[0]}")
    if analysis.average_precision is None:
        notes.append(f"{folder}: no candidates of these images, so AP and the scores of masks are unknown")
    elif analysis.answers.rule is None:
        notes.append(f"{folder}: without the thresholds of its submission.csv, the scores of masks are unknown")
    elif not analysis.confident:
        notes.append(
            f"{folder}: its known thresholds do not reproduce its submission.csv, so the scores of masks are missing"
        )
    if absent := [image.name for image in analysis.images if photos.find(image.answer or image.name) is None]:
        where = ", ".join(map(str, photos.folders)) or "no known folder"
        notes.append(
            f"{len(absent)} of {images} photos not found, first {absent[0]} (looked in: {where}); the gallery shows "
            "their masks on grey. Give --images FOLDER"
        )
    return notes


def _names(
    analyses: "Sequence[Analysis]", beside: Sequence[Path]
) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """Return category id -> name, attribute id -> name and attribute id -> group.

    Names come from the candidates, else from a label_descriptions.json in or next to `beside`, which also has groups.
    """
    from fashion_hydra.data.kaggle import read_attribute_groups, read_labels

    names: dict[int, str] = {}
    attributes: dict[int, str] = {}
    groups: dict[int, str] = {}
    for root in (root for path in beside for root in (path, path.parent)):
        if not names and (root / "label_descriptions.json").is_file():
            names, described = read_labels(root)
            attributes, groups = described or {}, read_attribute_groups(root)
    for analysis in analyses:
        if (cache := analysis.answers.cache) is not None:
            manifest = cache.manifest
            names |= dict(zip(manifest.class_ids, manifest.class_names, strict=True))
            attributes |= {number: name for number, name in manifest.attributes.by_id().items() if name}
    return names, attributes, groups
