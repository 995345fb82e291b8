"""Write a data set as COCO's JSON, with its original ids."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.formats.class_id import attributes_of, category_of
from fashion_hydra.structures import rle
from fashion_hydra.utils.files import atomic_write


def write_coco(annotations: Annotations, path: Path, chosen: Sequence[int]) -> tuple[int, int]:
    """Write images with their masks and crowd regions as COCO's JSON, atomically and one mask at a time.

    Images, categories and annotations keep the ids of the COCO file that they were read from.

    Args:
        annotations: data set to write.
        path: output file.
        chosen: indices of the images to write.

    Returns:
        Number of masks and number of crowd regions written.
    """
    images = [
        {
            "id": json.loads(str(annotations.coco_ids[i])),
            "file_name": str(annotations.files[i]),
            "height": h,
            "width": w,
        }
        for i in chosen
        for h, w in [annotations.sizes[i].tolist()]
    ]
    categories = [{"id": i, "name": name} for i, name in annotations.names.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    masks = crowds = 0
    with atomic_write(path) as stream:
        stream.write(f'{{"images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n"annotations": [')
        for i in tqdm(chosen, desc="writing", unit=" images", disable=None):
            for annotation in _annotations(annotations, i):
                stream.write(",\n" if masks + crowds else "\n")
                stream.write(json.dumps(annotation))
                masks, crowds = masks + 1 - annotation["iscrowd"], crowds + annotation["iscrowd"]
        stream.write("\n]}\n")
    return masks, crowds


def _annotations(annotations: Annotations, image: int) -> Iterator[dict[str, Any]]:
    """Yield the entries of an image's masks, followed by those of its crowd regions."""
    height, width = annotations.sizes[image].tolist()
    coco_id = json.loads(str(annotations.coco_ids[image]))
    for mask in annotations.instances(image):
        class_id = str(annotations.class_ids[mask])
        yield {
            "id": int(annotations.annotation_ids[mask]),
            "image_id": coco_id,
            "category_id": category_of(class_id),
            "attribute_ids": list(attributes_of(class_id)),
            "iscrowd": 0,
            **_region(annotations.runs_of(mask), height, width),
        }
    for crowd in annotations.crowds(image):
        yield {
            "id": int(annotations.crowd_ids[crowd]),
            "image_id": coco_id,
            "category_id": int(annotations.crowd_categories[crowd]),
            "attribute_ids": [],
            "iscrowd": 1,
            **_region(annotations.crowd_runs_of(crowd), height, width),
        }


def _region(runs: rle.Runs, height: int, width: int) -> dict[str, Any]:
    x0, y0, x1, y1 = rle.runs_to_box(runs, height=height)
    encoded = rle.runs_to_coco(runs, height=height, width=width)
    counts = encoded["counts"]
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": rle.runs_area(runs),
        "segmentation": {"size": encoded["size"], "counts": counts.decode() if isinstance(counts, bytes) else counts},
    }
