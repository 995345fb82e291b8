"""Read image headers, check that image files are complete, and decode pixels in the orientation of the masks."""

import csv
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from tqdm import tqdm

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import FRAME, MOST_PIXELS, is_frame, is_name
from fashion_hydra.utils.text import one_line

HEIF_SUFFIXES = (".heic", ".heif")
HEIF_PLUGIN = "pillow-heif"
_HAS_HEIF = find_spec("pillow_heif") is not None
_PILLOW_ALONE = (".tif", ".tiff", ".avif", *HEIF_SUFFIXES)
"""Read with Pillow only: whatever the flags, OpenCV rotates some of these and multiplies others by their alpha."""
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".jfif", ".jpe", ".avif"),
    *(HEIF_SUFFIXES if _HAS_HEIF else ()),
)
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "PPM", "AVIF")
"""Pillow formats to accept; some of the others run external programs."""
_EXIF_ORIENTATION = 0x0112
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_UNTURNED = {6: 8, 8: 6}  # inverse orientations; every other orientation is its own inverse
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16L", "I;16B")
"""Pillow modes that convert to 8-bit RGB; files in other modes do not state their value range."""
_TIFF_SIZE = (257, 256)  # tags of height and width
_TAIL = 1 << 16  # bytes at the end of a file to search for its end mark
_END_MARKS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}  # JPEG, PNG
_THREADS = min(16, 4 * (os.cpu_count() or 1))
_IN_FLIGHT = 512


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an image file.

    Args:
        height: stored height in pixels, before the EXIF orientation is applied.
        width: stored width in pixels.
        orientation: EXIF orientation code; 1 if the file has none.
        fault: `missing-image`, `outside-folder`, `unreadable-image`, `cut-short-image`, `too-large-image`, or empty.
        value: description of the fault.
        decoded: whether all pixels were decoded, not only the header and the end of the file.
    """

    height: int = 0
    width: int = 0
    orientation: int = 1
    fault: str = ""
    value: str = ""
    decoded: bool = False

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width as viewers show the image, with its EXIF orientation applied."""
        return (self.width, self.height) if self.orientation in QUARTER_TURNS else (self.height, self.width)


def examine(folder: Path, file: str, *, decode: bool) -> ImageFacts:
    """Read an image's header and check that the file is complete.

    Args:
        folder: folder that must contain the file.
        file: path of the file below the folder.
        decode: decode all pixels; if False, decode only files without their format's end mark.
    """
    path = folder / file
    if not is_inside(file):
        return ImageFacts(fault="outside-folder", value=file, decoded=True)
    if not has_file(folder, file):
        return ImageFacts(fault="missing-image", value=file, decoded=True)
    try:
        with open_picture(path) as picture:
            width, height = picture.size
            if isinstance(picture, TiffImageFile):  # for TIFFs, Pillow reports the size after rotation
                height, width = (int(picture.tag_v2[tag]) for tag in _TIFF_SIZE)
                _check_mode(picture)
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Image.DecompressionBombError as error:
        return ImageFacts(fault="too-large-image", value=one_line(error, 80), decoded=True)
    except Exception as error:  # a broken header can make Pillow raise any exception
        kind = "unreadable-image" if _ends_well(path) else "cut-short-image"  # some formats store the header last
        unknown = isinstance(error, UnidentifiedImageError)
        return ImageFacts(fault=kind, value="unknown format" if unknown else one_line(error, 80), decoded=True)
    if not is_frame(height, width):
        return ImageFacts(fault="too-large-image", value=f"{height}x{width}, {FRAME}", decoded=True)
    facts = ImageFacts(height, width, orientation if orientation in range(1, 9) else 1, decoded=decode)
    if decode or not _ends_well(path):
        fault = _decoding_fault(path)
        return ImageFacts(height, width, facts.orientation, "cut-short-image" if fault else "", fault, decoded=True)
    return facts


def is_inside(file: str) -> bool:
    """Return whether a relative path stays below its folder. Symbolic links in the folder are trusted."""
    return is_name(file) and not Path(file).is_absolute() and ".." not in Path(file).parts


