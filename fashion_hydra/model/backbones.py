"""Security checks of model descriptions from foreign checkpoints and configs: only plain values and known layers.

mmengine builds any class that a `type` names: a registered class, or one that it imports by its dotted name. Some
registered classes, and `init_cfg`, read files, including Python configs and pickles.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet.registry import MODELS

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import check_trusted

_BACKBONES = ("mmdet.models.backbones.", "fashion_hydra.")
_LAYERS = ("torch.", "mmcv.cnn.", "mmcv.ops.", "mmdet.models.backbones.", "mmdet.models.layers.", "fashion_hydra.")
_READ_FILES = ("init_cfg", "pretrained", "_scope_")
_MOST_VALUES = 1000
_LARGEST = 10_000


def check_backbone(backbone: Mapping[str, Any], trusted: Sequence[str] = ()) -> None:
    """Check a checkpoint's description of a backbone.

    Args:
        backbone: `type` and arguments.
        trusted: packages whose code is allowed in addition to mmdet's layers.

    Raises:
        UserError: the arguments are not plain, or name code of other packages.
    """
    for place, value in check_plain(backbone, "model.backbone"):
        name = place.rpartition(".")[2]
        if name in _READ_FILES and value is not None:
            raise UserError(f"{place}={value}: refused, it may read files and run code. Use weights=FILE instead")
        if name == "type":
            homes = _BACKBONES if place == "model.backbone.type" else _LAYERS
            made = MODELS.module_dict.get(value) or MODELS.parent.module_dict.get(value)
            if made is None and "." in str(value):
                check_trusted(str(value), trusted, place)
            elif made is None or not made.__module__.startswith(homes):
                kind = "backbone" if homes is _BACKBONES else "layer"
                raise UserError(f"{place}={value}: refused, mmdet has no {kind} of that name. Choose a {kind} of mmdet")


def check_plain(values: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield each string, number, boolean and null in nested mappings and lists with its place.

    Raises:
        UserError: a value of another type, or values that are too many or too large for a model's description.
    """
    waiting = [(place, values)]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        here, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += ((f"{here}.{name}", inner) for name, inner in value.items())
            if here.rpartition(".")[2] in _READ_FILES:
                yield here, dict(value)
        elif isinstance(value, str | None) or (isinstance(value, int | float) and abs(value) <= _LARGEST):
            yield here, value
        elif isinstance(value, Sequence) and not isinstance(value, bytes):
            waiting += ((f"{here}[{i}]", inner) for i, inner in enumerate(value))
        else:
            raise UserError(f"{here}={str(value)[:80]}: refused, must be text or a number up to {_LARGEST}")
    raise UserError(f"{place}: refused, more than {_MOST_VALUES} values")
