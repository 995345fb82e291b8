"""Fixtures: images with candidates of all kinds: hits, near misses, duplicates, overlaps, ties, unexpected classes."""

import numpy as np
import pytest
import torch

from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_coco

IDS = (3, 6, 23)
GRID = (512, 512)
MANIFEST = Manifest(
    members=(("a.ckpt", "0" * 64),),
    class_ids=IDS,
    class_names=("cardigan", "pants", "shoe"),
    scales=((96, 144),),
    flips=(False,),
    proposal_iou_thr=0.7,
    max_proposals=100,
    precision="32-true",
    score_floor=0.05,
    iou_grid=(0.3, 0.5, 0.7),
)


def ellipse(box, grid):
    """Draw an ellipse into a box, uint8 (H, W)."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[: grid[0], : grid[1]] + 0.5
    inside = ((x - (x0 + x1) / 2) / (x1 - x0) * 2) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0) * 2) ** 2 <= 1
    return inside.astype(np.uint8)


def blob(rng, cells=14):
    """Make a soft mask, an ellipse with noise."""
    y, x = (np.mgrid[:cells, :cells] + 0.5) / cells * 2 - 1
    return np.clip(1.3 - np.hypot(x, y) + rng.normal(0, 0.15, (cells, cells)), 0, 1).astype(np.float32)


def scene(rng, name, size=(90, 60)):
    """Make candidates and truth of an image."""
    stretch = np.array([GRID[1] / size[1], GRID[0] / size[0]] * 2)
    truth: dict[str, list] = {}
    boxes, labels, scores = [], [], []
    for _ in range(rng.integers(0, 5)):
        label = int(rng.integers(0, 3))
        corner = rng.uniform(0, [size[1] - 25, size[0] - 30])
        box = np.concatenate([corner, corner + rng.uniform(8, 24, 2)])
        class_id = str(IDS[label]) + ("_28" if rng.random() < 0.2 else "")
        runs = bitmap_to_runs(ellipse(box * stretch, GRID))
        truth.setdefault(class_id, []).append(runs_to_coco(runs, height=512, width=512))
        if rng.random() < 0.15:  # repeat the mask, so that one detection matches two true masks
            truth[class_id].append(truth[class_id][-1])
        for _ in range(rng.integers(0, 4)):
            boxes.append(box + rng.normal(0, 1.2, 4))
            labels.append(label if rng.random() < 0.9 else int(rng.integers(0, 3)))
            scores.append(rng.uniform(0.2, 1))
    for _ in range(rng.integers(0, 9)):
        corner = rng.uniform(-3, [size[1] - 6, size[0] - 6])
        boxes.append(np.concatenate([corner, corner + rng.uniform(2, 20, 2)]))
        labels.append(int(rng.integers(0, 3)))
        scores.append(rng.uniform(0.06, 0.7))
    if rng.random() < 0.2:
        truth.setdefault("40", []).append(runs_to_coco(np.array([[5, 100]]), height=512, width=512))
    scores = np.round(np.array(scores), 2)  # creates ties
    order = np.argsort(-scores, kind="stable")
    n = len(order)
    candidates = Candidates(
        name,
        size,
        torch.tensor(np.array(boxes).reshape(n, 4)[order], dtype=torch.float32),
        torch.tensor(scores[order], dtype=torch.float32),
        torch.tensor(np.array(labels, dtype=np.int64)[order]),
        torch.tensor(np.array([blob(rng) for _ in range(n)]).reshape(n, 14, 14)),
    )
    return candidates, truth


def write_scenes(folder, count, seed):
    """Write a candidate cache of `count` images, and return it with the truth."""
    rng = np.random.default_rng(seed)
    cache = CandidateCache(folder, MANIFEST)
    truth = {}
    for i in range(count):
        candidates, truth[f"{i}.jpg"] = scene(rng, f"{i}.jpg")
        cache.write(candidates)
    return cache, truth


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "candidates", 45, seed=3)
