"""Score a grid of thresholds from candidates: all combinations at once, against one combination at a time.

Images, candidates and truth are synthetic. The benchmark compares times and checks that the scores are bit-identical.
The slow side, which postprocesses and scores per combination, is timed on a sample of combinations and images in the
same process and rounds; its total time is extrapolated from the sample.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fashion_hydra.evaluation.competition_score import ClassMasks, count_image, mean, pool_classes
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.structures.rle import bitmap_to_runs, runs_to_coco
from fashion_hydra.tuning.build import build_score_table
from fashion_hydra.tuning.grid import Grid, scores_of

GRID = (512, 512)
CLASSES = 46
SIZE = (1600, 1200)
BASE = Postprocess(score_thr=0.05, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
IOU_THRS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7)


def the_grid(scores: int, ious: int, masks: int) -> Grid:
    """Return a grid with the given number of values per axis."""
    score_thrs = np.round(np.linspace(0.05, 0.8, scores), 3).tolist()
    mask_thrs = np.round(np.linspace(0.3, 0.7, masks), 3).tolist()
    return Grid(score_thrs, IOU_THRS[:ious], mask_thrs, [20], [100], {"none": ()})


def scene(rng: np.random.Generator, name: str, *, truths: int, candidates: int) -> tuple[Candidates, ClassMasks]:
    """Make an image: true masks as large as clothes, and detections around them and elsewhere, mostly overlapping."""
    height, width = SIZE
    true_labels = rng.integers(0, CLASSES, truths)
    edges = np.exp(rng.uniform(np.log(60), np.log(700), (truths, 2)))
    corners = rng.uniform(0, 1, (truths, 2)) * (np.array([width, height]) - edges).clip(0)
    boxes = np.concatenate([corners, corners + edges], axis=1)
    owners = rng.integers(0, truths, candidates)
    found = boxes[owners] + rng.normal(0, 0.12, (candidates, 4)) * np.tile(edges[owners], 2)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 4)
    labels = np.where(rng.random(candidates) < 0.6, true_labels[owners], rng.integers(0, CLASSES, candidates))
    scores = np.sort(rng.beta(0.7, 1.6, candidates).clip(0.051, 0.999))[::-1]
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    soft = (1.25 - np.hypot(x, y) + rng.normal(0, 0.1, (candidates, 28, 28))).clip(0, 1)
    truth: dict[str, list] = {}
    stretch = np.array([GRID[1] / width, GRID[0] / height] * 2)
    rows, columns = np.mgrid[: GRID[0], : GRID[1]] + 0.5
    for label, (x0, y0, x1, y1) in zip(true_labels.tolist(), boxes * stretch, strict=True):
        inside = ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25
        truth.setdefault(str(label), []).append(runs_to_coco(bitmap_to_runs(inside), height=GRID[0], width=GRID[1]))
    arrays = (found.astype(np.float32), scores.astype(np.float32), labels.astype(np.int64), soft.astype(np.float32))
    return Candidates(name, SIZE, *(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)), truth


def make(folder: Path, images: int, truths: int, candidates: int) -> tuple[CandidateCache, dict[str, ClassMasks]]:
    """Write a candidate cache of several images, and return it with the images' truth."""
    manifest = Manifest(
        members=(("made-up.ckpt", "0" * 64),),
        class_ids=tuple(range(CLASSES)),
        class_names=tuple(f"category {i}" for i in range(CLASSES)),
        scales=((1200, 1900),),
        flips=(False,),
        proposal_iou_thr=0.7,
        max_proposals=1000,
        precision="32-true",
        score_floor=0.05,
        iou_grid=IOU_THRS,
    )
    cache, rng, truth = CandidateCache(folder, manifest), np.random.default_rng(0), {}
    for i in range(images):
        found, truth[f"{i}.jpg"] = scene(rng, f"{i}.jpg", truths=truths, candidates=candidates)
        cache.write(found)
    return cache, truth


def score_plainly(cache: CandidateCache, truth: dict[str, ClassMasks], rule: Postprocess) -> list[float]:
    """Postprocess and score image by image, and return each image's score."""
    scores = []
    for name, true in truth.items():
        found = apply(cache.read(name), rule, size=GRID)
        scores.append(pool_classes(count_image(true, found.by_class_id(cache.manifest.class_ids))))
    return scores


def main() -> None:
    """Time both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=450)
    parser.add_argument("--truths", type=int, default=7, help="true masks per image")
    parser.add_argument("--candidates", type=int, default=100, help="candidates per image")
    parser.add_argument(
        "--grid", type=int, nargs=3, default=[10, 9, 9], help="number of values of score_thr, iou_thr and mask_thr"
    )
    parser.add_argument("--sample", type=int, nargs=2, default=[6, 60], help="combinations and images of the slow side")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    grid = the_grid(*args.grid)
    rules = grid.rules(BASE)
    ours, slow = [], []
    with tempfile.TemporaryDirectory() as folder:
        cache, truth = make(Path(folder) / "candidates", args.images, args.truths, args.candidates)
        chosen = random.Random(0).sample(range(len(rules)), args.sample[0])
        few = dict(list(truth.items())[: args.sample[1]])
        share = len(chosen) / len(rules) * len(few) / len(truth)
        for _ in range(args.rounds):
            begin = time.perf_counter()
            scores = scores_of(build_score_table(cache, truth, rules), rules, pooling="class", desc="grid")
            ours.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            plain = [score_plainly(cache, few, rules[i]) for i in chosen]
            slow.append((time.perf_counter() - begin) / share)
            assert all(scores[i][: len(few)].tolist() == of_rule for i, of_rule in zip(chosen, plain, strict=True))
    best = max(range(len(rules)), key=lambda i: mean(scores[i]))
    each = f"{args.candidates} candidates and {args.truths} true masks each"
    machine = f"[{os.cpu_count()} cores, {args.rounds} rounds]"
    print(f"\n{len(rules)} combinations, {args.images} images, {each}  {machine}")
    for name, seconds in (("ours, all cores", ours), (f"one by one, from {len(chosen)} on {len(few)} images", slow)):
        spread = f"(min {min(seconds):.1f}, max {max(seconds):.1f})"
        print(f"  {name:44} median {statistics.median(seconds):10.1f} s  {spread}")
    ratio = statistics.median(slow) / statistics.median(ours)
    print(f"  ratio {ratio:.0f}; scores of the sample are bit-identical; best {mean(scores[best]):.4f}")


if __name__ == "__main__":
    main()
