"""torchvision's Mask R-CNN, trained as its reference scripts do, for `benchmarks.rivals`."""

import copy
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from benchmarks._rival import WARM_UP, Budget, Setting
from fashion_hydra.structures.batch import Batch, Size
from fashion_hydra.structures.detections import Refined, Segmented

DROPS = (16 / 26, 22 / 26)
"""Shares of the training after which the reference scripts divide the learning rate by ten."""


class Backbone(nn.Module):
    """A backbone with torchvision's feature pyramid.

    Args:
        body: backbone with four outputs.
        in_channels: channels of each output.
        out_channels: channels of the pyramid.
    """

    def __init__(self, body: nn.Module, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, out_channels
        self.fpn = FeaturePyramidNetwork(list(in_channels), out_channels, LastLevelMaxPool())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the pyramid of normalised images (B, 3, H, W)."""
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))


def build(setting: Setting) -> MaskRCNN:
    """Return torchvision's Mask R-CNN with our backbone and torchvision's heads, or heads as narrow as ours."""
    ours, classes = setting.ours, len(setting.data.classes) + 1
    width, options = 256, dict[str, Any]()
    if setting.narrow:
        model = setting.model
        width = model["neck_channels"]
        sizes = tuple((int(model["anchor_scale"] * 2**level),) for level in range(2, 7))
        options = {
            "rpn_anchor_generator": AnchorGenerator(sizes, (tuple(model["anchor_ratios"]),) * 5),
            "rpn_batch_size_per_image": model["rpn_batch"],
            "rpn_pre_nms_top_n_train": model["train_proposals"],
            "rpn_post_nms_top_n_train": model["train_proposals"],
            "rpn_pre_nms_top_n_test": model["test_proposals"],
            "rpn_post_nms_top_n_test": model["test_proposals"],
            "box_batch_size_per_image": model["rois_per_stage"],
            "box_head": TwoMLPHead(width * 7**2, model["fc_channels"]),
            "mask_head": MaskRCNNHeads(width, (model["mask_channels"],) * model["mask_convs"], 1),
            "mask_predictor": MaskRCNNPredictor(model["mask_channels"], model["mask_channels"], classes),
            "box_predictor": FastRCNNPredictor(model["fc_channels"], classes),
        }
    body = copy.deepcopy(ours.net.backbone)
    pixels = {f"image_{key}": (getattr(ours, key).flatten() / 255).tolist() for key in ("mean", "std")}
    net = MaskRCNN(
        Backbone(body, ours.net.neck.in_channels, width), None if setting.narrow else classes, **pixels, **options
    )
    net.transform._skip_resize = True  # photos are resized before
    return net


class TorchvisionRival:
    """torchvision's Mask R-CNN, ready to train.

    Args:
        setting: data, sizes and backbone.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def start(self) -> nn.Module:
        """Return the detector with initial weights."""
        torch.manual_seed(0)
        return build(self.setting)

    def train(self, net: nn.Module, budget: Budget) -> list[float]:
        """Train with the reference scripts' optimizer and schedule, and return the time at which each step ended."""
        loader = self.setting.data.train_dataloader()
        trained = [p for p in net.parameters() if p.requires_grad]
        if self.setting.optimizer == "sgd":
            rate = 0.02 * self.setting.data.batch_size / 16
            optimizer: torch.optim.Optimizer = torch.optim.SGD(trained, rate, momentum=0.9, weight_decay=1e-4)
        else:
            optimizer = torch.optim.AdamW(trained, 0.001, weight_decay=0.05)
        steps = budget.steps or (budget.epochs or 1) * len(loader)

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / WARM_UP) * 0.1 ** sum(step >= drop * steps for drop in DROPS)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        net.train()
        ends: list[float] = []
        for epoch in range(math.ceil(steps / len(loader))):
            loader.batch_sampler.set_epoch(epoch)
            for batch in loader:
                loss = sum(net(*_inputs(batch)).values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                ends.append(time.perf_counter())
                if len(ends) == steps:
                    break
        return ends

    def detector(self, net: nn.Module) -> "TorchvisionDetector":
        """Return the trained detector with our interface."""
        return TorchvisionDetector(net)


def _inputs(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return a batch as torchvision's detectors take it: images in [0, 1], and labels that begin with 1."""
    images = [i[:, :height, :width] / 255 for i, (height, width) in zip(batch.images, batch.sizes, strict=True)]
    targets = [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.bitmaps()} for t in batch.targets]
    return images, targets


class TorchvisionDetector(nn.Module):
    """torchvision's Mask R-CNN, with the interface of `fashion_hydra.inference.cascade.CascadeDetector`.

    A proposal gets the box of its most probable class.
    """

    scores_masks = False

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.eval()

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """Return the feature pyramid of padded uint8 images (B, 3, H, W), RGB."""
        padded = torch.zeros(images.shape)
        for one, image, (height, width) in zip(padded, images, sizes, strict=True):
            one[:, :height, :width] = self.net.transform.normalize(image[:, :height, :width] / 255)
        return tuple(self.net.backbone(padded).values())

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Return the RPN's boxes and scores."""
        rpn = self.net.rpn
        objectness, deltas = rpn.head(list(features))
        height, width = (4 * edge for edge in features[0].shape[-2:])
        anchors = rpn.anchor_generator(
            ImageList(torch.empty(len(sizes), 3, height, width), list(sizes)), list(features)
        )
        counts = [one[0].numel() for one in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = rpn.box_coder.decode(deltas, anchors).view(len(sizes), -1, 4)
        return list(zip(*rpn.filter_proposals(boxes, objectness, list(sizes), counts), strict=True))

    def refine(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Refined]:
        """Return boxes and class probabilities, background last."""
        heads, counts = self.net.roi_heads, [len(p) for p in proposals]
        pooled = heads.box_roi_pool(_named(features), list(proposals), list(sizes))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        probabilities = logits.softmax(-1).roll(-1, dims=1)
        boxes = heads.box_coder.decode(deltas, list(proposals))
        boxes = boxes[torch.arange(len(boxes)), probabilities[:, :-1].argmax(1) + 1]
        return [
            Refined(clip_boxes_to_image(one, size), p)
            for one, p, size in zip(boxes.split(counts), probabilities.split(counts), sizes, strict=True)
        ]

    def segment(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Segmented]:
        """Return the masks of the boxes' classes."""
        heads, chosen = self.net.roi_heads, torch.cat(list(labels)) + 1
        height, width = (4 * edge for edge in features[0].shape[-2:])
        pooled = heads.mask_roi_pool(_named(features), list(boxes), [(height, width)] * len(boxes))
        masks = heads.mask_predictor(heads.mask_head(pooled)).sigmoid()[torch.arange(len(chosen)), chosen]
        return [Segmented(one) for one in masks.split([len(b) for b in boxes])]


def _named(features: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the pyramid's levels by name; the heads do not use the last one."""
    return {str(i): x for i, x in enumerate(features[:-1])}
