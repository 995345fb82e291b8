"""Build a model from its plain description: the config group `model`, as in a config or a checkpoint."""

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
        description: `_target_`, the import path of a builder, and the builder's arguments. The builder also gets
            `num_classes`, and returns a `Detector` or an instance of a subclass.
        num_classes: number of classes without background.
        attributes: attributes to learn; passed to the builder as `attribute_set` if the description enables
            `attributes`.

    Raises:
        UserError: the builder cannot be imported, rejects its arguments, or does not return a `Detector`.
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
        raise UserError(f"model: {target} rejects its arguments ({error})") from error
    if not isinstance(detector, Detector):
        raise UserError(
            f"model._target_={target}: must return a fashion_hydra.model.detector.Detector, but returned a "
            f"{type(detector).__name__}"
        )
    return detector
