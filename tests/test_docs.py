"""README and docs/: commands compose or exist, links are valid, examples work."""

import re
import shlex

import numpy as np
import pytest
from omegaconf import OmegaConf

from fashion_hydra.cli.main import COMMANDS
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.config.words import readable_words
from tests.helpers import model_options

PAGES = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
SHOWN = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
SCRIPTS = {"train.py": "train", "predict.py": "predict", "tune_thresholds.py": "tune"}
RUN = [line for line in SHOWN if any(f"{script} " in f"{line} " for script in SCRIPTS)]
EXAMPLES = dict(re.findall(r"```(?:yaml|python)\n# (\S+)\n(.*?)```", TEXT, re.S))
NOT_HERE = ("model/backbone=resnet34", "tta=five", "not_at_the_edge")  # files that docs/extending.md shows


@pytest.mark.parametrize("line", [line for line in RUN if not any(name in line for name in NOT_HERE)])
def test_a_command_that_is_shown_composes(config, line):
    words = shlex.split(line)
    at = next(i for i, word in enumerate(words) if word in SCRIPTS)
    overrides = [word for word in readable_words(words[at + 1 :]) if word != "-m"]
    sweep = "-m" in words
    overrides = [re.sub(r",[^\]}]*$", "", word) if sweep else word for word in overrides]  # the first job of a sweep
    overrides = [word for word in overrides if not word.startswith("hydra")]  # options of the launcher
    config(SCRIPTS[words[at]], *overrides)


def test_commands_that_are_shown_exist():
    shown = {words[1] for line in SHOWN if (words := line.split())[:1] == ["fashion-hydra"]}
    assert shown <= set(COMMANDS)
    targets = {line.split()[1] for line in SHOWN if line.startswith("make ")}
    assert all(f"\n{target}:" in (PROJECT_ROOT / "Makefile").read_text() for target in targets)


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if link.startswith("http"):
                continue
            file, _, heading = link.partition("#")
            assert (page.parent / file).exists(), f"{page}: {link}"
            if heading:
                headings = re.findall(r"^#+ (.*)$", (page.parent / file).read_text(), re.MULTILINE)
                assert heading in [h.lower().replace(" ", "-") for h in headings], f"{page}: {link}"


def test_the_backbone_of_the_example_is_built():
    import fashion_hydra.model  # noqa: F401
    from fashion_hydra.model.htc import build_htc

    own = OmegaConf.to_container(OmegaConf.create(EXAMPLES["conf/model/backbone/resnet34.yaml"]))
    detector = build_htc(num_classes=3, **{**model_options(), "backbone": {**own, "weights": None}})
    assert detector.net.backbone.depth == 34


def test_the_views_of_the_example_are_a_group(config):
    views = OmegaConf.create(EXAMPLES["conf/tta/five.yaml"])
    assert set(views) == set(config("predict", "tta=multi", "out=x").tta)
    assert len(views.factors) * len(views.flips) == 10


def test_the_step_of_the_example_leaves_out_what_it_says():
    from fashion_hydra.structures.paste import MaskWindow

    space: dict = {}
    exec(EXAMPLES["fashion_hydra/postprocess/steps/not_at_the_edge.py"], space)
    masks = [(MaskWindow(np.ones((4, 4), bool), x, 3), 0, 0.9 - x / 100) for x in (0, 5, 28)]
    assert [mask.x0 for mask, *_ in space["step"](masks, (32, 32))] == [5]
