"""Time three models on six views of an image: features computed once per source, against three times.

The rival is benchmarks/plain_scheme.py with the models as trained. Ours prepares the models for inference, as
predict.py does; the rival is also timed with these prepared models. The models are HTC on ResNet-101 at a quarter of
its width, with random weights, because only the amount of work matters. On photos of the winner's size most of the work
is the backbone; these photos have a sixth of the pixels, so --proposals and --masks are reduced in proportion.
"""

import argparse
from typing import Any

import numpy as np
import torch
import torchvision

from benchmarks._measure import interleaved, tell
from benchmarks.plain_scheme import plain_scheme
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.merging import FEATURE_CACHES, Merging
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.htc import build_htc
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.batch import ScaledImage

SCORE_THR, IOU_THR = 0.05, 0.5


def options(depth: int, base_channels: int) -> dict[str, Any]:
    """Return arguments of `build_htc` with the winner's proportions; the winner's width is 64 base channels."""
    stages = [base_channels * 2**i * (4 if depth >= 50 else 1) for i in range(4)]
    return {
        "backbone": {
            "type": "ResNet",
            "depth": depth,
            "base_channels": base_channels,
            "channels": stages,
            "mean": [123.7, 116.3, 103.5],
            "std": [58.4, 57.1, 57.4],
            "channel_order": "rgb",
        },
        "neck_channels": 4 * base_channels,
        "fc_channels": 16 * base_channels,
        "mask_channels": 4 * base_channels,
        "mask_convs": 4,
        "mask_roi_size": 14,
        "anchor_scale": 8,
        "anchor_ratios": [0.5, 1.0, 2.0],
        "rpn_batch": 128,
        "train_proposals": 300,
        "test_proposals": 1000,
        "proposal_iou_thr": 0.7,
        "rois_per_stage": 64,
        "stage_ious": [0.5, 0.6, 0.7],
        "stage_weights": [1.0, 0.5, 0.25],
        "roi_sampling_ratio": 0,
        "norm": None,
        "gradient_checkpointing": False,
    }


def decided_model(seed: int, arguments: dict[str, Any], num_classes: int = 46) -> Detector:
    """Build a random cascade whose heads give different boxes different scores."""
    torch.manual_seed(seed)
    return with_opinions(build_htc(num_classes=num_classes, **arguments)).eval()


def with_opinions(detector: Detector) -> Detector:
    """Randomize the classifiers of a new cascade, whose heads would give every box the same scores."""
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=0.15)
    return detector


def fast_nms(boxes: np.ndarray, scores: np.ndarray, iou_thr: float) -> list[int]:
    """Run torchvision's NMS, so that the rival loses no time in NMS."""
    return torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou_thr).tolist()


def main() -> None:
    """Compare the results, then time both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--depth", type=int, default=101, choices=(18, 34, 50, 101), help="depth of the ResNet")
    parser.add_argument("--base-channels", type=int, default=16)
    parser.add_argument("--short-edges", type=int, nargs="+", default=(400, 480, 560))
    parser.add_argument("--proposals", type=int, default=100, help="maximum number of merged proposals")
    parser.add_argument("--masks", type=int, default=10, help="maximum number of masks per image")
    parser.add_argument("--feature-cache", nargs="+", choices=FEATURE_CACHES[:2], default=["device"])
    args = parser.parse_args()
    arguments = options(args.depth, args.base_channels)
    device = torch.device("cpu")
    detectors = [decided_model(seed, arguments) for seed in range(args.models)]
    prepared = [decided_model(seed, arguments).for_inference(device) for seed in range(args.models)]
    rng = np.random.default_rng(0)
    images = tuple(
        torch.from_numpy(rng.integers(0, 255, (3, edge * 3 // 2, edge), dtype=np.uint8)) for edge in args.short_edges
    )
    scaled = ScaledImage("one", (1500, 1000), images)
    rules = [Postprocess(score_thr=SCORE_THR, iou_thr=IOU_THR, mask_thr=0.5, max_per_image=args.masks)]

    def ours(cache: str):
        return merge_sources(
            prepared,
            scaled,
            rules,
            Merging(flips=(False, True), max_proposals=args.proposals, feature_cache=cache),
            device=device,
        )

    def rival(models: list[Detector]):
        return plain_scheme(
            models,
            images,
            (False, True),
            scaled.size,
            score_thr=SCORE_THR,
            iou_thr=IOU_THR,
            max_proposals=args.proposals,
            max_per_image=args.masks,
            nms=fast_nms,
        )

    found, (boxes, _, labels, masks) = ours("device"), rival(detectors)
    same = found.labels == labels  # random models give boxes of almost equal scores, whose order may differ
    print(
        f"{args.models} models x {2 * len(images)} views: {int(same.sum())} of {len(labels)} masks at the same rank; "
        f"their boxes differ by up to {float((found.boxes - boxes)[same].abs().max()):.1e} px, mask probabilities by "
        f"up to {float((found.masks - masks)[same].abs().max()):.1e}"
    )
    rivals = {f"features once, cached on the {name} (ours)": (lambda c=name: ours(c)) for name in args.feature_cache}
    rivals["backbone recomputed in each step"] = lambda: rival(detectors)
    rivals["backbone recomputed, prepared models"] = lambda: rival(prepared)
    seconds = interleaved(rivals, rounds=args.rounds)
    tell("per image", seconds, ours=next(iter(rivals)), unit="s")


if __name__ == "__main__":
    main()
