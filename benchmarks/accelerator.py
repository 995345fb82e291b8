"""Time training steps and predictions on an accelerator in several settings, and compare with mmdet and mmengine.

A run takes up to ten minutes. It appends each result to a file at once, and skips settings that are already in the
file. Images are drawn figures at the requested size. A step is forward, backward, clipping and SGD on images that start
on the host, as in training. The rival is mmdet's own modules, trained by `train_step` with mmengine's optimizer
wrapper, as mmengine's Runner does, in float32 and with mmengine's AMP (float16). The benchmark also runs on a CPU at a
small size.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ensemble import fast_nms, with_opinions
from benchmarks.plain_scheme import plain_scheme
from benchmarks.train_step import CLIP, SGD, as_mmdet, make_detector, mmdets
from fashion_hydra.data.class_set import ClassSet, ClassSpec
from fashion_hydra.data.dataset import EvalDataset, collate
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.merging import Merging
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.batch import Batch, ScaledImage
from fashion_hydra.wardrobe import write_wardrobe

# isort: split
from mmengine.optim import AmpOptimWrapper, OptimWrapper

BATCHES = 4  # batches of different sizes, used in turn
WINNERS_IMAGES = 45_600 * 20  # images times epochs of the winner's training
RULE = Postprocess(score_thr=0.05, iou_thr=0.5, mask_thr=0.5, max_per_image=100)


@dataclass(frozen=True)
class Setting:
    """Settings of a step.

    Args:
        name: name in the table.
        amp: dtype of autocast; None for float32.
        tf32: whether float32 products may be rounded to TF32.
        channels_last: whether weights and activations use the channels-last layout.
        compiled: whether backbone and neck are compiled by torch.compile.
        checkpointing: whether the backbone's activations are recomputed in the backward pass.
        rival: whether to run mmdet and mmengine.
    """

    name: str
    amp: torch.dtype | None = None
    tf32: bool = True
    channels_last: bool = False
    compiled: bool = False
    checkpointing: bool = False
    rival: bool = False


SETTINGS = (
    Setting("ours, bf16", torch.bfloat16),
    Setting("mmdet, fp32", rival=True),
    Setting("mmdet, AMP", torch.float16, rival=True),
    Setting("ours, fp32, no TF32", tf32=False),
    Setting("ours, fp32", tf32=True),
    Setting("ours, bf16, channels last", torch.bfloat16, channels_last=True),
    Setting("ours, bf16, gradient checkpointing", torch.bfloat16, checkpointing=True),
    Setting("ours, bf16, compiled", torch.bfloat16, compiled=True),
    Setting("ours, bf16, channels last, compiled", torch.bfloat16, channels_last=True, compiled=True),
)


def make_batches(folder: Path, count: int, images: int, scale: tuple[int, int]) -> tuple[list[Batch], ClassSet]:
    """Make batches of drawn figures at one scale."""
    write_wardrobe(folder, train=max(20, count * images), test=2, size=512, seed=0)
    annotations, _ = read_annotations(folder)
    spec = ClassSpec("all", "all").resolve(annotations.names, np.unique(annotations.categories).tolist())
    short, long = scale
    dataset = EvalDataset(annotations, np.arange(len(annotations)), spec, short_edge=short, long_edge=long)
    order = np.arange(count * images).reshape(count, images) % len(annotations)
    return [collate([dataset[int(i)] for i in chosen]) for chosen in order], spec


@contextmanager
def computing(setting: Setting) -> Iterator[None]:
    """Apply a setting's TF32 switches inside the context."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if setting.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = setting.tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def stepper(setting: Setting, batches: Sequence[Batch], classes: ClassSet, model: str, device: torch.device) -> Any:
    """Return a function that runs the training step with a given number."""
    detector, _ = make_detector(classes, model, gradient_checkpointing=setting.checkpointing)
    if setting.rival:
        net = mmdets(detector).to(device).train()
        wrap = {} if setting.amp is None else {"dtype": "float16"}
        kind = OptimWrapper if setting.amp is None or device.type == "cpu" else AmpOptimWrapper
        optimizer = SGD([p for p in net.parameters() if p.requires_grad])
        wrapper = kind(optimizer=optimizer, clip_grad={"max_norm": CLIP}, **(wrap if kind is AmpOptimWrapper else {}))
        given = [as_mmdet(batch, net) for batch in batches]
        return lambda number: net.train_step(given[number % len(given)], wrapper)
    detector = detector.to(device).train()
    if setting.channels_last:
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if setting.compiled:
        detector.net.backbone.compile(dynamic=False)
        detector.net.neck.compile(dynamic=False)
    parameters = [p for p in detector.parameters() if p.requires_grad]
    optimizer = SGD(parameters, fused=device.type == "cuda")

    def step(number: int) -> None:
        batch = batches[number % len(batches)].to(device)
        with autocast(setting, device):
            losses = detector.loss(batch)
            total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()

    return step


