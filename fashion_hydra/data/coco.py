"""COCO's JSON, in and out (https://cocodataset.org/#format-data), with Fashionpedia's `attribute_ids` where given."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from fashion_hydra.data.annotations import Annotations, AnnotationsBuilder, DataFault, refuse_too_many
from fashion_hydra.data.image_files import has_file
from fashion_hydra.data.kaggle import LARGEST_ID
from fashion_hydra.structures import rle
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write, read_json
from fashion_hydra.utils.limits import FRAME, LONGEST_EDGE, LONGEST_NAME, MOST_MASKS, MOST_RUNS, is_frame, is_name
from fashion_hydra.utils.text import one_line, shorten

_IMAGE_FOLDERS = ("", "train", "images")


class CocoReader:
    """A folder of images and a JSON file in COCO's format; crowd regions are left out.

    Args:
        root: the images are there, or in its folder `train` or `images`.
        annotations: the JSON file, below `root` or anywhere.

    Raises:
        UserError: the file is missing or is not in COCO's format.
    """

    def __init__(self, root: str | Path, annotations: str | None) -> None:
        self.root = Path(root)
        if not annotations:
            raise UserError("data.annotations: give the JSON file in COCO's format")
        self.path = next((p for p in (self.root / annotations, Path(annotations)) if p.is_file()), Path(annotations))
        if not self.path.is_file():
            raise UserError(
                f"data.annotations={annotations}: no such file, neither here nor below {self.root}. Give the JSON file"
            )
        try:
            content = read_json(self.path)
            self.images = {image["id"]: image for image in content["images"]}
            self.annotations = content["annotations"]
            self.names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
            files = [str(image["file_name"]) for image in self.images.values()]
            if not all(isinstance(annotation, dict) for annotation in self.annotations):
                raise TypeError("annotations that are no objects")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{self.path}: not in COCO's format ({error!r}). It has images, annotations and "
                "categories; Kaggle's train.csv is read with data=kaggle"
            ) from error
        if wrong := [i for i, name in self.names.items() if not 0 <= i < LARGEST_ID or not is_name(name)]:
            raise UserError(f"{self.path}: category {wrong[0]}: 0 to {LARGEST_ID - 1} and short names expected")
        folders = (self.root / name for name in _IMAGE_FOLDERS)
        self.folder = next((f for f in folders if any(has_file(f, file) for file in files[:10])), self.root)

    def key(self) -> Mapping[str, str]:
        """The file and the images' folder."""
        return {"coco": str(self.path.absolute()), "images": str(self.folder.absolute())}

    def files(self) -> Sequence[Path]:
        """The JSON file."""
        return (self.path,)

    def categories(self) -> Mapping[int, str]:
        """As the file lists them."""
        return self.names

    def row_of(self, image_id: str) -> int:
        """Nothing: faults of images name the file."""
        return 0

    def file_of(self, image_id: str) -> str:
        """Images are known by their files' names."""
        return image_id

    def scan(self, builder: AnnotationsBuilder, faults: list[DataFault]) -> None:
        """Read images and annotations into the builder."""
        for image in self.images.values():
            try:
                size = int(image["height"]), int(image["width"])
            except (KeyError, ValueError, TypeError, OverflowError):
                size = (0, 0)
            name = str(image["file_name"])
            if not is_name(name):
                faults.append(DataFault("bad-row", "", 0, f"file_name {shorten(name, 40)!r}", "image dropped"))
            elif not is_frame(*size):
                value = shorten(f"{image.get('height')}x{image.get('width')}", 80)
                faults.append(DataFault("bad-size", name, 0, f"{value}, {FRAME}", "image dropped"))
            else:
                builder.image(name, size)
        known, seen = set(builder.image_ids), set[int]()
        for annotation in tqdm(self.annotations, desc=f"reading {self.path.name}", unit=" masks", disable=None):
            number = annotation.get("image_id")
            image_id = str(self.images[number]["file_name"]) if _is_key(number) and number in self.images else ""
            if annotation.get("iscrowd") or (image_id and image_id not in known):
                continue
            refuse_too_many(faults, self.path)
            kind, value = self._read(annotation, image_id, builder, seen)
            if kind:
                row = annotation.get("id")
                row = row if isinstance(row, int) and abs(row) < 2**63 else 0
                faults.append(DataFault(kind, image_id, row, value, "annotation dropped"))

    def _read(
        self, annotation: Mapping[str, Any], image_id: str, builder: AnnotationsBuilder, seen: set[int]
    ) -> tuple[str, str]:
        """Add one annotation, or give the kind and value of its fault."""
        if not image_id:
            return "unknown-image", shorten(f"image_id {annotation.get('image_id')}")
        category = annotation.get("category_id")
        if type(category) is not int or category not in self.names:
            return "unknown-class", shorten(f"category_id {category}")
        height, width = builder.image(image_id, (0, 0))
        try:
            runs = segmentation_to_runs(annotation["segmentation"], height=height, width=width)
            attributes = sorted(int(a) for a in annotation.get("attribute_ids", ()))
            if attributes and not 0 <= attributes[0] <= attributes[-1] < LARGEST_ID:
                raise ValueError(f"attribute_ids from 0 to {LARGEST_ID - 1} expected")
        except Exception as error:  # pycocotools raises what its arguments lead to
            return "bad-segmentation", one_line(error, 120)
        if len(runs) == 0:
            return "empty-mask", f"category_id {category}"
        class_id = "_".join(map(str, [category, *attributes]))
        if len(class_id) > LONGEST_NAME:
            return "unknown-class", f"category_id {category} with {len(attributes)} attributes"
        content = hash((image_id, class_id, runs.tobytes()))
        if content in seen:
            return "duplicate-row", f"category_id {category}, the same mask as before"
        seen.add(content)
        if not builder.add(image_id, class_id, runs):
            return "too-many-masks", f"more than {MOST_MASKS} of one image"
        return "", ""


