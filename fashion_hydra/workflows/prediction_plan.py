"""Plan a prediction from its options: the models, the images, the views and the cache."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fashion_hydra.config.build import make, rule_options
from fashion_hydra.config.devices import is_one_of_several
from fashion_hydra.config.released import find_released, released_models
from fashion_hydra.config.schema import PredictConfig, TTAConfig
from fashion_hydra.config.stored import StoredRun
from fashion_hydra.data.augment import checked_scales
from fashion_hydra.data.class_set import ClassSet, named_categories
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.data.image_list import ImageList, list_annotated, list_folder
from fashion_hydra.formats.submission import SUBMISSION_SIZE, MaskTable
from fashion_hydra.inference.cached_images import ImageFiles
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest, OtherCandidates
from fashion_hydra.inference.merging import Merging, feature_bytes
from fashion_hydra.model.checkpoint import Member, check_same_classes, load_member
from fashion_hydra.model.soup import make_soup
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_files import fill_in, read_tuned, rule_file
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.training.console import log_rank_zero
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import file_sha256

IMAGE_SETS = ("test", "val", "test_fold")


@dataclass(frozen=True)
class PredictionPlan:
    """A prediction, ready to run.

    Args:
        members: the models.
        classes: the classes of all models.
        image_list: the images.
        data: the images' data set, if a training run held them out, so that their truth is known; else None.
        scales: short and long edge of each scale.
        merging: options for merging sources.
        cache: the candidate cache.
        rule: the postprocessing rule.
        folder: output folder.
        run: the models' training run; None if unknown.
    """

    members: list[Member]
    classes: ClassSet
    image_list: ImageList
    data: FashionDataModule | None
    scales: tuple[tuple[int, int], ...]
    merging: Merging
    cache: CandidateCache
    rule: Postprocess
    folder: Path
    run: RunFolder | None


def truth_of(plan: PredictionPlan) -> MaskTable | None:
    """Return the true masks of the images on the submission grid; None if they are unknown."""
    data = plan.data
    if data is None:
        return None
    index = {str(image_id): i for i, image_id in enumerate(data.annotations.image_ids)}
    images = [index[image_id] for image_id in plan.image_list.image_ids]
    return truth_on_grid(data.annotations, images, size=SUBMISSION_SIZE)


def plan_prediction(options: PredictConfig, *, is_default_out: bool = False) -> PredictionPlan:
    """Load the models, list the images, and open the cache.

    Args:
        options: options of the script.
        is_default_out: whether the user left the output folder to the script. If such a folder holds predictions of
            other models or images, they are moved, so that a command works again after the next training.

    Raises:
        UserError: checkpoints or images are missing or damaged, or an option is invalid.
    """
    named = bool(options.checkpoint or options.ensemble.members)
    run = None if named and options.ensemble.run is None else find_run(options)
    paths = member_paths(options, run)
    run = run or _run_with(paths)
    if options.ensemble.soup_batches is not None:
        paths = [_soup(options, paths, run)]
    members = [load_member(path, options.trust) for path in paths]
    classes = check_same_classes(members)
    image_list, data = list_images(options, run)
    if (limit := options.data.limit) is not None:
        if limit < 1:
            raise UserError(f"data.limit={limit}: must be at least 1, or null for all images")
        image_list = image_list[range(min(limit, len(image_list)))]
    merging = make(
        Merging,
        options.inference,
        "inference",
        flips=tuple(options.tta.flips),
        weights=tuple(options.ensemble.weights or ()),
    )
    merging.check_weights(len(members))
    scales = scales_of(options.tta, members)
    digests = tuple((member.path.name, file_sha256(member.path)) for member in members)
    rule = _rule(options, members, classes, digests)
    manifest = Manifest(
        members=digests,
        class_ids=classes.ids,
        class_names=classes.names,
        scales=scales,
        flips=tuple(merging.flips),
        proposal_iou_thr=merging.proposal_iou_thr,
        max_proposals=merging.max_proposals,
        precision=str(options.trainer.precision),
        score_floor=options.candidates.score_floor,
        iou_grid=tuple(options.candidates.iou_grid),
        attributes=classes.attributes,
        weights=tuple(merging.weights),
        mask_grid=merging.mask_grid,
    )
    manifest.check(rule)
    chosen = options.postprocess.file
    if chosen is not None and chosen != "own":
        file = rule_file(chosen, digests, Path(options.paths.tuned))
        log_rank_zero("thresholds     %s%s", file, _differences(file, manifest))
    for member in members:
        log_rank_zero("model          %s", member.path)
    _log_views(members, scales, merging)
    folder = Path(options.out)
    images = ImageFiles(str(image_list.folder.absolute()), image_list.file_sizes())
    try:
        cache = CandidateCache(folder / "candidates", manifest, images)
    except OtherCandidates:
        if not is_default_out or is_one_of_several():
            raise
        log_rank_zero("moved          predictions of other models or images from %s to %s", folder, _clear(folder))
        cache = CandidateCache(folder / "candidates", manifest, images)
    return PredictionPlan(members, classes, image_list, data, scales, merging, cache, rule, folder, run)


def _clear(folder: Path) -> Path:
    """Move the content of a folder, except this job's log and config, to FOLDER.1, FOLDER.2 or so; return the path."""
    free = next(path for i in itertools.count(1) if not (path := folder.with_name(f"{folder.name}.{i}")).exists())
    free.mkdir()
    for path in list(folder.iterdir()):
        if path.name != ".hydra" and path.suffix != ".log":
            path.rename(free / path.name)
    return free