def autocast(setting: Setting, device: torch.device) -> AbstractContextManager[Any]:
    """Return an autocast context of the setting's dtype, or a null context for float32."""
    return nullcontext() if setting.amp is None else torch.autocast(device.type, setting.amp)


def timed(work: Callable[[int], object], device: torch.device, *, skip: int, count: int) -> tuple[list[float], float]:
    """Return the seconds of each call after the first `skip`, and the device's peak memory in GiB."""
    cuda = device.type == "cuda"
    seconds = []
    for number in range(skip + count):
        if cuda:
            torch.cuda.synchronize()
        if number == skip and cuda:
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        work(number)
        if cuda:
            torch.cuda.synchronize()
        if number >= skip:
            seconds.append(time.perf_counter() - begin)
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")


def predictors(classes: ClassSet, args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[int], object]]:
    """Return predictors with three models on six views of an image: ours, and one that recomputes the backbone."""
    torch.manual_seed(0)
    scales = [
        (round(short * factor), round(long * factor)) for short, long in [args.scale] for factor in (0.83, 1, 1.17)
    ]
    images = tuple(torch.randint(0, 255, (3, long, short), dtype=torch.uint8) for short, long in scales)
    scaled = ScaledImage("one", (args.scale[1], args.scale[0]), images)
    models = [with_opinions(make_detector(classes, args.model)[0]).to(device).eval() for _ in range(3)]
    prepared = [with_opinions(make_detector(classes, args.model)[0]).for_inference(device) for _ in range(3)]
    merging = Merging(flips=(False, True))
    bf16 = Setting("", torch.bfloat16)

    def ours(_: int) -> object:
        return merge_sources(prepared, scaled, [RULE], merging, device=device)

    def halved(_: int) -> object:
        with autocast(bf16, device):
            return merge_sources(prepared, scaled, [RULE], merging, device=device)

    def plain(_: int) -> object:
        on_device = [image.to(device) for image in images]
        options = {"score_thr": RULE.score_thr, "iou_thr": RULE.iou_thr, "max_per_image": RULE.max_per_image}
        return plain_scheme(models, on_device, (False, True), scaled.size, nms=fast_nms, **options)  # type: ignore[arg-type]

    return {"ours, fp32": ours, "ours, bf16": halved, "backbone recomputed in each step, fp32": plain}