def _is_key(value: object) -> bool:
    """Whether an id of JSON can be looked up."""
    return isinstance(value, int | float | str)


def segmentation_to_runs(segmentation: Any, *, height: int, width: int) -> rle.Runs:
    """Polygons, or a run-length encoding (compressed or not), of an image of that size.

    Raises:
        ValueError: none of these, or of another size.
    """
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon)
        if not segmentation:
            raise ValueError("no polygon")
        runs = rle.coco_to_runs(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    else:
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"run-length encoding of size {segmentation['size']}, image {[height, width]}")
        counts = segmentation["counts"]
        runs = _counted(counts, height * width) if isinstance(counts, list) else rle.coco_to_runs(segmentation)
    rle.check_runs_inside(runs, height=height, width=width)
    return runs


def _check_polygon(polygon: Any) -> None:
    """Raise ValueError for what pycocotools would draw for hours, or beyond its memory."""
    points = np.array(polygon, dtype=np.float64)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon needs three points or more, as x and y in turn")
    if not (np.abs(points) <= 2 * LONGEST_EDGE).all():
        raise ValueError(f"a polygon with a point at {points[~(np.abs(points) <= 2 * LONGEST_EDGE)][0]:g}")
    corners = points.reshape(-1, 2)
    around = np.abs(np.diff(corners, axis=0, append=corners[:1])).max(axis=1).sum()
    if max(around, len(corners)) > MOST_RUNS:
        raise ValueError(
            f"a polygon of {len(corners)} points, {around:.0f} pixels around: at most {MOST_RUNS} expected"
        )


def _counted(counts: list[Any], pixels: int) -> rle.Runs:
    """COCO's list of lengths, of background and object in turn, as runs."""
    lengths = np.array(counts)
    if lengths.ndim != 1 or lengths.dtype.kind != "i" or not 0 < len(lengths) <= 2 * MOST_RUNS:
        raise ValueError(f"counts: 1 to {2 * MOST_RUNS} whole numbers expected")
    if lengths.min() < 0 or lengths.max() > pixels or (ends := np.cumsum(lengths))[-1] > pixels:
        raise ValueError(f"counts: from 0, and {pixels} together at most")
    return rle.normalise_runs(np.stack([ends[1::2] - lengths[1::2], lengths[1::2]], axis=1))


def write_coco(records: Annotations, path: Path, chosen: Sequence[int]) -> int:
    """Write images and their masks as COCO's JSON, mask by mask, and put the file in its place when it is whole.

    Args:
        records: where they are.
        path: the file.
        chosen: which images.

    Returns:
        How many masks were written.
    """
    images = [
        {"id": i, "file_name": str(records.files[i]), "height": int(h), "width": int(w)}
        for i in chosen
        for h, w in [records.sizes[i]]
    ]
    categories = [{"id": i, "name": name} for i, name in records.names.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_write(path) as stream:
        stream.write(f'{{"images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n"annotations": [')
        for i in tqdm(chosen, desc="writing", unit=" images", disable=None):
            for mask in records.instances(i):
                stream.write(",\n" if count else "\n")
                count += 1
                stream.write(json.dumps(_annotation(records, i, mask, number=count)))
        stream.write("\n]}\n")
    return count


def _annotation(records: Annotations, image: int, mask: int, *, number: int) -> dict[str, Any]:
    height, width = (int(edge) for edge in records.sizes[image])
    x0, y0, x1, y1 = records.boxes[mask].tolist()
    encoded = rle.runs_to_coco(records.runs_of(mask), height=height, width=width)
    counts = encoded["counts"]
    category, *attributes = str(records.class_ids[mask]).split("_")
    return {
        "id": number,
        "image_id": image,
        "category_id": int(category),
        "attribute_ids": [int(a) for a in attributes],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(records.areas[mask]),
        "iscrowd": 0,
        "segmentation": {"size": encoded["size"], "counts": counts.decode() if isinstance(counts, bytes) else counts},
    }
