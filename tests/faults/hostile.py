"""Read files that demand too many resources in a process with little memory; report the result, time and memory.

    python -m tests.faults.hostile             all cases, a minute
    python -m tests.faults.hostile CASE ...    cases whose names contain CASE

Each file is written to a separate folder and read by a process limited to 6 GiB of address space. A row of the table
shows the result, the seconds of reading, and the memory that the process used in addition to its initial memory.
"""

import argparse
import gzip
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
ADDRESSES = 6 << 30
SECONDS = 60
CASES: dict[str, tuple[Callable[[Path], None], str]] = {}
"""Name -> (function that writes the case's files to a folder, name of their reader in `READERS`)."""


def case(name: str, reader: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def add(make: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES[name] = make, reader
        return make

    return add


def kaggle(root: Path, rows: str, *, name: str = "train.csv") -> None:
    """Write a folder in Kaggle's layout with these rows."""
    from PIL import Image

    (root / "train").mkdir()
    Image.new("RGB", (20, 10)).save(root / "train" / "a.jpg")
    (root / "label_descriptions.json").write_text(json.dumps({"categories": [{"id": 6, "name": "pants"}]}))
    (root / name).write_text(f"{HEADER}a.jpg,1 3,10,20,6\n{rows}")


def runs(count: int) -> str:
    return " ".join(f"{start} 1" for start in range(1, 2 * count, 2))


for _size in (2**31, 2**40, 10**30, -5):
    case(f"train.csv: height {_size}", "check")(lambda root, size=_size: kaggle(root, f"b.jpg,1 3,{size},20,6\n"))
case("train.csv: 60,000x60,000", "check")(lambda root: kaggle(root, "b.jpg,1 3,60000,60000,6\n"))
case("train.csv: a mask of 10^7 runs", "check")(lambda root: kaggle(root, f"a.jpg,{runs(10**7)},10,20,6\n"))
case("train.csv: a field of 300 MB", "check")(lambda root: kaggle(root, f"a.jpg,{'1 ' * 150_000_000},10,20,6\n"))
case("train.csv: a ClassId of 10^6 digits", "check")(lambda root: kaggle(root, f"a.jpg,1 3,10,20,{'9' * 10**6}\n"))
case("train.csv: 2 * 10^6 rows that are none", "check")(lambda root: kaggle(root, "x\n" * 2 * 10**6))


@case("train.csv: 4 GiB without a line's end", "check")
def _endless(root: Path) -> None:
    kaggle(root, "")
    os.truncate(root / "train.csv", 4 << 30)


@case("train.csv: names that lead out, pipes, devices", "check")
def _names(root: Path) -> None:
    names = [
        "/etc/passwd",
        "../../etc/passwd",
        "a\\..\\b.jpg",
        "x" * 5000,
        "n\0ul.jpg",
        "pipe.jpg",
        "zero.jpg",
        "folder.jpg",
    ]
    kaggle(root, "".join(f"{name},1 3,10,20,6\n" for name in names))
    os.mkfifo(root / "train" / "pipe.jpg")
    (root / "train" / "zero.jpg").symlink_to("/dev/zero")
    (root / "train" / "folder.jpg").mkdir()


@case("train.csv: a pipe", "check")
def _pipe(root: Path) -> None:
    kaggle(root, "")
    (root / "train.csv").unlink()
    os.mkfifo(root / "train.csv")


def packed(root: Path, *, zipped: bool) -> None:
    kaggle(root, "")
    (root / "train.csv").unlink()
    row, count = b"a.jpg,1 3,10,20,6\n" * 60_000, 300
    if zipped:
        with (
            zipfile.ZipFile(root / "train.csv.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("train.csv", "w", force_zip64=True) as stream,
        ):
            stream.write(HEADER.encode())
            for _ in range(count):
                stream.write(row)
    else:
        with gzip.open(root / "train.csv.gz", "wb", compresslevel=9) as stream:
            stream.write(HEADER.encode() + b"a" * 3 * 10**8)


case("train.csv.zip: 324 MB in 1.6 MB", "check")(lambda root: packed(root, zipped=True))
case("train.csv.gz: 300 MB in 0.3 MB", "check")(lambda root: packed(root, zipped=False))


def submission(root: Path, rows: str) -> None:
    (root / "submission.csv").write_text(f"ImageId,EncodedPixels,ClassId\n{rows}")


for _reader in ("submit-check", "score"):
    case(f"submission: a mask of 10^7 runs ({_reader})", _reader)(lambda root: submission(root, f"a,{runs(10**7)},6\n"))
    case(f"submission: 131,072 masks of a class ({_reader})", _reader)(
        lambda root: submission(root, "".join(f"a,{2 * i + 1} 1,6\n" for i in range(2**17 - 1)) + "a,1 1,6\n")
    )


def png(width: int, height: int, *, lines: int = 0) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes(lines * (1 + (width + 7) // 8)), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def picture(kind: str, edge: int) -> bytes:
    """Return a small picture whose header claims a size of `edge` x `edge`."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind)
    content = bytearray(stream.getvalue())
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", edge, edge)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", edge, edge)
        place = content.index(b"\x2c\0\0\0\0") + 5
        content[place : place + 4] = struct.pack("<HH", edge, edge)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", edge, edge)
    elif kind == "TIFF":
        for tag in (256, 257):
            place = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
            content[place : place + 4] = struct.pack("<I", edge)
    return bytes(content)


def webp(edge: int) -> bytes:
    """Return an animation with one frame on a canvas of `edge` x `edge` pixels."""
    size = struct.pack("<I", edge - 1)[:3] * 2
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    loops = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    small = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (16, 16)).save(small, "WEBP", lossless=True)
    frame = bytes(6) + struct.pack("<I", 15)[:3] * 2 + bytes(4) + small.getvalue()[12:]
    body = b"WEBP" + canvas + loops + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def one_image(root: Path, name: str, content: bytes, edge: int) -> None:
    kaggle(root, f"{name},1 3,{edge},{edge},6\n")
    (root / "train" / name).write_bytes(content)


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
case("PNG of 60,000x60,000", "check")(lambda root: one_image(root, "b.png", png(60_000, 60_000), 11_000))
case("PNG of 11,585x11,585, the largest allowed", "check")(
    lambda root: one_image(root, "b.png", png(11_585, 11_585, lines=11_585), 11_585)
)
case("JPEG of 65,500x65,500", "check")(lambda root: one_image(root, "b.jpg", picture("JPEG", 65_500), 11_000))
case("TIFF of 60,000x60,000", "check")(lambda root: one_image(root, "b.tif", picture("TIFF", 60_000), 11_000))
case("GIF of 60,000x60,000", "check")(lambda root: one_image(root, "b.gif", picture("GIF", 60_000), 11_000))
case("BMP of 60,000x60,000", "check")(lambda root: one_image(root, "b.bmp", picture("BMP", 60_000), 11_000))
case("WebP of 16,383x16,383", "check")(lambda root: one_image(root, "b.webp", webp(16_383), 11_000))
case("a picture that is a program (PostScript)", "check")(
    lambda root: one_image(
        root, "b.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", 9
    )
)


def coco(root: Path, segmentation: object, *, edge: object = 50, text: str | None = None) -> None:
    from PIL import Image

    Image.new("RGB", (50, 50)).save(root / "a.jpg")
    images = [{"id": 1, "file_name": "a.jpg", "height": 50, "width": 50}]
    images.append({"id": 2, "file_name": "b.jpg", "height": edge, "width": edge})
    good = {"id": 1, "image_id": 1, "category_id": 6, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    annotations = [good, {**good, "id": 2, "segmentation": segmentation}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 6, "name": "pants"}]}
    (root / "coco.json").write_text(json.dumps(content) if text is None else text)


POLYGONS = {
    "at 1e300": [1, 1, 1e300, 5, 9, 9],
    "at NaN": [1, 1, float("nan"), 5, 9, 9],
    "at -2^31": [1, 1, -(2**31), 5, 9, 9],
    "10^5 times across 130,000 pixels": [-65_000, 1, 65_000, 2] * 50_000,
}
for _name, _polygon in POLYGONS.items():
    case(f"COCO: a polygon {_name}", "coco")(lambda root, polygon=_polygon: coco(root, [polygon]))
case("COCO: a polygon of 10^7 points", "coco")(lambda root: coco(root, [[1, 1, 2, 2] * 5_000_000]))
case("COCO: an image of 10^9x10^9", "coco")(lambda root: coco(root, [[1, 1, 9, 1, 9, 9]], edge=10**9))
case("COCO: an image of infinite size", "coco")(lambda root: coco(root, [[1, 1, 9, 1, 9, 9]], edge=float("inf")))
case("COCO: 10^7 counts", "coco")(lambda root: coco(root, {"size": [50, 50], "counts": [1] * 10**7}))
case("COCO: counts beyond the image", "coco")(lambda root: coco(root, {"size": [50, 50], "counts": [5, 2**40]}))
case("COCO: counts below zero", "coco")(lambda root: coco(root, {"size": [50, 50], "counts": [5, -3, 2502]}))
case("COCO: packed counts of 64 bits", "coco")(lambda root: coco(root, {"size": [50, 50], "counts": "o" * 12 + "0"}))
case("COCO: packed counts beyond the image", "coco")(
    lambda root: coco(root, {"size": [50, 50], "counts": "PPPPPPPP1" * 3})
)
case("COCO: 10^6 brackets", "coco")(lambda root: coco(root, None, text="[" * 10**6))


def checkpoint(root: Path, **changes: object) -> None:
    import torch
    import yaml

    conf = Path(__file__).parents[2] / "conf" / "model"
    model = yaml.safe_load((conf / "htc.yaml").read_text()) | yaml.safe_load((conf / "htc_tiny.yaml").read_text())
    del model["defaults"]
    backbone = yaml.safe_load((conf / "backbone" / "resnet18_slim.yaml").read_text())
    given = {key.removeprefix("backbone_"): value for key, value in changes.items() if key.startswith("backbone_")}
    model["backbone"] = backbone | given
    model |= {key: value for key, value in changes.items() if not key.startswith("backbone_") and key != "state"}
    content = {"state_dict": changes.get("state", {"detector.x": torch.ones(1)}), "model": model}
    content |= {"classes": {"ids": [6], "names": ["pants"]}, "eval_scale": [96, 144]}
    torch.save(content, root / "evil.ckpt")


case("checkpoint: a backbone of subprocess.Popen", "checkpoint")(
    lambda root: checkpoint(root, backbone_type="subprocess.Popen")
)
case("checkpoint: 10^9 convolutions", "checkpoint")(lambda root: checkpoint(root, mask_convs=10**9))
case("checkpoint: 10^10 parameters", "checkpoint")(
    lambda root: checkpoint(root, neck_channels=9999, mask_channels=9999, fc_channels=9999)
)


@case("checkpoint: one number 10^12 times", "checkpoint")
def _expanded(root: Path) -> None:
    import torch

    checkpoint(root, state={"detector.x": torch.ones(1).expand(10**6, 10**6)})


@case("checkpoint: a part that unpacks to 512 MB", "checkpoint")
def _packed_part(root: Path) -> None:
    checkpoint(root)
    with zipfile.ZipFile(root / "evil.ckpt") as plain, zipfile.ZipFile(root / "b", "w", zipfile.ZIP_DEFLATED) as target:
        for name in plain.namelist():
            target.writestr(name, plain.read(name) + bytes(1 << 29 if name.endswith("data.pkl") else 0))
    os.replace(root / "b", root / "evil.ckpt")


@case("safetensors: a header of 2^60 bytes", "weights")
def _header(root: Path) -> None:
    (root / "evil.ckpt").write_bytes(struct.pack("<Q", 2**60) + b'{"a": 1}')


@case("candidates: an array of 10^12 numbers", "candidates")
def _declared(root: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(root / "a.npz", "w") as archive:
        for name in ("size", "boxes", "scores", "labels", "masks", "fault"):
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(64))


case("candidates: packed, 400 MB in 0.4 MB", "candidates")(
    lambda root: np.savez_compressed(root / "a.npz", size=np.zeros(5 * 10**7))
)
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
case("tuned.yaml: references that grow to 10^11 values", "tuned")(lambda root: (root / "t.yaml").write_text(LAUGHS))
case("tuned.yaml: 10^5 brackets", "tuned")(lambda root: (root / "t.yaml").write_text("a: " + "[" * 10**5))


@case("predict: names in sample_submission.csv that lead out", "predict")
def _sample(root: Path) -> None:
    (root / "test").mkdir()
    os.mkfifo(root / "test" / "pipe.jpg")
    (root / "sample_submission.csv").write_text("ImageId\n/etc/passwd\n../../etc/passwd\npipe.jpg\n" + "x" * 900 + "\n")


def _check(root: Path) -> str:
    from fashion_hydra.data.kaggle import read_annotations

    return _faults(read_annotations(root, decode=True)[1])


def _faults(found: list) -> str:
    return "; ".join(dict.fromkeys(f"{fault.kind}: {fault.value}"[:60] for fault in found)) or "no fault"


def _coco(root: Path) -> str:
    from fashion_hydra.data.annotation_cache import load_annotations
    from fashion_hydra.data.coco import CocoReader

    return _faults([f for f in load_annotations(CocoReader(root, "coco.json"))[1] if f.kind != "missing-image"])


def _submit_check(root: Path) -> str:
    from fashion_hydra.formats.submission_check import find_breaches

    found = find_breaches(root / "submission.csv")
    return f"{found[0].kind}: {found[0].value}" if found else "no fault"


def _score(root: Path) -> str:
    from fashion_hydra.evaluation.score_submission import score_files

    return str(score_files(root / "submission.csv", root / "submission.csv"))[:80]


def _checkpoint(root: Path) -> str:
    from fashion_hydra.model.checkpoint import load_member

    return str(load_member(root / "evil.ckpt"))


def _weights(root: Path) -> str:
    from fashion_hydra.model.weights.layouts import import_weights

    return str(import_weights(root / "evil.ckpt"))


def _candidates(root: Path) -> str:
    from fashion_hydra.inference.candidate_cache import CandidateCache
    from fashion_hydra.inference.manifest import Manifest

    manifest = Manifest((), (6,), ("pants",), (), (), 0.7, 9, "32", 0.05, (0.5,))
    cache = CandidateCache(root / "cache", manifest)
    cache.path("a").parent.mkdir(parents=True)
    os.replace(root / "a.npz", cache.path("a"))
    return str(cache.read("a"))


def _tuned(root: Path) -> str:
    from fashion_hydra.postprocess.rule_files import read_tuned

    return str(read_tuned(root / "t.yaml"))


def _predict(root: Path) -> str:
    from fashion_hydra.data.dataset import PredictDataset
    from fashion_hydra.data.image_list import list_folder

    image_list = list_folder(root)
    image_list.file_sizes()
    dataset = PredictDataset(image_list, [(10, 20)])
    return "; ".join(dataset[i].fault.partition(":")[0] for i in range(len(dataset)))


READERS: dict[str, Callable[[Path], str]] = {
    "check": _check,
    "coco": _coco,
    "submit-check": _submit_check,
    "score": _score,
    "checkpoint": _checkpoint,
    "weights": _weights,
    "candidates": _candidates,
    "tuned": _tuned,
    "predict": _predict,
}
_HEAVY = ("checkpoint", "weights", "candidates", "predict")


def read(name: str, folder: Path) -> None:
    """Read a case's files, in a separate process, and print result, seconds and MiB."""
    import fashion_hydra.data.coco
    import fashion_hydra.formats.submission_check
    import fashion_hydra.postprocess.rule_files
    from fashion_hydra.utils.errors import UserError

    reader = CASES[name][1]
    if reader in _HEAVY:
        import fashion_hydra.data.image_list
        import fashion_hydra.inference.candidate_cache
        import fashion_hydra.model.checkpoint
        import fashion_hydra.model.weights.layouts  # noqa: F401
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, begin = _peak(), time.monotonic()
    try:
        answer = "read: " + READERS[reader](folder)
    except UserError as error:
        answer = f"refused: {error}"
    seconds, taken = time.monotonic() - begin, max(0, _peak() - before)
    answer = " ".join(answer.replace(f"{folder}/", "").split())
    print(json.dumps({"answer": answer[:160], "seconds": seconds, "mebibytes": taken / 1024}))


def _peak() -> int:
    """Return the peak resident memory in KiB; `ru_maxrss` would include the parent's memory."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def attempt(name: str) -> tuple[str, float, float]:
    """Write the files of a case, read them in a separate process, and return (result, seconds, MiB)."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        CASES[name][0](folder)
        command = [sys.executable, "-m", "tests.faults.hostile", "--read", name, str(folder)]
        environment = {**os.environ, "FASHION_HYDRA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return "LOST: hangs", SECONDS, 0.0
    if done.returncode:
        return f"LOST: exit code {done.returncode}, {done.stderr.strip().splitlines()[-1:]}", 0.0, 0.0
    result = json.loads(done.stdout.splitlines()[-1])
    return result["answer"], result["seconds"], result["mebibytes"]


def main() -> int:
    """Print the table; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="parts of names")
    parser.add_argument("--read", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read[0], Path(args.read[1]))
        return 0
    chosen = [name for name in CASES if not args.cases or any(part in name for part in args.cases)]
    print(f"{'input':48} {'seconds':>7} {'MiB':>6}  answer", flush=True)
    lost = 0
    for name in chosen:
        answer, seconds, mebibytes = attempt(name)
        lost += answer.startswith("LOST")
        print(f"{name:48} {seconds:7.2f} {mebibytes:6.0f}  {answer}", flush=True)
    print(f"{len(chosen)} inputs, {lost} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
