"""Detect objects in images with trained models in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from fashion_hydra.api.image_detections import ImageDetections
from fashion_hydra.config.build import make
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.places import CONF
from fashion_hydra.config.schema import PredictConfig
from fashion_hydra.data.dataset import scaled_image
from fashion_hydra.data.image_files import pixels_of
from fashion_hydra.data.image_list import one_picture
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.manifest import check_rule, loosest_rules
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model.checkpoint import Member, check_same_classes
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import is_frame
from fashion_hydra.workflows.prediction_plan import scales_of

AnyImage = str | Path | Image.Image | np.ndarray
"""A path, a Pillow image, or an array uint8 (H, W, 3) in RGB."""


class Predictor:
    """One model, or an ensemble of several models.

    `predictor(image, tta="single", **thresholds)` returns the same detections as predict.py with the same options, as
    `ImageDetections`; `predictor([image, ...])` returns a list of them. See `look` and `rule` for the arguments.

    Args:
        members: the models, with the same classes.
        thresholds: default options of the group `postprocess`; calls can override them.
        device: device that the models run on.
        weights: weight of each model in the averages; empty: all equal.

    Raises:
        UserError: the models have different classes, or the weights do not fit the models.
    """

    def __init__(
        self,
        members: Sequence[Member],
        thresholds: Mapping[str, Any],
        device: torch.device,
        weights: Sequence[float] = (),
    ) -> None:
        Merging(weights=weights).check_weights(len(members))
        self.members, self.thresholds, self.device = list(members), dict(thresholds), device
        self.weights = tuple(weights)
        self.classes = check_same_classes(self.members)
        self._detectors = [member.detector.for_inference(device) for member in self.members]

    @overload
    def __call__(self, images: AnyImage, *, tta: str = ..., **thresholds: Any) -> ImageDetections: ...

    @overload
    def __call__(self, images: Sequence[AnyImage], *, tta: str = ..., **thresholds: Any) -> list[ImageDetections]: ...

    def __call__(
        self, images: AnyImage | Sequence[AnyImage], *, tta: str = "single", **thresholds: Any
    ) -> ImageDetections | list[ImageDetections]:
        """Find the objects in an image or in each image of a list.

        Args:
            images: an image, see `look`, or a list of images.
            tta: see `look`.
            thresholds: see `rule`.

        Raises:
            UserError: an image cannot be read, or an option is unknown or invalid.
        """
        if isinstance(images, list | tuple):
            return [self.look(image, tta=tta).detections(**thresholds) for image in images]
        return self.look(images, tta=tta).detections(**thresholds)  # type: ignore[arg-type]

    def look(self, image: AnyImage, *, tta: str = "single") -> "Look":
        """Run the models on an image once, to apply different thresholds to the result without running them again.

        Args:
            image: a path, a Pillow image, or an array uint8 (H, W, 3) in RGB.
            tta: the views, a file name in conf/tta such as `single`, `flip` or `multi`.

        Raises:
            UserError: the image cannot be read, or conf/tta has no such file.
        """
        image_id, pixels = _read(image)
        options = predict_options(tta)
        kept = options.candidates
        merging = make(Merging, options.inference, "inference", flips=tuple(options.tta.flips), weights=self.weights)
        scaled = scaled_image(image_id, pixels, scales_of(options.tta, self.members))
        iou_grid = tuple(sorted({*kept.iou_grid, self.rule().iou_thr}))
        rules = loosest_rules(kept.score_floor, iou_grid)
        candidates = merge_sources(self._detectors, scaled, rules, merging, device=self.device)
        return Look(self, pixels, candidates, kept.score_floor, iou_grid)

    def rule(self, **thresholds: Any) -> Postprocess:
        """Build the postprocessing rule: the default options, overridden by the given ones.

        Args:
            thresholds: options of the group `postprocess`, such as `score_thr=0.3`, `class_score_thr={"shoe": 0.6}` or
                `drop_classes=["bag"]`.

        Raises:
            UserError: an option is unknown, or a value is out of range.
        """
        return build_rule({**self.thresholds, **thresholds}, self.classes)

    def __repr__(self) -> str:
        files = ", ".join(member.path.name for member in self.members)
        return f"Predictor({files}; {len(self.classes)} classes; {self.device})"


@dataclass(frozen=True, eq=False)
class Look:
    """The models' candidates for one image, before thresholds.

    Args:
        predictor: the predictor with the models.
        image: uint8 (H, W, 3), RGB.
        candidates: the candidates.
        score_floor: candidates with a score at or below this were dropped.
        iou_grid: IoU thresholds of NMS that the candidates are exact for.
    """

    predictor: Predictor
    image: np.ndarray
    candidates: Candidates
    score_floor: float
    iou_grid: tuple[float, ...]

    def detections(self, **thresholds: Any) -> ImageDetections:
        """Return the detections for some thresholds, without running the models again.

        Args:
            thresholds: see `Predictor.rule`.

        Raises:
            UserError: an option is unknown or invalid, or the candidates are not exact for a threshold.
        """
        return ImageDetections(self.image, self.on_grid(self.candidates.size, **thresholds), self.predictor.classes)

    def on_grid(self, size: Size, **thresholds: Any) -> Detections:
        """Return the detections with masks on a grid of any size; a grid smaller than the image is faster.

        Args:
            size: height and width of the grid; boxes are scaled from the image to the grid.
            thresholds: see `Predictor.rule`.

        Raises:
            UserError: see `detections`.
        """
        rule = self.predictor.rule(**thresholds)
        check_rule(rule, score_floor=self.score_floor, iou_grid=self.iou_grid)
        return apply(self.candidates, rule, size=size)


@lru_cache(maxsize=16)
def predict_options(tta: str = "single") -> PredictConfig:
    """Return the default options of predict.py with the given views.

    Raises:
        UserError: conf/tta has no file of that name.
    """
    if tta not in (views := sorted(path.stem for path in (CONF / "tta").glob("*.yaml"))):
        raise UserError(f"tta={tta}: give one of {', '.join(views)}")
    options = compose_options("predict", "out=.", f"tta={tta}")
    assert isinstance(options, PredictConfig)
    return options


def _read(image: AnyImage) -> tuple[str, np.ndarray]:
    """Return the name and the pixels of an image, with the same decoding as predict.py."""
    if isinstance(image, str | Path):
        try:
            return Path(image).name, one_picture(Path(image)).read(0)
        except UserError as error:
            raise UserError(str(error) if str(image) in str(error) else f"{image}: {error}") from error
    if isinstance(image, Image.Image):
        try:
            return Path(getattr(image, "filename", "") or "image").name, pixels_of(image)
        except (OSError, ValueError) as error:
            raise UserError(f"image: {error}") from error
    if not isinstance(image, np.ndarray):
        raise UserError(f"image: expected a path, a Pillow image or a NumPy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not is_frame(*image.shape[:2]):
        raise UserError(
            "image: expected a uint8 array of shape (height, width, 3) in RGB, got a "
            f"{image.dtype} array of shape {image.shape}"
        )
    return "image", np.ascontiguousarray(image)
