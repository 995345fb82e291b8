"""Time a training step of a cascade: ours, with Lightning, against mmengine's Runner with mmdet's own modules.

Both start from the same weights and use the same batches, the same seeds to sample boxes, and the winner's SGD and
clipping; the loss of each step is compared. The rival uses the parts of mmdet's configs, SingleRoIExtractor and
BitmapMasks, on the same torchvision operators, because nothing is compiled here. A step is timed from its start to the
start of the next. Ours runs as `trainer=cpu` does, one process with one thread on each core, and as one process with as
many threads as the rival; losses are compared with the latter.

Sooner or later rounding changes whether a box is selected, and from then on two runs differ as with two seeds.
Therefore each step's loss is also compared at the weights that ours had at this step. Untrained heads score proposals
almost equally, so rounding alone changes the selection; with `--weights` of a trained model the scores differ clearly.
"""

import argparse
import functools
import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader

from benchmarks._measure import tell
from fashion_hydra.config.entry_point import prepare_config
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSet, ClassSpec
from fashion_hydra.data.dataset import TrainDataset, collate
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.model.detector import SEMANTIC_LEVEL, STRIDES, Detector
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.sampling import begin_sampling
from fashion_hydra.model.semantic_targets import paint_classes
from fashion_hydra.model.weights.files import read_file
from fashion_hydra.model.weights.load import load_backbone, load_weights
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.batch import Batch
from fashion_hydra.training.callbacks import LearningCurves
from fashion_hydra.training.lightning_module import SegmentationModule, seed_for_image
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.wardrobe import write_wardrobe
from fashion_hydra.workflows.train import silence_library_noise

# isort: split
from mmdet.models import DetDataPreprocessor, HybridTaskCascadeRoIHead, SingleRoIExtractor
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

LR, CLIP, SEED = 0.0025, 35.0, 777
SGD = functools.partial(torch.optim.SGD, lr=LR, momentum=0.9, weight_decay=1e-4)


@dataclass
class Seen:
    """Record of a run: start time and loss of each step, and optionally the weights before the step."""

    begins: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def steps(self, skip: int) -> list[float]:
        """Return the seconds of each step after the first `skip`."""
        return np.diff(self.begins)[skip:].tolist()


def make_batches(
    folder: Path, count: int, images: int, size: int, photos: Path | None = None
) -> tuple[list[Batch], ClassSet]:
    """Make batches of drawn figures, or of `photos` in Kaggle's layout, augmented as in training."""
    if photos is None:
        write_wardrobe(folder, train=max(20, count * images), test=2, size=size, seed=0)
    annotations, _ = read_annotations(photos or folder)
    classes = ClassSpec("present", "present").resolve(annotations.names, np.unique(annotations.categories).tolist())
    augment = Augment(short_edge=[round(size * 0.6), round(size * 0.7)], long_edge=size, flip=0.5)
    dataset = TrainDataset(annotations, np.arange(len(annotations)), classes, augment, seed=SEED)
    order = np.arange(count * images).reshape(count, images) % len(annotations)  # without faulty photos
    return [collate([dataset[0, int(i)] for i in chosen]) for chosen in order], classes


def make_detector(
    classes: ClassSet, model: str, weights: Path | None = None, **changes: Any
) -> tuple[Detector, dict[str, Any]]:
    """Build a detector with reproducible weights, and return it with the model's config.

    Args:
        classes: class set of the outputs.
        model: name of a config in conf/model.
        weights: weights of a model or a backbone; None: from scratch.
        changes: arguments of `build_htc` to replace.
    """
    prepare_config()
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", overrides=[f"model={model}"]).model, resolve=True)
    config |= changes
    config["backbone"]["weights"] = None
    torch.manual_seed(SEED)
    detector = build_htc(num_classes=len(classes), **{k: v for k, v in config.items() if k != "_target_"})
    if weights is not None:
        whole = any("roi_head" in name for name in read_file(weights).tensors)
        load_weights(detector, weights, classes) if whole else load_backbone(detector, weights)
    return detector, config


