"""Checks of the zip archives of arrays that PyTorch and NumPy write, whose parts are stored uncompressed."""

import zipfile
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive, even a damaged one."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def check_uncompressed(path: Path) -> None:
    """Refuse an archive whose parts would unpack to more bytes than the file has; ignore other files.

    Raises:
        UserError: a part is compressed, or the parts claim to be larger than the file.
    """
    if not is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the reader reports the error
    size = sum(part.file_size for part in parts)
    if size > path.stat().st_size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise UserError(f"{path}: refused, its parts would unpack to {size} bytes. Save it again without compression")
