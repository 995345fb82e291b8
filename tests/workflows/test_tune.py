"""Compare tune_thresholds.py on the wardrobe with predict.py and `fashion-hydra score`."""

import csv
import json
import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fashion_hydra.cli.main import main as cli
from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_config, compose_options
from fashion_hydra.config.words import readable_words
from fashion_hydra.formats.submission import read_masks
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.utils.errors import UserError
from tests.helpers import run_script

IDS, NAMES = (23, 31, 33), ("shoe", "sleeve", "neckline")
SMALL_GRID = [
    "grid.score_thr=[0.2,0.4,0.6]",
    "grid.iou_thr=[0.3,0.6]",
    "grid.mask_thr=[0.4,0.5]",
    "grid.min_area=[1,60]",
]
SMALL = [
    *SMALL_GRID,
    "postprocess.iou_thr=0.6",
    "search.trials=6",
    "folds=3",
    "expected.weight=3",
    "per_class.step=0.1",
]


@pytest.fixture(scope="module")
def predicted(wardrobe, tmp_path_factory):
    """Candidates of the wardrobe's training images, as from a detector of three classes."""
    from fashion_hydra.data.ground_truth import truth_on_grid
    from fashion_hydra.data.kaggle import read_annotations
    from fashion_hydra.formats.submission import write_truth

    folder = tmp_path_factory.mktemp("predicted")
    annotations = read_annotations(wardrobe)[0]
    manifest = Manifest(
        members=(("best.ckpt", "1" * 64),), class_ids=IDS, class_names=NAMES, scales=((96, 144),), flips=(False,),
        proposal_iou_thr=0.7, max_proposals=100, precision="32-true", score_floor=0.05, iou_grid=(0.3, 0.6),
    )  # fmt: skip
    cache = CandidateCache(folder / "candidates", manifest)
    rng = np.random.default_rng(0)
    for image, name in enumerate(annotations.image_ids.tolist()):
        masks = list(annotations.instances(image))
        boxes = np.repeat(annotations.boxes[masks], 3, axis=0) + rng.normal(0, 2.0, (3 * len(masks), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        known = [IDS.index(c) if c in IDS else rng.integers(0, 3) for c in annotations.categories[masks].tolist()]
        labels = np.repeat(np.array(known, np.int64), 3)
        scores = rng.beta(2, 2, len(labels)).astype(np.float32).clip(0.06, 0.99)
        order = np.argsort(-scores, kind="stable")
        yy, xx = (np.mgrid[:14, :14] + 0.5) / 7 - 1
        soft = np.clip(1.2 - np.hypot(xx, yy) + rng.normal(0, 0.2, (len(labels), 14, 14)), 0, 1).astype(np.float32)
        arrays = (boxes.astype(np.float32), scores, labels, soft)
        size = tuple(annotations.sizes[image].tolist())
        cache.write(Candidates(name, size, *(torch.from_numpy(a[order]) for a in arrays)))
    write_truth(folder / "truth.csv", truth_on_grid(annotations, range(len(annotations)), size=512))
    return folder


def composed(tmp_path, predicted, *overrides, out="out"):
    out = tmp_path / out
    return compose_options(
        "tune", f"out={out}", f"paths.output_dir={out}", f"candidates.folder={predicted}", *SMALL, *overrides
    )


def predict_and_score(tmp_path, predicted, config, capsys):
    """Return the score of `predict.py` with these thresholds, as printed by `fashion-hydra score`."""
    from fashion_hydra.data.class_set import ClassSet
    from fashion_hydra.formats import writers
    from fashion_hydra.postprocess.apply import apply
    from fashion_hydra.postprocess.rule_options import build_rule

    cache = CandidateCache(predicted / "candidates")
    rule = build_rule(config, ClassSet(IDS, NAMES))
    names = list(read_masks(predicted / "truth.csv"))
    found = ((name, cache.read(name)) for name in names)
    answers = (writers.ImageAnswer(n, n, c.size, apply(c, rule, size=(512, 512)), IDS) for n, c in found)
    writers.write_submission_csv(tmp_path / "submission.csv", answers)
    capsys.readouterr()
    assert cli(["score", str(predicted / "truth.csv"), str(tmp_path / "submission.csv")]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_any_rule_scores_what_predicting_and_scoring_with_it_gives(tmp_path, predicted, capsys):
    from fashion_hydra.workflows.tune import score_rule

    draw = random.Random(1)
    seen = set()
    for _ in range(22):
        words = [
            f"postprocess.score_thr={draw.choice([0.1, 0.25, 0.5, 0.7])}",
            f"postprocess.iou_thr={draw.choice([0.3, 0.6])}",
            f"postprocess.mask_thr={draw.choice([0.35, 0.5, 0.62])}",
            f"postprocess.min_area={draw.choice([1, 40, 400])}",
            f"postprocess.max_per_image={draw.choice([100, 5])}",
            f"postprocess.drop_classes={draw.choice(['[]', '[31]'])}",
            f"postprocess.nms={draw.choice(['box', 'box', 'mask', 'soft'])}",
            draw.choice(["postprocess.class_score_thr={23:0.3}", "postprocess.suppress_overlaps=true"]),
        ]
        cfg = composed(tmp_path, predicted, *words)
        score = score_rule(cfg, Command())
        assert predict_and_score(tmp_path, predicted, vars(cfg.postprocess), capsys) == f"score {score:.6f}"
        seen.add(score)
    assert len(seen) > 15


def test_tuning_writes_rules_that_predicting_reads(tmp_path, predicted, capsys):
    from fashion_hydra.postprocess.rule_files import fill_in
    from fashion_hydra.postprocess.rule_options import build_rule  # noqa: F401 - imports torch only now
    from fashion_hydra.workflows.tune import tune

    tune(composed(tmp_path, predicted), Command())
    out = tmp_path / "out"
    names = {
        "tuned.yaml",
        "methods.csv",
        "grid.csv",
        "classes.csv",
        "grid.png",
        "curves.png",
        "classes.png",
        "truth.csv",
    }
    assert names <= {p.name for p in out.iterdir()}
    with (out / "methods.csv").open() as stream:
        methods = {row["method"]: row for row in csv.DictReader(stream)}
    assert list(methods) == ["untuned", "winner", "grid", "search", "per_class", "expected"]
    with (out / "grid.csv").open() as stream:
        grid = list(csv.DictReader(stream))
    assert len(grid) == 3 * 2 * 2 * 2 * 2 * 2
    assert {row["drop"] for row in grid} == {"all = winner", "winner_strict"}  # winner_strict also drops 33
    assert float(methods["grid"]["fitted"]) == pytest.approx(max(float(row["score"]) for row in grid), abs=1e-6)
    best = max(methods.values(), key=lambda row: float(row["cross_fitted"]))["method"]
    tuned = OmegaConf.load(out / "tuned.yaml")
    assert tuned.about.method == best
    assert tuned.about.members == [["best.ckpt", "1" * 64]]
    capsys.readouterr()
    assert cli(["compare", str(out), str(predicted)]) == 0
    compared = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert compared == {name: row["fitted"] for name, row in methods.items()}
    for method, row in methods.items():  # check the rule file of each method
        file = OmegaConf.create({"file": str(out / "methods" / f"{method}.yaml")})
        config = fill_in(file, [], tmp_path)
        message = predict_and_score(tmp_path, predicted, config, capsys)
        assert float(message.split()[1]) == pytest.approx(float(row["fitted"]), abs=1e-6)
    asked = {"file": "newest", "mask_thr": 0.61, "select": None}
    assert fill_in(asked, [("x.ckpt", "1" * 64)], tmp_path)["mask_thr"] == 0.61  # found by its members, then overridden
    with pytest.raises(UserError, match=r"was tuned for y\.ckpt \(found .*best\.ckpt"):
        fill_in(asked, [("y.ckpt", "2" * 64)], tmp_path)


def test_comparing_needs_a_tuned_folder_and_truth(tmp_path, predicted, capsys):
    assert cli(["compare", str(tmp_path), str(predicted)]) == 2
    assert "not a folder that tune_thresholds.py wrote" in capsys.readouterr().err
    (tmp_path / "methods.csv").write_text("method\n")
    assert cli(["compare", str(tmp_path), str(predicted), "--truth", str(tmp_path / "none.csv")]) == 2
    assert "none.csv: no such file. Give --truth" in capsys.readouterr().err


def test_the_same_seed_tunes_the_same(tmp_path, predicted):
    from fashion_hydra.workflows.tune import tune

    files = []
    for out in ("one", "two"):
        tune(composed(tmp_path, predicted, out=out), Command())
        files.append([(tmp_path / out / name).read_bytes() for name in ("methods.csv", "grid.csv", "tuned.yaml")])
    assert files[0] == files[1]


def test_a_multirun_scores_what_the_grid_does(tmp_path, predicted, monkeypatch, capsys):
    from fashion_hydra.workflows.tune import tune

    monkeypatch.chdir(tmp_path)
    axes = {"score_thr": "0.2,0.4", "iou_thr": "0.3,0.6", "mask_thr": "0.4,0.5"}
    common = [word for word in SMALL if not word.startswith("postprocess.iou_thr")]
    jobs = [f"postprocess.{axis}={values}" for axis, values in axes.items()]
    code = run_script("tune_thresholds.py", "-m", *jobs, f"candidates.folder={predicted}", "out=out", *common)
    output = capsys.readouterr()
    assert code == 0, output.err
    [table] = (tmp_path / "out" / "sweeps").glob("*/sweep.csv")
    with table.open() as stream:
        jobs = list(csv.DictReader(stream))
    assert len(jobs) == 8
    assert [float(j["score"]) for j in jobs] == sorted((float(j["score"]) for j in jobs), reverse=True)
    assert "sweep.csv" in output.out
    tune(composed(tmp_path, predicted), Command())
    with (tmp_path / "out" / "grid.csv").open() as stream:
        others = {"min_area": "1", "mask_certainty_power": "0.0", "drop": "all = winner"}
        rows = [row for row in csv.DictReader(stream) if row.items() >= others.items()]
    grid = {tuple(row[axis] for axis in axes): row["score"] for row in rows}
    assert all(grid[tuple(job[f"postprocess.{axis}"] for axis in axes)] == job["score"] for job in jobs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["postprocess.iou_thr=0.5"], r"iou_thr=0\.5 is not among .*\(0\.3, 0\.6\)"),
        (["grid.iou_thr=[0.3,0.5]"], r"iou_thr=0\.5 is not among .*\(0\.3, 0\.6\)"),
        (["grid.drop=[mine]"], r"grid\.drop=mine: no such set in removal"),
        (
            ["+removal.mine.drop=[shoo]", "grid.drop=[mine]"],
            r"removal\.mine\.drop: no category named 'shoo'; nearest: 'shoe'",
        ),
        (["folds=50"], r"folds=50: must be between 2 and the number of images"),
        (["score.pooling=mean"], r"pooling=mean: choose one of class, image"),
        (["grid.mask_thr=[0.5,0.50001]"], r"mask_thr=.*at least 1/4096 apart"),
    ],
)
def test_a_mistake_is_refused(tmp_path, predicted, words, message):
    from fashion_hydra.workflows.tune import tune

    with pytest.raises(UserError, match=message):
        tune(composed(tmp_path, predicted, *words), Command())


def test_truth_of_images_without_candidates_is_refused(tmp_path, predicted):
    from fashion_hydra.workflows.tune import tune

    rows = "".join(f"strange{i}.jpg,1 9,23\n" for i in range(9))
    (tmp_path / "truth.csv").write_text(f"ImageId,EncodedPixels,ClassId\n{rows}")
    with pytest.raises(UserError, match=r"no candidates of 9 of 9 images with truth, the first strange0\.jpg"):
        tune(composed(tmp_path, predicted, f"truth={tmp_path / 'truth.csv'}"), Command())


def test_a_file_is_named_like_a_group():
    assert readable_words(["postprocess=winner", "data.root=x.yaml"]) == ["postprocess=winner", "data.root=x.yaml"]
    words = readable_words(["postprocess=a b/it's.yaml"])
    assert words == ["postprocess=tuned", r"postprocess.file='a b/it\'s.yaml'"]
    cfg = compose_config("predict", *words)
    assert cfg.postprocess.file == "a b/it's.yaml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("a: [", "not readable as YAML"),
        ("a: 1", "not written by tune_thresholds"),
    ],
)
def test_a_foreign_tuned_file_is_refused(tmp_path, content, message):
    from fashion_hydra.postprocess.rule_files import read_tuned

    path = tmp_path / "tuned.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_tuned(path)


def test_a_calibration_of_other_classes_or_none_is_refused(tmp_path):
    from fashion_hydra.data.class_set import ClassSet
    from fashion_hydra.postprocess.rule_options import build_rule

    base = {"score_thr": 0.3, "iou_thr": 0.5, "mask_thr": 0.5, "max_per_image": 9, "select": "expected"}
    content = {"class_ids": [1], "scores": [0, 1], "hits": [[[0] * 10] * 2], "missed": [[0, 0]], "others": 0}
    (tmp_path / "other.json").write_text(json.dumps(content))
    (tmp_path / "damaged.json").write_text(json.dumps({**content, "hits": "many"}))
    for file, message in (
        (None, "needs postprocess.calibration=FILE"),
        ("nowhere.json", "no such file"),
        ("other.json", "calibrated for 1 classes 1, the model has 23,31,33"),
        ("damaged.json", "damaged calibration"),
    ):
        path = str(tmp_path / file) if file else None
        with pytest.raises(UserError, match=message):
            build_rule({**base, "calibration": path}, ClassSet(IDS, NAMES))
    with pytest.raises(UserError, match=r"postprocess\.select=best: give threshold or expected"):
        build_rule({**base, "select": "best"}, ClassSet(IDS, NAMES))