def _rule(
    options: PredictConfig, members: Sequence[Member], classes: ClassSet, digests: Sequence[tuple[str, str]]
) -> Postprocess:
    drop = named_categories(options.classes.drop, classes, "classes.drop")
    own = own_thresholds(members)
    if options.postprocess.file == "own":
        log_rank_zero("thresholds     %s", "the checkpoint's own" if own is not None else "the winner's")
    filled = fill_in(rule_options(options.postprocess), digests, Path(options.paths.tuned), own)
    return build_rule(filled, replace(classes, drop=drop))


def _differences(file: Path, manifest: Manifest) -> str:
    """Return what differs between this prediction and the one that thresholds were tuned on; empty for nothing."""
    about, here = read_tuned(file).get("about") or {}, manifest.plain()
    changed = {key for key in ("members", "scales", "flips") if sorted(about.get(key, here[key])) != sorted(here[key])}
    different = ["other models"] if "members" in changed else []
    if changed & {"scales", "flips"}:
        different.append("other views (tta)")
    if "scales" in about and about.get("mask_grid") != manifest.mask_grid:  # earlier files have no mask_grid
        different.append("another mask grid (inference.mask_grid)")
    return f": tuned for {' and '.join(different)}, so other thresholds may be better here" if different else ""


def own_thresholds(members: Sequence[Member]) -> Mapping[str, Any] | None:
    """Return the rule stored in the checkpoint; None for an ensemble, whose merged scores need other thresholds."""
    return members[0].rule if len(members) == 1 else None


def _log_views(members: Sequence[Member], scales: Sequence[tuple[int, int]], merging: Merging) -> None:
    mirrored = ", each mirrored too" if len(merging.flips) == 2 else ""
    edges = " ".join(f"{short}x{long}" for short, long in scales)
    log_rank_zero("views          %d: %s%s", len(scales) * len(merging.flips), edges, mirrored)
    kept = feature_bytes([(m.detector.channels, m.detector.strides) for m in members], scales, len(merging.flips))
    place = {"recompute": "computed three times, not cached"}.get(
        merging.feature_cache, f"on the {merging.feature_cache}"
    )
    log_rank_zero("features       up to %.0f MiB per image, %s", kept / 2**20, place)


def _soup(options: PredictConfig, paths: Sequence[Path], run: RunFolder | None) -> Path:
    """Average the weights of these checkpoints and return the resulting checkpoint's path."""
    on_gpu = options.trainer.accelerator not in ("cpu", None) and torch.cuda.is_available()
    return make_soup(
        paths,
        lambda: data_of(run, None, "ensemble=soup", options.trust).train_dataloader(),
        count=options.ensemble.soup_batches or 0,
        seed=0,
        device=torch.device("cuda" if on_gpu else "cpu"),
        trusted=options.trust,
    )


def find_run(options: PredictConfig) -> RunFolder:
    """Return the run in, or the newest run below, `ensemble.run`; without this option, the newest below `paths.runs`.

    Raises:
        UserError: there is no training run below `paths.runs`.
    """
    if options.ensemble.run is not None:
        named = RunFolder(Path(options.ensemble.run))
        if named.checkpoints.is_dir() or (run := RunFolder.newest(named.path, at_any_depth=True)) is None:
            return named
        log_rank_zero("run            %s (the newest there)", run.path)
        return run
    run = RunFolder.newest(Path(options.paths.runs), at_any_depth=True)
    if run is None:
        raise UserError(
            f"no training run below {options.paths.runs}: train a model first, or give checkpoint=street, "
            "checkpoint=FILE, ensemble.members=[FILES] or ensemble.run=FOLDER"
        )
    log_rank_zero("run            %s (the newest)", run.path)
    return run


