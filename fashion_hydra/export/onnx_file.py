"""Export a detector as an ONNX file with metadata, optionally with float16 weights."""

import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.export.graph import CascadeGraph
from fashion_hydra.model.detector import Detector
from fashion_hydra.structures.batch import Size
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line

OPSET = 17
INPUTS = {"uint8": torch.uint8, "float": torch.float32}
"""Pixel types of the input; both are RGB from 0 to 255."""
_OUTPUTS = ("boxes", "scores", "labels", "masks", "attributes")
_EXAMPLE = (96, 160)  # height and width of the image that traces a graph for all sizes
_FEW = 64  # tensors with fewer weights stay float32


@dataclass(frozen=True)
class Description:
    """Metadata of a model in an ONNX file, each field under its own key of `metadata_props`.

    Args:
        classes: classes of the labels.
        scale: short edge and maximum long edge to which photos are resized.
        size: height and width of the images that the graph accepts; None for images of any size.
        thresholds: default options of the group `postprocess`.
        score_floor: see `fashion_hydra.inference.manifest.Manifest`.
        iou_grid: see `fashion_hydra.inference.manifest.Manifest`.
        note: description for readers: training data, licence, scores.
    """

    classes: ClassSet
    scale: tuple[int, int]
    size: Size | None
    thresholds: Mapping[str, Any]
    score_floor: float
    iou_grid: tuple[float, ...]
    note: str

    def entries(self) -> dict[str, str]:
        """Return keys and values of the metadata; the note is plain text, all other values are JSON."""
        attributes = self.classes.attributes
        values = {
            "classes": [{"id": i, "name": name} for i, name in self.classes.by_id().items()],
            "attributes": [{"id": i, "name": name} for i, name in attributes.by_id().items()],
            "scale": list(self.scale),
            "size": None if self.size is None else list(self.size),
            "thresholds": dict(self.thresholds),
            "score_floor": self.score_floor,
            "iou_grid": list(self.iou_grid),
        }
        return {**{key: json.dumps(value) for key, value in values.items()}, "note": self.note}


def check_exportable(detector: Detector, name: str) -> None:
    """Raise `UserError` if a model cannot be exported.

    Args:
        detector: the model.
        name: name of its checkpoint, for the message.
    """
    if type(detector) is not Detector:
        raise UserError(
            f"{name}: cannot be exported, its model is a custom {type(detector).__name__}. Give a "
            "checkpoint of model=htc_r50, htc_lite or htc_tiny"
        )
    if detector.scores_masks:
        raise UserError(f"{name}: cannot be exported, it has a mask scoring head (model.mask_scoring=true)")
    deformable = [key for key, part in detector.named_modules() if "DeformConv" in type(part).__name__]
    if deformable:
        raise UserError(
            f"{name}: cannot be exported, it has {len(deformable)} deformable convolutions (the first is "
            f"{deformable[0]}), which ONNX Runtime does not support. Train with another backbone, such as resnet50"
        )


def export_onnx(detector: Detector, description: Description, *, input_type: str, half: bool, name: str) -> bytes:
    """Return the content of an ONNX file for a detector.

    The input `image` is (1, 3, H, W), RGB from 0 to 255; the outputs are those of `CascadeGraph`.

    Args:
        detector: model in evaluation mode, with unfolded batch norms.
        description: metadata to store in the file.
        input_type: pixel type of the input, one of `INPUTS`.
        half: whether to store weights as float16; computation stays in float32.
        name: name of the checkpoint, for messages.

    Raises:
        UserError: the model cannot be traced.
    """
    graph = CascadeGraph(detector, score_floor=description.score_floor, iou_grid=description.iou_grid).eval()
    outputs = [key for key in _OUTPUTS if key != "attributes" or detector.has_attributes]
    dynamic = {key: {0: "candidates"} for key in outputs}
    if description.size is None:
        dynamic["image"] = {2: "height", 3: "width"}
    image = torch.zeros((1, 3, *(description.size or _EXAMPLE)), dtype=INPUTS[input_type])
    try:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings(), _muted():
            warnings.simplefilter("ignore")  # tracing warnings; the outputs are compared afterwards
            torch.onnx.export(
                graph,
                (image,),
                path := Path(folder) / "model.onnx",
                dynamo=False,  # torch.export cannot trace norms and convolutions over a variable number of boxes
                opset_version=OPSET,
                input_names=["image"],
                output_names=outputs,
                dynamic_axes=dynamic,
                training=torch.onnx.TrainingMode.PRESERVE,  # otherwise norms are folded, which float16 cannot hold
            )
            model = onnx.load(path)
    except Exception as error:  # tracing raises exceptions of many kinds
        backbone = type(detector.net.backbone).__name__
        raise UserError(f"{name}: cannot be exported, {backbone} cannot be traced ({one_line(error, 160)})") from error
    if half:
        _halve_weights(model)
    model.producer_name = "fashion_hydra"
    onnx.helper.set_model_props(model, description.entries())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return the decoded metadata of an exported file, see `Description`."""
    entries = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    return {key: value if key == "note" else json.loads(value) for key, value in entries.items()}


def _halve_weights(model: onnx.ModelProto) -> None:
    """Store weights with at least two dimensions as float16, each followed by a node that casts it to float32.

    ONNX Runtime casts them once, when it loads the file.
    """
    widened = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _FEW or not np.isfinite(half).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        widened.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@contextmanager
def _muted() -> Iterator[None]:
    """Silence the exporter, which prints a model's whole graph from C++ if it fails."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            logger.setLevel(level)
