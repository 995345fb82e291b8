"""Annotations are cached between runs, and read again when a file changes."""

import json
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from fashion_hydra.data import annotation_cache
from fashion_hydra.data.annotation_cache import load_annotations
from fashion_hydra.data.annotations import AnnotationsBuilder, DataFault, open_annotations, read_faults, write_faults
from fashion_hydra.data.kaggle import KaggleReader, read_annotations
from fashion_hydra.structures.rle import bitmap_to_runs
from fashion_hydra.utils.errors import UserError


def row(image="a.jpg", pixels="1 3 11 3", height=10, width=20, class_id="6"):
    return {"ImageId": image, "EncodedPixels": pixels, "Height": height, "Width": width, "ClassId": class_id}


@pytest.fixture
def scans(monkeypatch):
    """Record how often a folder is read."""
    counted = []
    scan = KaggleReader.scan
    monkeypatch.setattr(KaggleReader, "scan", lambda *arguments: (counted.append(1), scan(*arguments)))
    return counted


def test_the_second_read_is_from_the_cache(kaggle_folder, scans):
    root = kaggle_folder([row(), row(pixels="x")], {"a.jpg": (10, 20)})
    first, faults = read_annotations(root)
    again, faults_again = read_annotations(root)
    assert len(scans) == 1
    assert faults_again == faults
    assert isinstance(again.runs, np.memmap)
    for name in ("image_ids", "sizes", "first", "class_ids", "boxes", "runs"):
        assert (getattr(first, name) == getattr(again, name)).all()


@pytest.mark.parametrize("change", ["csv", "labels", "image", "new image"])
def test_a_change_is_noticed(kaggle_folder, scans, change):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    read_annotations(root)
    path = {
        "csv": root / "train.csv",
        "labels": root / "label_descriptions.json",
        "image": root / "train" / "a.jpg",
        "new image": root / "train" / "b.jpg",
    }[change]
    if change == "new image":
        path.write_bytes((root / "train" / "a.jpg").read_bytes())
    os.utime(path, ns=(1, 1))
    read_annotations(root)
    assert len(scans) == 2


def test_a_look_at_all_pixels_serves_a_look_at_headers_and_not_the_reverse(kaggle_folder, scans):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    for decode, reads in ((False, 1), (True, 2), (False, 2), (True, 2)):
        load_annotations(KaggleReader(root), decode=decode)
        assert len(scans) == reads


def test_an_interrupted_build_leaves_no_half_records(kaggle_folder, monkeypatch):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AnnotationsBuilder, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            read_annotations(root)
    annotations, _ = read_annotations(root)
    assert len(annotations) == 1
    assert not [p for p in annotation_cache.cache_folder().iterdir() if ".new-" in p.name or ".old-" in p.name]


def test_reading_works_without_a_cache(kaggle_folder, monkeypatch):
    monkeypatch.setenv("FASHION_HYDRA_CACHE", "/proc/nowhere")
    annotations, _ = read_annotations(kaggle_folder([row()], {"a.jpg": (10, 20)}))
    assert len(annotations) == 1


@pytest.mark.parametrize("file", ["manifest.json", "boxes.npy", "records.json", "faults.csv"])
def test_a_damaged_cache_is_rebuilt(wardrobe, tmp_path, monkeypatch, file):
    monkeypatch.setenv("FASHION_HYDRA_CACHE", str(tmp_path))
    first, known = read_annotations(wardrobe)
    boxes = first.boxes.tolist()
    [kept] = tmp_path.glob(f"records-*/{file}")
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    again, faults = read_annotations(wardrobe)
    assert again.boxes.tolist() == boxes
    assert again.names == first.names
    assert faults == known


def test_nothing_of_the_users_changes(kaggle_folder):
    root = kaggle_folder([row(), row("missing.jpg")], {"a.jpg": (10, 20), "b.jpg": (4, 4)})
    before = {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in root.rglob("*")}
    read_annotations(root)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in root.rglob("*")} == before


def test_a_process_is_sent_the_place_and_not_the_arrays(kaggle_folder):
    annotations, _ = read_annotations(kaggle_folder([row()], {"a.jpg": (10, 20)}))
    sent = pickle.dumps(annotations)
    assert len(sent) < 500
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, (annotations,)) == 1


