"""Check the pixel normalisation and the stride style that a backbone's weights expect; tensor shapes do not show them.

Weights in Caffe's convention have the same shapes as weights in PyTorch's, but are useless in such a backbone.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fashion_hydra.model.detector import Detector
from fashion_hydra.utils.errors import UserError

_WORDS = ("style", "channel_order")
_KEYS = (*_WORDS, "mean", "std")


def inputs_of(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return `style`, `channel_order`, `mean` and `std` of `model.backbone` as far as a checkpoint contains them.

    Args:
        rest: content of the file except tensors: train.py's model config, or mmdet's config as text.
    """
    model = rest.get("model")
    if isinstance(model, Mapping) and isinstance(backbone := model.get("backbone"), Mapping):
        return checked_inputs({key: backbone[key] for key in _KEYS if key in backbone})
    meta = rest.get("meta")
    text = (meta.get("cfg") or meta.get("config")) if isinstance(meta, Mapping) else None
    return _in_text(text) if isinstance(text, str) else {}


def checked_inputs(inputs: Any) -> dict[str, Any]:
    """Return the inputs in a file; raise ValueError if one has an unknown name or an invalid value."""
    for key, value in inputs.items():
        is_list = isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
        if key not in _KEYS or not (isinstance(value, str) if key in _WORDS else is_list):
            raise ValueError(f"{key}={value}: not a valid input option of a backbone")
    return dict(inputs)


def _in_text(text: str) -> dict[str, Any]:
    """Return the inputs in a config's Python text, without options that have several different values."""
    found: dict[str, Any] = {}
    if len(styles := set(re.findall(r"\bstyle='(\w+)'", text))) == 1:
        found["style"] = styles.pop()
    if len(turned := set(re.findall(r"\b(?:bgr_)?to_rgb=(True|False)", text))) == 1:  # mmdet 3 or older
        found["channel_order"] = "rgb" if turned.pop() == "True" else "bgr"
    for key in ("mean", "std"):
        values = {tuple(re.findall(r"[\d.]+", numbers)) for numbers in re.findall(rf"\b{key}=[\[(]([\d.,\s]*)", text)}
        if len(values) == 1 and len(numbers := values.pop()) == 3:
            found[key] = [float(number) for number in numbers]
    return found


def check_inputs(expected: Mapping[str, Any], detector: Detector, *, source: str) -> None:
    """Raise `UserError` unless the detector prepares images as the weights expect, as far as that is known."""
    own = {
        "style": getattr(detector.net.backbone, "style", None),
        "channel_order": "bgr" if detector.bgr else "rgb",
        "mean": _rounded(detector.mean.flatten().tolist()),
        "std": _rounded(detector.std.flatten().tolist()),
    }
    wrong = {k: v for k, v in expected.items() if own[k] is not None and own[k] != (v if k in _WORDS else _rounded(v))}
    if wrong:
        now = ", ".join(f"{key}={_plain(own[key])}" for key in wrong)
        remedy = " ".join(f"model.backbone.{key}={_plain(value)}" for key, value in wrong.items())
        raise UserError(f"{source}: the weights expect other inputs than this model's {now}. Set {remedy}")


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in values]


def _plain(value: Any) -> str:
    return str(value).replace(" ", "")
