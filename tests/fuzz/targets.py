"""Fuzz targets: each target passes bytes as a file to one of the project's readers.

A reader may return or raise `UserError`; its return value must satisfy the invariants that callers rely on. Anything
else is a finding.
"""

import csv
import functools
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.annotations import Annotations, open_annotations
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.coco import CocoReader
from fashion_hydra.data.image_files import ImageMemory, examine, read_pixels
from fashion_hydra.data.kaggle import KaggleReader, read_labels
from fashion_hydra.data.segmentation import read_segmentation
from fashion_hydra.data.split import read_split
from fashion_hydra.formats.csv_files import open_csv
from fashion_hydra.formats.submission import MaskTable, read_masks, write_submission
from fashion_hydra.formats.submission_check import find_breaches
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.rle import normalise_runs
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.limits import MOST_PIXELS
from tests.fuzz.patches import archive_of, file_of, zipped

CLASSES = ClassSet((6, 23, 31), ("pants", "shoe", "sleeve"))
SMALL = (40, 50)
"""Height and width of the image of fuzzed masks."""


@dataclass(frozen=True)
class Target:
    """A reader to fuzz.

    Args:
        read: function (bytes, folder to write them to) that returns or raises `UserError`.
        seeds: function that returns valid files to start with.
        content: function that converts a fuzzer's bytes to the file's bytes, see `tests.fuzz.patches`.
    """

    read: Callable[[bytes, Path], None]
    seeds: Callable[[], Sequence[bytes]]
    content: Callable[[bytes, Sequence[bytes]], bytes] = lambda data, seeds: data


TARGETS: dict[str, Target] = {}


