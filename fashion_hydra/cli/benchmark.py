"""`fashion-hydra benchmark [MODEL]`: measure the speed and the memory of a model on this machine."""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_hydra.cli._model_arguments import add_model_arguments
from fashion_hydra.utils.errors import UserError

_COLUMNS = ("images_per_second", "p50_ms", "p90_ms", "p99_ms", "peak_mib")

if TYPE_CHECKING:
    import numpy as np

    from fashion_hydra.api.predictor import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)
    parser.add_argument("--photos", metavar="DIR", type=Path, help="photos to predict (default: drawn figures)")
    parser.add_argument("--images", type=int, default=20, help="number of timed images (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=3, help="predictions before the timing (default: %(default)s)")
    parser.add_argument("--size", type=int, default=800, help="long edge of drawn figures (default: %(default)s)")
    parser.add_argument("--devices", nargs="+", metavar="DEVICE", help="such as cpu cuda:0 (default: all)")
    parser.add_argument("--threads", type=int, help="PyTorch threads on the CPU (default: PyTorch's own number)")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also write the numbers to a file")


def run(args: argparse.Namespace) -> int:
    """Time whole predictions, from decoded pixels to masks, one image at a time."""
    import torch

    from fashion_hydra.api.load import load
    from fashion_hydra.training.console import silence_library_noise

    silence_library_noise()
    for name, least in (("images", 1), ("warmup", 0), ("size", 32), ("threads", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name} {value}: must be at least {least}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    photos = _photos(args)
    devices = args.devices or ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    rows = []
    for place, device in enumerate(devices):
        model = load(*args.models, device=device)
        if place == 0:
            images = photos or _figures(args)
            about = _describe(model, images[0], args.tta)
            _print(about)
        rows.append(_time(model, images, args))
        if place == 0:
            print(f"\n{'device':24} {'images/s':>9} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'peak MiB':>9}")
        row = rows[-1]
        numbers = "".join(
            f" {row[key]:9.1f}" for key in ("images_per_second", "p50_ms", "p90_ms", "p99_ms", "peak_mib")
        )
        print(f"{row['device']:24}{numbers}", flush=True)
    if args.out is not None:
        from fashion_hydra.utils.files import atomic_write

        args.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(args.out) as stream:
            json.dump({**about, "devices": rows}, stream, indent=1)
        print(f"written      {args.out}")
    return 0


def _photos(args: argparse.Namespace) -> "Sequence[np.ndarray]":
    """Return the decoded photos of --photos; empty without --photos."""
    if args.photos is None:
        return []
    from fashion_hydra.data.image_list import list_folder

    listed = list_folder(args.photos)
    return [listed.read(i) for i in range(min(args.images, len(listed)))]


def _figures(args: argparse.Namespace) -> "Sequence[np.ndarray]":
    """Draw up to eight figures, which are predicted in turn."""
    from fashion_hydra.wardrobe.writer import draw_image

    return [draw_image(seed=0, split="test", index=i, size=args.size).rgb for i in range(min(args.images, 8))]


def _describe(model: "Predictor", image: "np.ndarray", tta: str) -> dict[str, Any]:
    """Return the facts that do not depend on the device: parameters, views, and FLOPs per image."""
    from torch.utils.flop_counter import FlopCounterMode

    from fashion_hydra.api.predictor import predict_options
    from fashion_hydra.workflows.prediction_plan import scales_of

    options = predict_options(tta)
    with FlopCounterMode(display=False) as counter:
        model.look(image, tta=tta)
    return {
        "models": [str(member.path) for member in model.members],
        "parameters": sum(p.numel() for member in model.members for p in member.detector.parameters()),
        "scales": [list(scale) for scale in scales_of(options.tta, model.members)],
        "flips": len(options.tta.flips),
        "image": list(image.shape[:2]),
        "flops": int(counter.get_total_flops()),
    }


def _print(about: dict[str, Any]) -> None:
    scales = ", ".join(f"{short}x{long}" for short, long in about["scales"])
    mirrored = ", mirrored too" if about["flips"] > 1 else ""
    height, width = about["image"]
    print(f"model        {', '.join(about['models'])}")
    print(f"parameters   {about['parameters'] / 1e6:.1f} M")
    print(f"views        {len(about['scales']) * about['flips']}: {scales}{mirrored}")
    print(
        f"FLOPs        {about['flops'] / 1e9:.1f} G in all views of an image of {width}x{height}: convolutions and "
        "matrix products; a multiply-add counts as two"
    )


def _time(model: "Predictor", images: "Sequence[np.ndarray]", args: argparse.Namespace) -> dict[str, Any]:
    import torch

    device, on_gpu = model.device, model.device.type == "cuda"
    for turn in range(args.warmup):
        model(images[turn % len(images)], tta=args.tta)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for turn in range(args.images):
        begin = time.perf_counter()
        model(images[turn % len(images)], tta=args.tta)  # returns masks on the host, so the device has finished
        seconds.append(time.perf_counter() - begin)
    name = torch.cuda.get_device_name(device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    ordered = sorted(seconds)
    percentiles = {f"p{p}_ms": 1e3 * ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 90, 99)}
    return {
        "device": name,
        "images_per_second": len(seconds) / sum(seconds),
        "mean_ms": 1e3 * statistics.mean(seconds),
        **percentiles,
        "peak_mib": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else _peak_mib(),
    }


def _peak_mib() -> float:
    """Return the peak resident memory of this process in MiB, including PyTorch and its libraries."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
