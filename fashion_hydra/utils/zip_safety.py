"""Zip archives of arrays, as PyTorch and NumPy write them: every part as it is, none packed."""

import zipfile
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, whole or not."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def check_uncompressed(path: Path) -> None:
    """Refuse an archive whose parts would unpack to more than the file holds; other files pass.

    Raises:
        UserError: a part is packed, or they claim to be larger than the file.
    """
    if not is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # whoever reads it says so
    size = sum(part.file_size for part in parts)
    if size > path.stat().st_size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise UserError(f"{path}: refused, its parts would unpack to {size} bytes. Save it again without packing")
