"""Find the images of a COCO file: match its `file_name`s, as various tools write them, with files on disk."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from fashion_hydra.data.image_files import has_file
from fashion_hydra.utils.errors import UserError

_USUAL_FOLDERS = ("", "train", "images")
"""Folders below the data's root, by descending preference if several contain the images."""


@dataclass(frozen=True)
class FoundImages:
    """The files of a COCO file's images.

    Args:
        folder: folder above all files.
        files: path of each image below `folder`; for a missing image, its name in the COCO file.
        by_name: indices of images that are not where the COCO file says and were found by their file name.
    """

    folder: Path
    files: Sequence[str]
    by_name: Sequence[int]


def find_images(names: Sequence[str], *, root: Path, json_file: Path) -> FoundImages:
    """Find the images of a COCO file.

    Tries the folder of the COCO file, then `root`, then the folder below `root` with most of the names. If several
    folders have equally many, chooses the one named in the file's name (`instances_val2017.json`: `val2017`).

    Args:
        names: `file_name` of each image.
        root: root of the data set.
        json_file: the COCO file.

    Raises:
        UserError: several folders contain the images and the choice is ambiguous.
    """
    wanted = [_normalised(name, root) for name in names]
    for folder in (json_file.parent, root):
        if wanted and all(has_file(folder, name) for name in wanted):
            return FoundImages(folder, wanted, ())
    listing = _Listing(root)
    best = _best_folder(wanted, listing, root=root, json_file=json_file)
    files: list[Path | None] = []
    by_name = []
    for number, name in enumerate(wanted):
        path = best / name if has_file(best, name) else listing.only(name)
        if path is not None and path != best / name:
            by_name.append(number)
        files.append(path)
    folder = best
    if by_name:
        folder = Path(os.path.commonpath([best, *(p.parent for p in files if p is not None)]))
    relative = (
        name if path is None else path.relative_to(folder).as_posix() for path, name in zip(files, wanted, strict=True)
    )
    return FoundImages(folder, list(relative), by_name)


class _Listing:
    """All files below a folder, by name; names that differ only in the encoding of accents are equal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = defaultdict[str, list[str]](list)
        for parent, folders, names in os.walk(root, followlinks=True):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            place = Path(parent).relative_to(root).as_posix()
            for name in sorted(names):
                self.paths[_composed(name)].append(name if place == "." else f"{place}/{name}")

    def folders_of(self, name: str) -> list[str]:
        """Return the folders below the root that contain a file of this name."""
        found = self._called(PurePosixPath(name).name)
        return [path[: -len(name)].rstrip("/") for path in found if path == name or path.endswith(f"/{name}")]

    def only(self, name: str) -> Path | None:
        """Return the file with the last part of this name, or None unless there is exactly one."""
        found = self._called(PurePosixPath(name).name)
        return self.root / found[0] if len(found) == 1 else None

    def _called(self, name: str) -> Sequence[str]:
        """Return the files of this name, or of the URL-decoded name: `my photo.jpg` for `my%20photo.jpg`."""
        return self.paths.get(_composed(name)) or self.paths.get(_composed(unquote(name))) or ()


def _best_folder(names: Sequence[str], listing: _Listing, *, root: Path, json_file: Path) -> Path:
    count = Counter(folder for name in names for folder in listing.folders_of(name))
    beside = sum(has_file(json_file.parent, name) for name in names)
    most = max(count.values(), default=0)
    if beside and beside >= most:
        return json_file.parent
    found = [folder for folder, n in count.items() if n == most]
    if len(found) > 1:
        found = _chosen(found, json_file)
    if len(found) > 1:
        raise UserError(
            f"data.annotations={json_file}: its images are in several folders: "
            f"{', '.join(str(root / f) for f in sorted(found)[:4])}. Choose one with data.root=FOLDER"
        )
    return root / found[0] if found else root


def _chosen(folders: Sequence[str], json_file: Path) -> list[str]:
    """Return the folder that the COCO file's name contains, else the first usual folder, else all folders."""
    stem = json_file.stem.lower()
    told = {
        folder: max((len(part) for part in PurePosixPath(folder.lower()).parts if part in stem), default=0)
        for folder in folders
    }
    longest = max(told.values())
    if longest and list(told.values()).count(longest) == 1:
        return [folder for folder, length in told.items() if length == longest]
    usual = [folder for folder in _USUAL_FOLDERS if folder in folders]
    return usual[:1] or list(folders)


def _normalised(name: str, root: Path) -> str:
    """Write a `file_name` with `/` and without `./`; a path below the root becomes relative to the root."""
    is_windows = "\\" in name and not has_file(root, name)
    path = PurePosixPath(PureWindowsPath(name).as_posix() if is_windows else name)
    if path.is_absolute():
        for base in (root, root.absolute(), root.resolve()):
            if path.is_relative_to(base.as_posix()):
                return path.relative_to(base.as_posix()).as_posix()
    return path.as_posix()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
