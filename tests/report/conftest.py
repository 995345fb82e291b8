"""Fixtures: predictions of the wardrobe's images as predict.py writes them, with errors of every kind."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.formats.submission import write_truth
from fashion_hydra.formats.writers import ImageAnswer, write_submission_csv
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_files import write_tuned
from fashion_hydra.structures import rle
from fashion_hydra.structures.detections import Candidates

RULE = Postprocess(score_thr=0.3, iou_thr=0.5, mask_thr=0.45, max_per_image=100, min_area=20, label_score_thr={2: 0.4})


@dataclass(frozen=True)
class Made:
    """A folder of predictions, and its content."""

    folder: Path
    images: Path
    classes: ClassSet
    members: tuple


def candidates_of(annotations, image, classes, rng):
    """Make candidates from the true objects: shifted, cut, duplicated, relabelled or dropped, plus false positives."""
    size = tuple(int(v) for v in annotations.sizes[image])
    boxes, labels, scores, masks = [], [], [], []
    for mask in annotations.instances(image):
        x0, y0, x1, y1 = (int(v) for v in annotations.boxes[mask])
        crop = rle.runs_to_crop(annotations.runs_of(mask), height=size[0], box=(x0, y0, x1, y1))
        for _ in range(rng.integers(0, 3)):
            soft = cv2.resize(np.ascontiguousarray(crop, dtype=np.float32), (14, 14), interpolation=cv2.INTER_AREA)
            if rng.random() < 0.2:
                soft[:, : rng.integers(4, 12)] = 0
            boxes.append(np.array([x0, y0, x1, y1]) + rng.normal(0, 0.8, 4) + rng.normal(0, 1.5))
            label = classes.label_of().get(int(annotations.categories[mask]), 0)
            labels.append(label if rng.random() < 0.85 else rng.integers(len(classes)))
            scores.append(rng.uniform(0.1, 1))
            masks.append(soft)
    boxes.append([3, 3, 30, 40])
    labels.append(0)
    scores.append(0.9)
    masks.append(np.ones((14, 14), np.float32))
    order = np.argsort(-np.array(scores), kind="stable")
    of = {"boxes": boxes, "scores": scores, "labels": labels, "masks": masks}
    types = {"labels": torch.int64}
    fields = {name: torch.tensor(np.array(v)[order], dtype=types.get(name, torch.float32)) for name, v in of.items()}
    fields["boxes"][:, 2:] = torch.maximum(fields["boxes"][:, 2:], fields["boxes"][:, :2] + 1)
    return Candidates(str(annotations.image_ids[image]), size, **fields)


@pytest.fixture(scope="session")
def made(wardrobe, tmp_path_factory):
    """Predictions of the wardrobe's training images."""
    folder = tmp_path_factory.mktemp("predictions") / "first"
    annotations = read_annotations(wardrobe)[0]
    ids = tuple(sorted(set(annotations.categories.tolist())))
    classes = ClassSet(ids, tuple(annotations.names[i] for i in ids))
    members = (("best.ckpt", "1" * 64),)
    manifest = Manifest(
        members=members, class_ids=ids, class_names=classes.names, scales=((96, 144),), flips=(False,),
        proposal_iou_thr=0.7, max_proposals=100, precision="32-true", score_floor=0.05, iou_grid=(0.3, 0.5),
    )  # fmt: skip
    cache, rng, answers = CandidateCache(folder / "candidates", manifest), np.random.default_rng(0), []
    for image in range(len(annotations)):
        candidates = candidates_of(annotations, image, classes, rng)
        cache.write(candidates)
        found = apply(candidates, RULE, size=(512, 512))
        answers.append(ImageAnswer(candidates.image_id, candidates.image_id, candidates.size, found, ids))
    write_submission_csv(folder / "submission.csv", answers)
    write_truth(folder / "truth.csv", truth_on_grid(annotations, range(len(annotations)), size=512))
    about = {"members": [list(member) for member in members], "images": str(wardrobe / "train")}
    write_tuned(folder / "postprocess.yaml", RULE, classes, about)
    return Made(folder, wardrobe / "train", classes, members)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A prediction in which the names of folders, photos, classes and images are HTML."""
    root = tmp_path_factory.mktemp("hostile")
    photo, bad = '"><img src=x onerror=alert(1)>.jpg', "</script><script>alert(2)</script>"
    folder, images = root / "<b>p", root / "photos"
    folder.mkdir()
    images.mkdir()
    with (images / photo).open("wb") as stream:
        Image.new("RGB", (40, 30)).save(stream, "JPEG")
    (root / "label_descriptions.json").write_text(json.dumps({"categories": [{"id": 6, "name": bad}]}))
    quoted = photo.replace('"', '""')
    text = f'ImageId,EncodedPixels,ClassId\n"{quoted}",1 900,6\n{bad},1 9,6_28\n'
    for name in ("truth.csv", "submission.csv"):
        (folder / name).write_text(text)
    return folder, images, photo, bad


@pytest.fixture
def open_file(browser):
    """Open a page in a browser; fail at teardown if anything went wrong or the page sent a request."""
    contexts, wrong = [], []

    def opened(path, width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