def target(name: str, seeds: Callable[[], Sequence[bytes]], **how: Callable) -> Callable:
    def add(read: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
        TARGETS[name] = Target(read, functools.cache(seeds), **how)
        return read

    return add


def attempt(name: str, data: bytes, folder: Path) -> None:
    """Read bytes with a target; a `UserError` is not a finding."""
    chosen = TARGETS[name]
    try:
        chosen.read(chosen.content(data, chosen.seeds()), folder)
    except UserError as error:
        assert str(error), "a mistake without a word"
        assert len(str(error)) < 5000, f"a message of {len(str(error))} characters"


def emptied(folder: Path, name: str) -> Path:
    """Return a new empty subfolder."""
    made = folder / name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    return made


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


_IMAGES = {"a.jpg": (40, 50), "b.jpg": (30, 20), "c.png": (8, 9)}
_LABELS = {
    "categories": [{"id": i, "name": name} for i, name in CLASSES.by_id().items()],
    "attributes": [{"id": i, "name": f"attribute {i}"} for i in (28, 77)],
}


@functools.cache
def _photos(folder: Path) -> Path:
    """Write a folder of small photos with label descriptions."""
    root = emptied(folder, "photos")
    (root / "train").mkdir()
    for name, (height, width) in _IMAGES.items():
        Image.new("RGB", (width, height), (90, 120, 30)).save(root / "train" / name)
    (root / "label_descriptions.json").write_text(json.dumps(_LABELS))
    return root


def _fresh_cache(folder: Path) -> None:
    os.environ["FASHION_HYDRA_CACHE"] = str(emptied(folder, "cache"))


def check_records(annotations: Annotations) -> None:
    """Check the invariants that training relies on."""
    sizes = annotations.sizes.astype(np.int64)
    assert ((sizes >= 1).all(axis=1) & (sizes.prod(axis=1) <= MOST_PIXELS)).all()
    for image in range(len(annotations)):
        height, width = sizes[image].tolist()
        assert (annotations.folder / annotations.files[image]).resolve().is_relative_to(annotations.folder.resolve())
        for mask in annotations.instances(image):
            runs = annotations.runs_of(mask)
            check_runs(runs, (height, width))
            assert tuple(annotations.boxes[mask].tolist()) == rle.runs_to_box(runs, height=height)
            assert annotations.areas[mask] == rle.runs_area(runs) > 0
            assert int(annotations.categories[mask]) in annotations.names


def check_runs(runs: np.ndarray, size: Size) -> None:
    """Check that runs are sorted, disjoint and inside the image."""
    assert runs.dtype == np.int64
    assert (runs[:, 0] >= 0).all()
    assert (runs[:, 1] > 0).all()
    assert (runs[1:, 0] > runs[:-1].sum(axis=1)).all()
    assert not len(runs) or runs[-1].sum() <= size[0] * size[1]


@target(
    "train.csv of 2019",
    lambda: [
        lines(
            "ImageId,EncodedPixels,Height,Width,ClassId", "a.jpg,1 3 50 4,40,50,6_28_77", "b.jpg,1 600,30,20,23",
            "a.jpg,9 1,40,50,31", "c.png,,8,9,", 'a.jpg,"1 3",40,50,6', "a.jpg,3 5 1 4,40,50,6", "d.jpg,1 1,9,9,23",
        )
    ],
)  # fmt: skip
def _train_2019(data: bytes, folder: Path) -> None:
    root = _photos(folder)
    (root / "train.csv").write_bytes(data)
    _fresh_cache(folder)
    check_records(load_annotations(KaggleReader(root))[0])


@target(
    "train.csv of 2020",
    lambda: [
        lines(
            "ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds", 'a,1 3 50 4,40,50,6,"28,77"',
            "b,1 600,30,20,23,", "c,9 1,8,9,31,28", "a,2 2,40,50,6,", "a,2000 1,40,50,6,",
        )
    ],
)  # fmt: skip
def _train_2020(data: bytes, folder: Path) -> None:
    _train_2019(data, folder)


@target(
    "packed CSV",
    lambda: [zipped({"train.csv": lines("a,b", "1,2", "3,4")}), gzip.compress(lines("a,b", "1,2", "3,4"))],
    content=archive_of,
)
def _packed(data: bytes, folder: Path) -> None:
    for suffix in (".zip", ".gz"):
        path = folder / f"packed.csv{suffix}"
        path.write_bytes(data)
        try:
            with open_csv(path) as stream:
                assert all(isinstance(cell, str) for row in csv.reader(stream) for cell in row)
        except UserError:
            continue


@target("label_descriptions.json", lambda: [json.dumps(_LABELS).encode()])
def _labels(data: bytes, folder: Path) -> None:
    (folder / "label_descriptions.json").write_bytes(data)
    names, attributes = read_labels(folder)
    assert all(isinstance(i, int) and isinstance(name, str) for i, name in names.items())
    assert attributes is None or all(isinstance(i, int) for i in attributes)


_SUBMISSION = lines(
    "ImageId,EncodedPixels,ClassId", "a.jpg,1 3 600 40,6", "a.jpg,9000 512,6_28", "a.jpg,100000 5,23", "b.jpg,,23"
)


@target(
    "submission",
    lambda: [
        _SUBMISSION,
        lines("ImageId,EncodedPixels,Height,Width,ClassId", "a,1 3,4,5,6", "b,9 900,900,20,6_9"),
        lines("ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds", 'a,1 3,4,5,6,"3,1"', "b,,,,,"),
    ],
)
def _submission(data: bytes, folder: Path) -> None:
    path, again = folder / "submission.csv", folder / "again.csv"
    path.write_bytes(data)
    masks = read_masks(path)
    write_submission(again, {i: [(c, m) for c, all_of in by.items() for m in all_of] for i, by in masks.items()})
    assert read_masks(again) == masks
    found_kinds = {fault.kind for fault in find_breaches(again)}
    assert found_kinds <= {"shared-pixels", "duplicate-mask", "bad-class", "unknown-class", "unsorted-attributes",
                    "image-named-twice", "no-rows"}, found_kinds  # fmt: skip
    _check_masks(masks)


def _check_masks(masks: MaskTable) -> None:
    for by_class in masks.values():
        for mask in (mask for of_class in by_class.values() for mask in of_class):
            runs = rle.coco_to_runs(mask)
            check_runs(runs, (512, 512))
            assert len(runs) > 0
            assert coco_mask.area(mask) == rle.runs_area(runs)


@target("submit-check", lambda: [_SUBMISSION, lines("ImageId,EncodedPixels,ClassId", "a.jpg,1 2,6", "b.jpg,,23")])
def _inspect(data: bytes, folder: Path) -> None:
    path, sample = folder / "submission.csv", folder / "sample.csv"
    path.write_bytes(data)
    sample.write_bytes(lines("ImageId,EncodedPixels,ClassId", "a.jpg,1 1,23", "b.jpg,,23"))
    found = find_breaches(path, sample)
    assert all(len(fault.value) <= 200 for fault in found)
    if not found:
        _check_masks(read_masks(path))


@target("sample_submission.csv", lambda: [lines("ImageId,EncodedPixels,ClassId", "a.jpg,,23", "b,,23", "../x,,23")])
def _sample(data: bytes, folder: Path) -> None:
    from fashion_hydra.data.dataset import PredictDataset
    from fashion_hydra.data.image_list import list_folder

    root = _photos(folder)
    if not (root / "test").is_dir():
        shutil.copytree(root / "train", root / "test")
    (root / "sample_submission.csv").write_bytes(data)
    image_list = list_folder(root)
    json.dumps(image_list.file_sizes())
    dataset = PredictDataset(image_list, [(16, 16)])
    for i in range(min(len(dataset), 5)):
        sample = dataset[i]
        assert sample.fault or sample.images[0].shape[0] == 3


@target("split.csv", lambda: [lines("ImageId,fold", "a.jpg,0", "b.jpg,1", "c.png,")])
def _split(data: bytes, folder: Path) -> None:
    (folder / "split.csv").write_bytes(data)
    found = read_split(folder / "split.csv", list(_IMAGES), left_out=frozenset({"d.jpg"}))
    assert (found.shape, found.dtype) == ((3,), np.int64)
    assert (found >= -1).all()


def _coco_seed() -> list[bytes]:
    images = [{"id": i, "file_name": n, "height": h, "width": w} for i, (n, (h, w)) in enumerate(_IMAGES.items())]
    segmentations = [
        [[1, 1, 9, 1, 9.5, 9, 1, 9]],
        {"size": [30, 20], "counts": [5, 9, 3, 583]},
        {"size": [8, 9], "counts": rle.runs_to_coco(np.array([[3, 4], [20, 9]]), height=8, width=9)["counts"].decode()},  # type: ignore[union-attr]
    ]
    annotations = [
        {"id": 9 + i, "image_id": i, "category_id": 6, "segmentation": s, "iscrowd": 0, "attribute_ids": [28]}
        for i, s in enumerate(segmentations)
    ]
    return [json.dumps({"images": images, "annotations": annotations, "categories": _LABELS["categories"]}).encode()]


@target("COCO JSON", _coco_seed)
def _coco(data: bytes, folder: Path) -> None:
    root = _photos(folder)
    (root / "coco.json").write_bytes(data)
    _fresh_cache(folder)
    check_records(load_annotations(CocoReader(root, "coco.json"))[0])


@target(
    "COCO segmentation",
    lambda: [json.dumps(a["segmentation"]).encode() for a in json.loads(_coco_seed()[0])["annotations"]],
)
def _segmentation(data: bytes, folder: Path) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    height, width = SMALL
    try:
        runs = read_segmentation(value, height=height, width=width).runs
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError):
        return  # the reader's caller reports these as a fault
    check_runs(runs, SMALL)
    if isinstance(value, list):
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(value, height, width)))
        assert (drawn == rle.runs_to_bitmap(runs, height=height, width=width)).all()


@target("run-lengths of Kaggle", lambda: [b"1 3 10 5", b"2000 1", b"5 5 1 9 7 1", b"0 1", b"1"])
def _kaggle_runs(data: bytes, folder: Path) -> None:
    height, width = SMALL
    raw = rle.kaggle_to_runs(data.decode("latin-1"))
    drawn = np.zeros(height * width, np.uint8)
    rle.check_runs_inside(raw, height=height, width=width)
    for start, length in raw.tolist():
        drawn[start : start + length] = 1
    runs = normalise_runs(raw)
    _check_same(runs, drawn.reshape(width, height).T)


def _check_same(runs: np.ndarray, bitmap: np.ndarray) -> None:
    """Check that all forms of a mask equal the bitmap."""
    height, width = bitmap.shape
    check_runs(runs, (height, width))
    encoded = rle.runs_to_coco(runs, height=height, width=width)
    assert encoded["counts"] == coco_mask.encode(np.asfortranarray(bitmap))["counts"]
    assert (coco_mask.decode(encoded) == bitmap).all()
    assert (rle.runs_to_bitmap(runs, height=height, width=width) == bitmap).all()
    for again in (
        rle.coco_to_runs(encoded),
        rle.bitmap_to_runs(bitmap),
        rle.kaggle_to_runs(rle.runs_to_kaggle(runs)),
        rle.resize_runs(runs, height=height, width=width, new_height=height, new_width=width),
    ):
        assert np.array_equal(again, runs)
    box = rle.runs_to_box(runs, height=height)
    assert (rle.runs_to_crop(runs, height=height, box=box) == bitmap[box[1] : box[3], box[0] : box[2]]).all()
    smaller = rle.resize_runs(runs, height=height, width=width, new_height=7, new_width=90)
    check_runs(smaller, (7, 90))


