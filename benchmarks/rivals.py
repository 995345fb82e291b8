"""Train what a user would run instead of this package, on the same photos and for as many minutes.

    python -m benchmarks.rivals DATA mask_rcnn --minutes 80 --out predictions/rivals/mask_rcnn
    python tune_thresholds.py candidates.folder=predictions/rivals/mask_rcnn/val out=tuned/rivals/mask_rcnn
    fashion-hydra compare tuned/rivals/mask_rcnn predictions/rivals/mask_rcnn/test_fold

The rivals are mmdet's Mask R-CNN and Cascade Mask R-CNN, with the heads, losses, proposals, optimizer and 1x schedule
of mmdet's configs, trained by mmengine's Runner on photos that mmdet's CocoDataset reads. From `experiment=street` come
the backbone (EfficientNet-Lite0 with ImageNet weights), the folds, the sizes, windows and flips of photos, and 8 photos
per step. Photos are predicted in one view at the size of `experiment=street`, and candidates are written as predict.py
does, so that any thresholds can be applied: mmdet's own, the winner's, or tuned ones. Mask R-CNN regresses a box for
each class; a proposal gets the box of its most probable class. mmdet's heads are wide and sample 512 boxes per photo,
which is slow on a CPU; with `--narrow` they are as wide as ours and sample as many boxes.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet
import torch
from torch import Tensor, nn
from tqdm import trange

from fashion_hydra.config.build import make_datamodule, plain
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.entry_point import prepare_config
from fashion_hydra.config.schema import AugmentConfig
from fashion_hydra.data.augment import checked_scales
from fashion_hydra.data.coco_export import write_coco
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.data.dataset import PredictDataset
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.data.image_list import list_annotated
from fashion_hydra.evaluation import coco_ap
from fashion_hydra.evaluation.annotated import true_masks
from fashion_hydra.formats.submission import SUBMISSION_SIZE, write_truth
from fashion_hydra.inference.cached_images import ImageFiles
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model.builder import build_detector
from fashion_hydra.model.detector import Detector
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Detections, Refined, Segmented
from fashion_hydra.training.console import silence_library_noise
from fashion_hydra.utils.files import file_sha256

# isort: split
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

CONFIGS = {"mask_rcnn": "mask-rcnn_r50_fpn.py", "cascade_mask_rcnn": "cascade-mask-rcnn_r50_fpn.py"}
WARM_UP = 100  # steps; the 500 of mmdet's schedule are for 7,330 steps per epoch
TIMED = (3, 12)  # steps that are run first to plan the number of epochs: skipped and timed


def rival_config(name: str, backbone: dict[str, Any], ours: Detector, classes: int, narrow: Mapping[str, Any]) -> Any:
    """Return mmdet's config of a rival, with the backbone of our model and another number of classes.

    Args:
        name: name of the rival.
        backbone: config of our backbone.
        ours: our model.
        classes: number of classes.
        narrow: options of our model whose widths and numbers of boxes replace mmdet's; empty for mmdet's.
    """
    model = Config.fromfile(
        Path(mmdet.__file__).parent / ".mim" / "configs" / "_base_" / "models" / CONFIGS[name]
    ).model
    apart = ("channels", "mean", "std", "channel_order", "weights")
    model.backbone = {key: value for key, value in backbone.items() if key not in apart}
    model.neck.in_channels = list(ours.net.neck.in_channels)
    for key in ("mean", "std"):
        model.data_preprocessor[key] = getattr(ours, key).flatten().tolist()
    boxes, masks = (_as_list(model.roi_head[head]) for head in ("bbox_head", "mask_head"))
    for head in boxes + masks:
        head.num_classes = classes
    if narrow:
        channels = narrow["neck_channels"]
        model.neck.out_channels = channels
        model.rpn_head |= {"in_channels": channels, "feat_channels": channels}
        model.rpn_head.anchor_generator.scales = [narrow["anchor_scale"]]
        for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
            extractor.out_channels = channels
            extractor.roi_layer.sampling_ratio = narrow["roi_sampling_ratio"]
        for head in boxes:
            head |= {"in_channels": channels, "fc_out_channels": narrow["fc_channels"]}
        for head in masks:
            head |= {"in_channels": channels, "conv_out_channels": channels, "num_convs": narrow["mask_convs"]}
        model.train_cfg.rpn.sampler.num = narrow["rpn_batch"]
        model.train_cfg.rpn_proposal |= {"nms_pre": narrow["train_proposals"], "max_per_img": narrow["train_proposals"]}
        model.test_cfg.rpn |= {"nms_pre": narrow["test_proposals"], "max_per_img": narrow["test_proposals"]}
        for stage in _as_list(model.train_cfg.rcnn):
            stage.sampler.num = narrow["rois_per_stage"]
    return model


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


class Rival(nn.Module):
    """One of mmdet's two-stage detectors, with the interface of `fashion_hydra.inference.cascade.CascadeDetector`."""

    scores_masks = False

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net.eval()
        self.is_cascade = isinstance(net.roi_head.bbox_head, nn.ModuleList)

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """Return the feature pyramid of padded uint8 images (B, 3, H, W), RGB; mmdet's preprocessor expects BGR."""
        inputs = [image.flip(0)[:, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)]
        batch = self.net.data_preprocessor({"inputs": inputs, "data_samples": _samples(sizes)})
        return tuple(self.net.extract_feat(batch["inputs"]))

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Return mmdet's proposals."""
        found = self.net.rpn_head.predict(tuple(features), _samples(sizes), rescale=False)
        return [(one.bboxes, one.scores) for one in found]

    def refine(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Refined]:
        """Return boxes and class probabilities; those of a cascade are the softmax of the stages' mean logits."""
        head = self.net.roi_head
        boxes, counts, logits = list(proposals), [len(p) for p in proposals], []
        for stage, part in enumerate(head.bbox_head if self.is_cascade else [head.bbox_head]):
            result = head._bbox_forward(*self._which(stage), tuple(features), bbox2roi(boxes))
            logits.append(result["cls_score"])
            deltas = result["bbox_pred"]
            if not part.reg_class_agnostic:
                best = result["cls_score"][:, :-1].argmax(1)
                deltas = deltas.view(len(deltas), -1, 4)[torch.arange(len(deltas)), best]
            boxes = [
                part.bbox_coder.decode(b, d, max_shape=size)
                for b, d, size in zip(boxes, deltas.split(counts), sizes, strict=True)
            ]
        averaged = torch.stack(logits).mean(0).softmax(-1).split(counts)
        return [Refined(*one) for one in zip(boxes, averaged, strict=True)]

    def segment(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Segmented]:
        """Return the masks of the boxes' classes; those of a cascade are the mean of its stages' probabilities."""
        head = self.net.roi_head
        rois, chosen = bbox2roi(list(boxes)), torch.cat(list(labels))
        of_stages = [
            head._mask_forward(*self._which(stage), tuple(features), rois)["mask_preds"].sigmoid()
            for stage in range(len(head.mask_head) if self.is_cascade else 1)
        ]
        masks = torch.stack(of_stages).mean(0)[torch.arange(len(chosen)), chosen]
        return [Segmented(one) for one in masks.split([len(b) for b in boxes])]

    def _which(self, stage: int) -> tuple[int, ...]:
        """Return the argument that chooses the stage, which only a cascade's methods have."""
        return (stage,) if self.is_cascade else ()


