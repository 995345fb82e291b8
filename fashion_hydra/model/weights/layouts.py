"""Convert checkpoints of other programs and older versions to the names and the class order of current mmdet.

| layout | heads | background in `fc_cls` | mask of background | offsets of a deformable `conv2` |
|---|---|---|---|---|
| train.py, mmdet 2 and 3 | `roi_head.bbox_head.0` | last | none | `conv2.conv_offset` |
| mmdet before 2.0 | `bbox_head.0` | first | channel 0 | `conv2_offset` |
| torchvision's Mask R-CNN (V1) | dropped | | | |
| only a backbone | none | | | either |

Before 2.0, a regression per class has four rows for the background too, the first four. mmdet's script
`upgrade_model_version.py` converts the same, but cuts the last entry of a bias and the first row of a weight.
Pyramid, proposal network, fully connected layers and the order of their inputs have not changed.

Three changes cannot be converted: before 2.0, a box from x1 to x2 was x2 - x1 + 1 wide, RoIAlign sampled with an offset
of half a pixel (no `aligned`), and anchors were rounded to whole pixels. Scores therefore differ slightly from the
original's: by less than one point of average precision on COCO, according to mmdet's notes on its old configurations.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fashion_hydra.model.weights.files import WeightFile, read_file
from fashion_hydra.model.weights.normalization import checked_inputs, inputs_of
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write

METADATA = "fashion_hydra"  # key of the metadata that import-checkpoint writes
_OURS = "train.py's checkpoint"
_MMDET = "mmdet 2 or 3: heads under roi_head, background last"
_OLD_MMDET = "mmdet before 2.0: heads at top level, background first"
_MASK_RCNN = "torchvision's Mask R-CNN: backbone, pyramid and proposal network"
_NO_HEADS = "backbone, pyramid and proposal network"
_BACKBONE = "only a backbone, with ImageNet names"
_OLD_HEADS = ("bbox_head.", "mask_head.", "semantic_head.")
_DROPPED = {
    "roi_heads.": "heads of Mask R-CNN, which a cascade does not use",
    "fc.": "ImageNet classifier",
    "head.": "ImageNet classifier",
}
_ALL_PARTS = ("",)
_WITHOUT_HEADS = ("backbone.", "neck.", "rpn_head.")
_PARTS = {_BACKBONE: ("backbone.",), _MASK_RCNN: _WITHOUT_HEADS, _NO_HEADS: _WITHOUT_HEADS}
_BATCH_NORM_EPS = 1e-5  # batch norms add this to the variance; those of torchvision's Mask R-CNN add 0
_COMPETITION_CLASSES = 46  # iMaterialist (Fashion) 2019: ids 0 to 45, outputs in the same order


@dataclass(frozen=True)
class FileClasses:
    """Classes of the outputs in a weight file.

    Args:
        count: number of classes without background.
        ids: category ids, if known.
        names: category names, if known.
        attributes: attribute ids of the box heads' attribute outputs, if known.
    """

    count: int
    ids: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None
    attributes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """Weights with the names of current mmdet.

    Args:
        layout: original layout, for messages.
        tensors: float32 tensors of mmdet's detector, with the prefixes `backbone.`, `neck.`, `rpn_head.` and
            `roi_head.`, or only `backbone.`.
        classes: classes of the heads; None without heads.
        parts: prefixes of the names in this layout; a model keeps its own weights for other names.
        inputs: expected inputs as far as the file contains them, see `fashion_hydra.model.weights.normalization`.
        dropped: names in the file that no model here uses -> reason.
        converted: conversion -> number of converted tensors.
    """

    layout: str
    tensors: dict[str, Tensor]
    classes: FileClasses | None
    parts: tuple[str, ...] = _ALL_PARTS
    inputs: Mapping[str, Any] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    converted: Counter[str] = field(default_factory=Counter)

    @property
    def backbone_only(self) -> bool:
        """Whether the file contains only a backbone."""
        return self.parts == _PARTS[_BACKBONE]


def import_weights(path: Path, *, backbone: bool = False) -> Imported:
    """Read a weight file, recognise its layout, and convert it to the current layout.

    Args:
        path: a safetensors file or a file of torch.save.
        backbone: treat a file of unknown layout as a backbone.

    Raises:
        UserError: see `read_file`; or the layout is unknown.
    """
    file = read_file(path)
    try:
        return _imported(path, file, backbone=backbone)
    except UserError:
        raise
    except Exception as error:  # tensors and metadata of unexpected shapes lead to arbitrary errors
        raise UserError(f"{path}: unknown layout ({error!r}). Use another file") from error


def _imported(path: Path, file: WeightFile, *, backbone: bool) -> Imported:
    state, converted = _without_wrappers(file.tensors)
    layout = _recognise(state, file.rest) or (_BACKBONE if backbone else None)
    if layout is None:
        raise UserError(_unknown(path, state))
    if layout == _OLD_MMDET:
        state = _from_old_mmdet(state, converted)
    if layout == _MASK_RCNN:
        state = _from_mask_rcnn(state, converted)
    if layout == _BACKBONE:
        state = {_in_backbone(name): value for name, value in state.items()}
    dropped = {name: why for name in state for start, why in _DROPPED.items() if name.startswith(start)}
    tensors = {
        name: value.float() if value.is_floating_point() else value
        for name, value in state.items()
        if name not in dropped
    }
    classes = None if layout in _PARTS else _classes(tensors, file.rest, layout)
    inputs = checked_inputs(_kept(file.rest)["inputs"]) if METADATA in file.rest else inputs_of(file.rest)
    parts = _PARTS.get(layout, _ALL_PARTS)
    return Imported(_layout_text(layout, file), tensors, classes, parts, inputs, dropped, converted)


def _without_wrappers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Counter[str]]:
    """Remove the prefix that train.py's module or PyTorch's parallel training adds to all names."""
    for prefix in ("detector.net.", "module."):
        if all(name.startswith(prefix) for name in tensors):
            shorter = {name.removeprefix(prefix): value for name, value in tensors.items()}
            return shorter, Counter({f"renamed {prefix}* -> *": len(tensors)})
    return dict(tensors), Counter()


def _recognise(state: Mapping[str, Tensor], rest: Mapping[str, Any]) -> str | None:
    starts = {name.partition(".")[0] for name in state}
    if "roi_head" in starts:
        return _OURS if {"classes", "model"} <= set(rest) else _MMDET
    if any(name.startswith(("bbox_head.0.", "mask_head.0.")) for name in state):
        return _OLD_MMDET
    if {"backbone", "rpn", "roi_heads"} <= starts:
        return _MASK_RCNN
    if starts == {"backbone", "neck", "rpn_head"}:
        return _NO_HEADS
    return _BACKBONE if "conv1" in starts or starts <= {"backbone", "head", "fc"} else None


def _unknown(path: Path, state: Mapping[str, Tensor]) -> str:
    return (
        f"{path}: neither a Hybrid Task Cascade nor a backbone: its {len(state)} tensors are named like "
        f"{', '.join(list(state)[:3])}. Use a checkpoint of train.py, of mmdet's Hybrid Task Cascade or of a ResNet"
    )


def _in_backbone(name: str) -> str:
    return name if name.startswith(("backbone.", "head.", "fc.")) else f"backbone.{name}"


def _from_old_mmdet(state: Mapping[str, Tensor], converted: Counter[str]) -> dict[str, Tensor]:
    """Convert to current names, move the background last, and cut its box and mask outputs."""
    scores = state.get("bbox_head.0.fc_cls.weight")
    outputs = len(scores) if scores is not None else 0
    made: dict[str, Tensor] = {}
    for old, tensor in state.items():
        name, value = old, tensor
        if old.startswith(_OLD_HEADS):
            name = f"roi_head.{old}"
            converted[f"renamed {old.partition('.')[0]}.* -> roi_head.{old.partition('.')[0]}.*"] += 1
        if re.search(r"\.conv2_offset\.(weight|bias)$", name):
            name = name.replace(".conv2_offset.", ".conv2.conv_offset.")
            converted["renamed *.conv2_offset -> *.conv2.conv_offset"] += 1
        layer = name.rpartition(".")[0].rpartition(".")[2]
        if layer == "fc_cls":
            value = torch.cat([tensor[1:], tensor[:1]])
            converted["reordered fc_cls: background from first to last"] += 1
        elif layer == "conv_logits" and "mask_head" in name and len(tensor) == outputs:
            value = tensor[1:].clone()
            converted["cut conv_logits: the background's channel"] += 1
        elif layer == "fc_reg" and len(tensor) == 4 * outputs:
            value = tensor[4:].clone()
            converted["cut fc_reg: the background's four rows"] += 1
        made[name] = value
    return made


_MASK_RCNN_NAMES = (
    (r"backbone\.body\.", "backbone."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?(weight|bias)", r"neck.lateral_convs.\1.conv.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?(weight|bias)", r"neck.fpn_convs.\1.conv.\2"),
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
)
"""Pattern at the start of a name in torchvision's Mask R-CNN -> replacement."""