def has_file(folder: Path, file: str) -> bool:
    """Return whether a path names a regular file below a folder; False for pipes, devices and paths that lead out."""
    try:
        return is_inside(file) and (folder / file).is_file()
    except OSError:  # the name is too long for the file system
        return False


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture of a known format and read its header; raise `Image.DecompressionBombError` if it is too large."""
    formats: tuple[str, ...] = _FORMATS
    if _HAS_HEIF and path.suffix.lower() in HEIF_SUFFIXES:
        import_module("pillow_heif").register_heif_opener()
        formats = (*_FORMATS, "HEIF")  # Pillow does not support HEIF without the plugin
    with (
        warnings.catch_warnings(),
        path.open("rb") as stream,
    ):  # if given a path, Pillow maps rotated TIFFs with a wrong shape
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(stream, formats=formats) as picture:
            yield picture


def _ends_well(path: Path) -> bool:
    """Return whether a JPEG or PNG has its end mark near its end (cameras append data); True for other formats."""
    with path.open("rb") as stream:
        mark = _END_MARKS.get(stream.read(2))
        stream.seek(max(0, path.stat().st_size - _TAIL))
        return mark is None or mark in stream.read()


def _decoding_fault(path: Path) -> str:
    """Return the error of decoding all pixels, or an empty text. JPEGs are decoded small, which reads all bytes."""
    try:
        with open_picture(path) as picture:
            if picture.format == "JPEG":
                picture.draft("L", (picture.width // 8, picture.height // 8))
            picture.load()
    except Exception as error:
        return one_line(error, 80)
    return ""


ImageFile.LOAD_TRUNCATED_IMAGES = False  # other libraries enable it, and then truncated files decode without error
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow raises an error above twice this number


class ImageMemory:
    """Store of facts about image files. Facts are valid while a file's size and modification time stay the same.

    Args:
        path: CSV with the facts; a row is appended for each file, so an interrupted check can resume.
        folder: folder of the images.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self._known: dict[str, tuple[tuple[int, int], ImageFacts]] = {}
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream, suppress(csv.Error, UnicodeDecodeError):
                for row in csv.reader(stream):
                    self._remember(row)

    def _remember(self, row: list[str]) -> None:
        try:
            file, size, changed, height, width, orientation, fault, value, decoded = row
            facts = ImageFacts(int(height), int(width), int(orientation), fault, value, decoded == "True")
            self._known[file] = ((int(size), int(changed)), facts)
        except ValueError:
            return  # an incomplete row of an interrupted check

    def recall(self, file: str, stamp: tuple[int, int], *, decode: bool) -> ImageFacts | None:
        """Return the facts about a file, or None if its stamp changed or `decode` asks for a more thorough check."""
        known = self._known.get(file)
        if known is None or known[0] != stamp or (decode and not known[1].decoded):
            return None
        return known[1]

    def examine_all(self, files: Sequence[str], *, decode: bool) -> Iterator[ImageFacts]:
        """Yield the facts about each file in order; files without stored facts are examined in parallel.

        Args:
            files: paths below the folder.
            decode: see `examine`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        bar = tqdm(total=len(files), desc="checking images", unit=" images", disable=None)
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            self.path.open("a", newline="", encoding="utf-8") as stream,
            bar,
        ):
            writer = csv.writer(stream)
            for start in range(0, len(files), _IN_FLIGHT):
                chunk = files[start : start + _IN_FLIGHT]
                for file, (stamp, facts, is_new) in zip(
                    chunk, pool.map(lambda f: self._look(f, decode=decode), chunk), strict=True
                ):
                    if is_new and stamp is not None:
                        writer.writerow([file, *stamp, *astuple(facts)])
                    bar.update()
                    yield facts
                stream.flush()

    def _look(self, file: str, *, decode: bool) -> tuple[tuple[int, int] | None, ImageFacts, bool]:
        stamp = file_stamp(self.folder / file)
        if stamp is not None and (known := self.recall(file, stamp, decode=decode)):
            return stamp, known, False
        return stamp, examine(self.folder, file, decode=decode), True


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Return a file's size in bytes and modification time in ns, or None if the file does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: no file can have this name
        return None
    return status.st_size, status.st_mtime_ns


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to stored pixels (H, W, ...)."""
    if orientation in QUARTER_TURNS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def read_pixels(path: Path, *, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Decode an image file: uint8 (H, W, 3), RGB. 16-bit values are scaled to 8 bits, transparency is dropped.

    Args:
        path: image file, in any format of OpenCV or Pillow.
        size: height and width that the result must have.
        orientation: EXIF orientation code to apply, 1 for none.

    Raises:
        UserError: the file cannot be decoded, or its decoded size is not `size`.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    stored = None if path.suffix.lower() in _PILLOW_ALONE else cv2.imread(str(path), flags)
    if stored is not None:
        pixels = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    else:
        try:
            pixels = _read_with_pillow(path)
        except Exception as error:
            raise UserError(f"{path}: cannot be decoded ({one_line(error, 80)}); replace or delete the file") from error
    pixels = np.ascontiguousarray(turn(pixels, orientation))
    if pixels.shape[:2] != tuple(size):
        raise UserError(
            f"{path}: decodes to {pixels.shape[0]}x{pixels.shape[1]} instead of {size[0]}x{size[1]}; "
            "replace or delete the file"
        )
    return pixels


def _read_with_pillow(path: Path) -> np.ndarray:
    """Decode the pixels as stored, uint8 (H, W, 3), RGB. Raises any exception of Pillow's."""
    with open_picture(path) as picture:
        _check_mode(picture)
        code = picture.getexif().get(_EXIF_ORIENTATION, 1)
        picture.load()
        orientation = code if picture.getexif().get(_EXIF_ORIENTATION, 1) != code else 1  # Pillow rotates TIFFs
        pixels = _as_rgb(picture)
    return turn(pixels, _UNTURNED.get(orientation, orientation))


def pixels_of(picture: Image.Image) -> np.ndarray:
    """Return the pixels of an open picture with its EXIF orientation applied: uint8 (H, W, 3), RGB.

    Raises:
        OSError: the picture cannot be decoded.
        ValueError: the value range of its pixels is unknown.
    """
    _check_mode(picture)
    picture.load()
    return np.ascontiguousarray(turn(_as_rgb(picture), picture.getexif().get(_EXIF_ORIENTATION, 1)))


def _as_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        grey = ((np.asarray(picture).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))


def _check_mode(picture: Image.Image) -> None:
    if picture.mode not in _MODES:
        raise ValueError(f"pixel mode {picture.mode} is not supported; save it with 8 or 16 bits, grey or RGB")
