"""Time a training step and a prediction with and without attributes.

The model is the tiny cascade from scratch on drawn figures; the rival is the same model without attribute outputs.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._measure import interleaved, tell
from benchmarks.train_step import SEED, make_detector
from fashion_hydra.data.attribute_set import AttributeSet, attribute_set_of
from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSpec
from fashion_hydra.data.dataset import TrainDataset, collate
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.inference.cascade import find_candidates
from fashion_hydra.model.detector import Detector
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.batch import Batch
from fashion_hydra.wardrobe import write_wardrobe


def step_of(detector: Detector, batch: Batch) -> Callable[[], None]:
    """Return a training step without the optimizer update, whose cost depends only on the number of parameters."""

    def step() -> None:
        detector.zero_grad()
        torch.stack(list(detector.loss(batch, list(range(len(batch)))).values())).sum().backward()

    return step


def main() -> None:
    """Time the model with and without attributes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=4, help="images per step")
    parser.add_argument("--size", type=int, default=224, help="long edge of the images in pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_wardrobe(Path(folder) / "data", train=max(20, args.images), test=1, size=args.size, seed=0)
        annotations, _ = read_annotations(Path(folder) / "data")
        plain = ClassSpec("present", "present").resolve(annotations.names, np.unique(annotations.categories).tolist())
        known = attribute_set_of(map(str, annotations.class_ids), plain.label_of(), {})
        made: dict[str, Any] = {"ours, with attributes": known, "without": AttributeSet()}
        steps, predictions = {}, {}
        for name, attributes in made.items():
            classes = replace(plain, attributes=attributes)
            augment = Augment(short_edge=[args.size * 2 // 3] * 2, long_edge=args.size)
            dataset = TrainDataset(annotations, np.arange(len(annotations)), classes, augment, seed=SEED)
            batch = collate([dataset[0, i] for i in range(args.images)])
            more = {"attributes": True, "attribute_set": attributes} if attributes else {}
            detector, _ = make_detector(classes, "htc_tiny", **more)
            steps[name] = step_of(detector.train(), batch)
            other = make_detector(classes, "htc_tiny", **more)[0].for_inference(torch.device("cpu"))
            one = collate([dataset[0, 0]])
            predictions[name] = lambda other=other, one=one: find_candidates(other, one, [COCO_RULE])
        first = next(iter(made))
        tell(f"a training step of {args.images} images", interleaved(steps, rounds=args.rounds), ours=first)
        tell("candidates of one image, one view", interleaved(predictions, rounds=args.rounds), ours=first)


if __name__ == "__main__":
    main()
