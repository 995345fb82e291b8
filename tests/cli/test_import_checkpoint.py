"""`fashion-hydra import-checkpoint` writes a file that weights= accepts, and reports its actions."""

import hashlib
import re

import pytest
import torch
from safetensors import safe_open

from fashion_hydra.cli.main import main

OLD = {
    "backbone.conv1.weight": torch.full((64, 3, 7, 7), 0.5).half(),
    "backbone.layer2.0.conv2_offset.weight": torch.ones(18, 4, 3, 3),
    "bbox_head.0.shared_fcs.0.weight": torch.ones(8, 16),
    "bbox_head.0.fc_cls.weight": torch.arange(47.0)[:, None].repeat(1, 8),
    "bbox_head.0.fc_reg.bias": torch.arange(188.0),
    "mask_head.0.conv_logits.weight": torch.arange(47.0)[:, None, None, None],
    "semantic_head.conv_embedding.conv.bias": torch.ones(5),
}


@pytest.fixture
def winner(tmp_path):
    path = tmp_path / "epoch_15.pth"
    torch.save({"meta": {"classes": None}, "state_dict": OLD}, path)
    return path


def test_an_old_checkpoint_is_converted_and_reported(winner, tmp_path, capsys):
    out = tmp_path / "new" / "winner.safetensors"
    assert main(["import-checkpoint", str(winner), str(out)]) == 0
    with safe_open(out, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found["backbone.conv1.weight"].dtype == torch.float32
    assert found["roi_head.bbox_head.0.fc_cls.weight"][:, 0].tolist() == [*range(1, 47), 0]
    assert found["roi_head.bbox_head.0.fc_reg.bias"].tolist() == list(range(4, 188))
    assert found["roi_head.mask_head.0.conv_logits.weight"].flatten().tolist() == list(range(1, 47))
    assert found.keys() == {
        "backbone.conv1.weight",
        "backbone.layer2.0.conv2.conv_offset.weight",
        "roi_head.bbox_head.0.shared_fcs.0.weight",
        "roi_head.bbox_head.0.fc_cls.weight",
        "roi_head.bbox_head.0.fc_reg.bias",
        "roi_head.mask_head.0.conv_logits.weight",
        "roi_head.semantic_head.conv_embedding.conv.bias",
    }
    output = re.sub(r" +", " ", capsys.readouterr().out).splitlines()
    assert output[:4] == [
        f"source {winner}",
        f"sha256 {hashlib.sha256(winner.read_bytes()).hexdigest()}",
        "layout mmdet before 2.0: heads at top level, background first",
        "classes 46, ids 0 to 45",
    ]
    assert {*output[4:]} >= {
        "tensors 7 taken (0.0 M numbers), 0 dropped",
        "converted 3 renamed bbox_head.* -> roi_head.bbox_head.*",
        "converted 1 renamed *.conv2_offset -> *.conv2.conv_offset",
        "converted 1 reordered fc_cls: background from first to last",
        "converted 1 cut conv_logits: the background's channel",
        "converted 1 cut fc_reg: the background's four rows",
    }
    assert [p.name for p in out.parent.iterdir()] == ["winner.safetensors"]
    assert out.stat().st_mode & 0o777 == winner.stat().st_mode & 0o777


def test_what_was_imported_imports_again_as_it_is(winner, tmp_path, capsys):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert main(["import-checkpoint", str(winner), str(first)]) == 0
    assert main(["import-checkpoint", str(first), str(second)]) == 0
    output = capsys.readouterr().out.split("source ")[2]
    assert "already imported from mmdet before 2.0" in output
    assert "ids 0 to 45" in output
    assert "converted" not in output
    with safe_open(first, "pt") as a, safe_open(second, "pt") as b:
        assert sorted(a.keys()) == sorted(b.keys())
        assert all(torch.equal(a.get_tensor(name), b.get_tensor(name)) for name in a.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IN", "out.pth"], "out.pth: must be a name that ends in .safetensors"),
        (["IN", "THERE"], "there.safetensors exists already; give another name, or --force"),
        (["nowhere.pth", "out.safetensors"], "nowhere.pth: no such file. Give a file, a URL with http:// or https://"),
        (["mmdet:htc_r51", "out.safetensors"], "mmdet:htc_r51: not in the catalogue. Choose one of htc_r50_fpn_1x"),
        (["IN", "out.safetensors", "--sha256", "1" * 64], "expected 1111"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(winner, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there.safetensors"
    there.write_text("mine")
    arguments = [{"IN": str(winner), "THERE": str(there)}.get(word, word) for word in arguments]
    assert main(["import-checkpoint", *arguments]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert len(output.splitlines()) == 1
    assert there.read_text() == "mine"
    assert not list(tmp_path.glob("out*"))


def test_force_writes_over(winner, tmp_path):
    out = tmp_path / "out.safetensors"
    out.write_text("old")
    assert main(["import-checkpoint", str(winner), str(out), "--force"]) == 0
    assert out.stat().st_size > 1000
