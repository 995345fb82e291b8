"""Keep the photos of a session with the model's raw outputs, so that thresholds change without running the model."""

import io
import itertools
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import cv2
from PIL import Image

from fashion_hydra.api.predictor import Look, Predictor, predict_options
from fashion_hydra.data.annotations import Annotations
from fashion_hydra.formats import writers
from fashion_hydra.formats.class_id import attributes_of
from fashion_hydra.formats.submission import SUBMISSION_GRID
from fashion_hydra.plots.overlay import overlay_size
from fashion_hydra.report.html import css_colour
from fashion_hydra.report.results.outlines import mask_path
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE, resize_mask, runs_to_coco
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import is_name

LONGEST_EDGE = 1000
"""Long edge in pixels of the photos that the page shows, and of the grid of their masks."""
FORMATS = {"masks": "zip", "coco": "json", "csv": "csv"}
"""Download format -> suffix of the file."""
_KEPT = 40


@dataclass(frozen=True)
class Photo:
    """A photo of the session.

    Args:
        number: id of the photo in the page's requests.
        name: file name.
        look: raw outputs of the model.
        truth: (category id, attribute ids, mask on the shown grid) of each ground-truth object; None without truth.
    """

    number: int
    name: str
    look: Look
    truth: Sequence[tuple[int, tuple[int, ...], CocoRLE]] | None = None

    @property
    def shown(self) -> Size:
        """Height and width of the photo on the page."""
        return overlay_size(self.look.candidates.size, LONGEST_EDGE)

    def picture(self) -> bytes:
        """Return the photo as a JPEG of the shown size."""
        height, width = self.shown
        reduced = cv2.resize(self.look.image, (width, height), interpolation=cv2.INTER_AREA)
        stream = io.BytesIO()
        Image.fromarray(reduced).save(stream, "JPEG", quality=90)
        return stream.getvalue()


