"""Convert a CSV of run-lengths to classes, boxes and areas: directly from the runs, or by decoding every mask.

The rival works like most competition notebooks: it fills an array of the image's size and looks for nonzero pixels.
Rows come from real photos if FASHION_HYDRA_PHOTOS names a folder of photos, otherwise from drawn photos enlarged
tenfold.
"""

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._measure import interleaved, tell
from fashion_hydra.data.annotations import AnnotationsBuilder, open_annotations
from fashion_hydra.data.kaggle import KaggleReader
from fashion_hydra.structures import rle
from fashion_hydra.wardrobe import write_wardrobe

PHOTOS = Path(os.environ.get("FASHION_HYDRA_PHOTOS", "no such folder"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of real photos, or of drawn ones."""
    if PHOTOS.is_dir():
        with (PHOTOS / "train_2019_schema.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))
    write_wardrobe(folder / "wardrobe", train=12, test=2, size=256, seed=0)
    with (folder / "wardrobe" / "train.csv").open(newline="") as stream:
        return [enlarged(row) for row in csv.DictReader(stream)]


def enlarged(row: dict[str, str], times: int = 10) -> dict[str, str]:
    """Return the row of the image enlarged `times` in height and width."""
    height, width = int(row["Height"]), int(row["Width"])
    runs = rle.normalise_runs(rle.kaggle_to_runs(row["EncodedPixels"]))
    big = rle.resize_runs(runs, height=height, width=width, new_height=height * times, new_width=width * times)
    return {**row, "EncodedPixels": rle.runs_to_kaggle(big), "Height": height * times, "Width": width * times}


def repeated(folder: Path, rows: list[dict[str, str]], times: int) -> Path:
    """Write a folder whose CSV repeats the rows `times`, each time with different image ids."""
    root = folder / "repeated"
    (root / "train").mkdir(parents=True)
    (root / "label_descriptions.json").write_text(
        json.dumps({"categories": [{"id": i, "name": f"category {i}"} for i in range(46)]})
    )
    with (root / "train.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "ImageId": f"{i}-{row['ImageId']}"} for i in range(times) for row in rows)
    return root


def from_runs(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Run ours: write and map everything that training needs, except image files."""
    source = KaggleReader(root)
    builder = AnnotationsBuilder(source.folder, source.categories())
    source.scan(builder, [])
    count = len(builder.image_ids)
    with tempfile.TemporaryDirectory() as made:
        builder.write(Path(made), keep=np.ones(count, bool), files=builder.image_ids, orientation=np.ones(count))
        annotations = open_annotations(Path(made))
        return np.array(annotations.boxes), np.array(annotations.areas)


def by_decoding(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Run the rival, which computes only boxes and areas."""
    boxes, areas = [], []
    with (root / "train.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            height, width = int(row["Height"]), int(row["Width"])
            numbers = np.array(row["EncodedPixels"].split(), dtype=np.int64)
            flat = np.zeros(height * width, dtype=np.uint8)
            for start, length in zip(numbers[::2] - 1, numbers[1::2], strict=True):
                flat[start : start + length] = 1
            mask = flat.reshape(height, width, order="F")
            ys, xs = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
            boxes.append((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))
            areas.append(mask.sum())
    return np.array(boxes), np.array(areas)


def main() -> None:
    """Check that both sides agree, then time them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="number of repetitions of the rows")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(Path(folder))
        root = repeated(Path(folder), rows, args.times)
        for a, b in zip(from_runs(root), by_decoding(root), strict=True):
            assert (a == b).all()
        rivals = {"from the runs (ours)": lambda: from_runs(root), "by decoding each mask": lambda: by_decoding(root)}
        seconds = interleaved(rivals, rounds=args.rounds)
    total = len(rows) * args.times
    print(f"{total} masks of {args.times} x {len({r['ImageId'] for r in rows})} images; boxes and areas are equal")
    tell("CSV -> annotations, per mask", seconds, ours="from the runs (ours)", per=total)


if __name__ == "__main__":
    main()
