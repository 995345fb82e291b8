"""Each library is imported only in its packages; import-linter checks the direction of imports, see pyproject.toml."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fashion_hydra

ROOT = Path(fashion_hydra.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

HOMES = {
    "mmdet": r"model/",
    "mmcv": r"model/",
    "mmengine": r"model/",
    "onnx": r"export/",
    "onnxruntime": r"export/",
    "hydra": r"config/",
    "omegaconf": r"config/",
    "pytorch_lightning": r"data/datamodule\.py|inference/module\.py|training/|config/(build|stored)\.py|workflows/",
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_each_library_stays_in_its_rooms(file):
    for name in imports(file):
        library = name.split(".")[0]
        if library in HOMES:
            assert re.match(HOMES[library], str(file.relative_to(ROOT))), f"{file.name} imports {name}"


def test_help_and_config_need_no_torch():
    code = (
        "import sys; sys.argv = ['fashion-hydra', '--help']\n"
        "import fashion_hydra.cli.main, fashion_hydra.config.entry_point\n"
        "try: fashion_hydra.cli.main.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'mmdet', 'mmcv', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
