"""The benchmarks run, small; their times are not looked at."""

import subprocess
import sys

import pytest

from tests import PROJECT

SMALL = {
    "accelerator": [
        "--model",
        "htc_tiny",
        "--scale",
        "96",
        "160",
        "--images",
        "1",
        "--steps",
        "1",
        "--skip",
        "0",
        "--device",
        "cpu",
        "--only",
        "ours, bf16",
        "mmdet, fp32",
        "the backbone",
        "--results",
        "/dev/null",
    ],
    "annotations": ["--times", "1", "--rounds", "1"],
    "ensemble": ["--rounds", "1", "--models", "2", "--depth", "18", "--base-channels", "16", "--short-edges", "96"],
    "evaluation": ["--images", "3", "--detections", "10", "--rounds", "1"],
    "growth": ["--images", "20", "--answered", "20", "--tuned", "20", "--leaps", "0", "--picture", "/dev/null"],
    "predict_memory": ["--images", "4", "--first", "1"],
    "samples": ["--rounds", "1", "--photos", "2"],
    "submission_path": ["--images", "1", "--candidates", "20", "--rounds", "1"],
    "threshold_search": ["--images", "4", "--grid", "2", "2", "2", "--sample", "2", "2", "--rounds", "1"],
    "train_step": ["--rounds", "1", "--steps", "3", "--skip", "1", "--images", "1", "--size", "96"],
    "worker_memory": ["--images", "40", "--masks", "200", "--workers", "2"],
}


@pytest.mark.parametrize("name", SMALL)
def test_benchmark_runs(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "ours" in done.stdout


def test_every_benchmark_is_run_here():
    modules = {path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")}
    assert modules == {*SMALL, "plain_scheme"}  # the last is what ensemble is compared with
