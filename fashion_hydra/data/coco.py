"""Read COCO's JSON (https://cocodataset.org/#format-data), with Fashionpedia's `attribute_ids` if present."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fashion_hydra.data.annotations import AnnotationsBuilder, DataFault, refuse_too_many
from fashion_hydra.data.coco_images import find_images
from fashion_hydra.data.coco_masks import MaskReader, image_key, own_id
from fashion_hydra.data.image_files import examine
from fashion_hydra.data.kaggle import LARGEST_ID
from fashion_hydra.formats.loose_values import is_nothing, whole_number
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import read_json
from fashion_hydra.utils.limits import FRAME, is_frame, is_name
from fashion_hydra.utils.text import one_line, shorten

CROWD_CHOICES = ("ignore", "train")
_PARTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class _Image:
    """An entry of `images`: its index, id as JSON text, file name, and size if listed."""

    place: int
    coco_id: str
    name: str
    size: tuple[int, int] | None


class CocoReader:
    """Reader of a folder of images and a JSON file in COCO's format.

    Args:
        root: folder above the images, which may also be beside the JSON file: see `find_images`.
        annotations: path of the JSON file, relative to `root` or to the working directory, or absolute.
        crowd: how to treat regions with `iscrowd`: `ignore` excludes them from training and AP, as COCO does;
            `train` treats each as one object.
        subset: subset of the data set in this file: train, val, or empty.

    Raises:
        UserError: the file is missing or not in COCO's format, or the folder of the images is ambiguous.
    """

    def __init__(self, root: str | Path, annotations: str | None, *, crowd: str = "ignore", subset: str = "") -> None:
        self.root, self.crowd, self.subset = Path(root), crowd, subset
        if crowd not in CROWD_CHOICES:
            raise UserError(f"data.crowd={crowd}: give {' or '.join(CROWD_CHOICES)}")
        if not annotations:
            raise UserError("data.annotations: give the JSON file in COCO's format")
        self.path = next((p for p in (self.root / annotations, Path(annotations)) if p.is_file()), Path(annotations))
        if not self.path.is_file():
            raise UserError(
                f"data.annotations={annotations}: no such file, neither here nor below {self.root}. Give the JSON file"
            )
        content = read_coco_json(self.path)
        self._faults: list[DataFault] = []
        self.annotations: Sequence[Any] = content["annotations"]
        self.names, self._unusable_categories = _categories(content["categories"], self.path, self._faults)
        self._attributes = content.get("attributes")
        self._images = self._known_images(content["images"])
        entries = list(self._images.values())
        found = find_images([entry.name for entry in entries], root=self.root, json_file=self.path)
        self.folder = found.folder
        self._file_of = dict(zip(self._images, found.files, strict=True))
        for number in found.by_name:
            value = f"{entries[number].name!r} found by its file name as {found.files[number]}"
            self._faults.append(DataFault("found-by-name", str(found.files[number]), "", shorten(value), "image used"))

    def key(self) -> Mapping[str, str]:
        """Return the paths of the JSON file and the image folder, and the options."""
        place = {"coco": str(self.path.absolute()), "images": str(self.folder.absolute())}
        return {**place, "crowd": self.crowd, "subset": self.subset}

    def files(self) -> Sequence[Path]:
        """Return the JSON file."""
        return (self.path,)

    def categories(self) -> Mapping[int, str]:
        """Return category id -> name, as listed in the file."""
        return self.names

    def attribute_names(self) -> Mapping[int, str]:
        """Return attribute id -> name, as listed in Fashionpedia's files; invalid entries are left out."""
        listed = self._attributes if isinstance(self._attributes, list) else []
        entries = [entry for entry in listed if isinstance(entry, dict) and type(entry.get("id")) is int]
        return {entry["id"]: str(entry.get("name", "")) for entry in entries}

    def place_of(self, image_id: str) -> str:
        """Return an empty text: faults of images name the file."""
        return ""

    def file_of(self, image_id: str) -> str:
        """Return the image id, which is the path of its file."""
        return image_id

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read images and annotations into the builder."""
        faults += self._faults
        image_of = self._add_images(builder, faults)
        masks = MaskReader(
            builder,
            image_of,
            categories=self.names.keys() - self._unusable_categories,
            crowd_trains=self.crowd == "train",
            first_free_id=1 + max((own_id(a) or 0 for a in self.annotations), default=0),
        )
        for place, annotation in enumerate(
            tqdm(self.annotations, desc=f"reading {self.path.name}", unit=" masks", disable=None)
        ):
            refuse_too_many(faults, self.path)
            faults += masks.add(place, annotation)

    def _known_images(self, entries: Sequence[Any]) -> dict[int | str, _Image]:
        """Return the images by id; entries without an id and ids shared by several files become faults."""
        by_id = defaultdict[int | str, list[_Image]](list)
        for place, entry in enumerate(entries):
            key = image_key(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if key is None or not isinstance(name, str) or not is_name(name):
                value = f"images[{place}]: {shorten(json.dumps(entry, default=str), 80)}: must have id and file_name"
                self._faults.append(DataFault("bad-row", "", "", value, "image dropped"))
                continue
            by_id[key].append(_Image(place, json.dumps(entry["id"]), name, _size(entry)))
        for key, same in by_id.items():
            listed = ", ".join(f"images[{image.place}] {image.name}" for image in same[:4])
            if len({image.name for image in same}) > 1:
                value = shorten(f"id {key}: {listed}", 200)
                self._faults += [DataFault("image-id-twice", i.name, "", value, "image dropped") for i in same]
            elif len(same) > 1:
                value = shorten(f"id {key}: {listed}", 200)
                self._faults.append(DataFault("image-listed-twice", same[0].name, "", value, "read once"))
        return {key: same[0] for key, same in by_id.items() if len({image.name for image in same}) == 1}

    def _add_images(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> dict[int | str, str]:
        """Add the usable images to the builder; return COCO image id -> file, which is the id in the builder."""
        image_of: dict[int | str, str] = {}
        first_of: dict[str, _Image] = {}
        for key, image in self._images.items():
            name = self._file_of[key]
            size = image.size or self._size_on_disk(name)
            if not is_name(name) or size is None or not is_frame(*size):
                shown = "no height and width" if size is None else f"{size[0]}x{size[1]}, {FRAME}"
                faults.append(DataFault("bad-size", name, "", f"images[{image.place}]: {shown}", "image dropped"))
                continue
            if (first := first_of.setdefault(name, image)) is not image:
                value = f"images[{first.place}] id {first.coco_id} and images[{image.place}] id {image.coco_id}"
                same = builder.image(name, size) == size
                action = "read as one image" if same else "masks of the second dropped, its size differs"
                faults.append(DataFault("file-under-two-ids", name, "", value, action))
                if not same:
                    continue
            builder.image(name, size, coco_id=image.coco_id, subset=self.subset)
            image_of[key] = name
        return image_of

    def _size_on_disk(self, name: str) -> tuple[int, int] | None:
        """Return height and width of a file as viewers show it, or None if it is unreadable."""
        facts = examine(self.folder, name, decode=False)
        return None if facts.fault else facts.shown_size


def read_coco_json(path: Path) -> dict[str, Any]:
    """Read a JSON file with COCO's lists of images, annotations and categories.

    Raises:
        UserError: the file is not in COCO's format.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({one_line(error, 120)}). Export the data set again") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: a list, not a data set in COCO's format. Detection results are lists; give the file with "
            "images, annotations and categories"
        )
    if wrong := [name for name in _PARTS if not isinstance(content.get(name), list)]:
        found = ", ".join(shorten(key, 20) for key in list(content)[:6]) or "nothing"
        raise UserError(
            f"{path}: not in COCO's format: no list of {wrong[0]} (found: {found}). Give a file with images, "
            "annotations and categories; for Kaggle's train.csv set data=kaggle"
        )
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in content["annotations"][:1]):
        raise UserError(f"{path}: COCO's panoptic format. Give the instances file, such as instances_train2017.json")
    return content


