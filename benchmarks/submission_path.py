"""Convert an image's candidates to run-lengths: ours, drawn directly on the 512x512 grid, against plain NumPy.

The rival follows the winner: draw each mask at the image's size (bilinear resize of its grid to its box, then the
threshold), resize it to 512x512 by the nearest pixel, suppress overlaps pair by pair within a class by descending
score, encode. Both sides select candidates with the same NMS, which both times include.
"""

import argparse

import numpy as np
import torch
from pycocotools import mask as coco_mask

from benchmarks._measure import interleaved, tell
from fashion_hydra.formats.submission import SUBMISSION_SIZE
from fashion_hydra.postprocess.apply import apply, survivors
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.detections import Candidates, Detections
from fashion_hydra.structures.rle import coco_to_runs, runs_to_kaggle

RULE = Postprocess(score_thr=0.05, iou_thr=0.5, mask_thr=0.45, max_per_image=100, min_area=20)
CATEGORIES, GRID = 46, 28
Row = tuple[int, str]
"""Label and EncodedPixels."""


def make_candidates(number: int, count: int) -> Candidates:
    """Make candidates for a photo of about 1700x2150 pixels: `count` boxes that survive NMS, with soft masks."""
    rng = np.random.default_rng(number)
    height, width = (int(edge * rng.uniform(0.9, 1.1)) for edge in (2150, 1700))
    labels = torch.from_numpy(rng.integers(0, CATEGORIES, 20 * count))
    extent = rng.uniform(0.04, 0.45, (20 * count, 2)) * (width, height)
    corner = rng.uniform(0, 1, (20 * count, 2)) * ((width, height) - extent)
    boxes = torch.from_numpy(np.concatenate([corner, corner + extent], axis=1)).float()
    scores = torch.from_numpy(np.sort(rng.uniform(0.1, 1, 20 * count))[::-1].copy()).float()
    kept = survivors(boxes, scores, labels, RULE)[:count]
    y, x = np.mgrid[0:GRID, 0:GRID] / GRID
    middle, radius = rng.uniform(0.4, 0.6, (2, count, 1, 1)), rng.uniform(0.25, 0.5, (2, count, 1, 1))
    waves = 0.3 * np.sin(rng.uniform(5, 15, (count, 1, 1)) * (x + y))
    distance = ((y - middle[0]) / radius[0]) ** 2 + ((x - middle[1]) / radius[1]) ** 2 + waves
    masks = torch.from_numpy(1 / (1 + np.exp(6 * (distance - 1)))).float()
    return Candidates(f"{number}.jpg", (height, width), boxes[kept], scores[kept], labels[kept], masks[: len(kept)])


def encoded(found: Detections) -> list[Row]:
    """Encode the masks of detections as run-lengths: the last step of ours."""
    return [(k, runs_to_kaggle(coco_to_runs(m))) for k, m in zip(found.labels, found.masks, strict=True)]


def ours(candidates: Candidates) -> list[Row]:
    """Run ours, from candidates to rows."""
    return encoded(apply(candidates, RULE, size=(SUBMISSION_SIZE, SUBMISSION_SIZE)))


def plain(candidates: Candidates) -> list[Row]:
    """Run the rival, from candidates to rows."""
    kept = survivors(candidates.boxes, candidates.scores, candidates.labels, RULE)
    chosen = candidates[kept]
    small = [
        nearest(drawn(mask, box, candidates.size))
        for mask, box in zip(chosen.masks.numpy(), chosen.boxes.double().numpy(), strict=True)
    ]
    labels = chosen.labels.tolist()
    for i, label in enumerate(labels):
        for j in range(i):
            if labels[j] == label:
                small[i] &= ~small[j]
    return [(k, run_lengths(mask)) for k, mask in zip(labels, small, strict=True) if mask.sum() >= RULE.min_area]


def drawn(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw a mask at the image's size, bilinear between the centres of the grid's cells and empty outside its box."""
    x0, y0, x1, y1 = box
    canvas = np.zeros(size, bool)
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(size[1], int(np.ceil(x1))), min(size[0], int(np.ceil(y1)))
    x = (np.arange(left, right) + 0.5 - x0) / (x1 - x0) * GRID + 0.5  # in cells of the zero-padded grid
    y = (np.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * GRID + 0.5
    framed = np.pad(mask, 1)
    j, i = (np.clip(np.floor(v).astype(int), 0, GRID) for v in (x, y))
    u, v = (x - j).astype(np.float32), (y - i).astype(np.float32)[:, None]
    upper = framed[np.ix_(i, j)] * (1 - u) + framed[np.ix_(i, j + 1)] * u
    lower = framed[np.ix_(i + 1, j)] * (1 - u) + framed[np.ix_(i + 1, j + 1)] * u
    canvas[top:bottom, left:right] = upper * (1 - v) + lower * v >= RULE.mask_thr
    return canvas


def nearest(mask: np.ndarray) -> np.ndarray:
    """Resize a mask to the submission's grid by taking the source pixel at the centre of each grid pixel."""
    rows, columns = (((np.arange(SUBMISSION_SIZE) + 0.5) * e / SUBMISSION_SIZE).astype(int) for e in mask.shape)
    return mask[np.ix_(rows, columns)]


def run_lengths(mask: np.ndarray) -> str:
    """Encode run-lengths as in Kaggle's forums."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(value) for value in runs)


def large_masks(rows: list[Row]) -> list[tuple[int, np.ndarray]]:
    """Return label and bitmap of each mask of more than 400 pixels."""
    masks = []
    for label, text in rows:
        numbers = np.array(text.split(), dtype=int)
        if numbers[1::2].sum() > 400:
            flat = np.zeros(SUBMISSION_SIZE**2, np.uint8)
            for start, length in zip(numbers[::2] - 1, numbers[1::2], strict=True):
                flat[start : start + length] = 1
            masks.append((label, flat.reshape((SUBMISSION_SIZE, SUBMISSION_SIZE), order="F")))
    return masks


def compare(mine: list[Row], its: list[Row]) -> list[float]:
    """Return the best IoU of each large mask with the other side's masks of the same label, for both sides."""
    overlaps: list[float] = []
    encodings = [[(label, coco_mask.encode(mask)) for label, mask in large_masks(rows)] for rows in (mine, its)]
    for one, others in (encodings, encodings[::-1]):
        for label, mask in one:
            rivals = [rival for k, rival in others if k == label]
            overlaps.append(float(coco_mask.iou([mask], rivals, [0] * len(rivals)).max()) if rivals else 0.0)
    return overlaps


def main() -> None:
    """Compare the results, then time both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--candidates", type=int, default=100, help="candidates per image")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = [make_candidates(number, args.candidates) for number in range(args.images)]
    pairs = [(ours(photo), plain(photo)) for photo in photos]
    overlaps = [iou for mine, its in pairs for iou in compare(mine, its)]
    kept, its = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    print(f"{args.images} photos of about 1700x2150 with {len(photos[0])} candidates each")
    print(f"masks: ours {kept}, plain NumPy {its}; {len(overlaps) // 2} of more than 400 pixels: ", end="")
    print(f"mean IoU {np.mean(overlaps):.4f}, minimum {min(overlaps):.4f}")
    assert np.mean(overlaps) >= 0.99
    rivals = {
        "ours": lambda: [ours(photo) for photo in photos],
        "plain NumPy": lambda: [plain(photo) for photo in photos],
    }
    seconds = interleaved(rivals, rounds=args.rounds)
    tell("candidates -> run-lengths, per image", seconds, ours="ours", per=args.images)


if __name__ == "__main__":
    main()
