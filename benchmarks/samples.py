"""Decode, resize, flip and pack a training sample with its masks: ours against mmdet 3's own pipeline.

Both sides use the same scale and flip, so their boxes must be equal. mmdet resizes masks with OpenCV's nearest
neighbour, which shifts them by half a pixel against the image (augment.mask_sampling=corner). The masks are compared
with this sampling and with our default, centre. Photos are real ones resized to 6 megapixels if FASHION_HYDRA_PHOTOS
names a folder of photos, otherwise drawn ones. Masks are repeated or dropped so that each photo has ten.
"""

import argparse
import csv
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

import fashion_hydra.model  # noqa: F401 - must be imported before mmdet
from benchmarks._measure import interleaved, tell
from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.augment import SAMPLINGS, Augment
from fashion_hydra.data.class_set import ClassSpec
from fashion_hydra.data.dataset import Sample, TrainDataset, read_image
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.structures import rle
from fashion_hydra.wardrobe import write_wardrobe

PHOTOS = Path(os.environ.get("FASHION_HYDRA_PHOTOS", "no such folder"))
SHORT_EDGE, LONG_EDGE = 2000, 3000  # size of the photos in pixels
MASKS = 10


def make_photos(folder: Path, count: int) -> Path:
    """Write a folder in Kaggle's layout with up to `count` six-megapixel photos and ten masks each."""
    source = PHOTOS
    if not PHOTOS.is_dir():
        source = folder / "wardrobe"
        write_wardrobe(source, train=12, test=2, size=1024, seed=0)
    annotations, _ = read_annotations(source)
    root = folder / "photos"
    (root / "train").mkdir(parents=True)
    (root / "label_descriptions.json").write_bytes((source / "label_descriptions.json").read_bytes())
    with (root / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for image in range(min(count, len(annotations))):
            old = (int(annotations.sizes[image, 0]), int(annotations.sizes[image, 1]))
            new = (LONG_EDGE, SHORT_EDGE) if old[0] >= old[1] else (SHORT_EDGE, LONG_EDGE)
            pixels = cv2.resize(read_image(annotations, image), new[::-1], interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / "train" / f"{image}.jpg"), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            masks = list(annotations.instances(image))
            for i in range(MASKS):
                runs = annotations.runs_of(masks[i % len(masks)])
                runs = rle.resize_runs(runs, height=old[0], width=old[1], new_height=new[0], new_width=new[1])
                category = (int(annotations.categories[masks[i % len(masks)]]) + i // len(masks)) % 46
                writer.writerow([f"{image}.jpg", rle.runs_to_kaggle(runs), *new, category])
    return root


def mmdet_pipeline(short_edge: int, flip: bool) -> Any:
    """Return mmdet's transforms with a fixed scale and flip."""
    from mmcv.transforms import Compose, RandomResize
    from mmdet.datasets import transforms

    scale = (1900, short_edge)
    return Compose(
        [
            transforms.LoadAnnotations(with_bbox=True, with_mask=True),
            RandomResize(scale=[scale, scale], keep_ratio=True, resize_type=transforms.Resize),
            transforms.RandomFlip(prob=1.0 if flip else 0.0),
            transforms.PackDetInputs(),
        ]
    )


def mmdet_input(annotations: Annotations, image: int) -> dict[str, Any]:
    """Return the dict that mmdet's data set passes to its pipeline for an image."""
    height, width = (int(edge) for edge in annotations.sizes[image])
    instances = []
    for mask in annotations.instances(image):
        encoded = rle.runs_to_coco(annotations.runs_of(mask), height=height, width=width)
        instances.append(
            {
                "bbox": annotations.boxes[mask].tolist(),
                "bbox_label": int(annotations.categories[mask]),
                "mask": {"size": encoded["size"], "counts": encoded["counts"].decode()},
                "ignore_flag": 0,
            }
        )
    path = annotations.folder / str(annotations.files[image])
    return {"img_path": str(path), "img_id": image, "height": height, "width": width, "instances": instances}


def run_mmdet(pipeline: Any, results: dict[str, Any]) -> dict[str, Any]:
    """Run LoadImageFromFile, then the pipeline."""
    from mmcv.transforms import LoadImageFromFile

    return pipeline(LoadImageFromFile()(results))


def compare(ours: Sample, theirs: dict[str, Any]) -> tuple[float, list[float]]:
    """Return the largest difference between boxes, and the IoU of each mask of more than 400 pixels."""
    other = theirs["data_samples"].gt_instances
    assert ours.image.shape == theirs["inputs"].shape
    boxes = np.asarray(other.bboxes.tensor if hasattr(other.bboxes, "tensor") else other.bboxes)
    difference = float(np.abs(ours.targets.boxes.numpy() - boxes).max())
    overlaps = []
    for mine, its in zip(ours.targets.masks.bitmaps().numpy(), other.masks.masks, strict=True):
        if its.sum() > 400:
            encoded = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in (mine, its)]
            overlaps.append(float(coco_mask.iou([encoded[0]], [encoded[1]], [0])[0, 0]))
    return difference, overlaps


def main() -> None:
    """Compare the results, then time both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photos", type=int, default=12, help="number of photos, up to 12")
    parser.add_argument("--short-edge", type=int, nargs=2, default=(600, 1200), metavar=("LOW", "HIGH"))
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as in a loader process
    with tempfile.TemporaryDirectory() as folder:
        annotations, _ = read_annotations(make_photos(Path(folder), args.photos))
        classes = ClassSpec("all", "all").resolve(annotations.names, [])
        datasets = {
            sampling: TrainDataset(
                annotations,
                np.arange(len(annotations)),
                classes,
                Augment(short_edge=list(args.short_edge), long_edge=1900, mask_sampling=sampling),
                seed=0,
            )
            for sampling in SAMPLINGS
        }
        dataset = datasets["centre"]
        keys = [(0, image) for image in range(len(annotations))]
        inputs = [mmdet_input(annotations, image) for image in range(len(annotations))]
        frames = [dataset.draw(key, (i["height"], i["width"]))[0] for key, i in zip(keys, inputs, strict=True)]
        pipelines = [mmdet_pipeline(min(frame.new), frame.flip) for frame in frames]
        theirs = [run_mmdet(pipeline, dict(i)) for pipeline, i in zip(pipelines, inputs, strict=True)]
        print(f"{len(keys)} photos of 6 megapixels with {MASKS} masks each, short edge {args.short_edge}")
        for sampling in SAMPLINGS:
            compared = [compare(datasets[sampling][key], other) for key, other in zip(keys, theirs, strict=True)]
            overlaps = [iou for _, ious in compared for iou in ious]
            print(
                f"augment.mask_sampling={sampling} against mmdet: boxes differ by up to "
                f"{max(d for d, _ in compared):.1e} px; {len(overlaps)} masks of more than 400 pixels: "
                f"mean IoU {np.mean(overlaps):.4f}, minimum {min(overlaps):.4f}"
            )
        rivals = {
            "ours": lambda: [dataset[key] for key in keys],
            "mmdet's pipeline": lambda: [
                run_mmdet(pipeline, dict(results)) for pipeline, results in zip(pipelines, inputs, strict=True)
            ],
        }
        seconds = interleaved(rivals, rounds=args.rounds)
    tell("a training sample", seconds, ours="ours", per=len(keys))


if __name__ == "__main__":
    main()
