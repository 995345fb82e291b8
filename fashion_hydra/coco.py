"""COCO's average precision of masks, by the faster-coco-eval library."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from fashion_hydra.structures import Detections

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def mask_ap(
    truth: Mapping[str, Sequence[tuple[int, dict[str, Any]]]], found: Mapping[str, Detections], *, labels: int
) -> dict[str, float]:
    """COCO's AP of masks, averaged over the classes that the truth has; 0 where it has none.

    Args:
        truth: image id -> label and run-length encoding of each object.
        found: image id -> detections on the same frame as the image's truth.
        labels: number of classes.
    """
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
    if not annotations or not results:
        return dict.fromkeys(NAMES, 0.0)
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
    return {name: max(0.0, float(value)) for name, value in zip(NAMES, evaluation.stats, strict=False)}
