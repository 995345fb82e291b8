"""Pseudo-labels: the candidates that a photo's tags select as masks, and the resulting data set."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_hydra.cli.main import main as cli
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.data.split import read_split, stratified_folds
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.postprocess.tagged import choose_tagged
from fashion_hydra.structures.detections import Candidates

SHIRT, DRESS, SHOE = 0, 1, 2
LEFT, RIGHT, WHOLE = [0, 0, 8, 16], [8, 0, 16, 16], [0, 0, 16, 16]


def candidates(*found, image_id="a.jpg", size=(16, 16)):
    """Make candidates with masks that fill their boxes: (label, score, box)."""
    labels, scores, boxes = zip(*found, strict=True)
    shape = len(found), 4, 4
    return Candidates(
        image_id, size, torch.tensor(boxes).float(), torch.tensor(scores), torch.tensor(labels), torch.ones(shape)
    )


def chosen(of, most):
    found = choose_tagged(of, most, score_thr=0.5, tag_thr=0.1, mask_thr=0.5)
    return list(zip(found.labels, np.round(found.scores, 2).tolist(), strict=True))


@pytest.mark.parametrize(
    ("found", "most", "kept"),
    [
        ([(DRESS, 0.9, WHOLE), (SHIRT, 0.2, LEFT)], {SHIRT: 1}, [(SHIRT, 0.2)]),  # no dress without its tag
        ([(SHIRT, 0.9, WHOLE), (DRESS, 0.8, WHOLE)], {SHIRT: 1, DRESS: 1}, [(SHIRT, 0.9)]),  # the same pixels
        ([(SHIRT, 0.9, LEFT), (DRESS, 0.2, WHOLE)], {SHIRT: 1, DRESS: 1}, [(SHIRT, 0.9), (DRESS, 0.2)]),  # IoU is 0.5
        ([(SHOE, 0.6, LEFT), (SHOE, 0.4, RIGHT)], {SHOE: 2}, [(SHOE, 0.6)]),  # a second mask needs a higher score
        ([(SHOE, 0.6, LEFT), (SHOE, 0.5, RIGHT)], {SHOE: 2}, [(SHOE, 0.6), (SHOE, 0.5)]),
        ([(SHOE, 0.6, LEFT), (SHOE, 0.5, RIGHT)], {SHOE: 1}, [(SHOE, 0.6)]),
        ([(SHOE, 0.05, LEFT)], {SHOE: 2}, []),
        ([(SHOE, 0.9, [3, 3, 3, 3])], {SHOE: 2}, []),  # no pixels
    ],
)
def test_tags_choose_among_candidates(found, most, kept):
    assert chosen(candidates(*found), most) == kept


def write_candidates(folder, ids, *found):
    """Write candidates as predict.py does."""
    manifest = Manifest(
        members=(("a.ckpt", "0"),),
        class_ids=ids,
        class_names=tuple(map(str, ids)),
        scales=((16, 16),),
        flips=(False,),
        proposal_iou_thr=0.7,
        max_proposals=100,
        precision="32-true",
        score_floor=0.05,
        iou_grid=(0.5,),
    )
    cache = CandidateCache(folder / "candidates", manifest)
    for candidate in found:
        cache.write(candidate)


@pytest.fixture
def places(wardrobe, tmp_path):
    """Four pictures: one with all its tagged objects, one that lacks two, one without tags, one from the data set."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("full.jpg", "lacking.jpg", "untagged.jpg"):
        grey = np.random.default_rng(len(name)).integers(0, 255, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(grey).save(pictures / name)
    shutil.copy(sorted((wardrobe / "train").iterdir())[0], pictures / "twice.jpg")
    found = [(2, 0.9, [0, 0, 8, 8]), (2, 0.8, [8, 0, 16, 8]), (0, 0.3, [0, 8, 16, 32])]
    of = {name: candidates(*found, image_id=name, size=(32, 16)) for name in ("full.jpg", "untagged.jpg", "twice.jpg")}
    of["lacking.jpg"] = candidates(found[0], image_id="lacking.jpg", size=(32, 16))
    write_candidates(tmp_path / "predictions", (6, 10, 23), *of.values())
    tags = tmp_path / "tags.csv"
    tags.write_text("image,categories,tags\nfull.jpg,6 23,pants shoes\nlacking.jpg,6 10 23,\ntwice.jpg,6,\n")
    return tmp_path / "predictions", pictures, tags


def pseudo_label(wardrobe, places, out, *more):
    return cli(["pseudo-label", *map(str, (wardrobe, *places[:2], out, "--tags", places[2], *more))])


def test_a_data_set_with_pseudo_labels_behind_it(wardrobe, places, tmp_path, capsys):
    out = tmp_path / "more"
    assert pseudo_label(wardrobe, places, out) == 0
    printed = capsys.readouterr().out
    for line in ("1 pictures, more than 1 tags without a mask", "1 pictures, no tag of", "1 pictures, a photo of the"):
        assert f"left out: {line}" in printed
    assert "left out: 2 faults of the data set" in printed
    before, _ = read_annotations(wardrobe)
    after, faults = read_annotations(out)
    assert faults == []
    assert after.image_ids.tolist() == [*before.image_ids.tolist(), "full.jpg"]
    assert np.array_equal(after.runs[: len(before.runs)], before.runs)
    assert after.class_ids.tolist() == [*before.class_ids.tolist(), "23", "23", "6"]
    assert after.boxes[-3:].tolist() == [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 16, 32]]
    folds = read_split(out / "split.csv", after.image_ids, left_out=frozenset())
    assert folds.tolist() == [*stratified_folds(before.category_table(), folds=10, seed=777).tolist(), 10]


def test_without_tags_scores_alone_decide(wardrobe, places, tmp_path):
    out = tmp_path / "more"
    predictions, pictures, _ = places
    assert cli(["pseudo-label", *map(str, (wardrobe, predictions, pictures, out))]) == 0
    with (out / "train.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["ImageId"] in ("full.jpg", "lacking.jpg", "untagged.jpg")]
    assert [row["ClassId"] for row in rows] == ["23", "23", "23", "23", "23"]  # the remaining score, 0.3, is too low


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("image;categories\n", "expected columns image,categories, got image;categories"),
        ("image,categories\nfull.jpg,6\nfull.jpg,23\n", "row 3: full.jpg occurs twice"),
        ("image,categories\nfull,6\n", "row 2: no picture 'full'. Give the name of its file"),
        ("image,categories\nfull.jpg,pants\n", "row 2: 'pants' is not a category of the data set"),
        ("image,categories\nfull.jpg,99\n", "row 2: '99' is not a category of the data set"),
    ],
)
def test_wrong_tags_are_named_and_nothing_is_written(wardrobe, places, tmp_path, capsys, tags, message):
    places[2].write_text(tags)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert pseudo_label(wardrobe, places, tmp_path / "more") == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_folder_that_is_there_stays(wardrobe, places, tmp_path, capsys):
    assert pseudo_label(wardrobe, places, places[1]) == 2
    assert "exists already; name another folder" in capsys.readouterr().err
    assert len(list(places[1].iterdir())) == 4
