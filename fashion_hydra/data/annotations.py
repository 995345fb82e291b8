"""Images and their masks as flat arrays on disk, the common output of all annotation readers."""

import csv
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from fashion_hydra.formats.class_id import category_of
from fashion_hydra.structures import rle
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write
from fashion_hydra.utils.limits import MOST_FAULTS, MOST_MASKS

_CHUNK = 1 << 20  # runs to write at a time


@dataclass(frozen=True)
class DataFault:
    """A fault in the data, or a remark on the data.

    Args:
        kind: short name, such as `missing-image`.
        image_id: image id as in the annotations; empty if the fault concerns no single image.
        place: place in the annotations: `row 5` of a CSV, where the header is row 1; `annotation id 7` of a COCO file;
            `a.txt line 2`; empty if the fault concerns a whole image or data set.
        value: the faulty value.
        action: how the fault is handled.
    """

    kind: str
    image_id: str
    place: str
    value: str
    action: str

    def __str__(self) -> str:
        """Return the fault in one line, as in the list of `fashion-hydra check`."""
        where = " ".join(filter(None, (self.image_id, self.place)))
        return ": ".join(filter(None, (self.kind, where, f"{self.value} -> {self.action}")))

    @property
    def is_remark(self) -> bool:
        """Whether the data may be correct: reported, but `data.on_fault=error` does not stop for it."""
        return self.kind in REMARKS


REMARKS = frozenset(
    {
        "image-without-rows",  # an image file without annotations
        "crowd-region",
        "part-left-out",
        "outside-picture",
        "box-disagrees",
        "image-listed-twice",
        "annotation-id-twice",
        "found-by-name",
    }
)
"""Kinds of `DataFault` that are remarks."""


def describe_faults(faults: Sequence[DataFault]) -> str:
    """Count the faults and remarks of each kind, in one line of text."""
    if not faults:
        return "no faults"
    kinds = Counter((fault.is_remark, fault.kind) for fault in faults)
    counted = [f"{count} {kind}" for (_, kind), count in sorted(kinds.items(), key=lambda k: (k[0][0], -k[1]))]
    return f"left out or noted: {', '.join(counted)} (fashion-hydra check lists them)"


def refuse_too_many(faults: Sequence[DataFault], path: Path) -> None:
    """Raise `UserError` if a file has more than `MOST_FAULTS` faults."""
    if len(faults) > MOST_FAULTS:
        raise UserError(f"{path}: more than {MOST_FAULTS} faults, the first {faults[0].kind}. Give another file")


def write_faults(path: Path, faults: Sequence[DataFault]) -> None:
    """Write faults to a CSV. Characters that UTF-8 cannot encode are written as escapes."""
    rows = (map(str, astuple(fault)) for fault in faults)
    with atomic_write(path) as stream:
        writer = csv.writer(stream)
        writer.writerow([f.name for f in fields(DataFault)])
        writer.writerows([value.encode(errors="backslashreplace").decode() for value in row] for row in rows)


def read_faults(path: Path) -> list[DataFault]:
    """Read a CSV that `write_faults` wrote."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    return [DataFault(kind, image_id, place, value, action) for kind, image_id, place, value, action in rows]


@dataclass(frozen=True)
class Annotations:
    """Images and their masks as flat arrays, mapped from files and shared by workers without copies.

    Args:
        folder: folder of the image files.
        image_ids: (I,), image ids as in the annotations.
        files: (I,), file paths below `folder`.
        sizes: int32 (I, 2), height and width of the frame in which the masks are drawn.
        orientation: uint8 (I,), EXIF orientation code that turns the file's pixels to that frame; 1 for none.
        first: int64 (I + 1,), masks of image i are `first[i]:first[i + 1]`.
        coco_ids: (I,), image ids of the COCO file as JSON text, such as `5` or `"a"`; 1, 2, ... for other formats.
        subsets: (I,), subset that the data set assigns to the image: train, val, test, or empty.
        class_ids: (M,), ClassId strings with attributes, such as `6_28_77`.
        annotation_ids: int64 (M,), mask ids of the COCO file; 1, 2, ... for other formats.
        categories: int32 (M,), category ids.
        boxes: int32 (M, 4), `(x0, y0, x1, y1)`, half-open.
        areas: int64 (M,), areas in pixels.
        listed_areas: float64 (M,), areas listed in the COCO file, whose AP uses them as sizes; else equal to `areas`.
        run_first: int64 (M + 1,), runs of mask m are `run_first[m]:run_first[m + 1]`.
        runs: int32 (R, 2), 0-indexed start and length, column-major.
        crowd_first: int64 (I + 1,), crowd regions of image i are `crowd_first[i]:crowd_first[i + 1]`. A crowd region
            has an unknown number of objects (COCO's `iscrowd`) and is not one of the M masks: it is not trained on,
            and AP ignores detections on it.
        crowd_categories: int32 (K,), category ids.
        crowd_ids: int64 (K,), crowd region ids of the COCO file.
        crowd_run_first: int64 (K + 1,), like `run_first`.
        crowd_runs: int32 (S, 2), like `runs`.
        names: category id -> name.
        source: folder that the arrays are mapped from.
    """

    folder: Path
    image_ids: np.ndarray
    files: np.ndarray
    sizes: np.ndarray
    orientation: np.ndarray
    first: np.ndarray
    coco_ids: np.ndarray
    subsets: np.ndarray
    class_ids: np.ndarray
    annotation_ids: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    listed_areas: np.ndarray
    run_first: np.ndarray
    runs: np.ndarray
    crowd_first: np.ndarray
    crowd_categories: np.ndarray
    crowd_ids: np.ndarray
    crowd_run_first: np.ndarray
    crowd_runs: np.ndarray
    names: Mapping[int, str]
    source: Path | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    def instances(self, image: int) -> range:
        """Return the indices of an image's masks."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def crowds(self, image: int) -> range:
        """Return the indices of an image's crowd regions."""
        return range(int(self.crowd_first[image]), int(self.crowd_first[image + 1]))

    def crowd_runs_of(self, crowd: int) -> np.ndarray:
        """Return the runs of a crowd region: int64 (K, 2)."""
        return self.crowd_runs[self.crowd_run_first[crowd] : self.crowd_run_first[crowd + 1]].astype(np.int64)

    def runs_of(self, mask: int) -> np.ndarray:
        """Return the runs of a mask: int64 (K, 2)."""
        return self.runs[self.run_first[mask] : self.run_first[mask + 1]].astype(np.int64)

    def owners(self) -> np.ndarray:
        """Return the image index of each mask: int64 (M,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    def category_table(self) -> np.ndarray:
        """Return which categories each image has: uint8 (I, C), with columns in the order of `names`."""
        table = np.zeros((len(self), len(self.names)), dtype=np.uint8)
        column = {category: i for i, category in enumerate(self.names)}
        table[self.owners(), [column[int(c)] for c in self.categories]] = 1
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        # When mapped arrays are sent to another process, it maps the files instead of receiving a copy.
        if self.source is None:
            return Annotations, tuple(getattr(self, f.name) for f in fields(self))
        return open_annotations, (self.source,)


_ARRAYS = tuple(f.name for f in fields(Annotations) if f.type is np.ndarray)


def open_annotations(source: Path) -> Annotations:
    """Map the files that `AnnotationsBuilder.write` wrote.

    Raises:
        UserError: a file is damaged.
    """
    try:
        about = json.loads((source / "records.json").read_text(encoding="utf-8"))
        folder, names = Path(about["folder"]), {int(key): str(name) for key, name in about["names"].items()}
        arrays = {name: np.load(source / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    except Exception as error:  # NumPy raises many types for a damaged file
        raise UserError(f"{source}: damaged ({error}); delete this folder to read the data again") from error
    images, masks, crowds = (len(arrays[name]) for name in ("image_ids", "class_ids", "crowd_ids"))
    lengths = dict.fromkeys(("files", "sizes", "orientation", "coco_ids", "subsets"), images)
    lengths |= dict.fromkeys(("categories", "boxes", "areas", "listed_areas", "annotation_ids"), masks)
    lengths |= {"first": images + 1, "run_first": masks + 1, "crowd_first": images + 1}
    lengths |= {"crowd_categories": crowds, "crowd_run_first": crowds + 1}
    ends = {"first": masks, "crowd_first": crowds}
    ends |= {"run_first": len(arrays["runs"]), "crowd_run_first": len(arrays["crowd_runs"])}
    wrong = [name for name, length in lengths.items() if len(arrays[name]) != length]
    if wrong or any(arrays[name][-1] != end for name, end in ends.items()):
        raise UserError(f"{source}: damaged ({(wrong or ['runs'])[0]}); delete this folder to read the data again")
    return Annotations(folder=folder, names=names, source=source, **arrays)


class AnnotationsBuilder:
    """Builder that takes images and masks in any order and writes them grouped by image, with the runs kept on disk.

    Args:
        folder: folder of the image files.
        names: category id -> name.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self.folder, self.names = folder, names
        self.image_ids: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self._index: dict[str, int] = {}
        self._coco_ids: list[str] = []
        self._subsets: list[str] = []
        self._class_codes: dict[str, int] = {}
        self._owners, self._codes, self._counts, self._ids = array("i"), array("i"), array("q"), array("q")
        self._areas = array("d")
        self._masks = Counter[int]()
        self._crowds: list[tuple[int, int, int, np.ndarray]] = []
        self._spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the builder

    def image(
        self, image_id: str, size: tuple[int, int], *, coco_id: str | None = None, subset: str = ""
    ) -> tuple[int, int]:
        """Add an image unless it was added before, and return the size with which it was first added.

        Args:
            image_id: id of the image.
            size: height and width.
            coco_id: id in the COCO file as JSON text; None to number the image.
            subset: train, val or test if the data set assigns one.
        """
        index = self._index.setdefault(image_id, len(self.image_ids))
        if index == len(self.image_ids):
            self.image_ids.append(image_id)
            self.sizes.append(size)
            self._coco_ids.append(str(index + 1) if coco_id is None else coco_id)
            self._subsets.append(subset)
        return self.sizes[index]

    def add_crowd(self, image_id: str, category: int, runs: np.ndarray, *, annotation_id: int) -> None:
        """Add a crowd region of an added image, see `Annotations`."""
        self._crowds.append((self._index[image_id], category, annotation_id, np.asarray(runs, dtype=np.int32)))

    def add(
        self,
        image_id: str,
        class_id: str,
        runs: np.ndarray,
        *,
        annotation_id: int | None = None,
        area: float | None = None,
    ) -> bool:
        """Add a mask of an added image; return False if the image already has `MOST_MASKS` masks.

        Args:
            image_id: id of the image.
            class_id: category, with attributes.
            runs: int (K, 2), K > 0, normalised and inside the image.
            annotation_id: id in the COCO file; None to number the mask.
            area: area listed in the file; None for the number of pixels.
        """
        owner = self._index[image_id]
        if self._masks[owner] >= MOST_MASKS:
            return False
        self._masks[owner] += 1
        self._owners.append(owner)
        self._codes.append(self._class_codes.setdefault(class_id, len(self._class_codes)))
        self._counts.append(len(runs))
        self._ids.append(len(self._counts) if annotation_id is None else annotation_id)
        self._areas.append(np.nan if area is None else area)
        self._spool.write(np.ascontiguousarray(runs, dtype=np.int32).tobytes())
        return True

    def write(self, target: Path, *, keep: np.ndarray, files: list[str], orientation: np.ndarray) -> None:
        """Write the records into an empty folder.

        Args:
            target: output folder, to be read with `open_annotations`.
            keep: bool (I,), which images to keep, in the order in which they were added.
            files: (I,), file paths below the image folder.
            orientation: (I,), EXIF orientation codes, see `Annotations`.
        """
        owners, codes, counts = (np.array(a, dtype=np.int64) for a in (self._owners, self._codes, self._counts))
        order = np.argsort(owners, kind="stable")
        order = order[keep[owners[order]]]
        kept = np.flatnonzero(keep)
        sizes = np.array(self.sizes, dtype=np.int32).reshape(-1, 2)
        class_table = np.array(list(self._class_codes), dtype=str)
        class_ids = class_table[codes[order]] if len(order) else np.zeros(0, "U1")
        run_first = np.cumsum(np.append(0, counts[order]))
        listed = np.array(self._areas, dtype=np.float64)[order]
        boxes, areas = self._write_runs(target / "runs.npy", order, counts, run_first, sizes[owners[order], 0])
        arrays = {
            "image_ids": np.array([self.image_ids[i] for i in kept], dtype=str),
            "files": np.array([files[i] for i in kept], dtype=str),
            "sizes": sizes[kept],
            "orientation": np.asarray(orientation, dtype=np.uint8)[kept],
            "coco_ids": np.array([self._coco_ids[i] for i in kept], dtype=str),
            "subsets": np.array([self._subsets[i] for i in kept], dtype=str),
            "first": np.cumsum(np.append(0, np.bincount(owners[order], minlength=len(keep))[kept])),
            "class_ids": class_ids,
            "categories": np.array([category_of(c) for c in class_table], np.int32)[codes[order]],
            "boxes": boxes,
            "areas": areas,
            "listed_areas": np.where(np.isnan(listed), areas, listed),
            "run_first": run_first,
            "annotation_ids": np.array(self._ids, dtype=np.int64)[order],
            **self._crowd_arrays(keep),
        }
        for name, values in arrays.items():
            np.save(target / f"{name}.npy", values)
        about = {"folder": str(self.folder.absolute()), "names": self.names}
        (target / "records.json").write_text(json.dumps(about), encoding="utf-8")

    def _crowd_arrays(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of crowd regions, grouped by image."""
        crowds = sorted((c for c in self._crowds if keep[c[0]]), key=lambda c: c[0])
        per_image = np.bincount([owner for owner, *_ in crowds], minlength=len(keep))[keep]
        runs = [runs for *_, runs in crowds]
        return {
            "crowd_first": np.cumsum(np.append(0, per_image)),
            "crowd_categories": np.array([category for _, category, *_ in crowds], dtype=np.int32),
            "crowd_ids": np.array([number for _, _, number, _ in crowds], dtype=np.int64),
            "crowd_run_first": np.cumsum([0, *map(len, runs)]),
            "crowd_runs": np.concatenate([np.zeros((0, 2), np.int32), *runs]),
        }

    def _write_runs(
        self, path: Path, order: np.ndarray, counts: np.ndarray, run_first: np.ndarray, heights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write the runs in `order`, some masks at a time, and return the boxes and areas of the masks."""
        boxes, areas = np.zeros((len(order), 4), np.int32), np.zeros(len(order), np.int64)
        begins = np.cumsum(np.append(0, counts))[order]
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int32)), "fortran_order": False}
        with path.open("wb") as target:
            np.lib.format.write_array_header_1_0(target, {**header, "shape": (int(run_first[-1]), 2)})
            start = 0
            while start < len(order):
                stop = max(start + 1, int(np.searchsorted(run_first, run_first[start] + _CHUNK, side="right")) - 1)
                lengths = counts[order[start:stop]]
                runs = np.concatenate([self._spooled(*span) for span in _spans(begins[start:stop], lengths)])
                target.write(runs.tobytes())
                first = run_first[start : stop + 1] - run_first[start]
                boxes[start:stop], areas[start:stop] = rle.measure(runs.astype(np.int64), first, heights[start:stop])
                start = stop
        return boxes, areas

    def _spooled(self, begin: int, count: int) -> np.ndarray:
        """Read `count` runs from the spool, starting at run `begin`: int32 (count, 2)."""
        self._spool.seek(begin * 8)
        return np.frombuffer(self._spool.read(count * 8), dtype=np.int32).reshape(-1, 2)


def _spans(begins: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Join adjacent pieces; yield (begin, length) of each stretch without a gap."""
    last = np.flatnonzero(np.append(begins[1:] != begins[:-1] + lengths[:-1], True))
    first = np.append(0, last[:-1] + 1)
    for i, j in zip(first.tolist(), last.tolist(), strict=True):
        yield int(begins[i]), int(begins[j] + lengths[j] - begins[i])