def _counts_seeds() -> list[bytes]:
    bitmaps = [np.eye(*SMALL, dtype=np.uint8), np.ones(SMALL, np.uint8), np.zeros(SMALL, np.uint8)]
    return [coco_mask.encode(np.asfortranarray(bitmap))["counts"] for bitmap in bitmaps]


@target("run-lengths of COCO", _counts_seeds)
def _coco_runs(data: bytes, folder: Path) -> None:
    height, width = SMALL
    encoded: rle.CocoRLE = {"size": [height, width], "counts": data}
    runs = rle.coco_to_runs(encoded)  # pycocotools does not validate its input
    check_runs(runs, SMALL)
    if b"\0" not in data and data:
        drawn = coco_mask.decode(encoded) if _adds_up(data) else rle.runs_to_bitmap(runs, height=height, width=width)
        _check_same(runs, drawn)


def _adds_up(counts: bytes) -> bool:
    """Return whether pycocotools would fill exactly the whole bitmap."""
    numbers: list[int] = []
    value = shift = 0
    for code in (c - 48 for c in counts):
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) * bool(code & 16)
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    return sum(numbers) == SMALL[0] * SMALL[1]


@functools.cache
def _pictures() -> list[bytes]:
    """Return small pictures of every kind."""
    made = []
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (12, 17, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[str, str, dict]] = [
        ("RGB", "JPEG", {"exif": exif}), ("RGB", "JPEG", {"progressive": True}), ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("P", "PNG", {}), ("I;16", "PNG", {}), ("1", "PNG", {}),
        ("RGB", "TIFF", {}), ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("L", "TIFF", {"compression": "jpeg"}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("P", "GIF", {}), ("RGB", "BMP", {}),
        ("RGB", "PPM", {}), ("RGB", "JPEG2000", {}),
    ]  # fmt: skip
    for mode, kind, options in kinds:
        stream = io.BytesIO()
        source = pixels.convert("L").convert("I;16") if mode == "I;16" else pixels.convert(mode)
        source.save(stream, kind, **options)
        made.append(stream.getvalue())
    return made


@target("pictures", _pictures, content=file_of)
def _picture(data: bytes, folder: Path) -> None:
    root = folder / "pictures"
    root.mkdir(exist_ok=True)
    (root / "a.jpg").write_bytes(data)
    facts = examine(root, "a.jpg", decode=True)
    assert facts == examine(root, "a.jpg", decode=True)
    if facts.fault:
        assert facts.fault in ("unreadable-image", "cut-short-image", "too-large-image")
        return
    size = (facts.height, facts.width)
    turned = size[::-1] if facts.orientation in (5, 6, 7, 8) else size
    pixels = read_pixels(root / "a.jpg", size=turned, orientation=facts.orientation)
    assert (pixels.shape, pixels.dtype) == ((*turned, 3), np.uint8)


@target("memory of images", lambda: [lines("a.jpg,10,11,40,50,1,,,True", "b.jpg,1,1,0,0,1,missing-image,b,False")])
def _memory(data: bytes, folder: Path) -> None:
    root, path = _photos(folder), folder / "memory.csv"
    path.write_bytes(data)
    memory = ImageMemory(path, root / "train")
    for facts, (height, width) in zip(memory.examine_all(list(_IMAGES), decode=False), _IMAGES.values(), strict=True):
        assert (facts.height, facts.width) == (height, width)


def _record_seeds(folder: Path) -> Path:
    root = _photos(folder)
    (root / "train.csv").write_bytes(TARGETS["train.csv of 2019"].seeds()[0])
    _fresh_cache(folder)
    kept = emptied(folder, "kept")
    shutil.copytree(load_annotations(KaggleReader(root))[0].source or Path(), kept, dirs_exist_ok=True)
    return kept


_kept_records = functools.cache(_record_seeds)


@target("records", lambda: [b"\0\0" + bytes(6)])
def _annotations(data: bytes, folder: Path) -> None:
    """Read annotations after editing one of their files: the first byte selects the file, the rest are edits."""
    from tests.fuzz.patches import edited

    kept, damaged = _kept_records(folder), emptied(folder, "damaged")
    shutil.copytree(kept, damaged, dirs_exist_ok=True)
    files = sorted(path.name for path in kept.iterdir() if path.suffix == ".npy" or path.name == "records.json")
    path = damaged / files[(data or b"\0")[0] % len(files)]
    path.write_bytes(edited(path.read_bytes(), data[1:]))
    annotations = open_annotations(damaged)
    assert len(annotations) == len(annotations.files) == len(annotations.sizes)