def _run_with(checkpoints: Sequence[Path]) -> RunFolder | None:
    """Return the run whose folder contains these checkpoints; None if they are in several runs or in none."""
    folders = {path.parents[1] for path in checkpoints if path.parent.name == "checkpoints"}
    return RunFolder(folders.pop()) if len(folders) == 1 else None


def member_paths(options: PredictConfig, run: RunFolder | None) -> list[Path]:
    """Return the paths of the selected checkpoints."""
    if options.checkpoint:
        return [find_checkpoint(options.checkpoint)]
    if options.ensemble.members:
        return [find_checkpoint(path) for path in options.ensemble.members]
    assert run is not None
    return run.best(options.ensemble.count)


def find_checkpoint(given: str) -> Path:
    """Return the path of a checkpoint, given by its path or as the name of a released model.

    Raises:
        UserError: there is no model of that name.
    """
    if (released := find_released(given)) is not None:
        return released
    if not Path(given).exists() and "/" not in given and not Path(given).suffix:
        names = ", ".join(released_models()) or "none"
        raise UserError(f"checkpoint={given}: no such file, and no model of that name in models/ (there: {names})")
    return Path(given)


def list_images(options: PredictConfig, run: RunFolder | None) -> tuple[ImageList, FashionDataModule | None]:
    """List the images that `data.images` selects; also return their data module, None for `test`.

    Without `data.root`, use the data folder of the training run.

    Raises:
        UserError: there are no images, or the training run that selects them is unknown.
    """
    chosen = options.data.images
    if chosen not in IMAGE_SETS:
        raise UserError(f"data.images={chosen}: give {', '.join(IMAGE_SETS)}")
    root = options.data.root
    if root is None and run is not None and (stored := StoredRun.read(run)) is not None:
        root = stored.root
    if root is None:
        raise UserError("data.root=null: give a picture, a folder of pictures, or a folder with test/")
    if chosen == "test":
        if options.data.root is None and not (Path(root) / "test").is_dir():
            raise UserError(
                f"data.images=test: the run's data has no folder test/ ({root}). Give data.root=PICTURES, or "
                "data.images=val for the run's validation images"
            )
        return list_folder(Path(root), recursive=options.data.recursive), None
    data = data_of(run, root, f"data.images={chosen}", options.trust)
    is_chosen = data.is_validation if chosen == "val" else data.is_test
    if not is_chosen.any():
        where = run.path if run is not None else "the run"
        raise UserError(
            f"data.images=test_fold: {where} was trained without data.test_fold, so it held out no test images. "
            "Give data.images=val"
        )
    return list_annotated(data.annotations, is_chosen.nonzero()[0]), data


def data_of(run: RunFolder | None, root: str | None, option: str, trusted: Sequence[str] = ()) -> FashionDataModule:
    """Read the data that a run was trained on, with the same split.

    Args:
        run: the run's folder.
        root: folder of the data, if it has moved.
        option: the option that needs the data, for the message.
        trusted: packages whose classes the run's config may use.

    Raises:
        UserError: the run or its config is missing.
    """
    stored = StoredRun.read(run) if run is not None else None
    if stored is None:
        raise UserError(
            f"{option} needs the data that a run was trained on; give ensemble.run=FOLDER "
            "(in addition to checkpoint or ensemble.members)"
        )
    return stored.datamodule(root, trusted)


def scales_of(tta: TTAConfig, members: Sequence[Member]) -> tuple[tuple[int, int], ...]:
    """Return the short and long edge of each scale."""
    if tta.factors is None:
        return checked_scales(tta.scales)
    if tta.scales is not None:
        raise UserError(
            f"tta.scales={[list(scale) for scale in tta.scales]} tta.factors={list(tta.factors)}: both set the "
            "scales. Give tta.factors=null with tta.scales, or only tta.factors"
        )
    if not tta.factors or not all(factor > 0 for factor in tta.factors):
        raise UserError(f"tta.factors={list(tta.factors)}: must be numbers above 0, such as [0.83,1.0,1.17]")
    trained = {member.scale for member in members}
    if len(trained) > 1:
        raise UserError(
            f"tta.factors: the members were validated at different scales {sorted(trained)}; give "
            "tta.factors=null and tta.scales=[[SHORT,LONG],...]"
        )
    [(short_edge, long_edge)] = trained
    if min(short_edge, long_edge) < 1:
        raise UserError("tta.factors: the checkpoint has no scale; give tta.factors=null and tta.scales")
    return tuple((round(short_edge * factor), round(long_edge * factor)) for factor in tta.factors)
