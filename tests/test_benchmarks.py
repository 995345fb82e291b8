"""Run every benchmark at a small size; times are not checked."""

import importlib
import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

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
            importlib.import_module(f"benchmarks.{name.split()[0]}").main()
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
    sizes = "augment.short_edge=[64,96] augment.long_edge=160 augment.crop=[64,96] tta.scales=[[96,128]] data.folds=10"
    chosen = {name: ARGUMENTS[name] for name in OWN_PROCESS}
    for name in ("mask_rcnn", "torchvision"):
        out = shlex.quote(str(tmp_path / name))
        chosen[f"rivals {name}"] = f"{shlex.quote(str(wardrobe))} {name} --epochs=1 --narrow --out={out} {sizes}"
    command = [sys.executable, "-c", IN_TURN, json.dumps(chosen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    for name in chosen:
        assert ("AP50" if name.startswith("rivals") else "ours") in outputs[name], outputs[name]
        assert "Traceback" not in outputs[name], outputs[name]
    for folder in tmp_path.glob("*/*/candidates"):
        assert not CandidateCache(folder).missing(list(read_masks(folder.parent / "truth.csv")))
    assert len(list(tmp_path.glob("*/*/candidates"))) == 4  # the validation and test images of two rivals, for tuning


def test_every_benchmark_is_run_here():
    modules = {path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")}
    assert modules == {*ARGUMENTS, "plain_scheme", "rivals"}  # plain_scheme is the rival of ensemble


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade_mask_rcnn"])
def test_a_rival_finds_what_mmdet_finds(name):
    """Boxes, scores and labels equal those of mmdet's predict, where mmdet's boxes do not depend on the class."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.registry import DefaultScope

    from benchmarks._mmdet_rivals import MMDetDetector, rival_config

    options = model_options("htc_lite")
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        ours = build_htc(num_classes=3, **options)
        config = rival_config(name, options["backbone"], ours, 3, options)
        if name == "mask_rcnn":
            config.roi_head.bbox_head.reg_class_agnostic = True
        config.test_cfg.rcnn.score_thr = 0.2
        net = MODELS.build(config).eval()
        net.backbone.load_state_dict(ours.net.backbone.state_dict())
        image = torch.randint(256, (3, *SIZE), dtype=torch.uint8)
        meta = {"img_shape": SIZE, "ori_shape": SIZE, "scale_factor": (1.0, 1.0)}
        data = {"inputs": [image.flip(0)], "data_samples": [DetDataSample(metainfo=meta)]}
        with torch.no_grad():
            theirs = net.test_step(data)[0].pred_instances
        found = found_by(MMDetDetector(net), image, 0.2)
    assert len(theirs.scores) > 10
    torch.testing.assert_close(found.scores, theirs.scores)
    torch.testing.assert_close(found.boxes, theirs.bboxes, rtol=1e-4, atol=1e-3)
    assert (found.labels == theirs.labels).all()


SIZE = (96, 120)  # a width that is not a multiple of 32


@pytest.mark.parametrize("narrow", [False, True])
def test_a_rival_finds_what_torchvision_finds(narrow, tmp_path):
    """Boxes, scores, labels and masks equal those of torchvision's model, if its boxes do not depend on the class."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from benchmarks._rival import Setting
    from benchmarks._torchvision_rival import TorchvisionRival

    options = model_options("htc_lite")
    torch.manual_seed(0)
    ours = build_htc(num_classes=3, **options)
    data = SimpleNamespace(classes="abc")
    rival = TorchvisionRival(Setting(data, None, options, ours, narrow, "sgd", tmp_path))
    net = rival.start().eval()
    predictor = net.roi_heads.box_predictor.bbox_pred
    with torch.no_grad():
        for values in (predictor.weight, predictor.bias):
            values.copy_(values[:4].repeat(4, *[1] * (values.ndim - 1)))
    net.roi_heads.score_thresh, net.transform.min_size = 0.2, (min(SIZE),)  # torchvision resizes in prediction
    image = torch.randint(256, (3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        theirs = net([image / 255])[0]
        found = found_by(rival.detector(net), image, 0.2)
    assert len(theirs["scores"]) > 10
    torch.testing.assert_close(found.scores, theirs["scores"])
    torch.testing.assert_close(found.boxes, theirs["boxes"], rtol=1e-4, atol=1e-3)
    assert (found.labels + 1 == theirs["labels"]).all()
    pasted = paste_masks_in_image(found.masks[:, None].float(), found.boxes, SIZE)
    torch.testing.assert_close(pasted, theirs["masks"], rtol=0, atol=1e-3)


def found_by(detector, image, score_thr):
    """Return the candidates that a rival finds in an image."""
    rule = Postprocess(score_thr=score_thr, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
    scaled = ScaledImage("a", SIZE, (image,))
    return merge_sources([detector], scaled, [rule], Merging(), device=torch.device("cpu"))