def random_mask(rng, height, width):
    bitmap = np.zeros((height, width), np.uint8)
    y, x = rng.integers(0, height), rng.integers(0, width)
    bitmap[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = rng.random() < 2
    bitmap &= rng.random((height, width)) < 0.8
    bitmap[y, x] = 1
    return bitmap


@pytest.mark.parametrize("seed", range(3))
def test_masks_come_out_grouped_by_image_whatever_their_order(tmp_path, seed, monkeypatch):
    monkeypatch.setattr("fashion_hydra.data.annotations._CHUNK", 7)
    rng = np.random.default_rng(seed)
    sizes = [tuple(rng.integers(3, 12, 2).tolist()) for _ in range(6)]
    builder = AnnotationsBuilder(tmp_path, {0: "a", 1: "b"})
    given = {i: [] for i in range(6)}
    for i, size in enumerate(sizes):
        builder.image(f"{i}.jpg", size)
    for _ in range(40):
        i = int(rng.integers(0, 6))
        bitmap = random_mask(rng, *sizes[i])
        class_id = f"{rng.integers(0, 2)}_{rng.integers(0, 3)}"
        given[i].append((class_id, bitmap))
        builder.add(f"{i}.jpg", class_id, bitmap_to_runs(bitmap))
    keep = np.array([True, True, False, True, True, False])
    (tmp_path / "made").mkdir()
    names = [f"{i}.jpg" for i in range(6)]
    builder.write(tmp_path / "made", keep=keep, files=names, orientation=np.ones(6))
    annotations = open_annotations(tmp_path / "made")
    assert annotations.image_ids.tolist() == [names[i] for i in np.flatnonzero(keep)]
    for image, original in enumerate(np.flatnonzero(keep).tolist()):
        masks = annotations.instances(image)
        assert [str(annotations.class_ids[m]) for m in masks] == [c for c, _ in given[original]]
        for mask, (class_id, bitmap) in zip(masks, given[original], strict=True):
            assert annotations.categories[mask] == int(class_id[0])
            assert annotations.areas[mask] == bitmap.sum()
            assert (annotations.runs_of(mask) == bitmap_to_runs(bitmap)).all()
            ys, xs = np.nonzero(bitmap)
            assert annotations.boxes[mask].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_the_manifest_names_what_was_read(kaggle_folder):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    annotations, _ = read_annotations(root)
    manifest = json.loads((annotations.source / "manifest.json").read_text())
    assert str(root / "train.csv") in manifest["files"]


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


@pytest.mark.parametrize("name", ["runs", "image_ids"])
def test_a_payload_in_the_records_is_not_run(wardrobe, tmp_path, name):
    annotations, _ = read_annotations(wardrobe)
    folder = tmp_path / "records"
    shutil.copytree(annotations.source, folder)
    assert len(open_annotations(folder)) == len(annotations)
    np.save(folder / f"{name}.npy", np.array([Touch(tmp_path / "mark")], dtype=object))
    with pytest.raises(UserError, match=r"records: damaged .*; delete this folder to read the data again"):
        open_annotations(folder)
    assert not (tmp_path / "mark").exists()
    np.load(folder / f"{name}.npy", allow_pickle=True)
    assert (tmp_path / "mark").exists(), "the payload is a real one"


@pytest.mark.parametrize("name", ["runs.npy", "first.npy", "class_ids.npy", "records.json"])
def test_records_cut_short_are_refused(wardrobe, tmp_path, name):
    annotations, _ = read_annotations(wardrobe)
    folder = tmp_path / "records"
    shutil.copytree(annotations.source, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-7])
    with pytest.raises(UserError, match="records: damaged"):
        open_annotations(folder)


def test_a_header_that_numpy_cannot_parse_is_refused(wardrobe, tmp_path):
    annotations, _ = read_annotations(wardrobe)
    folder = tmp_path / "records"
    shutil.copytree(annotations.source, folder)
    content = (folder / "runs.npy").read_bytes()
    (folder / "runs.npy").write_bytes(content.replace(b"}", b"(", 1))
    with pytest.raises(UserError, match="records: damaged"):
        open_annotations(folder)


def test_a_name_that_is_no_unicode_is_a_fault(kaggle_folder):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    (root / "train" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    _, faults = read_annotations(root)
    assert [(fault.kind, fault.image_id) for fault in faults] == [("image-without-rows", "\\udcff.jpg")]


def test_faults_may_hold_any_text(tmp_path):
    """Found by fuzzing: a lone UTF-16 surrogate, which JSON can contain and UTF-8 cannot encode."""
    path = tmp_path / "faults.csv"
    write_faults(path, [DataFault("missing-image", "\ud800.jpg", "row 3", "\udfff", "image dropped")])
    assert read_faults(path) == [DataFault("missing-image", "\\ud800.jpg", "row 3", "\\udfff", "image dropped")]