def _from_mask_rcnn(state: Mapping[str, Tensor], converted: Counter[str]) -> dict[str, Tensor]:
    """Convert to current names. Anchors and box coding equal mmdet's, except that anchors are rounded to pixels."""
    made: dict[str, Tensor] = {}
    for old, tensor in state.items():
        name, value = old, tensor
        for pattern, new in _MASK_RCNN_NAMES:
            name = re.sub(f"^{pattern}", new, name)
        if name.endswith(".running_var"):
            value = tensor - _BATCH_NORM_EPS
            converted["subtracted 1e-5 from running_var, as these batch norms have no eps"] += 1
        converted["renamed torchvision's names"] += name != old
        made[name] = value
    return made


def _classes(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], layout: str) -> FileClasses:
    """Return the classes of the outputs, from the file or, for the competition's old checkpoints, by their number."""
    heads = ("bbox_head.0.fc_cls", "mask_head.0.conv_logits")
    scores, masks = (len(tensors.get(f"roi_head.{head}.weight", ())) for head in heads)
    count = masks if scores - masks == 2 else max(scores - 1, 0)  # a box head with Seesaw loss has two more outputs
    ids, names = _ids_and_names(rest)
    if layout == _OLD_MMDET and count == _COMPETITION_CLASSES and names is None:
        ids = list(range(count))
    return FileClasses(
        count,
        tuple(ids) if _is_list_of(int, ids, count) else None,
        tuple(names) if _is_list_of(str, names, count) else None,
        _attributes(tensors, rest),
    )


