"""predict.py from checkpoints to answers: any folder, broken photos, several models, kills and processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO

from fashion_hydra.cache import CandidateCache
from fashion_hydra.data.classes import ClassSet
from fashion_hydra.errors import UserError
from fashion_hydra.hydra_app import PROJECT_ROOT, register_resolvers
from fashion_hydra.postprocess import apply
from fashion_hydra.submission import read_masks
from fashion_hydra.tuned import IN_FORCE, rule_in_force

IDS, NAMES = [6, 23, 31], ["pants", "shoe", "sleeve"]
SMALL = ["trainer.accelerator=cpu", "data.num_workers=0", "progress.refresh_rate=0", "postprocess.score_thr=0.3"]


def write_checkpoint(path, seed, *, ids=IDS, score=0.5, run_of=()):
    """What train.py writes, of a small model with random but decided heads."""
    from fashion_hydra.model.htc import build_htc

    register_resolvers()
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        model = OmegaConf.to_container(compose("train", overrides=["model=htc_tiny"]).model, resolve=True)
    model |= {"neck_channels": 16, "fc_channels": 32, "mask_channels": 16, "test_proposals": 30}
    model["backbone"] |= {"base_channels": 8, "channels": [8, 16, 32, 64]}
    torch.manual_seed(seed)
    detector = build_htc(num_classes=len(ids), **{k: v for k, v in model.items() if k != "_target_"})
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "state_dict": {f"detector.{name}": value for name, value in detector.state_dict().items()},
        "classes": {"ids": list(ids), "names": NAMES[: len(ids)]},
        "model": model,
        "eval_scale": [96, 144],
        "callbacks": {"ModelCheckpoint{'monitor': 'val/score'}": {"best_k_models": dict(run_of)}},
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run's folder with three kept checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "small" / "first"
    kept = {f"/elsewhere/epoch{i}.ckpt": torch.tensor(score) for i, score in enumerate((0.2, 0.4, 0.3))}
    for i in range(3):
        write_checkpoint(folder / "checkpoints" / f"epoch{i}.ckpt", seed=i)
    write_checkpoint(folder / "checkpoints" / "last.ckpt", seed=9, run_of=kept)
    return folder


@pytest.fixture
def pictures(wardrobe, tmp_path):
    """Ten photos, one of them cut short, beside something that is no photo."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, path in enumerate(sorted((wardrobe / "train").iterdir())[:10]):
        content = path.read_bytes()
        (folder / f"{i}.jpg").write_bytes(content[: len(content) // 2] if i == 3 else content)
    (folder / "notes.txt").write_text("no photo")
    return folder


def predict(tmp_path, *overrides, out="out"):
    """In this process; the folder of the answers."""
    from fashion_hydra import prediction

    register_resolvers()
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        folder = tmp_path / out
        prediction.predict(compose("predict", overrides=[*SMALL, f"out={folder}", *map(str, overrides)]))
    return folder


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_any_folder_of_pictures(run, pictures, tmp_path):
    checkpoint = run / "checkpoints" / "epoch1.ckpt"
    options = [f"data.root={pictures}", "output=[csv,coco,masks]", "draw=true"]
    out = predict(tmp_path, f"checkpoint={checkpoint}", *options)
    rows = rows_of(out / "submission.csv")
    assert list(dict.fromkeys(r["ImageId"] for r in rows)) == [f"{i}.jpg" for i in range(10)]
    assert [(r["EncodedPixels"], r["ClassId"]) for r in rows if r["ImageId"] == "3.jpg"] == [("", "23")]
    assert {r["ClassId"] for r in rows} <= {str(i) for i in IDS}
    assert len(rows) > 15
    read_masks(out / "submission.csv")
    [fault] = rows_of(out / "faults.csv")
    assert fault["image_id"] == "3.jpg"
    assert "cut-short-image" in fault["fault"]

    truth = COCO(str(out / "coco_results_images.json"))
    results = truth.loadRes(str(out / "coco_results.json"))
    pngs = list((out / "masks").rglob("*.png"))
    assert len(results.anns) == len(pngs) > 10
    overlays = sorted(p.name for p in (out / "overlays").iterdir())
    assert overlays == [f"{i}.jpg" for i in range(10) if i != 3]
    with Image.open(out / "overlays" / "0.jpg") as overlay, Image.open(pictures / "0.jpg") as photo:
        assert overlay.height >= photo.height
        assert overlay.width > photo.width


def test_every_image_of_the_sample_is_answered_in_its_order(run, wardrobe, tmp_path):
    root = tmp_path / "kaggle"
    (root / "test").mkdir(parents=True)
    for name, path in zip(("b.jpg", "a.png"), sorted((wardrobe / "test").iterdir()), strict=False):
        Image.open(path).save(root / "test" / name)
    (root / "test" / "not_asked_for.jpg").write_bytes((root / "test" / "b.jpg").read_bytes())
    (root / "sample_submission.csv").write_text("ImageId,EncodedPixels,ClassId\nb.jpg,,23\ngone.jpg,,23\na,,23\n")
    out = predict(tmp_path, f"ensemble.run={run}", f"data.root={root}")
    rows = rows_of(out / "submission.csv")
    assert list(dict.fromkeys(r["ImageId"] for r in rows)) == ["b.jpg", "gone.jpg", "a"]
    assert [r["EncodedPixels"] for r in rows if r["ImageId"] == "gone.jpg"] == [""]
    assert rows_of(out / "faults.csv")[0]["fault"].startswith("missing-image")


def test_the_best_three_are_taken_and_named_in_the_manifest(run, pictures, tmp_path):
    options = [f"ensemble.run={run}", f"data.root={pictures}", "data.limit=2"]
    out = predict(tmp_path, "ensemble=top3", "tta=flip", *options)
    manifest = json.loads((out / "candidates" / "manifest.json").read_text())
    assert [name for name, _ in manifest["members"]] == ["epoch1.ckpt", "epoch2.ckpt", "epoch0.ckpt"]
    assert manifest["scales"] == [[96, 144]]
    assert manifest["flips"] == [False, True]
    again = predict(tmp_path, "tta=multi", *options, out="multi")
    assert json.loads((again / "candidates" / "manifest.json").read_text())["scales"][0] == [80, 120]


def test_other_thresholds_need_no_model_and_other_models_another_folder(run, pictures, tmp_path, monkeypatch):
    options = [f"ensemble.run={run}", f"data.root={pictures}", "data.limit=3"]
    loose = len(rows_of(predict(tmp_path, *options) / "submission.csv"))
    with monkeypatch.context() as patch:
        patch.setattr("fashion_hydra.prediction.merge_sources", None)  # would fail when called
        strict = len(rows_of(predict(tmp_path, *options, "postprocess.score_thr=0.6") / "submission.csv"))
        dropped = predict(tmp_path, *options, "classes.drop=[23]", "postprocess.drop_classes=[pants]")
        assert {r["ClassId"] for r in rows_of(dropped / "submission.csv") if r["EncodedPixels"]} <= {"31"}
    assert strict < loose
    for changed, name in (("tta=flip", "flips"), ("data.limit=2", "images"), ("ensemble=top3", "members")):
        with pytest.raises(UserError, match=f"candidates of another {name}"):
            predict(tmp_path, *options, changed)
    with pytest.raises(UserError, match=r"score_thr=0\.01 is below"):
        predict(tmp_path, *options, "postprocess.score_thr=0.01")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["checkpoint=nowhere.ckpt"], "checkpoint=nowhere.ckpt: no such file"),
        (["checkpoint=FOLDER/notes.txt"], "not a whole checkpoint of plain data"),
        (["ensemble.run=RUN", "ensemble.count=4"], "3 kept checkpoints, 4 wanted"),
        (["ensemble.run=FOLDER"], "no checkpoints/last.ckpt there"),
        (["paths.runs=FOLDER"], "no training run below"),
        (
            ["ensemble.members=[RUN/checkpoints/epoch0.ckpt,OTHER]"],
            r"has 3 classes, .*other\.ckpt 2; .* \[31\]",
        ),
        (["ensemble.run=RUN", "output=png"], "output=png: give one or more of csv, coco, masks"),
        (["ensemble.run=RUN", "data.images=all"], "data.images=all: give test, val, test_fold"),
        (["ensemble.run=RUN", "data.root=EMPTY"], "no images. Give data.root=FOLDER"),
    ],
)
def test_a_mistake_is_told(run, pictures, tmp_path, options, told):
    (tmp_path / "empty").mkdir()
    other = write_checkpoint(tmp_path / "other.ckpt", seed=3, ids=IDS[:2])
    places = {"FOLDER": pictures, "RUN": run, "OTHER": other, "EMPTY": tmp_path / "empty"}
    words = [f"data.root={pictures}", *options]
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    with pytest.raises(UserError, match=told):
        predict(tmp_path, *words)


