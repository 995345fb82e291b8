"""Config -> which models predict which images, on which views, into which cache."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from fashion_hydra.config.allowed_targets import instantiate
from fashion_hydra.config.build import build
from fashion_hydra.data.class_set import ClassSet, named_categories
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.data.image_list import ImageList, list_annotated, list_folder
from fashion_hydra.formats.submission import SUBMISSION_SIZE, MaskTable
from fashion_hydra.inference.candidate_cache import CandidateCache, Manifest, fingerprint
from fashion_hydra.inference.merging import Merging, feature_bytes
from fashion_hydra.model.checkpoint import Member, best_checkpoints, check_same_classes, load_member
from fashion_hydra.model.detector import STRIDES
from fashion_hydra.model.soup import make_soup
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_files import fill_in, read_yaml
from fashion_hydra.postprocess.rule_options import build_postprocess
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import file_sha256
from fashion_hydra.workflows.train import make_datamodule

log_rank_zero = rank_zero_only(logging.getLogger(__name__).info)
IMAGE_SETS = ("test", "val", "test_fold")


@dataclass(frozen=True)
class PredictionPlan:
    """What a prediction run is made of.

    Args:
        members: the models.
        classes: that they share.
        image_list: the images.
        data: the data set that these are of, where a training run held them out; then their truth is known.
        scales: short and long edge of each scale.
        merging: how sources are merged.
        cache: of candidates.
        rule: thresholds.
        folder: of the answers.
        run: the training run that the models are of, if that is known.
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
    run: Path | None


def truth_of(prediction: PredictionPlan) -> MaskTable | None:
    """The true masks of the images on the submission's grid, where they are known."""
    data = prediction.data
    if data is None:
        return None
    index = {str(image_id): i for i, image_id in enumerate(data.annotations.image_ids)}
    images = [index[image_id] for image_id in prediction.image_list.image_ids]
    return truth_on_grid(data.annotations, images, size=SUBMISSION_SIZE)


def plan_prediction(cfg: DictConfig) -> PredictionPlan:
    """Load the models, list the images, and open the cache."""
    named = bool(cfg.checkpoint or cfg.ensemble.members)
    run = None if named and cfg.ensemble.run is None else find_run(cfg)
    paths = member_paths(cfg, run)
    if cfg.ensemble.soup_batches is not None:
        paths = [_soup(cfg, paths, run)]
    members = [load_member(path) for path in paths]
    classes = check_same_classes(members)
    image_list, data = list_images(cfg, run)
    if cfg.data.limit is not None:
        if not isinstance(cfg.data.limit, int) or cfg.data.limit < 1:
            raise UserError(f"data.limit={cfg.data.limit}: null for all images, or how many, at least 1")
        image_list = image_list[range(min(cfg.data.limit, len(image_list)))]
    merging = build(Merging, cfg.inference, "inference")
    scales = scales_of(cfg.tta, members)
    drop = named_categories(cfg.classes.drop, classes, "classes.drop")
    digests = tuple((member.path.name, file_sha256(member.path)) for member in members)
    postprocess = fill_in(cfg.postprocess, digests, Path(cfg.paths.tuned))
    rule = build_postprocess(postprocess, ClassSet(classes.ids, classes.names, drop))
    manifest = Manifest(
        members=digests,
        class_ids=classes.ids,
        class_names=classes.names,
        scales=scales,
        flips=tuple(merging.flips),
        proposal_iou_thr=merging.proposal_iou_thr,
        max_proposals=merging.max_proposals,
        precision=str(cfg.trainer.precision),
        score_floor=cfg.candidates.score_floor,
        iou_grid=tuple(cfg.candidates.iou_grid),
        images=fingerprint(image_list.fingerprint()),
    )
    manifest.check(rule)
    for member in members:
        log_rank_zero("model          %s", member.path)
    views = len(scales) * len(merging.flips)
    log_rank_zero("views          %d: %s%s", views, " ".join(f"{s}x{e}" for s, e in scales),
         ", each mirrored too" if len(merging.flips) == 2 else "")  # fmt: skip
    kept = feature_bytes([m.detector.channels for m in members], scales, len(merging.flips), STRIDES)
    place = {"recompute": "computed three times, not kept"}.get(
        merging.feature_cache, f"on the {merging.feature_cache}"
    )
    log_rank_zero("features       %.0f MiB an image at most, %s", kept / 2**20, place)
    folder = Path(cfg.out)
    cache = CandidateCache(folder / "candidates", manifest)
    return PredictionPlan(members, classes, image_list, data, scales, merging, cache, rule, folder, run)