def _attributes(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the ids of the attributes of the box heads' outputs; None if the file does not contain them."""
    scores = tensors.get("roi_head.bbox_head.0.fc_attribute.weight")
    classes = rest.get("classes")
    described = classes.get("attributes") if isinstance(classes, Mapping) else None
    ids = described.get("ids") if isinstance(described, Mapping) else None
    if scores is None or ids is None or not _is_list_of(int, ids, len(scores)):
        return None
    return tuple(ids)


def _ids_and_names(rest: Mapping[str, Any]) -> tuple[Any, Any]:
    if METADATA in rest:
        return _kept(rest)["ids"], _kept(rest)["names"]
    if isinstance(classes := rest.get("classes"), Mapping):
        return classes.get("ids"), classes.get("names")
    meta = rest.get("meta")
    if not isinstance(meta, Mapping):
        return None, None
    of_data = meta.get("dataset_meta")  # mmengine; mmdet 1 and 2 have CLASSES, older versions classes
    known = of_data.get("classes") if isinstance(of_data, Mapping) else None
    return None, known or meta.get("CLASSES") or meta.get("classes")


def _is_list_of(kind: type, values: Any, count: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == count and all(isinstance(v, kind) for v in values)


def _layout_text(layout: str, file: WeightFile) -> str:
    if METADATA in file.rest:
        return f"already imported from {_kept(file.rest)['layout']}"
    return layout


def _kept(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that `write_weights` wrote."""
    note = json.loads(rest[METADATA])
    if not isinstance(note, dict) or not {"layout", "ids", "names", "inputs"} <= note.keys():
        raise ValueError(f"metadata {METADATA}: not written by import-checkpoint")
    return note


def write_weights(path: Path, imported: Imported, *, source: str, sha256: str) -> None:
    """Write a safetensors file that `import_weights` reads, with its origin; the write is atomic.

    Args:
        path: file to write.
        imported: imported weights.
        source: original file or URL, for people.
        sha256: checksum of the original file.
    """
    classes = imported.classes
    note = {
        "layout": imported.layout,
        "source": source,
        "sha256": sha256,
        "ids": classes.ids if classes else None,
        "names": classes.names if classes else None,
        "inputs": imported.inputs,
    }
    tensors = {name: value.contiguous() for name, value in imported.tensors.items()}
    with atomic_write(path, "wb") as stream:
        # By name: serialising to bytes for the stream would hold another copy of all tensors in memory.
        save_file(tensors, stream.name, {"format": "pt", METADATA: json.dumps(note)})
        Path(stream.name).chmod(os.fstat(stream.fileno()).st_mode & 0o777)  # safetensors restricts it to the owner
