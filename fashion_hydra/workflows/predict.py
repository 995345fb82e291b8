"""Config -> models -> candidates of every image in the cache -> answers."""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from fashion_hydra.config.allowed_targets import instantiate
from fashion_hydra.config.devices import check_devices
from fashion_hydra.formats import writers
from fashion_hydra.formats.submission import SUBMISSION_GRID, write_truth
from fashion_hydra.inference.module import PredictionData, PredictionModule
from fashion_hydra.plots.overlay import draw_overlay, overlay_size
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule_files import IN_FORCE, write_tuned
from fashion_hydra.structures.batch import Size
from fashion_hydra.training.callbacks import ProcessWatch
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.workflows.prediction_plan import PredictionPlan, plan_prediction, truth_of
from fashion_hydra.workflows.train import silence_library_noise

log = logging.getLogger(__name__)


log_rank_zero = rank_zero_only(log.info)


FORMATS = ("csv", "coco", "masks")


def predict(cfg: DictConfig) -> None:
    """Predict what is not in the cache yet, then write the answers.

    Raises:
        UserError: checkpoints, images or options that cannot be had.
    """
    silence_library_noise()
    check_devices(cfg.trainer)
    formats = [cfg.output] if isinstance(cfg.output, str) else list(cfg.output)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"output={unknown[0]}: give one or more of {', '.join(FORMATS)}")
    prediction = plan_prediction(cfg)
    if predict_missing(prediction, cfg).is_global_zero:
        write_answers(prediction, formats, draw=cfg.draw)


def predict_missing(prediction: PredictionPlan, cfg: DictConfig) -> pl.Trainer:
    """Predict the candidates that the cache lacks; the trainer says which process this is."""
    todo = prediction.cache.missing(prediction.image_list.image_ids)
    done = len(prediction.image_list) - len(todo)
    log_rank_zero("images         %s: %d%s", prediction.image_list.folder, len(prediction.image_list),
         f", {done} of them done before" if done else "")  # fmt: skip
    watch = ProcessWatch("What is predicted is kept: the same command goes on")
    trainer: pl.Trainer = instantiate(cfg.trainer, logger=False, callbacks=[watch, instantiate(cfg.progress)])
    if todo:
        data = PredictionData(prediction.image_list[todo], prediction.scales, num_workers=cfg.data.num_workers)
        with watch.explain_lost_ranks(trainer):
            detectors = [member.detector for member in prediction.members]
            module = PredictionModule(detectors, prediction.cache, prediction.merging)
            trainer.predict(module, datamodule=data, return_predictions=False)
            trainer.strategy.barrier()
    return trainer


def write_answers(prediction: PredictionPlan, formats: Sequence[str], *, draw: bool) -> None:
    """Candidates -> detections -> files."""
    folder, names = prediction.folder, prediction.classes.by_id()
    if faults := _write_faults(prediction):
        log_rank_zero("faults         %d images could not be read: %s", faults, folder / "faults.csv")
    write_tuned(folder / IN_FORCE, prediction.rule, prediction.classes, _about(prediction))
    if "csv" in formats:
        path = folder / "submission.csv"
        masks = writers.write_submission_csv(path, _answers(prediction, path.name, lambda size: SUBMISSION_GRID))
        log_rank_zero("submission     %s: %d images, %d masks", path, len(prediction.image_list), masks)
    if "coco" in formats:
        path = folder / "coco_results.json"
        masks = writers.write_coco_results(path, _answers(prediction, path.name, lambda size: size), names)
        log_rank_zero("COCO results   %s: %d masks", path, masks)
    if "masks" in formats:
        masks = writers.write_mask_pngs(folder / "masks", _answers(prediction, "masks", lambda size: size), names)
        log_rank_zero("masks          %s: %d masks", folder / "masks", masks)
    if draw:
        _draw(prediction, folder / "overlays", names)
    if "csv" in formats:
        if (truth := truth_of(prediction)) is not None:
            write_truth(folder / "truth.csv", truth)
            log_rank_zero("next           fashion-hydra score %s %s", folder / "truth.csv", folder / "submission.csv")
        else:
            log_rank_zero("next           fashion-hydra submit-check %s", folder / "submission.csv")


def _about(prediction: PredictionPlan) -> dict[str, object]:
    """What answers are of: the checkpoints, and where the images are."""
    members = [list(member) for member in prediction.cache.manifest.members]
    return {"members": members, "images": str(prediction.image_list.folder.absolute())}


def _draw(prediction: PredictionPlan, folder: Path, names: Mapping[int, str]) -> None:
    for index, one in enumerate(_answers(prediction, "overlays", overlay_size)):
        try:
            photo = prediction.image_list.read(index)
        except UserError:
            continue  # told already
        draw_overlay((folder / one.file).with_suffix(".jpg"), photo, one.detections, names)
    log_rank_zero("overlays       %s", folder)


def _write_faults(prediction: PredictionPlan) -> int:
    read = prediction.cache.read_fault
    faults = [(name, fault) for name in prediction.image_list.image_ids if (fault := read(name))]
    with atomic_write(prediction.folder / "faults.csv") as stream:
        csv.writer(stream).writerows([("image_id", "fault"), *faults])
    return len(faults)


def _answers(prediction: PredictionPlan, what: str, grid_of: Callable[[Size], Size]) -> Iterator[writers.ImageAnswer]:
    """Each image's detections, on the grid that is wanted for its size."""
    image_list = prediction.image_list
    pairs = zip(image_list.image_ids, image_list.files, strict=True)
    for image_id, file in tqdm(pairs, total=len(image_list), desc=what, unit=" images", disable=None):
        candidates = prediction.cache.read(image_id)
        detections = apply(candidates, prediction.rule, size=grid_of(candidates.size))
        yield writers.ImageAnswer(image_id, file, candidates.size, detections, prediction.classes.ids)
