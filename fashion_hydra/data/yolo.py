"""Read YOLO's segmentation layout (https://docs.ultralytics.com/datasets/segment/): data.yaml, images/, labels/*.txt.

YOLO's own libraries are not used: they install a second OpenCV, which overwrites the one of this package.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from fashion_hydra.data.annotations import AnnotationsBuilder, DataFault, refuse_too_many
from fashion_hydra.data.image_files import IMAGE_SUFFIXES, examine
from fashion_hydra.data.segmentation import read_segmentation
from fashion_hydra.formats.loose_values import whole_number
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import MOST_MASKS, is_name
from fashion_hydra.utils.text import one_line, shorten
from fashion_hydra.utils.yaml_files import read_mapping

SUBSETS = ("train", "val", "test")
_FILE_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
_BOX_VALUES = 4
_LIKELY_PIXELS = 2.0
_IN_PIXELS = " (points in pixels? YOLO requires shares of the picture, from 0 to 1)"


class YoloReader:
    """Reader of a folder in YOLO's segmentation layout, with the subsets train, val and test of its data.yaml.

    Polygons are shares of the width and height of the image as viewers show it, as in YOLO's own tools. An image
    without a label file has no objects.

    Args:
        root: folder with data.yaml.
        annotations: file below `root` to read instead of data.yaml.

    Raises:
        UserError: data.yaml is missing, or lists no classes or no images.
    """

    def __init__(self, root: str | Path, annotations: str | None = None) -> None:
        self.root = Path(root)
        self.path = _find_file(self.root, annotations)
        content = read_mapping(self.path)
        self.names = _names(content.get("names"), self.path)
        self.folder = self.root
        self.images = dict(self._listed(content))
        if not self.images:
            places = (
                ", ".join(f"{s}: {shorten(content[s], 40)}" for s in SUBSETS if content.get(s))
                or "neither train nor val"
            )
            raise UserError(f"{self.path}: no images ({places}). Give folders of images below {self.root}")
        self._rows: dict[str, int] = {}

    def key(self) -> Mapping[str, str]:
        """Return the paths of data.yaml and of the image folder."""
        return {"yolo": str(self.path.absolute()), "images": str(self.folder.absolute())}

    def files(self) -> Sequence[Path]:
        """Return data.yaml and the label files."""
        return [self.path, *(label for image in self.images if (label := self._label_file(image)).is_file())]

    def categories(self) -> Mapping[int, str]:
        """Return class index -> name, as listed in data.yaml."""
        return self.names

    def place_of(self, image_id: str) -> str:
        """Return an empty text: faults of images name the file."""
        return ""

    def file_of(self, image_id: str) -> str:
        """Return the image id, which is the path of the file below the root."""
        return image_id

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read the label file of each image."""
        for image, subset in tqdm(self.images.items(), desc=f"reading {self.path.name}", unit=" images", disable=None):
            facts = examine(self.folder, image, decode=False)
            if facts.fault:
                faults.append(DataFault(facts.fault, image, "", facts.value, "image dropped"))
                continue
            builder.image(image, facts.shown_size, subset=subset)
            faults += self._read_labels(image, facts.shown_size, builder)
            refuse_too_many(faults, self.path)
        faults += self._labels_without_image()

    def _listed(self, content: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        """Yield the images below the root, each with its subset."""
        base = self.root / str(content.get("path") or "")
        for subset in SUBSETS:
            places = content.get(subset) or []
            for place in places if isinstance(places, list) else [places]:
                for image in _images_of(str(place), base if base.is_dir() else self.root, self.root):
                    yield image, subset

    def _label_file(self, image: str) -> Path:
        """Return `labels/a.txt` for `images/a.jpg`: the last folder named `images` becomes `labels`."""
        parts = list(PurePosixPath(image).with_suffix(".txt").parts)
        places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
        if places:
            parts[places[-1]] = "labels"
        return self.folder.joinpath(*parts)

    def _read_labels(self, image: str, size: tuple[int, int], builder: AnnotationsBuilder) -> Iterator[DataFault]:
        path = self._label_file(image)
        if not path.is_file():
            return
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            yield DataFault("unreadable-labels", image, path.name, f"byte {error.start} is not UTF-8", "not read")
            return
        seen = set[str]()
        for number, line in enumerate(lines, start=1):
            if not (words := line.split()):
                continue
            kind, value = self._add(words, image, size, builder, seen)
            if kind:
                remark = kind == "outside-picture"
                yield DataFault(
                    kind, image, f"{path.name} line {number}", value, "cut off" if remark else "row dropped"
                )

    def _add(
        self, words: Sequence[str], image: str, size: tuple[int, int], builder: AnnotationsBuilder, seen: set[str]
    ) -> tuple[str, str]:
        """Add the object of a line; return kind and value of its fault or remark, or two empty texts."""
        category = whole_number(words[0])
        if category is None or category not in self.names:
            return "unknown-class", f"class {shorten(words[0], 40)}, data.yaml has {len(self.names)} names"
        if len(words) == 1 + _BOX_VALUES:
            return "no-segmentation", f"class {category}: only a box; must be a polygon of three points or more"
        if (text := " ".join(words)) in seen:
            return "duplicate-row", f"class {category}: same polygon as an earlier line"
        seen.add(text)
        height, width = size
        if wrong := [word for word in words[1:] if not _is_number(word)]:
            return "bad-segmentation", f"{shorten(wrong[0], 40)} is not a number"
        try:
            points = np.array(words[1:], dtype=np.float64)
            if len(points) % 2 or len(points) < 6:
                raise ValueError(f"{len(points)} values: must be x and y of three points or more")
            points[0::2] *= width
            points[1::2] *= height
            region = read_segmentation([points.tolist()], height=height, width=width)
        except (ValueError, UserError) as error:
            return "bad-segmentation", one_line(error, 120)
        if not len(region.runs):
            return "empty-mask", f"class {category}: no pixel" + _IN_PIXELS * (
                max(map(float, words[1:])) > _LIKELY_PIXELS
            )
        if not builder.add(image, str(category), region.runs):
            return "too-many-masks", f"more than {MOST_MASKS} masks in one image"
        return ("outside-picture", f"{region.outside:.0%} of the polygon's box") if region.outside else ("", "")

    def _labels_without_image(self) -> Iterator[DataFault]:
        """Yield a fault for each label file without an image."""
        used = {self._label_file(image) for image in self.images}
        for folder in sorted({path.parent for path in used}):
            for path in sorted(folder.glob("*.txt")):
                if path not in used:
                    name = path.relative_to(self.folder).as_posix()
                    yield DataFault("labels-without-image", name, "", "no image with this name", "not used")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _find_file(root: Path, name: str | None) -> Path:
    if not root.is_dir():
        what = "is a file" if root.is_file() else "no such folder"
        raise UserError(f"data.root={root}: {what}. Give the folder with data.yaml")
    for candidate in (name,) if name else _FILE_NAMES:
        if (root / candidate).is_file():
            return root / candidate
    found = ", ".join(sorted(p.name + "/" * p.is_dir() for p in root.iterdir())[:8]) or "nothing"
    raise UserError(f"data.root={root}: no {name or _FILE_NAMES[0]} (found: {found}). Put YOLO's file there")


def _names(given: object, path: Path) -> dict[int, str]:
    """Return class index -> name, from a list or a mapping."""
    pairs = enumerate(given) if isinstance(given, list) else given.items() if isinstance(given, dict) else ()
    names = {whole_number(key): str(name) for key, name in pairs}
    if not names or None in names or not all(is_name(name) for name in names.values()):
        raise UserError(f"{path}: names: {shorten(given, 80)}: must be a list of class names or a mapping index: name")
    return {key: name for key, name in sorted((k, n) for k, n in names.items() if k is not None)}


def _images_of(place: str, base: Path, root: Path) -> Iterator[str]:
    """Yield the images of a folder, or of a text file that lists images, as paths below the root.

    Roboflow writes `../train/images` for `train/images`, so both are tried.
    """
    trimmed = place
    while trimmed.startswith("../"):
        trimmed = trimmed[3:]
    found = next((base / name for name in (place, trimmed) if (base / name).exists()), None)
    if found is None or not found.resolve().is_relative_to(root.resolve()):
        return
    if found.is_dir():
        paths = [
            p for p in sorted(found.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
        ]
    else:
        listed = found.read_text(encoding="utf-8", errors="replace").split("\n")
        paths = [found.parent / line.strip() for line in listed if line.strip()]
    for path in paths:
        absolute = Path(path).resolve()
        if absolute.is_relative_to(root.resolve()):
            yield absolute.relative_to(root.resolve()).as_posix()
