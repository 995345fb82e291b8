"""Cached candidates are complete or absent, and belong to the models, views and images of the manifest."""

import hashlib
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from fashion_hydra.inference.cached_images import ImageFiles
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.utils.errors import UserError

MANIFEST = Manifest(
    members=(("a.ckpt", "00ff"),),
    class_ids=(6, 23),
    class_names=("pants", "shoe"),
    scales=((152, 208),),
    flips=(False,),
    proposal_iou_thr=0.7,
    max_proposals=1000,
    precision="32-true",
    score_floor=0.05,
    iou_grid=(0.3, 0.5),
)
RULE = Postprocess(score_thr=0.5, iou_thr=0.3, mask_thr=0.5, max_per_image=100)


def candidates(image_id="a.jpg", n=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 10 + torch.rand(n, 2, generator=generator) * 30], 1)
    scores = torch.rand(n, generator=generator).sort(descending=True).values
    labels = torch.randint(0, 2, (n,), generator=generator)
    return Candidates(image_id, (90, 70), boxes, scores, labels, torch.rand(n, 14, 14, generator=generator))


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels", "masks"))


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    cache = CandidateCache(tmp_path / "c", MANIFEST)
    names = ["a.jpg", "sub/b.jpg", "../c.jpg", "ü " * 90, "x" * 400]
    for seed, name in enumerate(names):
        cache.write(candidates(name, seed=seed))
    again = CandidateCache(tmp_path / "c")
    assert again.manifest == MANIFEST
    for seed, name in enumerate(names):
        assert same(again.read(name), candidates(name, seed=seed))
        assert again.read(name).size == (90, 70)
        assert again.path(name).parent == tmp_path / "c" / "images"
    assert again.missing([*names, "other.jpg"]) == [len(names)]


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


@pytest.mark.parametrize("name", ["boxes", "size", "fault"])
def test_a_payload_in_an_array_is_not_run(tmp_path, name):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates())
    with np.load(cache.path("a.jpg")) as kept:
        arrays = {**kept, name: np.array([Touch(tmp_path / "mark")], dtype=object)}
    np.savez(cache.path("a.jpg"), **arrays)
    with pytest.raises(UserError, match="damaged candidates"):
        cache.read_fault("a.jpg") if name == "fault" else cache.read("a.jpg")
    assert not (tmp_path / "mark").exists()
    np.load(cache.path("a.jpg"), allow_pickle=True)[name]
    assert (tmp_path / "mark").exists(), "the payload is a real one"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", np.array([2**40, 1]), "invalid image size 1099511627776x1"),
        ("size", np.array([0, 5]), "invalid image size 0x5"),
        ("size", np.array([[90, 70]]), "shape"),
        ("boxes", np.full((7, 4), 1e9, np.float32), "invalid boxes: x0 > x1 or y0 > y1, or far outside the image"),
        ("boxes", np.full((7, 4), np.nan, np.float32), "NaN or infinite values"),
        ("boxes", np.zeros((7, 5), np.float32), "shape"),
        ("boxes", np.tile(np.array([9, 9, 3, 3], np.float32), (7, 1)), "invalid boxes"),
        ("scores", np.full(7, 1.5, np.float32), "probabilities outside"),
        ("scores", np.zeros(7), "float64"),
        ("labels", np.full(7, 2), "labels outside 0 to 1"),
        ("masks", np.zeros((7, 3, 4), np.float32), "shape"),
        ("masks", np.full((7, 2, 2), -1, np.float32), "probabilities outside"),
    ],
)
def test_invalid_arrays_are_refused(tmp_path, name, value, message):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates())
    with np.load(cache.path("a.jpg")) as kept:
        arrays = {**kept, name: value}
    np.savez(cache.path("a.jpg"), **arrays)
    with pytest.raises(UserError, match=rf"a\.jpg\.npz: damaged candidates \(.*{message}"):
        cache.read("a.jpg")


