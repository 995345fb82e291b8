"""Predict the candidates of every image into the cache, then write detections."""

import csv
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
from tqdm import tqdm

from fashion_hydra.config.build import make_callbacks, make_trainer
from fashion_hydra.config.command import Command
from fashion_hydra.config.devices import check_devices
from fashion_hydra.config.schema import PredictConfig
from fashion_hydra.formats import writers
from fashion_hydra.formats.submission import SUBMISSION_GRID, write_truth
from fashion_hydra.inference.module import PredictionData, PredictionModule
from fashion_hydra.plots.overlay import draw_overlay, overlay_size
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule_files import IN_FORCE, write_tuned
from fashion_hydra.structures.batch import Size
from fashion_hydra.training.callbacks import ProcessWatch, StopOnSignal
from fashion_hydra.training.console import log_rank_zero, silence_library_noise
from fashion_hydra.utils.errors import StopRequested, UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.workflows.prediction_plan import PredictionPlan, plan_prediction, truth_of

FORMATS = ("csv", "csv_2020", "coco", "masks")


def predict(options: PredictConfig, command: Command) -> None:
    """Predict the images that are not in the cache yet, then write the detections of all images.

    Raises:
        UserError: checkpoints or images are missing or damaged, or an option is invalid.
    """
    silence_library_noise()
    check_devices(options.trainer, command)
    formats = [options.output] if isinstance(options.output, str) else list(options.output)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"output={unknown[0]}: give one or more of {', '.join(FORMATS)}")
    plan = plan_prediction(options, is_default_out=not command.gives("out"))
    if predict_missing(plan, options).is_global_zero:
        write_answers(plan, formats, draw=options.draw)


def predict_missing(plan: PredictionPlan, options: PredictConfig) -> pl.Trainer:
    """Predict the candidates that are not in the cache; return the trainer, which has the rank of this process.

    Raises:
        SystemExit: SIGTERM or SIGUSR1 stopped the run; the exit code is 128 + the signal's number, as in shells.
    """
    todo = plan.cache.missing(plan.image_list.image_ids)
    done = len(plan.image_list) - len(todo)
    log_rank_zero(
        "images         %s: %d%s",
        *(plan.image_list.folder, len(plan.image_list), f", {done} of them already predicted" if done else ""),
    )
    if plan.image_list.left_out:
        log_rank_zero("left out       %s", plan.image_list.left_out)
    watch = ProcessWatch("Predictions are kept; repeat the command to resume")
    trainer = make_trainer(
        options.trainer, callbacks=[watch, StopOnSignal(watch), *make_callbacks(options.callbacks)], logger=False
    )
    if todo:
        data = PredictionData(plan.image_list[todo], plan.scales, num_workers=options.data.num_workers)
        module = PredictionModule([member.detector for member in plan.members], plan.cache, plan.merging)
        try:
            with watch.explain_lost_ranks(trainer):
                trainer.predict(module, datamodule=data, return_predictions=False)
                trainer.strategy.barrier()
        except StopRequested as stopped:
            log_rank_zero("stopped        %s. Predictions are kept; repeat the command to resume", stopped.number.name)
            sys.exit(128 + stopped.number)
    return trainer


def write_answers(plan: PredictionPlan, formats: Sequence[str], *, draw: bool) -> None:
    """Turn candidates into detections and write them in the given formats."""
    folder, names, masks = plan.folder, plan.classes.by_id(), None
    if faults := _write_faults(plan):
        log_rank_zero("faults         %d images could not be read: %s", faults, folder / "faults.csv")
    write_tuned(folder / IN_FORCE, plan.rule, plan.classes, _about(plan))
    for name, file in (("csv", "submission.csv"), ("csv_2020", "submission_2020.csv")):
        if name in formats:
            answers = _answers(plan, file, lambda size: SUBMISSION_GRID)
            masks = writers.write_submission_csv(folder / file, answers, attributes_apart=name == "csv_2020")
            log_rank_zero("submission     %s: %d images, %d masks", folder / file, len(plan.image_list), masks)
    if "coco" in formats:
        path = folder / "coco_results.json"
        masks = writers.write_coco_results(path, _answers(plan, path.name, lambda size: size), names)
        log_rank_zero("COCO results   %s: %d masks", path, masks)
    if "masks" in formats:
        masks = writers.write_mask_pngs(folder / "masks", _answers(plan, "masks", lambda size: size), names)
        log_rank_zero("masks          %s: %d masks", folder / "masks", masks)
    if masks == 0 and faults < len(plan.image_list):
        log_rank_zero("no masks       no score reaches the threshold: lower postprocess.score_thr, or train on")
    if draw:
        _draw(plan, folder / "overlays", names)
    if "csv" in formats:
        if (truth := truth_of(plan)) is not None:
            write_truth(folder / "truth.csv", truth)
            files = [str(folder / "truth.csv"), str(folder / "submission.csv")]
            log_rank_zero("next           %s", shlex.join(["fashion-hydra", "score", *files]))
        elif not draw:
            check = ["fashion-hydra", "submit-check", str(folder / "submission.csv")]
            log_rank_zero("next           %s", shlex.join(check))


def _about(plan: PredictionPlan) -> dict[str, object]:
    """Return the checkpoints and the images' folder, for the written rule."""
    members = [list(member) for member in plan.cache.manifest.members]
    return {"members": members, "images": str(plan.image_list.folder.absolute())}


def _draw(plan: PredictionPlan, folder: Path, names: Mapping[int, str]) -> None:
    taken: set[str] = set()
    for index, one in enumerate(_answers(plan, "overlays", overlay_size)):
        try:
            photo = plan.image_list.read(index)
        except UserError:
            continue  # already reported
        draw_overlay(folder / writers.free_path(one.file, ".jpg", taken), photo, one.detections, names)
    log_rank_zero("overlays       %s", folder)


def _write_faults(plan: PredictionPlan) -> int:
    read = plan.cache.read_fault
    faults = [(name, fault) for name in plan.image_list.image_ids if (fault := read(name))]
    with atomic_write(plan.folder / "faults.csv") as stream:
        csv.writer(stream).writerows([("image_id", "fault"), *faults])
    return len(faults)


def _answers(plan: PredictionPlan, what: str, grid_of: Callable[[Size], Size]) -> Iterator[writers.ImageAnswer]:
    """Yield each image's detections, with masks on the grid that `grid_of` gives for the image's size."""
    image_list = plan.image_list
    numbered = image_list.coco_ids or (None,) * len(image_list)
    listed = zip(image_list.image_ids, image_list.files, numbered, strict=True)
    for image_id, file, coco_id in tqdm(listed, total=len(image_list), desc=what, unit=" images", disable=None):
        candidates = plan.cache.read(image_id)
        detections = apply(candidates, plan.rule, size=grid_of(candidates.size))
        yield writers.ImageAnswer(image_id, file, candidates.size, detections, plan.classes.ids, coco_id)
