"""`--help` explains every option of this project."""

import re

import pytest
import yaml
from omegaconf import OmegaConf

from fashion_hydra.config.compose import compose_config
from fashion_hydra.config.option_help import CONFIG_TITLE, describe_options

OTHERS = r"trainer|logger|callbacks|schedule\.optimizer|model\.backbone|augment\.photometric"
"""Options of Lightning, PyTorch, timm and albumentations."""
INTERNAL = {"postprocess.otherwise", "rung", "removal", "winners"}
ELSEWHERE = {"predict": {"candidates.folder"}}
"""Options that only another script uses."""


def explained(name):
    """Return the config of a script as its help prints it, without the slow list of groups."""
    config = OmegaConf.to_yaml(compose_config(name))
    return describe_options(f"{CONFIG_TITLE}\n{config}", name).removeprefix(f"{CONFIG_TITLE}\n")


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


@pytest.mark.parametrize("name", ["train", "predict", "tune"])
def test_every_option_is_explained(name):
    text = explained(name)
    assert len(text.splitlines()) > 50
    ours = {name for name in unexplained(text) if not re.match(rf"({OTHERS})\b", name)}
    first = {name for name in ours if not any(re.match(rf"{internal}\b", name) for internal in INTERNAL)}
    assert first == ELSEWHERE.get(name, set())


def test_a_script_explains_its_own_options_first():
    """Two scripts use an option `seed` for different things."""
    for name, word in (("train", "weights"), ("tune", "bootstrap")):
        assert re.search(rf"^seed: 777  # .*{word}", explained(name), re.M)


def test_other_text_stays():
    assert describe_options("usage: seed: 1\n", "train") == "usage: seed: 1\n"
