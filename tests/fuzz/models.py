"""Targets that need PyTorch: checkpoints, weights, candidates, and postprocessing rules."""

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save

from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.formats.submission import write_submission
from fashion_hydra.formats.submission_check import find_breaches
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.model.checkpoint import load_member, read_checkpoint
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.weights.layouts import import_weights
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.calibration_file import read_calibration, write_calibration
from fashion_hydra.postprocess.expected_score import Calibration, choose
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_files import read_tuned
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.utils.errors import UserError
from tests.fuzz.patches import archive_of, file_of
from tests.fuzz.targets import CLASSES, emptied, target

RULE = Postprocess(score_thr=0.1, iou_thr=0.5, mask_thr=0.5, max_per_image=20)


@functools.cache
def checkpoint_content() -> dict[str, Any]:
    """Return the content of train.py's checkpoint of a very small model."""
    conf = PROJECT_ROOT / "conf" / "model"
    parts = [yaml.safe_load((conf / name).read_text()) for name in ("htc.yaml", "htc_tiny.yaml")]
    model = {key: value for part in parts for key, value in part.items() if key != "defaults"}
    model |= {"neck_channels": 8, "fc_channels": 8, "mask_channels": 8, "mask_convs": 1, "stage_ious": [0.5],
              "stage_weights": [1.0]}  # fmt: skip
    model["backbone"] = yaml.safe_load((conf / "backbone" / "resnet18_slim.yaml").read_text())
    model["backbone"] |= {"base_channels": 8, "channels": [8, 16, 32, 64]}
    detector = build_htc(num_classes=len(CLASSES), **{k: v for k, v in model.items() if k != "_target_"})
    return {
        "state_dict": {f"detector.{name}": value for name, value in detector.state_dict().items()},
        "classes": {"ids": list(CLASSES.ids), "names": list(CLASSES.names)},
        "model": model,
        "eval_scale": [96, 144],
        "callbacks": {"ModelCheckpoint{}": {"best_k_models": {"a.ckpt": torch.tensor(0.5)}}},
    }


def _saved(content: object, **how: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **how)
    return stream.getvalue()


def _without_weights() -> dict[str, Any]:
    return {**checkpoint_content(), "state_dict": {"detector.x": torch.ones(2, 3)}}


@target("checkpoint", lambda: [_saved(_without_weights())], content=archive_of)
def _checkpoint(data: bytes, folder: Path) -> None:
    (folder / "a.ckpt").write_bytes(data)
    content = read_checkpoint(folder / "a.ckpt")
    assert all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())


def _description() -> list[bytes]:
    plain = {key: checkpoint_content()[key] for key in ("model", "classes", "eval_scale")}
    return [json.dumps(plain).encode()]


@target("model of a checkpoint", _description)
def _model(data: bytes, folder: Path) -> None:
    """Read a checkpoint with a fuzzed model description (JSON) and the weights of the small model."""
    try:
        described = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(described, dict):
        return
    path = folder / "model.ckpt"
    torch.save({**checkpoint_content(), **described}, path)
    member = load_member(path)
    assert len(member.classes) == len(set(member.classes.ids))


def _weights_seeds() -> Sequence[bytes]:
    tensors = {"conv1.weight": torch.ones(2, 3), "layer1.0.bn1.bias": torch.zeros(2), "fc.weight": torch.ones(2, 2)}
    heads = {
        "roi_head.bbox_head.0.fc_cls.weight": torch.ones(4, 2),
        "roi_head.bbox_head.0.fc_reg.weight": torch.ones(4, 2),
        "roi_head.mask_head.0.conv_logits.weight": torch.ones(3, 2, 1, 1),
        "backbone.conv1.weight": torch.ones(2, 3),
    }
    old = {
        "bbox_head.0.fc_cls.weight": torch.ones(4, 2),
        "bbox_head.0.fc_cls.bias": torch.ones(4),
        "bbox_head.0.fc_reg.bias": torch.ones(16),
        "mask_head.0.conv_logits.weight": torch.ones(4, 2, 1, 1),
        "backbone.layer2.0.conv2_offset.weight": torch.ones(2, 2),
    }
    meta = {"CLASSES": ("a", "b", "c"), "config": "style='pytorch', mean=[1.0, 2.0, 3.0], to_rgb=True"}
    note = json.dumps({"layout": "x", "ids": [1, 2, 3], "names": ["a", "b", "c"], "inputs": {"style": "caffe"}})
    return [
        _saved({"state_dict": heads, "meta": meta}),
        _saved(tensors),
        _saved(old, _use_new_zipfile_serialization=False),
        _saved({"state_dict": tensors}, _use_new_zipfile_serialization=False),
        save(heads, {"format": "pt", "fashion_hydra": note}),
        save(tensors),
    ]


