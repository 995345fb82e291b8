"""The list of the images that a candidate cache is predicted from: their folder, names and file sizes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write

_FILE = "images.json"


@dataclass(frozen=True)
class ImageFiles:
    """The files that candidates are predicted from.

    Args:
        folder: absolute path of the files' folder.
        sizes: file size in bytes of each image id; -1 if the file is missing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    folder: str
    sizes: Mapping[str, int]

    def is_continued_by(self, wanted: "ImageFiles") -> bool:
        """Tell whether the wanted images are these with some added, removed or replaced, not those of another folder.

        In another folder, no file may be replaced: otherwise names like IMG_0001.jpg would mix up two folders.
        """
        shared = self.sizes.keys() & wanted.sizes.keys()
        if self.folder == wanted.folder:
            return bool(shared) or not self.sizes
        unchanged = all(self.sizes[image_id] == wanted.sizes[image_id] for image_id in shared)
        return unchanged and len(shared) == min(len(self.sizes), len(wanted.sizes))

    def digest(self) -> str:
        """Return the SHA-256 that the manifest of version 1 has instead of this list."""
        return hashlib.sha256(json.dumps(list(self.sizes.items())).encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> "ImageFiles":
        """Read the list of a folder of candidates.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = folder / _FILE
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            what = "no such file" if isinstance(error, OSError) else "invalid content"
            raise UserError(f"{path}: damaged ({what}); delete the folder and predict again") from error

    def write(self, folder: Path) -> None:
        """Write the list into a folder of candidates."""
        with atomic_write(folder / _FILE) as stream:
            json.dump(asdict(self), stream, indent=1)
