"""mmdet's Mask R-CNN and Cascade Mask R-CNN, trained by mmengine's Runner, for `benchmarks.rivals`."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet
import torch
from torch import Tensor, nn

from benchmarks._rival import WARM_UP, Budget, Setting
from fashion_hydra.config.schema import AugmentConfig
from fashion_hydra.data.coco_export import write_coco
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.model.detector import Detector
from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.detections import Refined, Segmented

# isort: split
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

CONFIGS = {"mask_rcnn": "mask-rcnn_r50_fpn.py", "cascade_mask_rcnn": "cascade-mask-rcnn_r50_fpn.py"}


class MMDetRival:
    """One of mmdet's detectors, ready to train.

    Args:
        name: a key of `CONFIGS`.
        setting: data, sizes and backbone.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        init_default_scope("mmdet")
        self.setting = setting
        narrow = setting.model if setting.narrow else {}
        classes = len(setting.data.classes)
        self.config = rival_config(name, setting.model["backbone"], setting.ours, classes, narrow)
        self.loader = loader_config(setting.data, setting.folder, setting.augment)

    def start(self) -> nn.Module:
        """Return the detector with initial weights."""
        torch.manual_seed(0)
        net: nn.Module = MODELS.build(self.config)
        net.init_weights()
        net.backbone.load_state_dict(self.setting.ours.net.backbone.state_dict())
        return net

    def train(self, net: nn.Module, budget: Budget) -> list[float]:
        """Train, and return the time at which each step ended."""
        return train(net, self.loader, self.setting.folder, budget, self.setting.optimizer)

    def detector(self, net: nn.Module) -> "MMDetDetector":
        """Return the trained detector with our interface."""
        return MMDetDetector(net)


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


class MMDetDetector(nn.Module):
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


def train(model: nn.Module, loader: dict, folder: Path, budget: Budget, optimizer: str) -> list[float]:
    """Train by mmengine's Runner with mmdet's 1x schedule, and return the time at which each step ended.

    Args:
        model: the detector.
        loader: config of the loader.
        folder: folder for logs and checkpoints.
        budget: number of epochs or steps, to which the schedule is scaled.
        optimizer: `sgd` as mmdet's, with its learning rate scaled to the images per step, or `adamw` as our recipe's.
    """
    clock = _Clock()
    chosen = {
        "sgd": {"type": "SGD", "lr": 0.02 * loader["batch_size"] / 16, "momentum": 0.9, "weight_decay": 1e-4},
        "adamw": {"type": "AdamW", "lr": 0.001, "weight_decay": 0.05},
    }[optimizer]
    by_steps = {"type": "IterBasedTrainLoop", "max_iters": budget.steps}
    drops = [round((budget.epochs or 1) * share) for share in (8 / 12, 11 / 12)]
    Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": budget.epochs} if budget.epochs else by_steps,
        optim_wrapper={"type": "OptimWrapper", "optimizer": chosen},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": WARM_UP},
            {"type": "MultiStepLR", "milestones": drops, "by_epoch": True},
        ],
        default_hooks={"checkpoint": None},
        custom_hooks=[clock],
        default_scope="mmdet",
        experiment_name=f"{folder.name}-{budget.epochs}",
        log_level="ERROR",
    ).train()
    return clock.ends
