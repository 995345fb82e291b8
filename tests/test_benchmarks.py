"""Run every benchmark at a small size; times are not checked."""

import importlib
import shlex
import subprocess
import sys

import pytest
import torch

from tests import PROJECT

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
OWN_PROCESS = ("accelerator", "app", "attributes", "growth", "predict_memory", "train_step", "worker_memory")
"""Benchmarks that measure a process, or that leave mmengine's logger with a closed file."""


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name not in OWN_PROCESS])
def test_benchmark_runs(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [name, *shlex.split(ARGUMENTS[name])])
    threads = torch.get_num_threads()
    try:
        importlib.import_module(f"benchmarks.{name}").main()
    finally:
        torch.set_num_threads(threads)
    assert "ours" in capsys.readouterr().out


@pytest.mark.parametrize("name", OWN_PROCESS)
def test_benchmark_runs_in_a_process_of_its_own(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", *shlex.split(ARGUMENTS[name])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "ours" in done.stdout


def test_every_benchmark_is_run_here():
    modules = {path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")}
    assert modules == {*ARGUMENTS, "plain_scheme"}  # plain_scheme is the rival of ensemble
