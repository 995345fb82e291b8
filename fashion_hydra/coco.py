"""COCO's average precision of masks, by the faster-coco-eval library."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from fashion_hydra.rle import CocoRLE
from fashion_hydra.structures import Detections

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def mask_ap(
    truth: Mapping[str, Sequence[tuple[int, CocoRLE]]], found: Mapping[str, Detections], *, labels: int
) -> dict[str, float]:
    """COCO's AP of masks, averaged over the classes that the truth has; 0 where it has none.

    Args:
        truth: image id -> label and run-length encoding of each object.
        found: image id -> detections on the same frame as the image's truth.
        labels: number of classes.
    """
    return mask_ap_by_class(truth, found, labels=labels)[0]


def mask_ap_by_class(
    truth: Mapping[str, Sequence[tuple[int, CocoRLE]]], found: Mapping[str, Detections], *, labels: int
) -> tuple[dict[str, float], npt.NDArray[np.float64]]:
    """What `mask_ap` gives, and AP of each class: (labels,), NaN for classes that the truth does not have."""
    images = {image_id: number for number, image_id in enumerate(truth, start=1)}
    annotations = [
        {
            "image_id": images[image_id],
            "category_id": label,
            "segmentation": rle,
            "area": float(coco_mask.area(rle)),
            "bbox": coco_mask.toBbox(rle).tolist(),
            "iscrowd": 0,
        }
        for image_id, objects in truth.items()
        for label, rle in objects
    ]
    results = [
        {"image_id": images[image_id], "category_id": label, "segmentation": rle, "score": score}
        for image_id, detections in found.items()
        for label, score, rle in zip(detections.labels, detections.scores, detections.masks, strict=True)
    ]
    of_class = np.full(labels, np.nan)
    of_class[[int(a["category_id"]) for a in annotations]] = 0.0
    if not annotations or not results:
        return dict.fromkeys(NAMES, 0.0), of_class
    dataset = {
        "images": [
            {"id": images[image_id], "height": height, "width": width}
            for image_id, objects in truth.items()
            for height, width in [objects[0][1]["size"] if objects else (0, 0)]
        ],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": label, "name": str(label)} for label in range(labels)],
    }
    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # it tells each step and prints its table
    coco = COCO(dataset)
    evaluation = COCOeval_faster(coco, coco.loadRes(results), iouType="segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # precision: (IoU thresholds, recalls, classes, areas, numbers of detections), -1 where there is no truth
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    known = precision[0, 0] > -1
    of_class[known] = precision[:, :, known].mean(axis=(0, 1))
    stats = {name: max(0.0, float(value)) for name, value in zip(NAMES, evaluation.stats, strict=False)}
    return stats, of_class
