"""Results in COCO's format: pycocotools on the user's own file gives the AP that training logged."""

import csv
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.data.coco_export import write_coco
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.rle import runs_to_bitmap
from tests.helpers import SMALL_PREDICT, SMALL_TRAIN

IMAGE_IDS, CATEGORY_IDS, ANNOTATION_IDS = (5, 7), (3, 10), (1000, 3)
"""First id and step of the ids in the user's file."""


def written(wardrobe, folder):
    """Write the wardrobe as a foreign COCO file with arbitrary ids, and return its annotations."""
    annotations, _ = read_annotations(wardrobe)
    write_coco(annotations, folder / "own.json", range(len(annotations)))
    content = json.loads((folder / "own.json").read_text())
    number = {image["id"]: IMAGE_IDS[0] + IMAGE_IDS[1] * i for i, image in enumerate(content["images"])}
    for image in content["images"]:
        image["id"] = number[image["id"]]
    for category in content["categories"]:
        category["id"] = CATEGORY_IDS[0] + CATEGORY_IDS[1] * category["id"]
    for i, annotation in enumerate(content["annotations"]):
        annotation["id"] = ANNOTATION_IDS[0] + ANNOTATION_IDS[1] * i
        annotation["image_id"] = number[annotation["image_id"]]
        annotation["category_id"] = CATEGORY_IDS[0] + CATEGORY_IDS[1] * annotation["category_id"]
    (folder / "own.json").write_text(json.dumps(content))
    return annotations


def noisy_truth(annotations, label_of):
    """Return image id -> candidates near its true masks, a fifth of them with a wrong class."""
    found = {}
    for image, image_id in enumerate(annotations.image_ids.tolist()):
        rng = np.random.default_rng(image)
        size = height, width = annotations.sizes[image].tolist()
        masks = [m for m in annotations.instances(image) if annotations.areas[m] > 40]
        boxes, labels, grids = [], [], []
        for mask in masks:
            x0, y0, x1, y1 = annotations.boxes[mask].tolist()
            bitmap = runs_to_bitmap(annotations.runs_of(mask), height=height, width=width)[y0:y1, x0:x1]
            grid = torch.from_numpy(bitmap.astype(np.float32))[None, None]
            grids.append(torch.nn.functional.interpolate(grid, size=(14, 14), mode="area")[0, 0])
            boxes.append([x0, y0, x1 + rng.integers(0, 4), y1])
            labels.append(
                int(rng.integers(len(label_of))) if rng.random() < 0.2 else label_of[annotations.categories[mask]]
            )
        scores, order = torch.sort(torch.from_numpy(rng.uniform(0.02, 1, len(masks))).float(), descending=True)
        boxes, labels = torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(labels, dtype=torch.int64)
        stacked = torch.stack(grids) if grids else torch.zeros(0, 14, 14)
        found[image_id] = Candidates(image_id, tuple(size), boxes[order], scores, labels[order], stacked[order])
    return found


@pytest.fixture
def trained(wardrobe, tmp_path, monkeypatch):
    """A run on the user's file, and its val/AP, AP50 and AP75; a fake detector replaces the network."""
    from fashion_hydra.inference import module
    from fashion_hydra.training import lightning_module
    from fashion_hydra.workflows.train import train

    annotations = written(wardrobe, tmp_path)
    ids = sorted(set(annotations.categories.tolist()))
    candidates = noisy_truth(annotations, {category: label for label, category in enumerate(ids)})
    names = {f"{name}": name for name in candidates}
    monkeypatch.setattr(
        lightning_module,
        "find_candidates",
        lambda detector, batch, rules, **how: [candidates[names[i]] for i in batch.image_ids],
    )
    monkeypatch.setattr(module, "merge_sources", lambda detectors, batch, *more, **how: candidates[batch.image_id])
    folder = tmp_path / "run"
    data = ["data=coco", f"data.root={wardrobe}", f"data.annotations={tmp_path / 'own.json'}", "classes=present"]
    quick = ["schedule.epochs=1", "+trainer.limit_train_batches=1", f"paths.output_dir={folder}"]
    train(compose_options("train", *SMALL_TRAIN, *data, *quick, "data.num_workers=0"), Command())
    with next(folder.glob("csv/version_*/metrics.csv")).open() as stream:
        [logged] = [row for row in csv.DictReader(stream) if row.get("val/AP")]
    return folder, [float(logged[name]) for name in ("val/AP", "val/AP50", "val/AP75")]


def test_pycocotools_gives_the_logged_ap_on_the_users_own_file(trained, tmp_path, capsys):
    from fashion_hydra.workflows import predict

    run, logged = trained
    out = tmp_path / "out"
    rule = ["postprocess=coco", "candidates.score_floor=0.001", "candidates.iou_grid=[0.5]", "output=coco"]
    words = [*SMALL_PREDICT, f"ensemble.run={run}", "data.images=val", *rule, f"out={out}", f"paths.output_dir={out}"]
    predict.predict(compose_options("predict", *words), Command())
    truth = COCO(str(tmp_path / "own.json"))
    results = truth.loadRes(str(out / "coco_results.json"))
    evaluation = COCOeval(truth, results, "segm")
    evaluation.params.imgIds = sorted(
        image["id"] for image in json.loads((out / "coco_results_images.json").read_text())["images"]
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.05 < logged[0] < logged[1] < 1
    assert evaluation.stats[:3] == pytest.approx(logged, abs=1e-6)
