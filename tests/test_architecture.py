"""Imports go one way, and each library stays in its room."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fashion_hydra

ROOT = Path(fashion_hydra.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A room may import from itself and from the rooms before it.
ROOMS = [
    ["errors", "limits"],
    ["files", "mistakes", "options", "targets", "archives"],
    ["download"],
    ["rle", "tables"],
    ["structures", "schedule"],
    ["merging"],
    ["pasting", "expected"],
    ["steps"],
    ["metric", "postprocess", "submission"],
    ["coco"],
    ["outputs", "submit_check", "cache"],
    ["data", "model"],
    ["inference", "thresholds"],
    ["module", "soup"],
    ["tuned", "sweep", "hydra_app"],
    ["ladder"],
    ["report"],
    ["tracking"],
    ["callbacks"],
    ["training", "commands"],
    ["sources"],
    ["cli", "prediction"],
    ["tuning"],
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}

HOMES = {
    "mmdet": r"model/",
    "mmcv": r"model/",
    "mmengine": r"model/",
    "hydra": r"(hydra_app|options|targets|sweep|training|sources|prediction|tuning)\.py",
    "omegaconf": r"(hydra_app|options|targets|ladder|sweep|tuned|training|sources|prediction|tuning)\.py",
    "pytorch_lightning": r"(data/datamodule|module|tracking|training|sources|prediction|tuning)\.py|callbacks/",
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_one_way(file):
    if file == ROOT / "__init__.py":
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "fashion_hydra" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[room_of(file)], f"{file.name} imports {name}"
        if parts[0] in HOMES:
            assert re.match(HOMES[parts[0]], str(file.relative_to(ROOT))), f"{file.name} imports {name}"


def test_help_and_config_need_no_torch():
    code = (
        "import sys; sys.argv = ['fashion-hydra', '--help']\n"
        "import fashion_hydra.cli, fashion_hydra.hydra_app\n"
        "try: fashion_hydra.cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'mmdet', 'mmcv', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
