"""Time the competition score and COCO's mask AP on many images with many detections; compare AP with pycocotools.

Images, truth and detections are synthetic. Both sides get run-lengths on the images' own frames (1600x1200) and must
return the same twelve metrics. Validation knows the areas of the masks that it draws. The areas of masks read from a
file must be counted, as pycocotools does; this is timed too. The score is computed on the submission's grid, as always.
"""

import argparse
import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from benchmarks._measure import interleaved, tell
from benchmarks.threshold_search import CLASSES, GRID, SIZE, scene
from fashion_hydra.evaluation import coco_ap, competition_score
from fashion_hydra.evaluation.coco_ap import TrueMask
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures import rle
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import CocoRLE

Truth = Mapping[str, Sequence[TrueMask]]


def pycocotools_ap(truth: Truth, found: Mapping[str, Detections]) -> dict[str, float]:
    """Compute AP as in pycocotools' documentation."""
    numbers = {name: number for number, name in enumerate(truth, 1)}
    annotations = [
        {"image_id": numbers[name], "category_id": one.label, "segmentation": one.mask, "iscrowd": 0,
         "area": one.area, "bbox": coco_mask.toBbox(one.mask).tolist()}
        for name, objects in truth.items()
        for one in objects
    ]  # fmt: skip
    results = [
        {"image_id": numbers[name], "category_id": label, "segmentation": rle, "score": score}
        for name, d in found.items()
        for label, score, rle in zip(d.labels, d.scores, d.masks, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in numbers.values()],
            "annotations": [{"id": i, **a} for i, a in enumerate(annotations, 1)],
            "categories": [{"id": label, "name": str(label)} for label in range(CLASSES)],
        }
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(coco_ap.NAMES, evaluation.stats.tolist(), strict=True))


def main() -> None:
    """Compare the results, then time both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=450)
    parser.add_argument("--detections", type=int, default=100, help="detections per image")
    parser.add_argument("--truths", type=int, default=7, help="true masks per image")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    on_image: dict[str, list[TrueMask]] = {}
    on_grid, found, submitted = {}, {}, {}
    rule = replace(COCO_RULE, max_per_image=args.detections)
    for i in tqdm(range(args.images), desc="making images", disable=None):
        name = f"{i}.jpg"
        candidates, on_grid[name] = scene(rng, name, truths=args.truths, candidates=2 * args.detections)
        on_image[name] = [
            TrueMask(int(label), rle.runs_to_coco(runs, height=SIZE[0], width=SIZE[1]), float(rle.runs_area(runs)))
            for label, masks in on_grid[name].items()
            for runs in map(_on_photo, masks)
        ]
        found[name] = apply(candidates, rule, size=SIZE)
        submitted[name] = apply(candidates, rule, size=GRID).by_class_id(range(CLASSES))
    count = sum(len(d) for d in found.values())
    ours, theirs = coco_ap.mask_ap(on_image, found, labels=CLASSES).overall, pycocotools_ap(on_image, found)
    apart = max(abs(ours[name] - theirs[name]) for name in theirs if theirs[name] != -1)
    score = competition_score.score_images(on_grid, submitted).value
    print(f"{count} detections; AP {ours['AP']:.6f}, differs from pycocotools by {apart:.1e}; score {score:.6f}")
    of_file = {name: replace(one, known_areas=None) for name, one in found.items()}
    rivals = {
        "AP (ours)": lambda: coco_ap.mask_ap(on_image, found, labels=CLASSES),
        "AP (ours), masks from a file": lambda: coco_ap.mask_ap(on_image, of_file, labels=CLASSES),
        "AP, pycocotools": lambda: pycocotools_ap(on_image, found),
        "competition score": lambda: competition_score.score_images(on_grid, submitted),
    }
    title = f"{args.images} images with {args.detections} detections and {args.truths} true masks"
    tell(title, interleaved(rivals, rounds=args.rounds), ours="AP (ours)", unit="s")


def _on_photo(mask: CocoRLE) -> np.ndarray:
    runs = rle.coco_to_runs(mask)
    return rle.resize_runs(runs, height=GRID[0], width=GRID[1], new_height=SIZE[0], new_width=SIZE[1])


if __name__ == "__main__":
    main()
