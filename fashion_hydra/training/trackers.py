"""Log pictures and tables to W&B and TensorBoard; other loggers are skipped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from fashion_hydra.plots.painted_masks import Mask, PaintedImage, comparison, largest_first

Cell = str | float | int | None


def log_pictures(
    loggers: Sequence[Logger], key: str, rows: Sequence[PaintedImage], *, names: Mapping[int, str], step: int
) -> None:
    """Log photos with ground truth and predictions, in W&B as masks that can be toggled, in TensorBoard as a picture.

    Args:
        loggers: loggers of the run.
        key: name of the pictures.
        rows: one row per image.
        names: category id -> name.
        step: training step.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics({key: [_wandb_image(row, names) for row in rows]}, step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            sheet = np.asarray(comparison(rows, names=names))
            logger.experiment.add_image(key, sheet, step, dataformats="HWC")


def log_table(loggers: Sequence[Logger], key: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Log a table, in W&B as a table, in TensorBoard as text."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            logger.experiment.add_text(key, "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines))


def log_files(loggers: Sequence[Logger], pictures: Mapping[str, Path]) -> None:
    """Log picture files, given by name."""
    for key, path in pictures.items():
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(key, [str(path)])
            elif isinstance(logger, TensorBoardLogger):
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                logger.experiment.add_image(key, pixels, dataformats="HWC")


def end_records(loggers: Sequence[Logger], *, failed: bool = False) -> None:
    """Flush and close the loggers' records, so that the next job in the same process starts new ones."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.finish(exit_code=int(failed))


def _wandb_image(row: PaintedImage, names: Mapping[int, str]) -> Any:
    import wandb

    labels = {category + 1: name for category, name in names.items()}
    masks = {
        kind: {"mask_data": _category_map(row.photo.shape[:2], of_kind), "class_labels": labels}
        for kind, of_kind in (("truth", row.truth), ("prediction", row.found))
    }
    return wandb.Image(row.photo, masks=masks)


def _category_map(shape: tuple[int, ...], masks: Sequence[Mask]) -> np.ndarray:
    """Return uint8 (H, W) with category + 1 of the smallest mask at each pixel, and 0 without a mask."""
    drawn = np.zeros(shape, dtype=np.uint8)
    for category, mask in largest_first(masks):
        drawn[mask.astype(bool)] = category + 1
    return drawn


def _cell(value: Cell) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
