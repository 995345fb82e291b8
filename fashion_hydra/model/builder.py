"""A model from its plain description: the group `model` of a config, or what a checkpoint keeps of it."""

from collections.abc import Mapping
from typing import Any

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.htc import build_htc
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import import_object

HTC = "fashion_hydra.model.htc.build_htc"


def build_detector(
    description: Mapping[str, Any], *, num_classes: int, attributes: AttributeSet | None = None
) -> Detector:
    """Build a model.

    Args:
        description: `_target_`, the import path of a builder, and its arguments. The builder is also given
            `num_classes` and returns a `Detector` or a subclass of it.
        num_classes: outputs, background not counted.
        attributes: that a description with `attributes` learns too; the builder is given them as `attribute_set`.

    Raises:
        UserError: the builder cannot be imported, refuses its arguments, or returns something else.
    """
    arguments = dict(description)
    if arguments.get("attributes"):
        arguments["attribute_set"] = attributes
    target = str(arguments.pop("_target_", None) or HTC)
    builder = build_htc if target == HTC else import_object(target, "model._target_")
    try:
        detector = builder(num_classes=num_classes, **arguments)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError) or (target == HTC and not isinstance(error, TypeError)):
            raise
        raise UserError(f"model: {target} refuses its arguments ({error})") from error
    if not isinstance(detector, Detector):
        raise UserError(
            f"model._target_={target}: returned a {type(detector).__name__}, a fashion_hydra.model.detector.Detector "
            "expected"
        )
    return detector
