"""Find the photos of the gallery and reduce them to small JPEGs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fashion_hydra.data.image_files import QUARTER_TURNS, examine, has_file, open_picture, turn
from fashion_hydra.data.kaggle import file_of
from fashion_hydra.structures.batch import Size
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line

LONGEST_EDGE = 360
QUALITY = 75


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG.

    Args:
        data: JPEG in base64.
        size: height and width in pixels.
    """

    data: str
    size: Size


@dataclass(frozen=True)
class Photos:
    """Photos in a list of folders.

    Args:
        folders: folders to search, in this order.
    """

    folders: Sequence[Path]
    _found: dict[str, tuple[Path, str]] = field(default_factory=dict, repr=False)

    def find(self, image_id: str) -> tuple[Path, str] | None:
        """Return folder and file name of an image; None if no folder has it."""
        if image_id not in self._found:
            for folder in self.folders:
                file = file_of(folder, image_id)
                if has_file(folder, file):
                    self._found[image_id] = folder, file
                    break
        return self._found.get(image_id)

    def thumbnail(self, image_id: str, frame: Size | None) -> Thumbnail | None:
        """Return a small JPEG of a photo; None if there is no file.

        Args:
            image_id: image id of the photo.
            frame: height and width of the masks' frame, if known; shows whether the masks were drawn on the photo as
                stored or as rotated by EXIF.

        Raises:
            UserError: the file cannot be decoded.
        """
        found = self.find(image_id)
        return None if found is None else _reduce(*found, frame)


def _reduce(folder: Path, file: str, frame: Size | None) -> Thumbnail:
    facts = examine(folder, file, decode=False)
    if facts.fault:
        raise UserError(f"{facts.fault}: {facts.value}")
    stored = (facts.height, facts.width)
    turned = stored[::-1] if facts.orientation in QUARTER_TURNS else stored
    orientation = 1 if frame == stored != turned else facts.orientation
    try:
        with open_picture(folder / file) as picture:
            picture.draft("RGB", (2 * LONGEST_EDGE, 2 * LONGEST_EDGE))  # decode a JPEG at reduced size
            picture.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS, reducing_gap=3.0)
            pixels = np.ascontiguousarray(turn(np.array(picture.convert("RGB")), orientation))
    except Exception as error:  # Pillow raises many types of exceptions for broken files
        raise UserError(f"{file}: cannot be decoded ({one_line(error, 80)})") from error
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(base64.b64encode(stream.getvalue()).decode("ascii"), (pixels.shape[0], pixels.shape[1]))
