"""predict.py from checkpoints to results: any folder, broken photos, several models, kills, several processes."""

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO

from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_config, compose_options
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.formats.submission import read_masks
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule_files import IN_FORCE, read_tuned
from fashion_hydra.report.results.prediction_rule import rule_in_force
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError
from tests.helpers import CLASS_IDS, CLASS_NAMES, SMALL_PREDICT, write_tiny_checkpoint

SMALL = (*SMALL_PREDICT, "postprocess.score_thr=0.3")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training run with three saved checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "small" / "first"
    kept = {f"/elsewhere/epoch{i}.ckpt": torch.tensor(score) for i, score in enumerate((0.2, 0.4, 0.3))}
    for i in range(3):
        write_tiny_checkpoint(folder / "checkpoints" / f"epoch{i}.ckpt", seed=i)
    write_tiny_checkpoint(folder / "checkpoints" / "last.ckpt", seed=9, kept=kept)
    return folder


@pytest.fixture
def pictures(wardrobe, tmp_path):
    """A folder with ten photos, one of them truncated, and a file that is not a photo."""
    return write_pictures(wardrobe, tmp_path / "pictures")


def write_pictures(wardrobe, folder):
    folder.mkdir()
    for i, path in enumerate(sorted((wardrobe / "train").iterdir())[:10]):
        content = path.read_bytes()
        (folder / f"{i}.jpg").write_bytes(content[: len(content) // 2] if i == 3 else content)
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def of_six_views(run, wardrobe, tmp_path_factory):
    """The submission for those photos from six views, by one uninterrupted process."""
    folder = tmp_path_factory.mktemp("six")
    options = [f"ensemble.run={run}", f"data.root={write_pictures(wardrobe, folder / 'pictures')}", "tta=multi"]
    return (predict(folder, *options) / "submission.csv").read_bytes()


def predict(tmp_path, *overrides, out="out", is_default_out=False):
    """Run predict.py in this process, and return the output folder."""
    from fashion_hydra.workflows import predict

    folder = tmp_path / out
    options = compose_options("predict", *SMALL, f"out={folder}", f"paths.output_dir={folder}", *overrides)
    predict.predict(options, Command(() if is_default_out else (f"out={folder}",)))
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
    assert {r["ClassId"] for r in rows} <= {str(i) for i in CLASS_IDS}
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
        patch.setattr("fashion_hydra.inference.module.merge_sources", None)  # would fail when called
        strict = len(rows_of(predict(tmp_path, *options, "postprocess.score_thr=0.6") / "submission.csv"))
        dropped = predict(tmp_path, *options, "classes.drop=[23]", "postprocess.drop_classes=[pants]")
        assert {r["ClassId"] for r in rows_of(dropped / "submission.csv") if r["EncodedPixels"]} <= {"31"}
    assert strict < loose
    for changed, name in (("tta=flip", "flips"), ("ensemble=top3", "members")):
        with pytest.raises(UserError, match=rf"candidates of .*{name}\)?:"):
            predict(tmp_path, *options, changed)
    with pytest.raises(UserError, match=r"score_thr=0\.01 is below"):
        predict(tmp_path, *options, "postprocess.score_thr=0.01")


def test_a_folder_that_grows_is_predicted_where_it_is_new(run, pictures, tmp_path, caplog):
    photos = tmp_path / "photos"
    photos.mkdir()
    first, second, third = sorted(pictures.glob("*.jpg"))[:3]
    for path in (first, second):
        shutil.copy(path, photos)
    options = [f"ensemble.run={run}", f"data.root={photos}"]
    before = rows_of(predict(tmp_path, *options) / "submission.csv")
    shutil.copy(third, photos)
    caplog.set_level(logging.INFO, "fashion_hydra")
    after = rows_of(predict(tmp_path, *options) / "submission.csv")
    assert f"images         {photos}: 3, 2 of them already predicted" in caplog.text
    assert {row["ImageId"] for row in after} == {first.name, second.name, third.name}
    assert [row for row in after if row["ImageId"] != third.name] == before
    whole = predict(tmp_path, *options, out="whole")
    assert (whole / "submission.csv").read_bytes() == (tmp_path / "out" / "submission.csv").read_bytes()

    namesake = tmp_path / "other" / "photos"
    namesake.mkdir(parents=True)
    shutil.copy(third, namesake / first.name)
    with pytest.raises(UserError, match=r"candidates of other images \(3 in .*Give another out=FOLDER"):
        predict(tmp_path, f"ensemble.run={run}", f"data.root={namesake}")
    assert rows_of(tmp_path / "out" / "submission.csv") == after


def test_a_default_folder_is_cleared_for_other_models_and_images(run, pictures, tmp_path, caplog):
    options = [f"data.root={pictures}", "data.limit=2"]
    out = predict(tmp_path, f"ensemble.run={run}", *options)
    (out / "predict.log").write_text("of this job")
    first = (out / "submission.csv").read_bytes()
    caplog.set_level(logging.INFO, "fashion_hydra")
    for number, changed in ((1, "tta=flip"), (2, "ensemble=top3")):
        predict(tmp_path, f"ensemble.run={run}", *options, changed, is_default_out=True)
        assert f"moved          predictions of other models or images from {out} to {out}.{number}" in caplog.text
    assert (tmp_path / "out.1" / "submission.csv").read_bytes() == first
    assert not list(tmp_path.glob("out.*/*.log"))
    assert (out / "predict.log").is_file()
    again = predict(tmp_path, f"ensemble.run={run}", *options, out="out.1")
    assert (again / "submission.csv").read_bytes() == first, "moved candidates can still be used"
    assert not (tmp_path / "out.3").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["checkpoint=FOLDER/notes.txt"], "damaged, or not a checkpoint of plain data"),
        (["ensemble.run=RUN", "ensemble.count=4"], "3 checkpoints with scores, 4 requested"),
        (
            ["ensemble.members=[RUN/checkpoints/epoch0.ckpt,OTHER]"],
            r"has 3 classes, .*other\.ckpt 2; .* \[31\]",
        ),
        (["ensemble=soup", "ensemble.members=[RUN/checkpoints/epoch0.ckpt]"], "an average needs two checkpoints"),
        (["ensemble=soup", "ensemble.members=[RUN/checkpoints/epoch0.ckpt,OTHER]"], "ensemble=soup: the classes of"),
        (
            ["ensemble=soup", "ensemble.members=[RUN/checkpoints/epoch0.ckpt,RUN/checkpoints/epoch1.ckpt]"],
            "ensemble=soup needs the data that a run was trained on; give ensemble.run=FOLDER",
        ),
        (
            ["ensemble.run=RUN", "ensemble=top3", "ensemble.weights=[2,1]"],
            r"weights=\[2.0, 1.0\]: .* of the 3 models",
        ),
    ],
)
def test_a_mistake_is_refused(run, pictures, tmp_path, tiny_checkpoint, options, message):
    other = tiny_checkpoint("other.ckpt", seed=3, class_ids=CLASS_IDS[:2])
    places = {"FOLDER": pictures, "RUN": run, "OTHER": other}
    words = [f"data.root={pictures}", *options]
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    with pytest.raises(UserError, match=message):
        predict(tmp_path, *words)


def test_other_weights_are_other_candidates(run, pictures, tmp_path):
    options = [f"ensemble.run={run}", "ensemble.count=2", f"data.root={pictures}", "data.limit=2"]
    out = predict(tmp_path, *options, "ensemble.weights=[2,1]")
    assert CandidateCache(out / "candidates").manifest.weights == (2.0, 1.0)
    with pytest.raises(UserError, match=r"other weights of the checkpoints \(weights\): \[2.0, 1.0\], .* null"):
        predict(tmp_path, *options)


def trained_on(run, wardrobe):
    """Complete the run's folder: write the config and a split with a third of the images each to validate and test."""
    from fashion_hydra.data.kaggle import read_annotations

    words = ["experiment=demo", f"data.root={wardrobe}", "name=x", "paths.output_dir=x", "data.fold=1"]
    cfg = compose_config("train", *words, "data.test_fold=2", "classes.train=[6,23,31]")
    ids = read_annotations(wardrobe)[0].image_ids.tolist()
    (run / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(cfg, run / ".hydra" / "config.yaml")
    (run / "split.csv").write_text("ImageId,fold\n" + "".join(f"{n},{i % 3}\n" for i, n in enumerate(ids)))
    return cfg, ids


def test_a_soup_is_the_mean_with_batch_norms_of_its_own(run, wardrobe, tmp_path):
    """The result equals torch's own averaging and update of batch norms on the same batches."""
    from itertools import islice

    from torch.optim.swa_utils import update_bn

    from fashion_hydra.model.checkpoint import load_member
    from fashion_hydra.workflows.prediction_plan import data_of

    trained_on(run, wardrobe)
    options = [f"ensemble.run={run}", "ensemble=soup", "ensemble.soup_batches=2", "data.limit=2", "data.images=val"]
    out = predict(tmp_path, *options)
    manifest = json.loads((out / "candidates" / "manifest.json").read_text())
    [(name, _)] = manifest["members"]
    made = load_member(run / "checkpoints" / name).detector
    kept = [load_member(run / "checkpoints" / f"epoch{i}.ckpt").detector for i in range(3)]

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.detector = kept[0]

        def forward(self, batch):
            self.detector.loss(batch)

    weights = [dict(d.named_parameters()) for d in kept]
    for key, value in made.named_parameters():
        mean = sum(w[key].detach().double() for w in weights) / 3
        assert torch.allclose(value.double(), mean, atol=1e-7), key
    with torch.no_grad():
        for key, value in kept[0].named_parameters():
            value.copy_(dict(made.named_parameters())[key])
    torch.manual_seed(0)
    update_bn(islice(data_of(RunFolder(run), None, "this").train_dataloader(), 2), Step())
    for (key, wanted), value in zip(kept[0].named_buffers(), made.buffers(), strict=True):
        assert torch.allclose(value, wanted, atol=1e-6), key
    assert float(dict(made.named_buffers())["net.backbone.bn1.running_mean"].abs().max()) > 0
    before = (run / "checkpoints" / name).stat().st_mtime_ns
    predict(tmp_path, *options)
    assert (run / "checkpoints" / name).stat().st_mtime_ns == before


def test_the_images_that_a_run_held_out(run, wardrobe, tmp_path):
    """Tuning needs the folds that the run did not train on, with the run's own options, and their truth."""
    cfg, ids = trained_on(run, wardrobe)
    everything = read_masks(wardrobe / "train.csv")
    for images, fold, named in (
        ("val", 1, f"ensemble.run={run}"),
        ("test_fold", 2, f"ensemble.run={run.parent}"),  # the newest run in the folder
        ("test_fold", 2, f"checkpoint={run}/checkpoints/epoch1.ckpt"),  # the run that contains the checkpoint
    ):
        out = predict(tmp_path, named, f"data.images={images}", out=f"{images}{len(named)}")
        names = {n for i, n in enumerate(ids) if i % 3 == fold}
        assert set(read_masks(out / "submission.csv")) == names
        assert read_masks(out / "truth.csv") == {n: everything[n] for n in ids if n in names}
    cfg.data.test_fold = None
    OmegaConf.save(cfg, run / ".hydra" / "config.yaml")
    with pytest.raises(UserError, match=r"data\.images=test_fold: .* was trained without data\.test_fold"):
        predict(tmp_path, f"ensemble.run={run}", "data.images=test_fold", out="none")


def test_the_ladder_is_walked_rung_by_rung(run, wardrobe, tmp_path, capsys):
    """A rung's score equals the score of its submission, and candidates are predicted only once."""
    from fashion_hydra.cli.main import main
    from fashion_hydra.evaluation.score_submission import score_files

    trained_on(run, wardrobe)
    out = tmp_path / "walked"
    words = ["ladder", str(run), "--images", "val", "--out", str(out), "--rungs", "1,2_thresholds,4"]
    options = [word for option in (*SMALL, "data.limit=4") for word in ("--set", option)]
    assert main([*words, *options]) == 0
    printed = capsys.readouterr().out
    for name in ("1_default", "2_thresholds", "4_ensemble"):
        assert f"$ python predict.py experiment=ladder/{name} data.images=val out={out / name} " in printed
    assert printed.count("already predicted") == 1  # rung 2 uses the candidates of rung 1
    assert sorted(p.name for p in (out / "candidates").iterdir()) == ["single-single", "top3-multi"]
    rows = rows_of(out / "ladder.csv")
    assert [row["leaderboard"] for row in rows] == ["0.21913", "0.30011", "0.31626"]
    for row in rows:
        score, _ = score_files(out / row["name"] / "truth.csv", out / row["name"] / "submission.csv")
        assert float(row["score"]) == pytest.approx(score.value, abs=1e-6)
        assert (row["images"], float(row["low"]) <= score.value <= float(row["high"])) == ("4", True)
    assert float(rows[1]["gain"]) == pytest.approx(float(rows[1]["score"]) - float(rows[0]["score"]), abs=2e-6)
    with Image.open(out / "ladder.png") as picture:
        assert picture.width > 500
    assert main([*words[:-1], "10"]) == 2
    assert "--rungs 10: no such recipe. Available: 1_default" in capsys.readouterr().err
    assert main(["ladder", str(tmp_path)]) == 2
    assert "--truth: give the true masks of the test images" in capsys.readouterr().err


def command(run, pictures, out, *more):
    script = [sys.executable, str(PROJECT_ROOT / "predict.py"), *SMALL, f"ensemble.run={run}", f"data.root={pictures}"]
    return [*script, f"out={out}", "tta=multi", *more]


def finish(words, tmp_path):
    """Run a command to its end on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def killed_after(images, words, tmp_path, out):
    """Run a command until `images` images have candidates, then send SIGKILL."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, env=environment, cwd=tmp_path, **silent)
    deadline = time.monotonic() + 120
    while len(list(out.glob("candidates/images/[!.]*.npz"))) < images and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_twice_and_restarted_gives_the_same_file(run, pictures, of_six_views, tmp_path, capsys, caplog):
    out = tmp_path / "killed"
    for images in (1, 6):
        killed_after(images, command(run, pictures, out), tmp_path, out)
    assert not (out / "submission.csv").exists()
    capsys.readouterr()
    caplog.set_level("INFO")
    predict(tmp_path, f"ensemble.run={run}", f"data.root={pictures}", "tta=multi", out="killed")
    assert "of them already predicted" in capsys.readouterr().out + caplog.text
    assert (out / "submission.csv").read_bytes() == of_six_views


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_it_ends_after_the_image_and_resumes(run, pictures, tmp_path, monkeypatch, number):
    from fashion_hydra.inference.module import PredictionModule

    options = [f"ensemble.run={run}", f"data.root={pictures}"]
    before = signal.getsignal(number)
    step = PredictionModule.predict_step

    def asked(self, *args):
        done = step(self, *args)
        if len(list((tmp_path / "out" / "candidates" / "images").iterdir())) == 4:
            os.kill(os.getpid(), number)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(PredictionModule, "predict_step", asked)
        with pytest.raises(SystemExit) as ended:
            predict(tmp_path, *options)
    assert ended.value.code == 128 + number
    assert len(list((tmp_path / "out" / "candidates" / "images").iterdir())) == 4
    assert signal.getsignal(number) == before
    assert len(rows_of(predict(tmp_path, *options) / "submission.csv")) >= 10


def test_two_processes_share_the_images(run, pictures, of_six_views, tmp_path):
    finish(command(run, pictures, tmp_path / "two", "trainer.devices=2", "trainer.strategy=ddp"), tmp_path)
    found = tmp_path / "two" / "submission.csv"
    assert found.read_bytes() == of_six_views
    assert len(rows_of(found)) > 10


def test_the_rule_in_force_is_kept(run, pictures, tmp_path):
    options = [f"checkpoint={run / 'checkpoints' / 'epoch1.ckpt'}", f"data.root={pictures}", "classes.drop=[shoe]"]
    out = predict(tmp_path, *options, "postprocess.class_score_thr={6:0.45}", "data.limit=2")
    classes = ClassSet(CLASS_IDS, CLASS_NAMES)
    kept = rule_in_force(out, classes, ())
    assert (kept.score_thr, kept.mask_thr, kept.label_score_thr, kept.dropped_labels) == (0.3, 0.45, {0: 0.45}, (1,))
    assert OmegaConf.load(out / IN_FORCE).about.images == str(pictures)
    cache, read = CandidateCache(out / "candidates"), read_masks(out / "submission.csv")
    for image_id, masks in read.items():
        assert apply(cache.read(image_id), kept, size=(512, 512)).by_class_id(CLASS_IDS) == masks


def test_thresholds_tuned_elsewhere_are_noted(run, pictures, tmp_path, caplog):
    """The file of a prediction's rule names its models; a file of tune_thresholds.py also names the views."""
    caplog.set_level(logging.INFO, "fashion_hydra")
    best, other = (f"checkpoint={run / 'checkpoints' / f'epoch{i}.ckpt'}" for i in (1, 2))
    options = [f"data.root={pictures}", "data.limit=1"]
    out = predict(tmp_path, best, *options)
    rule = read_tuned(out / IN_FORCE)
    manifest = CandidateCache(out / "candidates").manifest
    views = {"scales": [list(scale) for scale in manifest.scales], "flips": list(manifest.flips), "mask_grid": 56}
    tuned = tmp_path / "tuned.yaml"
    OmegaConf.save({**rule, "about": {**rule["about"], **views}}, tuned)
    file = ["postprocess=tuned", f"postprocess.file={tuned}"]
    for i, (changed, said) in enumerate(
        [
            ([best], ""),
            ([best, "tta=flip"], ": tuned for other views (tta)"),
            ([best, "inference.mask_grid=null"], ": tuned for another mask grid (inference.mask_grid)"),
            ([other], ": tuned for other models"),
            ([other, "tta=flip"], ": tuned for other models and other views (tta)"),
        ]
    ):
        caplog.clear()
        predict(tmp_path, *changed, *options, *file, out=f"out{i}")
        wanted = f"{tuned}{said}, so other thresholds may be better here" if said else f"{tuned}"
        assert f"thresholds     {wanted}\n" in caplog.text
