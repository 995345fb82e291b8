"""Schemas are complete, and invalid options are reported in one line before PyTorch is imported."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import pytorch_lightning
import torch
from omegaconf import OmegaConf

from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_config, compose_options
from fashion_hydra.config.errors import user_error
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.config.schema import SCRIPTS, HTCConfig
from fashion_hydra.config.trainer_schema import OPTIMIZERS, TrainerConfig
from fashion_hydra.config.words import config_flags, readable_words
from fashion_hydra.model.htc import build_htc


def parameters(function):
    found = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in found.items() if name != "self"}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_every_argument_of_the_trainer_is_an_option_with_lightnings_default():
    wanted = parameters(pytorch_lightning.Trainer.__init__)
    del wanted["callbacks"], wanted["logger"]
    assert {field.name: field.default for field in fields(TrainerConfig)} == wanted


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_argument_of_an_optimizer_is_an_option_with_pytorchs_default(name):
    made = OPTIMIZERS[name]()
    kind = getattr(torch.optim, made._target_.rpartition(".")[2])
    wanted = {key: plain(default) for key, default in parameters(kind.__init__).items() if key not in ("params", "lr")}
    assert {key: value for key, value in vars(made).items() if key[0] != "_"} == wanted
    chosen = compose_config("train", f"schedule/optimizer={name}").schedule.optimizer
    assert set(chosen) == {*wanted, "_target_", "_partial_"}


def test_every_argument_of_the_cascade_is_an_option():
    assert {field.name for field in fields(HTCConfig)} == {*parameters(build_htc), "_target_"} - {
        "num_classes",
        "attribute_set",
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_options_become_objects_of_the_schema(name):
    words = ["out=out"] if name != "train" else ["name=x"]
    options = compose_options(name, *words, "paths.output_dir=x")
    assert type(options) is SCRIPTS[name]
    assert type(options.trainer) is TrainerConfig


def test_own_options_are_added_with_a_plus_and_groups_removed_with_a_tilde():
    config = compose_config("train", "+mine=3", "+trainer.mine=${mine}", "~logger", "~callbacks.pictures")
    assert config.trainer.mine == 3
    assert config.logger == {}
    assert "pictures" not in config.callbacks


LIGHTLY = """
import sys
from fashion_hydra.config.entry_point import entry_point
sys.argv = {argv!r}
try: entry_point("train")(lambda options, command: 0.0)()
finally: assert "torch" not in sys.modules, "torch was imported"
"""


def typed(tmp_path, *words):
    """Run train.py with invalid options, check that it does not import PyTorch, and return its output."""
    code = LIGHTLY.format(argv=[str(PROJECT_ROOT / "train.py"), f"hydra.run.dir={tmp_path}", *words])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def line_of(*words):
    """Return train.py's error line for invalid arguments, in this process."""
    with pytest.raises(Exception) as caught:
        OmegaConf.to_object(compose_config("train", *words))
    return str(user_error(caught.value, "train.py", words))


def test_a_mistyped_option_needs_no_torch(tmp_path):
    done = typed(tmp_path, "schedule.epoch=3")
    assert done.returncode == 2, done.stderr
    assert done.stderr == "train.py: schedule.epoch: no such option. Perhaps schedule.epochs. --help lists them all\n"


def test_right_options_reach_the_task(tmp_path):
    done = typed(
        tmp_path,
        "schedule=winner",
        "trainer.profiler=simple",
        "trainer.limit_train_batches=2",
        "schedule.optimizer.nesterov=true",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("data.folds=2.5", "data.folds=2.5: must be a whole number, such as 10"),
        ("schedule=winner schedule.lr=fast", "schedule.lr=fast: must be a number, such as 0.03"),
        ("trainer.detect_anomaly=perhaps", "trainer.detect_anomaly=perhaps: must be true or false, such as false"),
        ("augment=winner augment.short_edge=5", "augment.short_edge=5: must be a list, such as [600,1200]"),
        (
            "augment=winner augment.short_edge=[5,x]",
            "augment.short_edge=[5,x]: each entry must be a whole number, such as [600,1200]",
        ),
        ("data.root=null", "data.root=null: must have a value, such as data/imaterialist"),
        ("data.root=[a]", "data.root=[a]: must be text, such as data/imaterialist"),
        ("trainer.profilr=simple", "trainer.profilr: no such option. Perhaps trainer.profiler. --help lists them all"),
        ("dta.root=x", "dta.root: no such option. Perhaps data.root. --help lists them all"),
        ("model.neck_chanels=3", "model.neck_chanels: no such option. Perhaps model.neck_channels"),
        (
            "schedule=winner schedule.optimizer.momentun=1",
            "schedule.optimizer.momentun: no such option. Perhaps schedule.optimizer.mome",
        ),
        (
            "model=htc_r51",
            "model=htc_r51: no such choice. Available: htc, htc_lite, htc_r50, htc_tiny, htc_x101; nearest: htc_r50",
        ),
        (
            "experiment=ladder/1_default",
            "experiment/ladder=1_default: not for train.py, which has no group ensemble",
        ),
        ("trainer=3", "trainer=3: must be the name of a choice; --help lists them"),
        (
            "debug=true",
            "debug=true: must be the name of a choice; --help lists them. Give traceback=true to see trace",
        ),
        ("wardrobe=x", "wardrobe: no such option"),
    ],
)
def test_a_wrong_option_gets_one_line(words, line):
    found = line_of(*words.split(" "))
    assert found.startswith(line), found
    assert "\n" not in found


