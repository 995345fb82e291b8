"""What a backbone's weights expect of pixels and strides, which no tensor's shape shows.

Weights of a backbone in Caffe's convention fit one in PyTorch's tensor by tensor, and are worthless in it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fashion_hydra.model.detector import Detector
from fashion_hydra.utils.errors import UserError

_WORDS = ("style", "channel_order")
_KEYS = (*_WORDS, "mean", "std")


def inputs_of(rest: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of `style`, `channel_order`, `mean` and `std`, as `model.backbone` has them.

    Args:
        rest: what lies in the file beside the tensors: of train.py the model's config, of mmdet its config as text.
    """
    model = rest.get("model")
    if isinstance(model, Mapping) and isinstance(backbone := model.get("backbone"), Mapping):
        return checked_inputs({key: backbone[key] for key in _KEYS if key in backbone})
    meta = rest.get("meta")
    text = (meta.get("cfg") or meta.get("config")) if isinstance(meta, Mapping) else None
    return _in_text(text) if isinstance(text, str) else {}


def checked_inputs(inputs: Any) -> dict[str, Any]:
    """Return the inputs that a file names; raise ValueError where they are not of their form."""
    for key, value in inputs.items():
        is_list = isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
        if key not in _KEYS or not (isinstance(value, str) if key in _WORDS else is_list):
            raise ValueError(f"{key}={value}: not an input of a backbone")
    return dict(inputs)


def _in_text(text: str) -> dict[str, Any]:
    """From a configuration in Python's notation; what it says twice and differently is not known."""
    found: dict[str, Any] = {}
    if len(styles := set(re.findall(r"\bstyle='(\w+)'", text))) == 1:
        found["style"] = styles.pop()
    if len(turned := set(re.findall(r"\b(?:bgr_)?to_rgb=(True|False)", text))) == 1:  # mmdet 3, and before
        found["channel_order"] = "rgb" if turned.pop() == "True" else "bgr"
    for key in ("mean", "std"):
        values = {tuple(re.findall(r"[\d.]+", numbers)) for numbers in re.findall(rf"\b{key}=[\[(]([\d.,\s]*)", text)}
        if len(values) == 1 and len(numbers := values.pop()) == 3:
            found[key] = [float(number) for number in numbers]
    return found


def check_inputs(expected: Mapping[str, Any], detector: Detector, *, source: str) -> None:
    """Raise `UserError` unless the detector treats its images as the weights expect, as far as that is known."""
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
        raise UserError(f"{source}: made for other inputs than this model's {now}. Give {remedy}")


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in values]


def _plain(value: Any) -> str:
    return str(value).replace(" ", "")