def test_the_images_that_a_run_held_out(run, wardrobe, tmp_path):
    """As tuning needs them: the folds that the run did not train on, with the run's own options, and their truth."""
    from fashion_hydra.data.kaggle import read_records

    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        words = ["experiment=demo", f"data.root={wardrobe}", "name=x", "paths.output_dir=x", "data.fold=1"]
        cfg = compose("train", overrides=[*words, "data.test_fold=2"])
    ids = read_records(wardrobe)[0].image_ids.tolist()
    (run / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(cfg, run / ".hydra" / "config.yaml")
    (run / "split.csv").write_text("ImageId,fold\n" + "".join(f"{n},{i % 3}\n" for i, n in enumerate(ids)))
    everything = read_masks(wardrobe / "train.csv")
    for images, fold in (("val", 1), ("test_fold", 2)):
        out = predict(tmp_path, f"ensemble.run={run}", f"data.images={images}", out=images)
        names = {n for i, n in enumerate(ids) if i % 3 == fold}
        assert set(read_masks(out / "submission.csv")) == names
        assert read_masks(out / "truth.csv") == {n: everything[n] for n in ids if n in names}
    cfg.data.test_fold = None
    OmegaConf.save(cfg, run / ".hydra" / "config.yaml")
    with pytest.raises(UserError, match=r"data\.images=test_fold: .* was trained without data\.test_fold"):
        predict(tmp_path, f"ensemble.run={run}", "data.images=test_fold", out="none")


def command(run, pictures, out, *more):
    script = [sys.executable, str(PROJECT_ROOT / "predict.py"), *SMALL, f"ensemble.run={run}", f"data.root={pictures}"]
    return [*script, f"out={out}", "tta=multi", *more]


def finished(words, tmp_path):
    """Run to the end, on one thread; what was said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def killed_after(images, words, tmp_path, out):
    """Run until so many images have candidates, then SIGKILL."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, env=environment, cwd=tmp_path, **silent)
    deadline = time.monotonic() + 120
    while len(list(out.glob("candidates/images/[!.]*.npz"))) < images and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_three_times_and_restarted_gives_the_same_file(run, pictures, tmp_path):
    finished(command(run, pictures, tmp_path / "whole"), tmp_path)
    out = tmp_path / "killed"
    for images in (1, 4, 7):
        killed_after(images, command(run, pictures, out), tmp_path, out)
    assert not (out / "submission.csv").exists()
    assert "of them done before" in finished(command(run, pictures, out), tmp_path)
    assert (out / "submission.csv").read_bytes() == (tmp_path / "whole" / "submission.csv").read_bytes()


def test_two_processes_share_the_images(run, pictures, tmp_path):
    finished(command(run, pictures, tmp_path / "one"), tmp_path)
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    finished(command(run, pictures, tmp_path / "two", *two), tmp_path)
    one, two = (tmp_path / name / "submission.csv" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert len(rows_of(one)) > 10


def test_the_rule_in_force_is_kept(run, pictures, tmp_path):
    options = [f"checkpoint={run / 'checkpoints' / 'epoch1.ckpt'}", f"data.root={pictures}", "classes.drop=[shoe]"]
    out = predict(tmp_path, *options, "postprocess.class_score_thr={6:0.45}", "data.limit=2")
    classes = ClassSet(tuple(IDS), tuple(NAMES))
    kept = rule_in_force(out, classes, ())
    assert (kept.score_thr, kept.mask_thr, kept.label_score_thr, kept.dropped_labels) == (0.3, 0.45, {0: 0.45}, (1,))
    assert OmegaConf.load(out / IN_FORCE).about.images == str(pictures)
    cache, read = CandidateCache(out / "candidates"), read_masks(out / "submission.csv")
    for image_id, masks in read.items():
        assert apply(cache.read(image_id), kept, size=(512, 512)).by_class_id(IDS) == masks