def _weights_content(data: bytes, seeds: Sequence[bytes]) -> bytes:
    zipped = [seed for seed in seeds if seed.startswith(b"PK")]
    return archive_of(data, zipped) if data[:1] < b"\x80" else file_of(data[1:], seeds)


@target("weights", _weights_seeds, content=_weights_content)
def _weights(data: bytes, folder: Path) -> None:
    (folder / "a.pth").write_bytes(data)
    imported = import_weights(folder / "a.pth")
    assert imported.tensors or imported.dropped
    assert all(isinstance(value, torch.Tensor) for value in imported.tensors.values())


MANIFEST = Manifest(
    (("a.ckpt", "00"),), CLASSES.ids, CLASSES.names, ((96, 144),), (False,), 0.7, 9, "32", 0.05, (0.5,), ""
)


def _candidates_seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (6, 2))
    arrays = {
        "image_id": "a",
        "fault": "",
        "size": np.array([40, 50]),
        "boxes": np.concatenate([corner, corner + 15], axis=1).astype(np.float32),
        "scores": np.sort(rng.random(6).astype(np.float32))[::-1],
        "labels": rng.integers(0, 3, 6),
        "masks": rng.random((6, 4, 4)).astype(np.float32),
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return [stream.getvalue()]


@target("candidates", _candidates_seeds, content=archive_of)
def _candidates(data: bytes, folder: Path) -> None:
    cache = CandidateCache(folder / "cache", MANIFEST)
    path = cache.path("a")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    check_answer(cache.read("a"), folder)
    assert isinstance(cache.read_fault("a"), str)


def check_answer(candidates: Candidates, folder: Path) -> None:
    """Check that candidates become a valid submission."""
    found = apply(candidates, RULE, size=(512, 512))
    rows = [(str(CLASSES.ids[k]), mask) for k, mask in zip(found.labels, found.masks, strict=True)]
    write_submission(folder / "answer.csv", {"a": rows})
    assert find_breaches(folder / "answer.csv") == []


@target("manifest of candidates", lambda: [json.dumps({"version": 1, **MANIFEST.plain()}).encode()])
def _manifest(data: bytes, folder: Path) -> None:
    made = emptied(folder, "manifest")
    (made / "manifest.json").write_bytes(data)
    manifest = CandidateCache(made).manifest
    assert len(manifest.class_ids) == len(manifest.class_names)
    assert all(isinstance(thr, int | float) for thr in manifest.iou_grid)
    manifest.rules()


def _calibration() -> Calibration:
    hits = np.sort(np.sort(np.random.default_rng(0).random((3, 4, 10)), axis=1), axis=2)[:, :, ::-1]
    return Calibration(np.array([0.1, 0.3, 0.5, 0.9]), np.sort(hits, axis=1), np.full((3, 2), 0.2), 0.5)


def _calibration_seeds() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        write_calibration(Path(made) / "c.json", _calibration(), CLASSES)
        return [(Path(made) / "c.json").read_bytes()]


@target("calibration", _calibration_seeds)
def _read_calibration(data: bytes, folder: Path) -> None:
    (folder / "c.json").write_bytes(data)
    calibration = read_calibration(folder / "c.json", CLASSES)
    assert len(calibration) == len(CLASSES)
    chosen = choose(np.array([0.9, 0.4, 0.2]), np.array([0, 0, 2]), calibration)
    assert chosen.shape == (3,)


_TUNED = """
score_thr: 0.3
nms: box
iou_thr: 0.5
soft_nms_sigma: 0.5
max_per_image: 50
mask_thr: 0.45
suppress_overlaps: true
min_area: 20
steps: [fill_holes]
class_score_thr: {23: 0.6, pants: 0.5}
drop_classes: [31]
select: threshold
calibration: null
about: {members: [[a.ckpt, 00ff]], images: /x}
"""


@target("tuned.yaml", lambda: [_TUNED.encode(), _TUNED.replace("box", "soft").replace("[fill_holes]", "null").encode()])
def _tuned(data: bytes, folder: Path) -> None:
    (folder / "tuned.yaml").write_bytes(data)
    values = read_tuned(folder / "tuned.yaml")
    about = values.pop("about", None) or {}
    assert all(isinstance(digest, str) for _, digest in about.get("members", []))
    rule = build_rule(values, CLASSES)
    _cached = _good_candidates(folder)
    try:
        apply(_cached, rule, size=(64, 64))
    except UserError:
        return


@functools.cache
def _good_candidates(folder: Path) -> Candidates:
    cache = CandidateCache(folder / "good", MANIFEST)
    path = cache.path("a")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_candidates_seeds()[0])
    return cache.read("a")
