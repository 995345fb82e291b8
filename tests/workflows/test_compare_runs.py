"""Compare runs of two ways to train on their held-out images, with tiny untrained models."""

import csv

import numpy as np
import pytest
from omegaconf import OmegaConf

from fashion_hydra.cli.main import main
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.evaluation.annotated import true_masks
from fashion_hydra.evaluation.coco_ap import mask_ap
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from tests.helpers import CLASS_IDS, compose_config, write_tiny_checkpoint

FOLDS = 2
SETS = ("trainer.accelerator=cpu", "data.num_workers=0")


def write_run(folder, data, *, fold, model_seed, lr, images=None, folds=FOLDS, test_fold="null"):
    """Write the files of a train.py run: checkpoint, config, split."""
    words = [f"data.root={data}", "name=x", f"paths.output_dir={folder}", f"schedule.lr={lr}"]
    words += [f"data.fold={fold}", f"data.test_fold={test_fold}"]
    cfg = compose_config("train", "experiment=demo", *words, f"classes.train=[{','.join(map(str, CLASS_IDS))}]")
    write_tiny_checkpoint(folder / "checkpoints" / "last.ckpt", seed=model_seed)
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    names = read_annotations(data)[0].image_ids.tolist()[:images]
    rows = "".join(f"{name},{i % folds}\n" for i, name in enumerate(names))
    (folder / "split.csv").write_text(f"ImageId,fold\n{rows}")


@pytest.fixture(scope="module")
def runs(wardrobe, tmp_path_factory):
    """Runs of sides a and b, with two folds each."""
    folder = tmp_path_factory.mktemp("runs")
    for side, first, lr in (("a", 0, 0.1), ("b", 10, 0.2)):
        for fold in range(FOLDS):
            write_run(folder / side / f"job{fold}", wardrobe, fold=fold, model_seed=first + fold, lr=lr)
    return folder


def compare(first, second, out, *more):
    words = [word for setting in SETS for word in ("--set", setting)]
    return main(["compare-runs", str(first), "--with", str(second), "--out", str(out), "--draws", "50", *words, *more])


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_ways(runs, wardrobe, tmp_path, capsys):
    assert compare(runs / "a", runs / "b", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "differs        schedule.lr: A 0.1, B 0.2" in printed
    assert printed.count("differs") == 1
    assert f"{len(read_annotations(wardrobe)[0])} held-out photos" in printed
    rows = {row.pop("metric"): {k: float(v) for k, v in row.items()} for row in rows_of(tmp_path / "comparison.csv")}
    assert list(rows) == ["score", "AP", "AP50", "AP75", "boundary AP"]
    for row in rows.values():
        assert row["gain"] == pytest.approx(row["b"] - row["a"], abs=2e-6)
        assert row["gain_low"] <= row["gain_high"]
    annotations = read_annotations(wardrobe)[0]
    for side in "ab":  # pool all held-out photos
        truth, found = {}, {}
        for fold in range(FOLDS):
            cache = CandidateCache(tmp_path / side / f"fold{fold}-1" / "candidates")
            for i, name in enumerate(map(str, annotations.image_ids)):
                if i % FOLDS == fold:
                    candidates = cache.read(name)
                    found[name] = apply(candidates, COCO_RULE, size=candidates.size)
                    truth[name] = list(true_masks(annotations, i, cache.manifest.classes))
        wanted = mask_ap(truth, found, labels=len(CLASS_IDS)).overall
        assert [rows[name][side] for name in ("AP", "AP50", "AP75")] == pytest.approx(
            [wanted[name] for name in ("AP", "AP50", "AP75")], abs=1e-6
        )
        assert rows["boundary AP"][side] <= rows["AP"][side]
    assert {row["class"] for row in rows_of(tmp_path / "classes.csv")} <= set(annotations.names.values())


def test_of_runs_of_one_fold_the_test_fold_is_compared_too(wardrobe, tmp_path, capsys):
    for side, first, lr in (("a", 0, 0.1), ("b", 10, 0.2)):
        write_run(tmp_path / side, wardrobe, fold=0, model_seed=first, lr=lr, folds=3, test_fold=1)
    assert compare(tmp_path / "a", tmp_path / "b", tmp_path / "out", "--draws", "5") == 0
    names = [str(name) for name in read_annotations(wardrobe)[0].image_ids]
    assert f"{len(names[::3]) + len(names[1::3])} held-out photos" in capsys.readouterr().out
    for fold, folder in enumerate(("fold0-1", "fold0-1-test_fold")):
        cache = CandidateCache(tmp_path / "out" / "a" / folder / "candidates")
        assert [name for name in names if not cache.missing([name])] == names[fold::3]
    write_run(tmp_path / "b", wardrobe, fold=0, model_seed=10, lr=0.2, folds=3, test_fold=2)
    assert compare(tmp_path / "a", tmp_path / "b", tmp_path / "out") == 2
    assert "held out other photos than the first run of fold 0" in capsys.readouterr().err


def test_a_way_against_itself(runs, tmp_path, capsys):
    assert compare(runs / "a", runs / "a", tmp_path, "--draws", "20") == 0
    assert capsys.readouterr().out.count("within noise") == 5
    assert {float(row["gain"]) for row in rows_of(tmp_path / "comparison.csv")} == {0.0}


def test_two_ways_to_predict_with_the_same_runs(runs, tmp_path, capsys):
    assert compare(runs / "a", runs / "a", tmp_path, "--draws", "5", "--set-with", "inference.mask_grid=null") == 0
    assert "differs        B predicts with inference.mask_grid=null" in capsys.readouterr().out
    first, second = (CandidateCache(tmp_path / side / "fold0-1" / "candidates") for side in "ab")
    assert (first.manifest.mask_grid, second.manifest.mask_grid) == (56, None)


def test_what_cannot_be_compared(runs, wardrobe, tmp_path, capsys):
    assert compare(runs / "a", runs / "b" / "job0", tmp_path) == 2
    assert "fold 0 1, fold 1 1 on one side, fold 0 1 on the other" in capsys.readouterr().err
    assert compare(runs / "a", tmp_path, tmp_path) == 2
    assert "no training run in or below it" in capsys.readouterr().err
    for fold in range(FOLDS):
        write_run(tmp_path / "c" / f"job{fold}", wardrobe, fold=fold, model_seed=fold, lr=0.1, images=12)
    assert compare(runs / "a", tmp_path / "c", tmp_path / "out") == 2
    assert "held out other photos than the first run of fold" in capsys.readouterr().err
    (tmp_path / "c" / "job1" / ".hydra" / "config.yaml").unlink()
    assert compare(tmp_path / "c", tmp_path / "c", tmp_path / "out") == 2
    assert "no config with data.fold" in capsys.readouterr().err


def test_tuned_scores_come_from_the_other_folds():
    from fashion_hydra.workflows.compare_runs import _tuned

    scores = np.array([[0.9, 0.9, 0.1, 0.1], [0.2, 0.2, 0.8, 0.8]])
    assert _tuned(scores, np.array([0, 0, 1, 1])).tolist() == [0.2, 0.2, 0.1, 0.1]