def test_a_part_that_is_no_array_is_refused(tmp_path):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates())
    with zipfile.ZipFile(cache.path("a.jpg")) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(cache.path("a.jpg"), "w") as damaged:
        for name, content in parts.items():
            damaged.writestr(name, b"none" if name in ("boxes.npy", "fault.npy") else content)
    for read in (cache.read, cache.read_fault):
        with pytest.raises(UserError, match=r"damaged candidates \((boxes|fault) is not an array\)"):
            read("a.jpg")


NO_TEXT = np.array([0x110000], np.uint32).view("<U1").reshape(())


@pytest.mark.parametrize("fault", [NO_TEXT, np.array(5)], ids=["beyond Unicode", "a number"])
def test_a_fault_that_is_no_text_is_refused(tmp_path, fault):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates())
    with np.load(cache.path("a.jpg")) as kept:
        arrays = {**kept, "fault": fault}
    np.savez(cache.path("a.jpg"), **arrays)
    with pytest.raises(UserError, match=r"damaged candidates \(fault\)"):
        cache.read_fault("a.jpg")


def test_packed_candidates_are_refused(tmp_path):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates())
    np.savez_compressed(cache.path("a.jpg"), size=np.zeros(10**6))
    with pytest.raises(UserError, match="would unpack to 8000"):
        cache.read("a.jpg")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_ids", [1]),
        ("iou_grid", "0.5"),
        ("flips", [0]),
        ("members", 5),
        ("scales", None),
        ("more", 1),
    ],
)
def test_an_invalid_manifest_is_refused(tmp_path, name, value):
    CandidateCache(tmp_path, MANIFEST)
    kept = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**kept, name: value}))
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        CandidateCache(tmp_path)


def test_an_image_that_cannot_be_read_is_remembered_with_its_fault(tmp_path):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates(n=0), fault="cut-short-image: a.jpg")
    assert len(cache.read("a.jpg")) == 0
    assert cache.read_fault("a.jpg") == "cut-short-image: a.jpg"
    assert cache.missing(["a.jpg"]) == []


CHANGES = {
    "members": (("a.ckpt", "0000"),),
    "class_ids": (6, 24),
    "scales": ((160, 208),),
    "flips": (True,),
    "score_floor": 0.01,
    "iou_grid": (0.3,),
    "precision": "bf16-mixed",
}


@pytest.mark.parametrize("name", CHANGES)
def test_candidates_of_something_else_are_refused_by_name(tmp_path, name):
    CandidateCache(tmp_path, MANIFEST)
    with pytest.raises(UserError, match=rf"candidates of .*{name}\)?: .* Give another out=FOLDER"):
        CandidateCache(tmp_path, replace(MANIFEST, **{name: CHANGES[name]}))
    assert CandidateCache(tmp_path, MANIFEST).manifest == MANIFEST


def with_images(folder, where, **sizes):
    return CandidateCache(folder, MANIFEST, ImageFiles(where, {f"{name}.jpg": size for name, size in sizes.items()}))


