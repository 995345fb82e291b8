"""`fashion-hydra benchmark`: its numbers agree with each other and with the model; times are not checked."""

import json

import pytest
import torch

from fashion_hydra.api.load import load
from fashion_hydra.cli.main import main


def test_numbers_fit_together(tiny_checkpoint, tmp_path, capsys):
    checkpoint, out = tiny_checkpoint(), tmp_path / "new" / "out.json"
    words = ["--devices", "cpu", "--images", "3", "--warmup", "0", "--size", "96", "--out", str(out)]
    threads = torch.get_num_threads()
    try:
        assert main(["benchmark", str(checkpoint), *words, "--threads", "1"]) == 0
        single = json.loads(out.read_text())
        assert main(["benchmark", str(checkpoint), *words, "--threads", "1", "--tta", "flip"]) == 0
        both = json.loads(out.read_text())
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    [row] = single["devices"]
    assert row["device"] == "cpu, 1 threads"
    assert row["images_per_second"] == pytest.approx(1e3 / row["mean_ms"])
    assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert row["peak_mib"] > 100
    assert single["parameters"] == sum(p.numel() for p in load(checkpoint).members[0].detector.parameters())
    assert both["flops"] > 1.5 * single["flops"] > 0
    assert f"{single['flops'] / 1e9:.1f} G in all views of an image of" in printed
    assert "views        2: " in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "0"], "--images 0: must be at least 1"),
        (["--threads", "0"], "--threads 0: must be at least 1"),
        (["--photos", "nowhere"], "nowhere: no such folder"),
        (["nonesuch"], "no model of that name"),
        (["--devices", "cuda:77"], "device=cuda:77"),
    ],
)
def test_mistakes(words, message, capsys):
    assert main(["benchmark", *words]) == 2
    assert message in capsys.readouterr().err
