"""Write a data set with one image of every kind, and measure the cost of the largest photo.

    python -m tests.faults.kinds        read, train on and predict a photo of 10,000x6,800 pixels

The expected pixels are computed here from the written pixels, independently of the package.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
LARGE = (6800, 10_000)
_EXIF_ORIENTATION = 0x0112
_STORED = {  # EXIF orientation -> transposition of the stored pixels that this orientation reverses
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


class Kind(NamedTuple):
    """An image of the data set.

    Args:
        file: file name.
        pixels: expected pixels, (H, W, 3) from 0 to 255; None if the image must be rejected.
        tolerance: maximum mean difference due to compression.
        masks: masks in Kaggle's encoding.
    """

    file: str
    pixels: np.ndarray | None
    tolerance: float
    masks: list[str]


def gradient(height: int, width: int, top: int) -> np.ndarray:
    """Return gradients, float (H, W, 3) from 0 to `top`: red falls downwards, green rightwards, blue diagonally."""
    y, x = (np.arange(n, dtype=np.float32) / max(1, n - 1) for n in (height, width))
    return top * np.dstack([np.broadcast_to(1 - y[:, None], (height, width)), np.broadcast_to(1 - x, (height, width)),
                            (y[:, None] + x) / 2])  # fmt: skip


def write_kinds(root: Path) -> list[Kind]:
    """Write the data set in Kaggle's layout, and return its images."""
    (root / "train").mkdir(parents=True)
    kinds = [kind for write in (_plain, _deep, _turned, _shaped, _refused) for kind in write(root / "train")]
    (root / "label_descriptions.json").write_text(
        json.dumps({"categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]})
    )
    with (root / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for kind in kinds:
            height, width = kind.pixels.shape[:2] if kind.pixels is not None else (HEIGHT, WIDTH)
            for number, runs in enumerate(kind.masks):
                writer.writerow([kind.file, runs, height, width, number % 2])
            if not kind.masks:
                writer.writerow([kind.file, "", height, width, ""])
    return kinds


def _left_half(height: int, width: int) -> str:
    return f"1 {height * max(1, width // 2)}"


HALF = [_left_half(HEIGHT, WIDTH)]


def _plain(folder: Path) -> Iterator[Kind]:
    """Write images with eight bits per channel, in all modes."""
    rgb = gradient(HEIGHT, WIDTH, 255).round().astype(np.uint8)
    grey, alpha = rgb[..., 0], np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    of_grey = np.repeat(grey[..., None], 3, axis=2)
    for file, made, wanted, tolerance in (
        ("grey.png", Image.fromarray(grey), of_grey, 0),
        ("grey.jpg", Image.fromarray(grey), of_grey, 1),
        ("grey_alpha.png", Image.fromarray(np.dstack([grey, alpha]), "LA"), of_grey, 0),
        ("rgba.png", Image.fromarray(np.dstack([rgb, alpha])), rgb, 0),
        ("rgba.tif", Image.fromarray(np.dstack([rgb, alpha])), rgb, 0),
        ("bits.png", Image.fromarray(grey > 99), np.where(of_grey > 99, 255, 0), 0),
    ):
        made.save(folder / file)
        yield Kind(file, wanted, tolerance, HALF)
    palette = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], dtype=np.uint8)
    index = (np.arange(HEIGHT)[:, None] // 8 + np.arange(WIDTH) // 8) % 3
    indexed = Image.fromarray(index.astype(np.uint8), "P")
    indexed.putpalette(palette.tobytes())
    for file in ("palette.png", "palette.gif", "palette.tif"):
        indexed.save(folder / file)
        yield Kind(file, palette[index], 0, HALF)
    cmyk = np.dstack([rgb, grey // 2])
    inked = (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255
    for file, tolerance in (("cmyk.jpg", 2), ("cmyk.tif", 1)):
        Image.fromarray(cmyk, "CMYK").save(folder / file)
        yield Kind(file, inked, tolerance, HALF)


def _deep(folder: Path) -> Iterator[Kind]:
    """Write images with sixteen bits per channel."""
    deep = gradient(HEIGHT, WIDTH, 65535).round().astype(np.uint16)
    for file in ("grey16.png", "grey16.tif"):
        Image.fromarray(deep[..., 0]).save(folder / file)
        yield Kind(file, np.repeat(deep[..., :1] / 257, 3, axis=2), 0.6, HALF)
    for file in ("rgb16.png", "rgb16.tif"):
        cv2.imwrite(str(folder / file), np.ascontiguousarray(deep[..., ::-1]))
        yield Kind(file, deep / 257, 0.6, HALF)


def _turned(folder: Path) -> Iterator[Kind]:
    """Write images rotated by EXIF, with masks drawn on the image as displayed."""
    seen = gradient(HEIGHT, WIDTH, 255).round().astype(np.uint8)
    for orientation, laid in _STORED.items():
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        picture = Image.fromarray(seen)
        stored = picture.transpose(laid) if laid is not None else picture
        for suffix, tolerance in (("jpg", 1), ("png", 0), ("tif", 0)):
            file = f"turned{orientation}.{suffix}"
            stored.save(folder / file, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
            yield Kind(file, seen, tolerance, HALF)


def _shaped(folder: Path) -> Iterator[Kind]:
    """Write images and objects of extreme shapes."""
    dots = [f"{1 + 30 * i} {2 + i % 25}" for i in range(74)]
    shapes = {
        "empty.png": ((HEIGHT, WIDTH), []),
        "crowd.png": ((HEIGHT, WIDTH), dots),
        "dot.png": ((HEIGHT, WIDTH), [f"{HEIGHT * 20 + 5} 1"]),
        "corners.png": ((HEIGHT, WIDTH), ["1 1", f"{HEIGHT * WIDTH} 1"]),
        "whole.png": ((HEIGHT, WIDTH), [f"1 {HEIGHT * WIDTH}"]),
        "pixel.png": ((1, 1), ["1 1"]),
        "row.png": ((1, WIDTH), [_left_half(1, WIDTH)]),
        "column.png": ((WIDTH, 1), ["1 9"]),
        "lying.png": ((10, 20_000), [_left_half(10, 20_000)]),
        "standing.png": ((20_000, 10), [_left_half(20_000, 10)]),
    }
    for file, (size, masks) in shapes.items():
        pixels = gradient(*size, 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / file)
        yield Kind(file, pixels, 0, masks)


def _refused(folder: Path) -> Iterator[Kind]:
    """Write images whose value range is unknown or whose colours cannot be converted."""
    grey = gradient(HEIGHT, WIDTH, 1)[..., 0]
    lab = Image.merge("LAB", [Image.fromarray((grey * 255).astype(np.uint8))] * 3)
    for file, made in (
        ("float.tif", Image.fromarray(grey.astype(np.float32))),
        ("int32.tif", Image.fromarray((grey * 10**6).astype(np.int32))),
        ("lab.tif", lab),
    ):
        made.save(folder / file)
        yield Kind(file, None, 0, HALF)


WRITE = "import sys, pathlib, tests.faults.kinds as kinds; kinds.write_large(pathlib.Path(sys.argv[1]))"
READ = """
import sys
from pathlib import Path
from fashion_hydra.data.dataset import read_image
from fashion_hydra.data.kaggle import read_annotations
records, faults = read_annotations(Path(sys.argv[1]))
assert not faults and read_image(records, 0).shape == ({}, {}, 3)
""".format(*LARGE)


def write_large(root: Path) -> None:
    """Write two photos of the largest size, each with a mask over its half and a mask of one pixel."""
    (root / "train").mkdir(parents=True)
    (root / "label_descriptions.json").write_text(json.dumps({"categories": [{"id": 0, "name": "a"}]}))
    height, width = LARGE
    picture = Image.fromarray(gradient(height, width, 255).astype(np.uint8))
    rows = ["ImageId,EncodedPixels,Height,Width,ClassId"]
    for name in ("a.jpg", "b.jpg"):
        picture.save(root / "train" / name, quality=90)
        rows += [f"{name},{runs},{height},{width},0" for runs in (_left_half(height, width), f"{height * 9999 + 9} 1")]
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def main() -> None:
    """Print seconds and peak memory of each step with the largest photo."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    project = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "large"
        common = ["trainer.accelerator=cpu", f"data.root={root}", "data.num_workers=0"]
        small = [
            "experiment=demo",
            "model=htc_tiny",
            "trainer=default",
            "data.folds=2",
            "schedule.epochs=1",
            "callbacks.progress.refresh_rate=0",
        ]
        steps = {
            "write": ["-c", WRITE, str(root)],
            "read": ["-c", READ, str(root)],
            "train": [str(project / "train.py"), *common, *small, f"hydra.run.dir={temporary}/run"],
            "predict": [str(project / "predict.py"), *common, f"data.root={root}/train", f"out={temporary}/out",
                        f"ensemble.run={temporary}/run", "callbacks.progress.refresh_rate=0"],
        }  # fmt: skip
        for name, words in steps.items():
            begin = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *words], cwd=temporary, env=_beside(project), stdout=subprocess.DEVNULL
            )
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{name}: failed")
            print(
                f"{name:8} {time.perf_counter() - begin:6.1f} s   {used.ru_maxrss / 1024:6.0f} MiB at most", flush=True
            )


def _beside(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project)}


if __name__ == "__main__":
    main()