def lightning(
    batches: Sequence[Batch],
    classes: ClassSet,
    model: str,
    weights: Path | None,
    folder: Path,
    *,
    keep_weights: bool = False,
    processes: int = 1,
    precision: Any = "32-true",
    compiled: bool = False,
) -> Seen:
    """Run ours, with the logger and the callback that every run has.

    Args:
        batches: batches of this process.
        classes: class set of the outputs.
        model: name of a config in conf/model.
        weights: initial weights; None: from scratch.
        folder: folder for logs.
        keep_weights: whether to record the weights before each step.
        processes: number of processes that train together.
        precision: Lightning's precision.
        compiled: whether to compile the backbone with torch.compile.
    """
    seen = Seen()

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            if keep_weights:
                seen.weights.append({name: value.clone() for name, value in module.detector.net.state_dict().items()})
            seen.begins.append(time.perf_counter())

        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
            seen.losses.append(outputs["loss"].detach())

    detector, config = make_detector(classes, model, weights)
    if compiled:
        detector.net.backbone.compile(dynamic=True)
    module = SegmentationModule(
        detector,
        classes=classes,
        model=config,
        optimizer=SGD,
        schedule=Schedule(epochs=1, lr=LR, base_batch=len(batches[0]), warmup_steps=0),
        batch=len(batches[0]),
        eval_scale=(100, 200),
        postprocess=COCO_RULE,
        seed=SEED,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=1,
        gradient_clip_val=CLIP,
        logger=CSVLogger(folder),
        callbacks=[Watch(), LearningCurves(str(folder))],
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return seen


def in_processes(batches: Sequence[Batch], classes: ClassSet, model: str, weights: Path | None, folder: Path) -> Seen:
    """Run ours with one single-threaded process per core; each step's loss is the mean over processes."""
    count = min(os.cpu_count() or 1, len(batches[0]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_one_process, (count, port, batches, classes, model, weights, folder), nprocs=count)
    seen = [Seen(**torch.load(folder / f"{rank}.pt")) for rank in range(count)]
    return Seen(seen[0].begins, torch.tensor([one.losses for one in seen]).mean(0).tolist())


def _one_process(rank: int, count: int, port: int, batches: Sequence[Batch], *args: Any) -> None:
    torch.set_num_threads(1)
    silence()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    os.environ["LOCAL_RANK"] = str(rank)
    seen = lightning([_share(batch, rank, count) for batch in batches], *args, processes=count)
    torch.save({"begins": seen.begins, "losses": [float(loss) for loss in seen.losses]}, args[-1] / f"{rank}.pt")


def _share(batch: Batch, rank: int, count: int) -> Batch:
    """Return every `count`-th image of a batch, starting at `rank`."""
    of = slice(rank, None, count)
    parts = {field.name: getattr(batch, field.name)[of] for field in fields(batch)}
    return Batch(**parts)


def runner(batches: Sequence[Batch], classes: ClassSet, model: str, weights: Path | None, folder: Path) -> Seen:
    """Run the rival, with mmdet's default hooks except checkpoints."""
    seen = Seen()

    class Watch(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            seen.begins.append(time.perf_counter())
            seed_step(net, batches[batch_idx])

        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            seen.losses.append(outputs["loss"].detach())

    net = mmdets(make_detector(classes, model, weights)[0])
    optimizer = SGD([p for p in net.parameters() if p.requires_grad])
    loop = Runner(
        model=net,
        work_dir=str(folder),
        train_dataloader=DataLoader([as_mmdet(batch, net) for batch in batches], batch_size=None),  # type: ignore[arg-type]
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper=OptimWrapper(optimizer, clip_grad={"max_norm": CLIP}),
        default_hooks={"checkpoint": None, "sampler_seed": None},
        custom_hooks=[Watch()],
        default_scope="mmdet",
        experiment_name=folder.name,
        log_level="ERROR",
    )
    loop.train()
    return seen


def seed_step(net: torch.nn.Module, batch: Batch) -> None:
    """Seed box sampling as SegmentationModule.training_step does in the first epoch."""
    begin_sampling(net, [seed_for_image(SEED, 0, image_id) for image_id in batch.image_ids])


def losses_along(
    seen: Seen, batches: Sequence[Batch], classes: ClassSet, model: str, weights: Path | None
) -> list[float]:
    """Return mmdet's loss of each step at the weights that ours had."""
    net, losses = mmdets(make_detector(classes, model, weights)[0]).train(), []
    for before, batch in zip(seen.weights, batches, strict=True):
        net.load_state_dict(before)
        seed_step(net, batch)
        with torch.no_grad():
            given = net.data_preprocessor(as_mmdet(batch, net), training=True)
            total, _ = net.parse_losses(net(**given, mode="loss"))
        losses.append(float(total))
    return losses


def mmdets(detector: Detector) -> torch.nn.Module:
    """Return the network with our replacements swapped back to mmdet's own parts."""
    net = detector.net
    head = net.roi_head
    head.__class__ = HybridTaskCascadeRoIHead
    for extractors in (head.bbox_roi_extractor, head.mask_roi_extractor):
        for i, ours in enumerate(extractors):
            extractors[i] = mmdets_extractor(ours)
    if head.with_semantic:
        head.semantic_roi_extractor = mmdets_extractor(head.semantic_roi_extractor)
    mean, std = (getattr(detector, name).flatten().tolist() for name in ("mean", "std"))
    net.data_preprocessor = DetDataPreprocessor(mean, std, bgr_to_rgb=detector.bgr, pad_mask=True, pad_size_divisor=32)
    return net


def mmdets_extractor(ours: SingleRoIExtractor) -> SingleRoIExtractor:
    """Return mmdet's extractor for one of ours."""
    layer = ours.roi_layers[0]
    options = {"output_size": layer.output_size[0], "sampling_ratio": layer.sampling_ratio}
    return SingleRoIExtractor({"type": "RoIAlign", **options}, ours.out_channels, ours.featmap_strides)


def as_mmdet(batch: Batch, net: torch.nn.Module) -> dict[str, Any]:
    """Convert a batch to mmdet's input: unpadded images, bitmap masks, and semantic targets if the model uses them."""
    samples, inputs = [], []
    painted = None
    if net.roi_head.with_semantic:
        frame = (batch.images.shape[-2], batch.images.shape[-1])
        background = net.roi_head.semantic_head.num_classes - 1
        painted = paint_classes(
            batch.targets, batch.sizes, frame, stride=STRIDES[SEMANTIC_LEVEL], background=background
        )
    for image, (height, width), targets in zip(batch.images, batch.sizes, batch.targets, strict=True):
        meta = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=meta)
        masks = BitmapMasks(targets.masks.bitmaps().numpy(), height, width)
        sample.gt_instances = InstanceData(bboxes=targets.boxes, labels=targets.labels, masks=masks)
        if painted is not None:
            sample.gt_sem_seg = PixelData(sem_seg=painted[len(samples)])
        samples.append(sample)
        inputs.append(image[:, :height, :width].contiguous())
    return {"inputs": inputs, "data_samples": samples}


def apart(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the relative differences of two series."""
    return [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]


def silence() -> None:
    """Silence warnings and logs of libraries."""
    silence_library_noise()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning.utilities.rank_zero", "mmengine"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main() -> None:
    """Time both sides and compare their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24, help="steps per round")
    parser.add_argument("--skip", type=int, default=4, help="untimed steps at the start of each round")
    parser.add_argument("--images", type=int, default=4, help="images per step")
    parser.add_argument("--size", type=int, default=224, help="long edge; the short edge is about two thirds")
    parser.add_argument("--model", default="htc_tiny", help="name of a config in conf/model")
    parser.add_argument("--weights", type=Path, help="initial weights of the model or its backbone, for both sides")
    parser.add_argument("--photos", type=Path, help="folder in Kaggle's layout to use instead of drawn figures")
    parser.add_argument("--more", action="store_true", help="also time bf16 and a compiled backbone")
    args = parser.parse_args()
    silence()
    ours = "ours, Lightning, one process"
    rivals: dict[str, Callable[..., Seen]] = {
        "ours, Lightning, one process per core": in_processes,
        ours: lightning,
        "mmengine's Runner, mmdet's modules": runner,
    }
    if args.more:
        rivals["ours, one process, bf16-mixed"] = functools.partial(lightning, precision="bf16-mixed")
        rivals["ours, one process, torch.compile"] = functools.partial(lightning, compiled=True)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        batches, classes = make_batches(Path(folder) / "wardrobe", args.steps, args.images, args.size, args.photos)
        for turn in range(args.rounds):
            for name in list(rivals) if turn % 2 else reversed(list(rivals)):
                work = Path(tempfile.mkdtemp(dir=folder))
                seen = rivals[name](batches, classes, args.model, args.weights, work)
                seconds[name] += seen.steps(args.skip)
                losses[name] = [float(loss) for loss in seen.losses]
        work = Path(tempfile.mkdtemp(dir=folder))
        seen = lightning(batches, classes, args.model, args.weights, work, keep_weights=True)
        along = losses_along(seen, batches, classes, args.model, args.weights)
    print(f"relative difference of each step's loss from {ours!r}:")
    for name in losses.keys() - {ours}:
        print(f"  {name}:", *(f"{x:.0e}" for x in apart(losses[name], losses[ours])))
    print("mmdet at the same weights:", *(f"{x:.0e}" for x in apart([float(x) for x in seen.losses], along)))
    print(
        "mean loss of the second half:", *(f"\n  {name}: {np.mean(x[len(x) // 2 :]):.4f}" for name, x in losses.items())
    )
    tell(f"a step of {args.images} images, {args.model}", seconds, ours=next(iter(rivals)))


if __name__ == "__main__":
    main()
