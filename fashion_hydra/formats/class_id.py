"""ClassIds of the competition's 2019 and 2020 schemas, such as `6_28_77`, and ImageIds."""

import re

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import LONGEST_NAME
from fashion_hydra.utils.text import shorten

_CLASS_ID = re.compile(r"[0-9]+(_[0-9]+)*")


_ATTRIBUTES = re.compile(r"([0-9]+(,[0-9]+)*)?")


def category_of(class_id: str) -> int:
    """Return the category of a ClassId: 6 for `6_28_77`."""
    return int(class_id.partition("_")[0])


def attributes_of(class_id: str) -> tuple[int, ...]:
    """Return the attributes of a ClassId: (28, 77) for `6_28_77`."""
    return tuple(map(int, class_id.split("_")[1:]))


def full_class_id(class_id: str, attributes: str | None) -> str:
    """Return a row's class with ascending attributes in the 2019 schema's form: `6_28_77`.

    Args:
        class_id: value of the column ClassId.
        attributes: value of the 2020 schema's column AttributesIds, such as `77,28`; empty or None without attributes.

    Raises:
        UserError: one of the values does not have its form.
    """
    if (length := len(class_id) + len(attributes or "")) > LONGEST_NAME:
        raise UserError(f"ClassId with attributes of {length} characters: must have at most {LONGEST_NAME}")
    if not _CLASS_ID.fullmatch(class_id):
        raise UserError(f"ClassId {shorten(class_id, 40)!r} is not of the form 6 or 6_28_77: write whole numbers")
    listed = (attributes or "").replace(" ", "")
    if listed.startswith("[") and listed.endswith("]"):  # a list written by pandas
        listed = listed[1:-1]
    if not _ATTRIBUTES.fullmatch(listed):
        raise UserError(f"AttributesIds {shorten(listed, 40)!r} is not of the form 115,136: write whole numbers")
    return "_".join([class_id, *sorted(listed.split(","), key=int)]) if listed else class_id


def image_stem(image: str) -> str:
    """Return an ImageId without the suffix of an image file."""
    return re.sub(r"\.(jpg|jpeg|png)$", "", image, flags=re.IGNORECASE)