def _samples(sizes: Sequence[Size]) -> list[DetDataSample]:
    return [DetDataSample(metainfo={"img_shape": s, "ori_shape": s, "scale_factor": (1.0, 1.0)}) for s in sizes]


def loader_config(data: FashionDataModule, folder: Path, augment: AugmentConfig) -> dict[str, Any]:
    """Return the config of mmdet's loader of the training photos, written as COCO's JSON into a folder."""
    (low, high), long = augment.short_edge, augment.long_edge
    crop = augment.crop or [long, long]
    chosen = data.is_training.nonzero()[0].tolist()
    write_coco(data.annotations, folder / "train.json", chosen)
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
        {"type": "RandomResize", "scale": [(long, low), (long, high)], "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (crop[1], crop[0])},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackDetInputs"},
    ]
    return {
        "batch_size": data.batch_size,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "batch_sampler": {"type": "AspectRatioBatchSampler"},
        "dataset": {
            "type": "CocoDataset",
            "ann_file": str(folder / "train.json"),
            "data_prefix": {"img": f"{data.annotations.folder}/"},
            "metainfo": {"classes": data.classes.names},
            "filter_cfg": {"filter_empty_gt": True, "min_size": 32},
            "pipeline": pipeline,
        },
    }


class _Clock(Hook):
    """Note when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.ends.append(time.perf_counter())


def train(
    model: nn.Module, loader: dict, folder: Path, *, epochs: int | None, images: int, optimizer: str
) -> list[float]:
    """Train by mmengine's Runner with mmdet's 1x schedule, and return the time at which each step ended.

    Args:
        model: the detector.
        loader: config of the loader.
        folder: folder for logs and checkpoints.
        epochs: number of epochs, to which the schedule is scaled; None: only the steps of `TIMED`.
        images: images per step, to which mmdet's learning rate is scaled.
        optimizer: `sgd` as mmdet's, or `adamw` as our recipe's.
    """
    clock = _Clock()
    chosen = {
        "sgd": {"type": "SGD", "lr": 0.02 * images / 16, "momentum": 0.9, "weight_decay": 1e-4},
        "adamw": {"type": "AdamW", "lr": 0.001, "weight_decay": 0.05},
    }[optimizer]
    by_steps = {"type": "IterBasedTrainLoop", "max_iters": sum(TIMED)}
    drops = [round((epochs or 1) * share) for share in (8 / 12, 11 / 12)]
    Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": epochs} if epochs else by_steps,
        optim_wrapper={"type": "OptimWrapper", "optimizer": chosen},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": WARM_UP},
            {"type": "MultiStepLR", "milestones": drops, "by_epoch": True},
        ],
        default_hooks={"checkpoint": None},
        custom_hooks=[clock],
        default_scope="mmdet",
        experiment_name=f"{folder.name}-{epochs}",
        log_level="ERROR",
    ).train()
    return clock.ends


def predict(rival: Rival, data: FashionDataModule, folder: Path, checkpoint: Path) -> None:
    """Write candidates and truth of the validation images and the test fold as predict.py does; print AP of both."""
    options = compose_options("predict", f"out={folder}").candidates
    for name, chosen in (("val", data.is_validation), ("test_fold", data.is_test)):
        indices = chosen.nonzero()[0]
        images = list_annotated(data.annotations, indices)
        manifest = Manifest(
            members=((checkpoint.name, file_sha256(checkpoint)),),
            class_ids=data.classes.ids,
            class_names=data.classes.names,
            scales=(data.eval_scale,),
            flips=(False,),
            proposal_iou_thr=Merging().proposal_iou_thr,
            max_proposals=Merging().max_proposals,
            precision="32-true",
            score_floor=options.score_floor,
            iou_grid=tuple(options.iou_grid),
        )
        listed = ImageFiles(str(images.folder.absolute()), images.file_sizes())
        cache = CandidateCache(folder / name / "candidates", manifest, listed)
        found: dict[str, Detections] = {}
        dataset = PredictDataset(images, [data.eval_scale])
        for i in trange(len(dataset), desc=name):
            scaled = dataset[i]
            for_rules, for_ap = (
                merge_sources([rival], scaled, rules, Merging(), device=torch.device("cpu"))
                for rules in (manifest.rules(), [COCO_RULE])
            )
            cache.write(for_rules)
            found[for_ap.image_id] = apply(for_ap, COCO_RULE, size=for_ap.size)
        truth = {
            str(data.annotations.image_ids[i]): list(true_masks(data.annotations, i, data.classes))
            for i in indices.tolist()
        }
        write_truth(folder / name / "truth.csv", truth_on_grid(data.annotations, indices, size=SUBMISSION_SIZE))
        ap = coco_ap.mask_ap(truth, found, labels=len(data.classes)).overall
        print(f"{name:10} AP {ap['AP']:.3f}  AP50 {ap['AP50']:.3f}  AP75 {ap['AP75']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of the data set, in Kaggle's layout")
    parser.add_argument("rival", choices=CONFIGS)
    parser.add_argument("--minutes", type=float, default=80, help="train for the number of epochs that take this long")
    parser.add_argument("--epochs", type=int, help="train for this number of epochs instead")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="mmdet's, or that of our recipe")
    parser.add_argument("--narrow", action="store_true", help="with the widths and numbers of boxes of our model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the candidates")
    parser.add_argument("options", nargs="*", help="options of experiment=street that differ")
    args = parser.parse_intermixed_args()
    if args.out.exists():
        parser.error(f"--out {args.out}: exists already. Give another folder, or delete it")
    silence_library_noise()
    prepare_config()
    init_default_scope("mmdet")
    options = compose_options(
        "train", "experiment=street", f"paths.output_dir={args.out}", f"data.root={args.data}", *args.options
    )
    augment, images = options.augment, int(options.schedule.batch)
    options.data.batch_size = images
    scale = checked_scales(options.tta.scales)[0]
    data = make_datamodule(options.data, options.classes, augment, eval_scale=scale, seed=0, report_dir=None)
    classes = data.read()
    print(f"data       {data.describe()}")
    args.out.mkdir(parents=True, exist_ok=True)
    loader = loader_config(data, args.out, augment)
    model = plain(options.model)
    ours = build_detector(model, num_classes=len(classes))
    config = rival_config(args.rival, model["backbone"], ours, len(classes), model if args.narrow else {})

    def start() -> nn.Module:
        torch.manual_seed(0)
        net: nn.Module = MODELS.build(config)
        net.init_weights()
        net.backbone.load_state_dict(ours.net.backbone.state_dict())
        return net

    epochs = args.epochs
    if epochs is None:
        ends = train(start(), loader, args.out, epochs=None, images=images, optimizer=args.optimizer)
        step = (ends[-1] - ends[TIMED[0] - 1]) / TIMED[1]
        epochs = max(1, int(args.minutes * 60 / step / math.ceil(data.is_training.sum() / images)))
        print(f"plan       {step:.2f} s per step of {images} photos: {epochs} epochs in {args.minutes:g} minutes")
    net, begin = start(), time.perf_counter()
    ends = train(net, loader, args.out, epochs=epochs, images=images, optimizer=args.optimizer)
    print(f"trained    {epochs} epochs, {len(ends)} steps, {(time.perf_counter() - begin) / 60:.1f} minutes")
    checkpoint = args.out / "weights.pt"
    torch.save(net.state_dict(), checkpoint)
    predict(Rival(net), data, args.out, checkpoint)
    print(f"next       python tune_thresholds.py candidates.folder={args.out / 'val'} out={args.out / 'tuned'}")
    print(f"           fashion-hydra compare {args.out / 'tuned'} {args.out / 'test_fold'}")


if __name__ == "__main__":
    main()
