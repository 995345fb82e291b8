"""Config -> models -> candidates of every image in the cache -> answers."""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from fashion_hydra import outputs
from fashion_hydra.cache import CandidateCache, Manifest, file_digest, fingerprint
from fashion_hydra.data.classes import ClassSet, find_category
from fashion_hydra.data.listing import Listing, PredictDataset, list_folder, list_records
from fashion_hydra.errors import UserError
from fashion_hydra.files import whole
from fashion_hydra.hydra_app import build, build_postprocess
from fashion_hydra.inference import merge_sources
from fashion_hydra.merging import Merging, feature_bytes
from fashion_hydra.model.checkpoint import Member, best_checkpoints, check_same_classes, load_member
from fashion_hydra.model.detector import STRIDES
from fashion_hydra.postprocess import Postprocess, apply
from fashion_hydra.report.overlays import draw_overlay, overlay_size
from fashion_hydra.structures import Candidates, Scaled, Size
from fashion_hydra.submission import SUBMISSION_SIZE
from fashion_hydra.training import check_devices, make_datamodule, quieten

log = logging.getLogger(__name__)
tell = rank_zero_only(log.info)
FORMATS = ("csv", "coco", "masks")
IMAGE_SETS = ("test", "val")


@dataclass(frozen=True)
class Prediction:
    """What a prediction run is made of."""

    members: list[Member]
    classes: ClassSet
    listing: Listing
    scales: tuple[tuple[int, int], ...]
    merging: Merging
    cache: CandidateCache
    rule: Postprocess
    folder: Path


class PredictionModule(pl.LightningModule):
    """Writes the candidates of each image into the cache.

    Args:
        prediction: the run.
    """

    def __init__(self, prediction: Prediction) -> None:
        super().__init__()
        self.detectors = nn.ModuleList(member.detector for member in prediction.members)
        self.prediction, self.rules = prediction, prediction.cache.manifest.rules()

    def predict_step(self, batch: Scaled, batch_idx: int) -> None:
        """One image, every source."""
        if batch.fault:
            log.warning("%s: %s; no masks are predicted on it", batch.image_id, batch.fault)
            found = empty(batch.image_id)
        else:
            detectors = list(self.detectors)
            found = merge_sources(detectors, batch, self.rules, self.prediction.merging, device=self.device)  # type: ignore[arg-type]
        self.prediction.cache.write(found, fault=batch.fault)


class PredictionData(pl.LightningDataModule):
    """The images that have no candidates yet, shared by the processes."""

    def __init__(self, listing: Listing, scales: Sequence[tuple[int, int]], *, num_workers: int) -> None:
        super().__init__()
        self.listing, self.scales, self.num_workers = listing, scales, num_workers

    def predict_dataloader(self) -> DataLoader:
        """Every world_size-th image, one at a time."""
        assert self.trainer is not None
        mine = self.listing[range(self.trainer.global_rank, len(self.listing), self.trainer.world_size)]
        dataset = PredictDataset(mine, self.scales)
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers)

    def transfer_batch_to_device(self, batch: Scaled, device: torch.device, dataloader_idx: int) -> Scaled:
        """Inference moves what it needs when it needs it."""
        return batch


def empty(image_id: str) -> Candidates:
    """The candidates of an image that cannot be read: none."""
    return Candidates(
        image_id, (1, 1), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 1)
    )


def predict(cfg: DictConfig) -> None:
    """Predict what is not in the cache yet, then write the answers.

    Raises:
        UserError: checkpoints, images or options that cannot be had.
    """
    quieten()
    check_devices(cfg.trainer)
    formats = [cfg.output] if isinstance(cfg.output, str) else list(cfg.output)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"output={unknown[0]}: give one or more of {', '.join(FORMATS)}")
    prediction = assemble(cfg)
    todo = prediction.cache.missing(prediction.listing.image_ids)
    done = len(prediction.listing) - len(todo)
    tell("images         %s: %d%s", prediction.listing.folder, len(prediction.listing),
         f", {done} of them done before" if done else "")  # fmt: skip
    trainer: pl.Trainer = instantiate(cfg.trainer, logger=False, callbacks=[instantiate(cfg.progress)])
    if todo:
        data = PredictionData(prediction.listing[todo], prediction.scales, num_workers=cfg.data.num_workers)
        trainer.predict(PredictionModule(prediction), datamodule=data, return_predictions=False)
        trainer.strategy.barrier()
    if trainer.is_global_zero:
        answer(prediction, formats, draw=cfg.draw)


