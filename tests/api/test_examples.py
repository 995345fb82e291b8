"""The examples of docs/python.md and of the docstrings do what they say."""

import doctest

import pytest

from fashion_hydra.api import load
from fashion_hydra.config.places import PROJECT_ROOT


def failures(run, monkeypatch, tmp_path):
    (tmp_path / "docs").symlink_to(PROJECT_ROOT / "docs")
    monkeypatch.chdir(tmp_path)  # examples write there
    return run()


def test_the_page(monkeypatch, tmp_path):
    page = PROJECT_ROOT / "docs" / "python.md"
    failed, tried = failures(lambda: doctest.testfile(str(page), module_relative=False), monkeypatch, tmp_path)
    assert failed == 0
    assert tried >= 10
    assert (tmp_path / "found.jpg").stat().st_size > 10_000


@pytest.mark.parametrize("module", [load])
def test_docstrings(module, monkeypatch, tmp_path):
    failed, tried = failures(lambda: doctest.testmod(module), monkeypatch, tmp_path)
    assert failed == 0
    assert tried > 0