class Session:
    """A model and the last 40 photos that it has seen.

    Args:
        predictor: the model.
        annotations: a data set whose photos are offered with their ground truth; None without a data set.
        tta: views, see `Predictor`.
    """

    def __init__(self, predictor: Predictor, annotations: Annotations | None = None, tta: str = "single") -> None:
        self.predictor, self.annotations, self.tta = predictor, annotations, tta
        self._photos: OrderedDict[int, Photo] = OrderedDict()
        self._opened: dict[int, int] = {}  # index in the data set -> number of the photo
        self._numbers = itertools.count(1)
        self._one_at_a_time = threading.Lock()  # a second prediction would only compete for the cores

    def add(self, name: str, content: bytes) -> Photo:
        """Run the model on an uploaded photo.

        Args:
            name: name of the file.
            content: content of the file.

        Raises:
            UserError: the file name is invalid, or the file cannot be decoded as an image.
        """
        name = PurePath(name.replace("\\", "/")).name or "photo"
        if not is_name(name):
            raise UserError("the file's name has control characters or is too long: rename the file")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"photo{PurePath(name).suffix.lower()}"
            path.write_bytes(content)
            try:
                return self._look(name, path)
            except UserError as error:
                raise UserError(str(error).replace(str(path), name)) from error

    def open(self, index: int) -> Photo:
        """Run the model on a photo of the data set, unless it is in memory.

        Raises:
            UserError: the index is invalid, or the photo cannot be read.
        """
        data = self.annotations
        if data is None or not 0 <= index < len(data):
            raise UserError("the data set has no such photo")
        if self._opened.get(index) in self._photos:
            return self._photos[self._opened[index]]
        photo = self._look(str(data.image_ids[index]), data.folder / str(data.files[index]))
        self._opened[index] = photo.number
        height, width = (int(edge) for edge in data.sizes[index])
        if (height, width) != photo.look.candidates.size:
            return photo  # the photo is rotated relative to its masks
        masks = data.instances(index)
        encoded = [runs_to_coco(data.runs_of(mask), height=height, width=width) for mask in masks]
        truth = [
            (int(data.categories[mask]), attributes_of(str(data.class_ids[mask])), resize_mask(one, photo.shown))
            for mask, one in zip(masks, encoded, strict=True)
        ]
        known = replace(photo, truth=truth)
        self._photos[photo.number] = known
        return known

    def get(self, number: int) -> Photo:
        """Return a photo of the session.

        Raises:
            KeyError: the photo is not, or no longer, in memory.
        """
        return self._photos[number]

    def _look(self, name: str, path: Path) -> Photo:
        with self._one_at_a_time:
            look = self.predictor.look(path, tta=self.tta)
            photo = Photo(next(self._numbers), name, look)
            self._photos[photo.number] = photo
            while len(self._photos) > _KEPT:
                self._photos.popitem(last=False)
        return photo

    def objects(self, photo: Photo, thresholds: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return the predicted objects of a photo for the page, best first, and the ground-truth objects if known.

        Raises:
            UserError: a threshold does not exist, or the candidates are not exact for its value.
        """
        found = photo.look.on_grid(photo.shown, **thresholds)
        ids = self.predictor.classes.ids
        listed = zip(found.labels, found.attribute_ids, found.masks, found.scores, strict=True)
        shown = [
            {**self._entry(ids[label], attributes, mask), "score": round(float(score), 4)}
            for label, attributes, mask, score in listed
        ]
        return {"found": shown, "truth": [self._entry(*one) for one in photo.truth or ()]}

    def _entry(self, category: int, attributes: Sequence[int], mask: CocoRLE) -> dict[str, Any]:
        known = self.predictor.classes.attributes.by_id()
        return {
            "class": category,
            "attributes": [known.get(number) or f"attribute {number}" for number in attributes],
            "path": mask_path(mask, tolerance=0.6),
        }

    def described(self) -> dict[str, Any]:
        """Return the data that the page needs: model, classes, thresholds in force, slider ranges, names of photos."""
        rule, options = self.predictor.rule(), predict_options(self.tta)
        names = dict(self.predictor.classes.by_id())
        if self.annotations is not None:
            names = {**{int(i): name for i, name in self.annotations.names.items()}, **names}
        return {
            "model": ", ".join(member.path.stem for member in self.predictor.members),
            "classes": {
                i: {"name": name, "colour": css_colour(i), "known": i in self.predictor.classes.ids}
                for i, name in names.items()
            },
            "thresholds": {name: getattr(rule, name) for name in ("score_thr", "iou_thr", "mask_thr", "min_area")},
            "iouGrid": sorted({*options.candidates.iou_grid, rule.iou_thr}),
            "scoreFloor": options.candidates.score_floor,
            "data": [] if self.annotations is None else [str(i) for i in self.annotations.image_ids],
        }

    def download(self, photos: Sequence[Photo], kind: str, thresholds: Mapping[str, Any]) -> bytes:
        """Return the content of a file with the objects of some photos, as predict.py writes it.

        Args:
            photos: one or more photos.
            kind: one of `FORMATS`.
            thresholds: thresholds that replace the model's own.

        Raises:
            UserError: see `objects`.
        """
        names, ids = self.predictor.classes.by_id(), self.predictor.classes.ids

        def answers(*, on_grid: bool) -> list[writers.ImageAnswer]:
            made = []
            for photo, name in zip(photos, _distinct([photo.name for photo in photos]), strict=True):
                size = photo.look.candidates.size
                found = photo.look.on_grid(SUBMISSION_GRID if on_grid else size, **thresholds)
                named = Detections(name, found.labels, found.scores, found.masks, found.known_areas, found.attributes)
                made.append(writers.ImageAnswer(name, name, size, named, ids))
            return made

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"download.{FORMATS[kind]}"
            if kind == "csv":
                writers.write_submission_csv(path, answers(on_grid=True))
            elif kind == "coco":
                writers.write_coco_results(path, answers(on_grid=False), names)
            else:
                writers.write_mask_pngs(Path(folder) / "masks", answers(on_grid=False), names)
                _zip(Path(folder) / "masks", path)
            return path.read_bytes()


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, with numbers added to repeated ones."""
    taken: set[str] = set()
    return [writers.free_path(name, PurePath(name).suffix, taken) for name in names]


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
