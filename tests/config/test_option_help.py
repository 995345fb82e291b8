"""`--help` explains every option of this project."""

import contextlib
import io
import re

import pytest
import yaml

from fashion_hydra.config.option_help import describe_options
from tests.helpers import run_script

OTHERS = r"trainer|logger|callbacks|schedule\.optimizer|model\.backbone|augment\.photometric"
"""Options of Lightning, PyTorch, timm and albumentations."""
INTERNAL = {"postprocess.otherwise", "rung", "removal", "winners"}
ELSEWHERE = {"predict.py": {"candidates.folder"}}
"""Options that only another script uses."""


@pytest.fixture(scope="module")
def configs():
    """Return script -> the config in its help, as text."""

    def config_of(script):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            assert run_script(script, "--help") == 0
        return text.getvalue().partition("== Config ==\n")[2].partition("\n\n")[2].partition("\n\n")[0]

    return {script: config_of(script) for script in ("train.py", "predict.py", "tune_thresholds.py")}


def unexplained(text):
    """Return the options without a comment at them or at the group above, by PyYAML's marks."""
    lines = text.splitlines()

    def walk(node, prefix):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if "  # " in lines[key.start_mark.line]:
                continue
            if isinstance(value, yaml.MappingNode) and value.value:
                yield from walk(value, f"{name}.")
            else:
                yield name

    return set(walk(yaml.compose(text), ""))


@pytest.mark.parametrize("script", ["train.py", "predict.py", "tune_thresholds.py"])
def test_every_option_is_explained(configs, script):
    text = configs[script]
    assert len(text.splitlines()) > 50
    ours = {name for name in unexplained(text) if not re.match(rf"({OTHERS})\b", name)}
    first = {name for name in ours if not any(re.match(rf"{internal}\b", name) for internal in INTERNAL)}
    assert first == ELSEWHERE.get(script, set())


def test_a_script_explains_its_own_options_first(configs):
    """Two scripts use an option `seed` for different things."""
    for script in ("train.py", "tune_thresholds.py"):
        seed = next(line for line in configs[script].splitlines() if line.startswith("seed:"))
        assert ("weights" in seed) == (script == "train.py")
        assert ("bootstrap" in seed) == (script == "tune_thresholds.py")


def test_other_text_stays():
    assert describe_options("usage: seed: 1\n", "train") == "usage: seed: 1\n"