def test_a_wrong_option_in_a_file_names_the_file(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nschedule: {epochs: many}\n")
    (tmp_path / "experiment" / "other.yaml").write_text("# @package _global_\nschedule: {epoch: 3}\n")
    done = typed(tmp_path, f"--config-dir={tmp_path}", "experiment=mine")
    assert done.stderr.startswith("train.py: experiment/mine.yaml: schedule.epochs=many: must be a whole number")
    done = typed(tmp_path, f"--config-dir={tmp_path}", "experiment=other")
    assert done.stderr.startswith(
        "train.py: experiment/other.yaml: schedule.epoch: no such option. Perhaps schedule.epochs"
    )
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nschedule: {epochs: 5}\n")
    assert typed(tmp_path, f"--config-dir={tmp_path}", "experiment=mine").returncode == 0
    assert typed(tmp_path, f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine").returncode == 0


def test_several_values_need_a_multirun(tmp_path):
    done = typed(tmp_path, "seed=1,2")
    assert done.stderr == "train.py: seed=1,2: several values. Give -m to try each, or seed=[1,2] for a list\n"


@pytest.mark.parametrize(
    ("words", "readable"),
    [
        (["data.root=a b/c"], ["data.root=a b/c"]),
        (["data.root=/x/(1)/é"], ["data.root='/x/(1)/é'"]),
        (["data.root=/x/it's"], [r"data.root='/x/it\'s'"]),
        (["data.root=/x,y/z"], ["data.root='/x,y/z'"]),
        (["-m", "seed=1,2"], ["-m", "seed=1,2"]),
        (["ensemble.members=[e=1.ckpt,b.ckpt]"], ["ensemble.members=['e=1.ckpt','b.ckpt']"]),
        (['ensemble.members=[a b (1).ckpt,"c=2.ckpt"]'], ["ensemble.members=['a b (1).ckpt',\"c=2.ckpt\"]"]),
        (["seed=1,2", "-m"], ["-m", "seed=1,2"]),
        (["seed=1", "-cd", "x=(1)", "name=a", "--resolve"], ["-cd", "x=(1)", "--resolve", "seed=1", "name=a"]),
        (["-m", "data.root=/x,/y"], ["-m", "data.root=/x,/y"]),
        (["grid.drop=[all,winner]"], ["grid.drop=[all,winner]"]),
        (["postprocess=x.yaml"], ["postprocess=tuned", "postprocess.file=x.yaml"]),
        (["--config-dir", "a=(b)"], ["--config-dir", "a=(b)"]),
        (["x=${oc.env:HOME}/(1)"], ["x=${oc.env:HOME}/(1)"]),
        (["~logger", "+a.b=1"], ["~logger", "+a.b=1"]),
    ],
)
def test_words_are_made_readable_for_hydra(words, readable):
    assert readable_words(words) == readable


def test_a_folder_with_a_number_for_a_name_stays_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("007").mkdir()
    assert compose_config("train", *readable_words(["data.root=007"])).data.root == "007"


def test_printed_commands_choose_the_same_configs():
    words = ["experiment=mine", "--config-dir", "my conf", "-m", "seed=1", "-cn=train"]
    assert config_flags(words) == ["--config-dir", "my conf", "-cn=train"]
    command = Command(("experiment=mine", "ckpt_path=last", "tta=flip"), ("--config-dir", "my conf"))
    resumed = command.with_options("ckpt_path=last")
    assert resumed == "python train.py --config-dir 'my conf' experiment=mine tta=flip ckpt_path=last"
    predicting = command.only(("tta",), "postprocess=x.yaml", verb="predict")
    assert predicting == "python predict.py --config-dir 'my conf' tta=flip postprocess=x.yaml"


def test_a_missing_folder_of_configs_is_named(tmp_path):
    done = typed(tmp_path, f"--config-dir={tmp_path / 'nowhere'}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr
