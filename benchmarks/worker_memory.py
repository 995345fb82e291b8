"""Measure the memory of four loader processes before and after an epoch's worth of reads from a large index.

The index is synthetic, with as many images and masks as iMaterialist. Each worker reads the boxes, classes and runs of
its images and crops their masks; no image files are needed. Before the first measurement each worker maps the whole
index, so any growth is memory that the worker copies. The rival keeps one Python object per mask: reference counting
writes to the objects' pages, so each worker ends up with a copy.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fashion_hydra.data.annotations import Annotations, AnnotationsBuilder, open_annotations
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.frame import Frame
from fashion_hydra.data.targets import make_targets

SIZE = (1536, 1024)


def make_index(folder: Path, images: int, masks: int) -> Annotations:
    """Write records with the given numbers of images and masks; masks are ellipses of various sizes."""
    rng = np.random.default_rng(0)
    builder = AnnotationsBuilder(folder, {i: f"category {i}" for i in range(46)})
    owners = np.sort(rng.integers(0, images, masks))
    names = [f"{rng.integers(2**63):016x}{rng.integers(2**63):016x}.jpg" for _ in range(images)]
    for name in names:
        builder.image(name, SIZE)
    for owner in tqdm(owners.tolist(), desc="making the index", unit=" masks", disable=None):
        runs = ellipse(rng)
        category = int(rng.integers(0, 46))
        builder.add(names[owner], f"{category}_{rng.integers(0, 92)}" if category < 13 else str(category), runs)
    target = folder / "records"
    target.mkdir()
    builder.write(target, keep=np.ones(images, bool), files=names, orientation=np.ones(images))
    return open_annotations(target)


def ellipse(rng: np.random.Generator) -> np.ndarray:
    """Return the runs (0-based starts) of a random ellipse in an image of `SIZE`: int64 (R, 2)."""
    height, width = (int(edge * rng.uniform(0.02, 0.5)) for edge in SIZE)
    top, left = (int(rng.integers(0, edge - used)) for edge, used in zip(SIZE, (height, width), strict=True))
    x = np.arange(width)
    lengths = np.maximum(1, height * np.sqrt(1 - ((x + 0.5) / width * 2 - 1) ** 2)).astype(np.int64)
    return np.stack([(left + x) * SIZE[0] + top + (height - lengths) // 2, lengths], axis=1)


def memory() -> dict[str, float]:
    """Return this process's memory in MiB: private, proportional share (shared pages divided), and resident."""
    found: dict[str, float] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        found[name[:-1]] = int(value) / 1024
    private = found["Private_Clean"] + found["Private_Dirty"]
    return {"private": private, "proportional": found["Pss"], "resident": found["Rss"]}


def read_records(annotations: Annotations, images: np.ndarray) -> None:
    """Run ours: crop the masks of some images."""
    classes = ClassSet(tuple(range(46)), tuple(map(str, range(46))))
    for image in images.tolist():
        size = (int(annotations.sizes[image, 0]), int(annotations.sizes[image, 1]))
        make_targets(annotations, annotations.instances(image), classes, Frame(size, (384, 256), flip=bool(image % 2)))


def as_objects(annotations: Annotations) -> list[list[dict[str, Any]]]:
    """Convert the index for the rival: one list of dicts per image, as in many data sets."""
    bar = tqdm(range(len(annotations)), desc="making objects", unit=" images", disable=None)
    return [
        [
            {
                "class_id": str(annotations.class_ids[mask]),
                "bbox": annotations.boxes[mask].tolist(),
                "segmentation": {"size": list(SIZE), "counts": annotations.runs_of(mask).tobytes()},
            }
            for mask in annotations.instances(image)
        ]
        for image in bar
    ]


def read_objects(objects: list[list[dict[str, Any]]], images: np.ndarray) -> None:
    """Run the rival: read every field of every mask of some images."""
    for image in images.tolist():
        for one in objects[image]:
            runs = np.frombuffer(one["segmentation"]["counts"], dtype=np.int64)
            assert len(one["class_id"]) and sum(one["bbox"]) and len(runs)


def work(index: Any, read: Callable[[Any, np.ndarray], None], share: tuple[int, int], pipe: Connection) -> None:
    """Run one worker: map the index, wait, measure, read the worker's share, measure again."""
    if isinstance(index, Annotations):
        for name in ("runs", "run_first", "boxes", "areas", "class_ids", "categories", "first", "sizes"):
            np.asarray(getattr(index, name)).view(np.uint8).max()
    chosen = np.random.default_rng(share[0]).permutation(len(index))[share[0] :: share[1]]
    read(index, chosen[:50])
    pipe.send(None)
    pipe.recv()
    before = memory()
    pipe.send(None)
    pipe.recv()
    read(index, chosen)
    pipe.send(None)
    pipe.recv()
    pipe.send((before, memory()))


def measure(name: str, index: Any, read: Callable[[Any, np.ndarray], None], workers: int) -> None:
    """Run the workers in parallel and print their memory."""
    context = multiprocessing.get_context("fork")  # as the DataLoader does on Linux
    pipes, processes = [], []
    for number in range(workers):
        mine, its = context.Pipe()
        process = context.Process(target=work, args=(index, read, (number, workers), its))
        process.start()
        pipes.append(mine)
        processes.append(process)
    for _ in range(3):  # wait until all workers have warmed up, measured, and read everything
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send(None)
    reports = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    print(f"{name}, sum of {workers} workers")
    for kind in ("private", "proportional", "resident"):
        before, after = (sum(report[i][kind] for report in reports) for i in (0, 1))
        print(f"  {kind:13} before {before:8.1f} MiB   after {after:8.1f} MiB   {after / before - 1:+.1%}")


def main() -> None:
    """Make the index, and measure ours and the rival."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=45_600)
    parser.add_argument("--masks", type=int, default=333_000)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        annotations = make_index(Path(folder), args.images, args.masks)
        size = sum(path.stat().st_size for path in Path(folder, "records").iterdir()) / 2**20
        print(f"{args.images} images, {args.masks} masks, index of {size:.0f} MiB on disk")
        measure("mapped records (ours)", annotations, read_records, args.workers)
        measure("one Python object per mask", as_objects(annotations), read_objects, args.workers)


if __name__ == "__main__":
    main()