def main() -> None:
    """Measure the settings that the results file lacks, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="htc_x101", help="name of a config in conf/model")
    parser.add_argument("--scale", type=int, nargs=2, default=(1200, 1900), help="short and long edge in pixels")
    parser.add_argument("--images", type=int, default=2, help="images per step")
    parser.add_argument("--steps", type=int, default=12, help="timed steps per setting")
    parser.add_argument("--skip", type=int, default=BATCHES, help="untimed steps; compilation needs one per batch")
    parser.add_argument("--only", nargs="+", help="names of the settings to run")
    parser.add_argument("--budget", type=float, default=540, help="seconds after which no further setting starts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=Path("accelerator.jsonl"), help="file to append results to")
    args = parser.parse_args()
    begin, device = time.perf_counter(), torch.device(args.device)
    known = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.is_file() else []
    with TemporaryDirectory() as folder:
        batches, classes = make_batches(Path(folder) / "wardrobe", BATCHES, args.images, args.scale)

        def note(kind: str, name: str, work: Callable[[], Any], *, skip: int, count: int, **more: float) -> None:
            wanted = args.only is None or name in args.only
            done = any((k["kind"], k["name"]) == (kind, name) for k in known)
            if not wanted or done or time.perf_counter() - begin > args.budget:
                return
            try:
                seconds, memory = timed(work(), device, skip=skip, count=count)
                entry = {"kind": kind, "name": name, "seconds": median(seconds), "spread": [min(seconds), max(seconds)],
                         "gib": memory, **more}  # fmt: skip
            except torch.cuda.OutOfMemoryError as error:
                entry = {"kind": kind, "name": name, "failed": str(error).splitlines()[0]}
            known.append(entry)
            print(json.dumps(entry), flush=True)
            with args.results.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()

        for setting in SETTINGS:
            with computing(setting):
                note("step", setting.name, lambda s=setting: stepper(s, batches, classes, args.model, device),
                     skip=args.skip, count=args.steps, images=args.images)  # fmt: skip
        made: dict[str, Callable[[int], object]] = {}
        for name in ("ours, fp32", "ours, bf16", "backbone recomputed in each step, fp32"):

            def work(name: str = name) -> Callable[[int], object]:
                if not made:
                    made.update(predictors(classes, args, device))
                return made[name]

            note("predict", name, work, skip=1, count=max(1, args.steps // 4))
        flops = forward_flops(batches[0], classes, args.model, device)
    tell(known, flops, args, torch.cuda.get_device_name() if device.type == "cuda" else "a CPU")


def forward_flops(batch: Batch, classes: ClassSet, model: str, device: torch.device) -> float:
    """Count the FLOPs of backbone and pyramid on one image: a lower bound of the forward pass; backward takes twice."""
    detector, _ = make_detector(classes, model)
    detector = detector.to(device).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.features(batch.images[:1].to(device), batch.sizes[:1])
    return float(counter.get_total_flops())


def tell(known: Sequence[dict[str, Any]], flops: float, args: argparse.Namespace, device: str) -> None:
    """Print the tables, and extrapolate to the winner's whole training."""
    short, long = args.scale
    print(f"\n{args.model} at {short}x{long} on {device}; backbone and pyramid {flops / 1e9:.0f} GFLOP per image")
    print(f"{'a step of ' + str(args.images) + ' images':40} {'s':>8} {'images/s':>9} {'GiB':>7} {'TFLOP/s':>8}")
    steps = [k for k in known if k["kind"] == "step"]
    for k in steps:
        if "failed" in k:
            print(f"{k['name']:40} {k['failed']}")
        else:
            rate = k["images"] / k["seconds"]
            print(f"{k['name']:40} {k['seconds']:8.3f} {rate:9.2f} {k['gib']:7.1f} {3 * rate * flops / 1e12:8.1f}")
    whole = [k for k in steps if "failed" not in k]
    for rival in (k for k in whole if k["name"].startswith("mmdet")):
        best = min((k for k in whole if k["name"].startswith("ours")), key=lambda k: k["seconds"], default=None)
        if best:
            days = WINNERS_IMAGES * best["seconds"] / best["images"] / 86_400
            print(f"{best['name']}: {rival['seconds'] / best['seconds']:.2f} times as fast as {rival['name']}; the "
                  f"winner's {WINNERS_IMAGES} images take {days:.2f} days at this size")  # fmt: skip
    for k in known:
        if k["kind"] == "predict":
            said = k.get("failed") or f"{k['seconds']:8.3f} s per image {k['gib']:7.1f} GiB"
            print(f"3 models x 6 views, {k['name']:40} {said}")


if __name__ == "__main__":
    main()
