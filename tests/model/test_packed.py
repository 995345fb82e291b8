"""Compare a packed model with its checkpoint."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from fashion_hydra.cli.main import main
from fashion_hydra.config import released
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.model.checkpoint import load_member, read_checkpoint
from fashion_hydra.model.weights.load import load_weights
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.postprocess.rule_files import rule_of, write_tuned
from fashion_hydra.utils.errors import UserError
from tests.helpers import CLASS_IDS, CLASS_NAMES, run_script, write_tiny_checkpoint

CLASSES = ClassSet(CLASS_IDS, CLASS_NAMES)
RULE = replace(COCO_RULE, score_thr=0.2)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    write_tiny_checkpoint(folder / "epoch.ckpt")
    write_tuned(folder / "tuned.yaml", RULE, CLASSES, {"members": []})
    words = [folder / "epoch.ckpt", folder / "tiny.safetensors", "--thresholds", folder / "tuned.yaml", "--note", "CC0"]
    assert main(["pack", *map(str, words)]) == 0
    return folder / "tiny.safetensors"


def test_weights_are_those_of_the_checkpoint_at_half_the_size(packed):
    content = read_checkpoint(packed.parent / "epoch.ckpt")
    member = load_member(packed)
    for name, value in member.detector.state_dict().items():
        original = content["state_dict"][f"detector.{name}"]
        rounded = original.half().float() if original.ndim > 1 else original
        assert torch.equal(value, rounded.to(value.dtype)), name
    assert member.classes == CLASSES
    assert member.scale == (96, 144)
    assert packed.stat().st_size < 0.6 * sum(v.numel() * v.element_size() for v in content["state_dict"].values())


def test_metadata_can_be_read_without_this_package(packed):
    with safe_open(packed, "pt") as file:
        metadata = file.metadata()
    assert metadata["note"] == "CC0"
    description = json.loads(metadata["fashion_hydra_model"])
    assert description["classes"] == {"ids": list(CLASS_IDS), "names": list(CLASS_NAMES)}
    assert description["eval_scale"] == [96, 144]
    assert description["rule"]["score_thr"] == 0.2


def test_what_float16_cannot_hold_stays_and_what_is_not_finite_is_refused(tmp_path):
    content = torch.load(write_tiny_checkpoint(tmp_path / "a.ckpt"), weights_only=True)
    name = next(n for n, v in content["state_dict"].items() if v.ndim == 4)
    content["state_dict"][name] = content["state_dict"][name] + 1e5
    torch.save(content, tmp_path / "large.ckpt")
    assert main(["pack", str(tmp_path / "large.ckpt"), str(tmp_path / "large.safetensors")]) == 0
    assert torch.equal(read_checkpoint(tmp_path / "large.safetensors")["state_dict"][name], content["state_dict"][name])
    content["state_dict"][name].view(-1)[0] = float("nan")
    torch.save(content, tmp_path / "nan.ckpt")
    assert main(["pack", str(tmp_path / "nan.ckpt"), str(tmp_path / "nan.safetensors")]) == 2
    assert not (tmp_path / "nan.safetensors").exists()


def test_a_calibration_is_refused(packed, capsys):
    values = yaml.safe_load((packed.parent / "tuned.yaml").read_text())
    path = packed.parent / "expected.yaml"
    path.write_text(yaml.safe_dump({**values, "calibration": "some.json"}))
    words = ["pack", packed.parent / "epoch.ckpt", packed.parent / "b.safetensors", "--thresholds", path]
    assert main([str(word) for word in words]) == 2
    assert "has a calibration in a separate file" in capsys.readouterr().err
    assert not (packed.parent / "b.safetensors").exists()


def test_a_packed_model_gives_a_new_model_its_weights(packed):
    member = load_member(packed)
    fresh = load_member(write_tiny_checkpoint(packed.parent / "other.ckpt", seed=5)).detector
    assert "tensors loaded" in load_weights(fresh, packed, CLASSES)
    for name, value in member.detector.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


@pytest.mark.parametrize("name", ["tiny", "FILE"])
def test_predictions_use_its_thresholds_unless_told_otherwise(packed, wardrobe, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(released, "MODELS", packed.parent)
    given = str(packed) if name == "FILE" else name
    common = [f"checkpoint={given}", f"data.root={wardrobe / 'test'}", "data.limit=2", "trainer.accelerator=cpu"]
    common += ["data.num_workers=0", "callbacks.progress.refresh_rate=0"]
    assert run_script("predict.py", *common, f"out={tmp_path / 'own'}") == 0
    assert "thresholds     the checkpoint's own" in capsys.readouterr().out
    assert rule_of(tmp_path / "own" / "postprocess.yaml", CLASSES) == RULE
    words = [*common, "postprocess.score_thr=0.7", f"out={tmp_path / 'changed'}"]
    assert run_script("predict.py", *words) == 0
    assert rule_of(tmp_path / "changed" / "postprocess.yaml", CLASSES) == replace(RULE, score_thr=0.7)
    assert run_script("predict.py", *common, "postprocess=winner", f"out={tmp_path / 'winner'}") == 0
    assert rule_of(tmp_path / "winner" / "postprocess.yaml", CLASSES).score_thr == 0.5


def test_a_checkpoint_without_thresholds_has_the_winners(packed, wardrobe, tmp_path):
    common = [f"checkpoint={packed.parent / 'epoch.ckpt'}", f"data.root={wardrobe / 'test'}", "data.limit=1"]
    common += ["trainer.accelerator=cpu", "data.num_workers=0", "callbacks.progress.refresh_rate=0"]
    for choice in ("own", "winner"):
        assert run_script("predict.py", *common, f"postprocess={choice}", f"out={tmp_path / choice}") == 0
    rules = [rule_of(tmp_path / choice / "postprocess.yaml", CLASSES) for choice in ("own", "winner")]
    assert rules[0] == rules[1]


def test_an_unknown_name_lists_the_models_that_there_are(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(released, "MODELS", packed.parent)
    assert run_script("predict.py", "checkpoint=tinny", f"data.root={tmp_path}", f"out={tmp_path / 'out'}") == 2
    assert (
        "checkpoint=tinny: no such file, and no model of that name in models/ (there: tiny" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "not written by fashion-hydra pack"),
        ({"fashion_hydra_model": "[1]"}, "not a readable safetensors file"),
        ({"fashion_hydra_model": "{"}, "not a readable safetensors file"),
        ({"fashion_hydra_model": '{"classes": 3, "model": {}}'}, "classes must have as many ids as names"),
    ],
)
def test_other_safetensors_files_are_refused(tmp_path, metadata, message):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "a.safetensors")