def _soup(cfg: DictConfig, paths: Sequence[Path], run: Path | None) -> Path:
    """The checkpoint with the mean of the weights of these."""
    on_gpu = cfg.trainer.accelerator not in ("cpu", None) and torch.cuda.is_available()
    return make_soup(
        paths,
        lambda: data_of(run, None, "ensemble=soup").train_dataloader(),
        count=cfg.ensemble.soup_batches,
        seed=0,
        device=torch.device("cuda" if on_gpu else "cpu"),
    )


def find_run(cfg: DictConfig) -> Path:
    """The training run that is meant: `ensemble.run`, or the newest below `paths.runs`."""
    if cfg.ensemble.run is not None:
        return Path(cfg.ensemble.run)
    found = sorted(Path(cfg.paths.runs).glob("*/*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"no training run below {cfg.paths.runs}: give checkpoint=FILE, ensemble.members=[FILES] or "
            "ensemble.run=FOLDER"
        )
    log_rank_zero("run            %s (the newest)", found[-1].parent.parent)
    return found[-1].parent.parent


def member_paths(cfg: DictConfig, run: Path | None) -> list[Path]:
    """The checkpoints that are meant."""
    if cfg.checkpoint:
        return [Path(cfg.checkpoint)]
    if cfg.ensemble.members:
        return [Path(path) for path in cfg.ensemble.members]
    assert run is not None
    return best_checkpoints(run, cfg.ensemble.count)


def list_images(cfg: DictConfig, run: Path | None) -> tuple[ImageList, FashionDataModule | None]:
    """The images that are meant, without `data.root` of the training run's own folder; and the data they are of.

    Raises:
        UserError: there are none, or no run says which.
    """
    if cfg.data.images not in IMAGE_SETS:
        raise UserError(f"data.images={cfg.data.images}: give {', '.join(IMAGE_SETS)}")
    trained = config_of(run)
    root = cfg.data.root or (trained.data.root if trained is not None else None)
    if root is None:
        raise UserError("data.root: give a folder of pictures, or one with test/")
    if cfg.data.images == "test":
        return list_folder(Path(root)), None
    data = data_of(run, root, f"data.images={cfg.data.images}")
    chosen = data.is_validation if cfg.data.images == "val" else data.is_test
    if not chosen.any():
        raise UserError(f"data.images=test_fold: {run} was trained without data.test_fold, no images were kept for it")
    return list_annotated(data.annotations, chosen.nonzero()[0]), data


def config_of(run: Path | None) -> DictConfig | None:
    """What a training run was run with, if that is known."""
    file = run / ".hydra" / "config.yaml" if run is not None else None
    config = read_yaml(file) if file is not None and file.is_file() else None
    if config is not None and not isinstance(config, DictConfig):
        raise UserError(f"{file}: not the config of a run. Give the folder of a training run")
    return config


def trackers_of(run: Path | None) -> list[Logger]:
    """The loggers that a run was recorded with, to go on with its records."""
    trained = config_of(run)
    if trained is None or run is None:
        return []
    trained.paths.output_dir, trained.name = str(run), run.parent.name
    wanted = [c for c in trained.logger.values() if c._target_.endswith(("WandbLogger", "TensorBoardLogger"))]
    return [instantiate(config) for config in wanted]


def data_of(run: Path | None, root: str | None, option: str) -> FashionDataModule:
    """The data that a run was trained on, read and split as they were then.

    Args:
        run: its folder.
        root: another folder that holds them now.
        option: what needs them, for the message.

    Raises:
        UserError: no run says which.
    """
    trained = config_of(run)
    if trained is None or run is None:
        raise UserError(
            f"{option} needs the data that a run was trained on; give ensemble.run=FOLDER "
            "(beside checkpoint or ensemble.members, if those are meant)"
        )
    trained.data.root, trained.data.split_file = root or trained.data.root, str(run / "split.csv")
    trained.data.report_dir = None
    data = make_datamodule(trained)
    data.read()
    return data


def scales_of(tta: DictConfig, members: Sequence[Member]) -> tuple[tuple[int, int], ...]:
    """The scales that are looked at, as short and long edge."""
    if tta.factors is None:
        return tuple((int(short), int(long)) for short, long in tta.scales)
    if not all(isinstance(factor, int | float) and factor > 0 for factor in tta.factors):
        raise UserError(f"tta.factors={list(tta.factors)}: numbers above 0 expected, such as [0.83,1.0,1.17]")
    trained = {member.scale for member in members}
    if len(trained) > 1:
        raise UserError(
            f"tta.factors: the members were validated at different scales {sorted(trained)}; give tta.factors=null "
            "and tta.scales=[[SHORT,LONG],...]"
        )
    [(short_edge, long_edge)] = trained
    if min(short_edge, long_edge) < 1:
        raise UserError("tta.factors: the checkpoint does not say its scale; give tta.factors=null and tta.scales")
    return tuple((round(short_edge * factor), round(long_edge * factor)) for factor in tta.factors)
