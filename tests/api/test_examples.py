"""Run the examples of docs/python.md and of docstrings, and compare their output."""

import doctest
import json
import re

import pdoc
import pytest

from fashion_hydra.api import load
from fashion_hydra.config.places import PROJECT_ROOT
from tests.notebook import run_cells


def failures(run, monkeypatch, tmp_path):
    (tmp_path / "docs").symlink_to(PROJECT_ROOT / "docs")
    monkeypatch.chdir(tmp_path)  # examples write to the current folder
    return run()


def test_the_page(monkeypatch, tmp_path):
    page = PROJECT_ROOT / "docs" / "python.md"
    failed, tried = failures(lambda: doctest.testfile(str(page), module_relative=False), monkeypatch, tmp_path)
    assert failed == 0
    assert tried >= 10
    assert (tmp_path / "found.jpg").stat().st_size > 10_000


def test_the_notebook(monkeypatch, tmp_path):
    """The notebook runs, and its stored outputs are reproduced."""
    notebook = json.loads((PROJECT_ROOT / "docs" / "quickstart.ipynb").read_text())
    outputs = failures(lambda: run_cells(notebook), monkeypatch, tmp_path)
    shown = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for mine, theirs in zip(outputs, shown, strict=True):
        assert [texts(one) for one in mine] == [texts(one) for one in theirs]
    assert "<img " in outputs[0][0]["data"]["text/html"][0]


def texts(output):
    """Return the words and whole numbers of an output, which do not depend on the processor."""
    text = "".join(output.get("text") or output["data"]["text/plain"])
    return re.sub(r"[\d.]+", "", text)


@pytest.mark.parametrize("module", [load])
def test_docstrings(module, monkeypatch, tmp_path):
    failed, tried = failures(lambda: doctest.testmod(module), monkeypatch, tmp_path)
    assert failed == 0
    assert tried > 0


@pytest.mark.filterwarnings("error::UserWarning:pdoc")
def test_the_reference(tmp_path):
    """The API reference is built from the docstrings and contains the public names of the package `api`."""
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("fashion_hydra.api", output_directory=tmp_path)
    pages = {path.stem: path.read_text() for path in (tmp_path / "fashion_hydra" / "api").glob("*.html")}
    for page, name in (
        ("load", "load"),
        ("predictor", "Predictor.look"),
        ("image_detections", "ImageDetections.to_coco"),
    ):
        assert f'id="{name}"' in pages[page]
    assert "<strong>thresholds:</strong>" in pages["predictor"]