def test_only_new_and_replaced_images_are_predicted_again(tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    cache = with_images(tmp_path / "c", "/photos", a=10, b=20)
    for name in names[:2]:
        cache.write(candidates(name))
    assert with_images(tmp_path / "c", "/photos", a=10, b=20, c=30).missing(names) == [2]
    assert with_images(tmp_path / "c", "/photos", a=10).missing(["a.jpg"]) == [], "a removed image"
    assert with_images(tmp_path / "c", "/photos", a=10, b=21).missing(names) == [1, 2], "a replaced image"
    assert with_images(tmp_path / "c", "/photos", a=10, b=21).missing(names) == [1, 2], "an interrupted run"
    assert with_images(tmp_path / "c", "/moved", a=10, b=21, c=30).missing(names) == [1, 2], "the folder was moved"
    assert same(CandidateCache(tmp_path / "c").read("a.jpg"), candidates("a.jpg"))


@pytest.mark.parametrize(
    ("where", "sizes"),
    [
        ("/photos", {"c": 10, "d": 20}),
        ("/others", {"a": 11, "b": 20}),
        ("/others", {"a": 10, "d": 20}),
        ("/others", {"c": 10}),
    ],
    ids=["no image in common", "same names in another folder", "few in common", "another folder"],
)
def test_candidates_of_other_images_are_kept_and_refused(tmp_path, where, sizes):
    with_images(tmp_path, "/photos", a=10, b=20).write(candidates("a.jpg"))
    count = len(sizes)
    message = rf"holds candidates of other images \(2 in /photos\), this run has {count} in {where}\. Give another out="
    with pytest.raises(UserError, match=message):
        with_images(tmp_path, where, **sizes)
    assert with_images(tmp_path, "/photos", a=10, b=20).missing(["a.jpg", "b.jpg"]) == [1]


def test_candidates_of_the_first_version_are_continued_for_the_same_images(tmp_path):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates("a.jpg"))
    listed = hashlib.sha256(b'[["a.jpg", 10], ["b.jpg", 20]]').hexdigest()
    first = {**MANIFEST.plain(), "version": 1, "images": listed}
    (tmp_path / "manifest.json").write_text(json.dumps(first))
    assert CandidateCache(tmp_path).manifest == MANIFEST
    with pytest.raises(UserError, match="an earlier version predicted for another list of images"):
        with_images(tmp_path, "/photos", a=10, b=21)
    assert with_images(tmp_path, "/photos", a=10, b=20).missing(["a.jpg", "b.jpg"]) == [1]
    assert with_images(tmp_path, "/photos", a=11, b=20).missing(["a.jpg", "b.jpg"]) == [0, 1]


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"folder": 1, "sizes": {}}', '{"folder": "/", "sizes": {"a": "1"}}']
)
def test_a_damaged_list_of_images_is_refused(tmp_path, content):
    with_images(tmp_path, "/photos", a=10)
    (tmp_path / "images.json").unlink()
    if content is not None:
        (tmp_path / "images.json").write_text(content)
    with pytest.raises(UserError, match=r"images\.json: damaged"):
        with_images(tmp_path, "/photos", a=10)


def test_damage_is_refused(tmp_path):
    cache = CandidateCache(tmp_path, MANIFEST)
    cache.write(candidates())
    path = cache.path("a.jpg")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged candidates"):
        cache.read("a.jpg")
    with pytest.raises(UserError, match=r"no candidates of image b\.jpg"):
        cache.read("b.jpg")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        CandidateCache(tmp_path)
    with pytest.raises(UserError, match="not a folder of candidates"):
        CandidateCache(tmp_path / "nowhere")


def test_no_code_is_loaded(tmp_path):
    cache = CandidateCache(tmp_path, MANIFEST)
    path = cache.path("a.jpg")
    path.parent.mkdir()
    np.savez(path, boxes=np.array([print], dtype=object), size=np.array([1, 1]))
    with pytest.raises(UserError, match="damaged candidates"):
        cache.read("a.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_thr": 0.04}, "postprocess.score_thr=0.04 is below what the candidates hold"),
        ({"label_score_thr": {1: 0.01}}, "postprocess.score_thr=0.01 is below"),
        ({"iou_thr": 0.4}, r"postprocess.iou_thr=0.4 is not among .* \(0.3, 0.5\)"),
    ],
)
def test_a_rule_outside_the_manifest_is_refused(changes, message):
    MANIFEST.check(RULE)
    with pytest.raises(UserError, match=message):
        MANIFEST.check(replace(RULE, **changes))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_thr", [0.3, 0.5])
def test_rules_inside_the_manifest_lose_nothing(seed, iou_thr):
    """Candidates kept for the grid give the same detections as all boxes."""
    from fashion_hydra.postprocess.nms import select

    every = candidates(n=60, seed=seed)
    kept = [
        select(every.boxes, every.scores, every.labels, score_thr=r.score_thr, iou_thr=r.iou_thr,
               max_per_image=r.max_per_image)
        for r in MANIFEST.rules()
    ]  # fmt: skip
    survivors = every[torch.cat(kept).unique()]
    assert len(survivors) < len(every)
    for score_thr in (0.05, 0.4, 0.8):
        for limit in (3, 100):
            rule = replace(RULE, score_thr=score_thr, iou_thr=iou_thr, max_per_image=limit)
            assert apply(survivors, rule, size=(64, 64)) == apply(every, rule, size=(64, 64))