def _categories(entries: Sequence[Any], path: Path, faults: list[DataFault]) -> tuple[dict[int, str], frozenset[int]]:
    """Return names by id, and the ids that several names share.

    Raises:
        UserError: an entry has no valid id or name.
    """
    names = defaultdict[int, list[str]](list)
    for place, entry in enumerate(entries):
        number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if number is None or not 0 <= number < LARGEST_ID or not isinstance(name, str) or not is_name(name):
            raise UserError(
                f"{path}: categories[{place}]: {shorten(json.dumps(entry, default=str), 80)}: must have an id from 0 "
                f"to {LARGEST_ID - 1} and a name of one line"
            )
        if name not in names[number]:
            names[number].append(name)
    twice = {number: found for number, found in names.items() if len(found) > 1}
    for number, found in twice.items():
        value = shorten(f"id {number}: {', '.join(found)}", 200)
        faults.append(DataFault("category-id-twice", "", "", value, "its annotations dropped"))
    known = {number: found[0] for number, found in names.items()}
    ids_of = defaultdict[str, list[int]](list)
    for number, name in known.items():
        ids_of[name].append(number)
    for name, ids in ids_of.items():
        if len(ids) > 1:
            value = shorten(f"{name}: ids {', '.join(map(str, ids))}", 200)
            faults.append(DataFault("category-name-twice", "", "", value, "separate classes"))
    return known, frozenset(twice)


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of an image's entry, or None if both are missing and must be read from the file."""
    if all(is_nothing(entry.get(name)) for name in ("height", "width")):
        return None
    height, width = (whole_number(entry.get(name)) for name in ("height", "width"))
    return (height or 0, width or 0)