def assemble(cfg: DictConfig) -> Prediction:
    """Load the models, list the images, and open the cache."""
    run = None if cfg.checkpoint or cfg.ensemble.members else find_run(cfg)
    members = [load_member(path) for path in member_paths(cfg, run)]
    classes = check_same_classes(members)
    listing = list_images(cfg, run)
    if cfg.data.limit is not None:
        listing = listing[range(min(cfg.data.limit, len(listing)))]
    merging = build(Merging, cfg.inference, "inference")
    scales = scales_of(cfg.tta, members)
    named = classes.by_id()
    drop = tuple(c if isinstance(c, int) else find_category(c, named, "classes.drop") for c in cfg.classes.drop)
    rule = build_postprocess(cfg.postprocess, ClassSet(classes.ids, classes.names, drop))
    manifest = Manifest(
        members=tuple((member.path.name, file_digest(member.path)) for member in members),
        class_ids=classes.ids,
        class_names=classes.names,
        scales=scales,
        flips=tuple(merging.flips),
        proposal_iou_thr=merging.proposal_iou_thr,
        max_proposals=merging.max_proposals,
        precision=str(cfg.trainer.precision),
        score_floor=cfg.candidates.score_floor,
        iou_grid=tuple(cfg.candidates.iou_grid),
        images=fingerprint(listing.fingerprint()),
    )
    manifest.check(rule)
    for member in members:
        tell("model          %s", member.path)
    views = len(scales) * len(merging.flips)
    tell("views          %d: %s%s", views, " ".join(f"{s}x{e}" for s, e in scales),
         ", each mirrored too" if len(merging.flips) == 2 else "")  # fmt: skip
    kept = feature_bytes([m.detector.channels for m in members], scales, len(merging.flips), STRIDES)
    place = {"recompute": "computed three times, not kept"}.get(
        merging.feature_cache, f"on the {merging.feature_cache}"
    )
    tell("features       %.0f MiB an image at most, %s", kept / 2**20, place)
    folder = Path(cfg.out)
    cache = CandidateCache(folder / "candidates", manifest)
    return Prediction(members, classes, listing, scales, merging, cache, rule, folder)


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
    tell("run            %s (the newest)", found[-1].parent.parent)
    return found[-1].parent.parent


def member_paths(cfg: DictConfig, run: Path | None) -> list[Path]:
    """The checkpoints that are meant."""
    if cfg.checkpoint:
        return [Path(cfg.checkpoint)]
    if cfg.ensemble.members:
        return [Path(path) for path in cfg.ensemble.members]
    assert run is not None
    return best_checkpoints(run, cfg.ensemble.count)


def list_images(cfg: DictConfig, run: Path | None) -> Listing:
    """The images that are meant; without `data.root` those of the training run's own folder."""
    if cfg.data.images not in IMAGE_SETS:
        raise UserError(f"data.images={cfg.data.images}: give {' or '.join(IMAGE_SETS)}")
    config = run / ".hydra" / "config.yaml" if run is not None else None
    trained = OmegaConf.load(config) if config is not None and config.is_file() else None
    root = cfg.data.root or (trained.data.root if trained is not None else None)
    if root is None:
        raise UserError("data.root: give a folder of pictures, or one with test/")
    if cfg.data.images == "test":
        return list_folder(Path(root))
    if trained is None or run is None:
        raise UserError("data.images=val: the validation images of a run; give ensemble.run=FOLDER")
    assert isinstance(trained, DictConfig)
    trained.data.root, trained.data.split_file, trained.data.report_dir = root, str(run / "split.csv"), None
    data = make_datamodule(trained)
    data.read()
    return list_records(data.records, data.is_validation.nonzero()[0])


def scales_of(tta: DictConfig, members: Sequence[Member]) -> tuple[tuple[int, int], ...]:
    """The scales that are looked at, as short and long edge."""
    if tta.factors is None:
        return tuple((int(short), int(long)) for short, long in tta.scales)
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


def answer(prediction: Prediction, formats: Sequence[str], *, draw: bool) -> None:
    """Candidates -> detections -> files."""
    folder, names = prediction.folder, prediction.classes.by_id()
    grid = (SUBMISSION_SIZE, SUBMISSION_SIZE)
    if faults := _write_faults(prediction):
        tell("faults         %d images could not be read: %s", faults, folder / "faults.csv")
    if "csv" in formats:
        path = folder / "submission.csv"
        masks = outputs.write_submission_csv(path, _answers(prediction, path.name, lambda size: grid))
        tell("submission     %s: %d images, %d masks", path, len(prediction.listing), masks)
    if "coco" in formats:
        path = folder / "coco_results.json"
        masks = outputs.write_coco_results(path, _answers(prediction, path.name, lambda size: size), names)
        tell("COCO results   %s: %d masks", path, masks)
    if "masks" in formats:
        masks = outputs.write_mask_pngs(folder / "masks", _answers(prediction, "masks", lambda size: size), names)
        tell("masks          %s: %d masks", folder / "masks", masks)
    if draw:
        _draw(prediction, folder / "overlays", names)
    if "csv" in formats:
        tell("next           fashion-hydra submit-check %s", folder / "submission.csv")


def _draw(prediction: Prediction, folder: Path, names: Mapping[int, str]) -> None:
    for index, one in enumerate(_answers(prediction, "overlays", overlay_size)):
        try:
            photo = prediction.listing.read(index)
        except UserError:
            continue  # told already
        draw_overlay((folder / one.file).with_suffix(".jpg"), photo, one.detections, names)
    tell("overlays       %s", folder)


def _write_faults(prediction: Prediction) -> int:
    read = prediction.cache.read_fault
    faults = [(name, fault) for name in prediction.listing.image_ids if (fault := read(name))]
    with whole(prediction.folder / "faults.csv") as stream:
        csv.writer(stream).writerows([("image_id", "fault"), *faults])
    return len(faults)


def _answers(prediction: Prediction, what: str, grid_of: Callable[[Size], Size]) -> Iterator[outputs.Answer]:
    """Each image's detections, on the grid that is wanted for its size."""
    listing = prediction.listing
    pairs = zip(listing.image_ids, listing.files, strict=True)
    for image_id, file in tqdm(pairs, total=len(listing), desc=what, unit=" images", disable=None):
        candidates = prediction.cache.read(image_id)
        detections = apply(candidates, prediction.rule, size=grid_of(candidates.size))
        yield outputs.Answer(image_id, file, candidates.size, detections, prediction.classes.ids)
