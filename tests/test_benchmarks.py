"""Run every benchmark at a small size; times are not checked."""

import importlib
import json
import shlex
import subprocess
import sys

import pytest
import torch

from fashion_hydra.formats.submission import read_masks
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model.htc import build_htc
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.structures.batch import ScaledImage
from tests import PROJECT
from tests.helpers import model_options

ARGUMENTS = {
    "accelerator": "--model htc_tiny --scale 96 160 --images 1 --steps 1 --skip 0 --device cpu --results /dev/null "
    "--only 'ours, bf16' 'mmdet, fp32' 'the backbone'",
    "annotations": "--times 1 --rounds 1",
    "app": "--objects 5 --moves 2",
    "attributes": "--rounds 1 --images 1 --size 96",
    "ensemble": "--rounds 1 --models 2 --depth 18 --base-channels 16 --short-edges 96",
    "evaluation": "--images 3 --detections 10 --rounds 1",
    "growth": "--images 20 --answered 20 --tuned 20 --leaps 0 --picture /dev/null --steps split answer",
    "predict_memory": "--images 4 --first 1",
    "samples": "--rounds 1 --photos 2",
    "submission_path": "--images 1 --candidates 20 --rounds 1",
    "threshold_search": "--images 4 --grid 2 2 2 --sample 2 2 --rounds 1",
    "train_step": "--rounds 1 --steps 3 --skip 1 --images 1 --size 96",
    "worker_memory": "--images 40 --masks 200 --workers 2",
}
OWN_PROCESS = ("accelerator", "app", "attributes", "growth", "predict_memory", "worker_memory", "train_step")
"""Benchmarks that measure a process, or that leave mmengine's logger with a closed file."""
IN_TURN = """
import contextlib, importlib, io, json, shlex, sys, traceback

outputs = {}
for name, arguments in json.loads(sys.argv[1]).items():
    sys.argv = [name, *shlex.split(arguments)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            importlib.import_module(f"benchmarks.{name}").main()
        except BaseException:
            traceback.print_exc(file=printed)
    outputs[name] = printed.getvalue()
print(json.dumps(outputs))
"""
"""Program that runs benchmarks in turn and prints what each of them prints."""


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name not in OWN_PROCESS])
def test_benchmark_runs(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [name, *shlex.split(ARGUMENTS[name])])
    threads = torch.get_num_threads()
    try:
        importlib.import_module(f"benchmarks.{name}").main()
    finally:
        torch.set_num_threads(threads)
    assert "ours" in capsys.readouterr().out


def test_benchmarks_run_in_another_process(wardrobe, tmp_path):
    out = tmp_path / "rival"
    sizes = "augment.short_edge=[64,96] augment.long_edge=160 augment.crop=[64,96] tta.scales=[[96,128]] data.folds=3"
    rival = f"{shlex.quote(str(wardrobe))} mask_rcnn --epochs=1 --narrow --out={shlex.quote(str(out))} {sizes}"
    chosen = {**{name: ARGUMENTS[name] for name in OWN_PROCESS}, "rivals": rival}
    command = [sys.executable, "-c", IN_TURN, json.dumps(chosen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    for name in chosen:
        assert ("AP50" if name == "rivals" else "ours") in outputs[name], outputs[name]
        assert "Traceback" not in outputs[name], outputs[name]
    for folder in (out / "val", out / "test_fold"):  # candidates for tuning
        assert not CandidateCache(folder / "candidates").missing(list(read_masks(folder / "truth.csv")))


def test_every_benchmark_is_run_here():
    modules = {path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")}
    assert modules == {*ARGUMENTS, "plain_scheme", "rivals"}  # plain_scheme is the rival of ensemble


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade_mask_rcnn"])
def test_a_rival_finds_what_mmdet_finds(name):
    """Boxes, scores and labels equal those of mmdet's predict, where mmdet's boxes do not depend on the class."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.registry import DefaultScope

    from benchmarks import rivals

    options = model_options("htc_lite")
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        ours = build_htc(num_classes=3, **options)
        config = rivals.rival_config(name, options["backbone"], ours, 3, options)
        if name == "mask_rcnn":
            config.roi_head.bbox_head.reg_class_agnostic = True
        config.test_cfg.rcnn.score_thr = 0.2
        net = MODELS.build(config).eval()
        net.backbone.load_state_dict(ours.net.backbone.state_dict())
        image = torch.randint(256, (3, 96, 128), dtype=torch.uint8)
        meta = {"img_shape": (96, 128), "ori_shape": (96, 128), "scale_factor": (1.0, 1.0)}
        data = {"inputs": [image.flip(0)], "data_samples": [DetDataSample(metainfo=meta)]}
        with torch.no_grad():
            theirs = net.test_step(data)[0].pred_instances
        rule = Postprocess(score_thr=0.2, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
        scaled = ScaledImage("a", (96, 128), (image,))
        found = merge_sources([rivals.Rival(net)], scaled, [rule], Merging(), device=torch.device("cpu"))
    assert len(theirs.scores) > 10
    torch.testing.assert_close(found.scores, theirs.scores)
    torch.testing.assert_close(found.boxes, theirs.bboxes, rtol=1e-4, atol=1e-3)
    assert (found.labels == theirs.labels).all()
