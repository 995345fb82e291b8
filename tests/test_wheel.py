"""The installed wheel in another folder: commands accept the scripts' arguments, and the model is included. Slow."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import PROJECT

WANTED = {"fashion_hydra", "conf", "experiments", "models", "setup.py", "pyproject.toml", "README.md", "LICENSE"}
WANTED |= {"train.py", "predict.py", "tune_thresholds.py"}
SKIPPED = {"__pycache__", "_project"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's files; all other packages come from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, because building leaves files behind
    shutil.copytree(
        PROJECT, source, symlinks=True, ignore=lambda at, names: set(names) - WANTED if at == str(PROJECT) else SKIPPED
    )
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("fashion_hydra-*.whl")
    assert wheel.stat().st_size < 25e6
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=200)
    return folder / "site"


def run(site, folder, *words):
    code = "import sys; from fashion_hydra.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=200
    )


@pytest.mark.slow
def test_it_trains_predicts_and_finds_its_model(site, tmp_path):
    assert run(site, tmp_path, "wardrobe", "d", "--train", "20", "--test", "2", "--size", "96").returncode == 0
    quick = ["schedule.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.devices=1"]
    done = run(site, tmp_path, "train", "experiment=demo", "data.root=d", "trainer.strategy=auto", *quick)
    assert done.returncode == 0, done.stderr
    assert "or             fashion-hydra predict ensemble.run=" in done.stdout
    assert "more epochs    fashion-hydra train experiment=demo " in done.stdout
    assert list(tmp_path.glob("runs/demo/*/checkpoints/last.ckpt"))
    done = run(site, tmp_path, "predict", "checkpoint=street", "data.root=d", "output=coco")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("predictions/*/coco_results.json"))
    own = tmp_path / "mine" / "experiment"
    own.mkdir(parents=True)
    (own / "own.yaml").write_text("# @package _global_\ndefaults:\n  - demo\nname: own\n")
    done = run(site, tmp_path, "train", "--config-dir", "mine", "experiment=own", "data.root=d", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "name: own" in done.stdout
    done = run(site, tmp_path, "train", "schedule.lr=fast")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
