"""A config names allowed classes alone; payloads that would leave a file must not."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fashion_hydra.config import allowed_targets
from fashion_hydra.config.allowed_targets import check_command, check_targets, instantiate
from fashion_hydra.config.resolvers import PROJECT_ROOT, register_resolvers
from fashion_hydra.utils.errors import UserError

REFUSED = [
    "subprocess.Popen",
    "os.system",
    "builtins.eval",
    "fashion_hydra.workflows.ladder.subprocess.Popen",  # our module imports it
    "fashion_hydra.data.datamodule.torch.load",
    "fashion_hydra.workflows.ladder.walk",
    "fashion_hydra.nothing.Such",
    "torch.optim.adam.torch.load",
    "torch.load",
    "pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree",
    "pytorch_lightning.cli.import_module",
    "hydra.utils.instantiate",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher.launch",
    "fashion_hydraX.callbacks.Score",
    "",
    None,
    7,
    {"_target_": "torch.optim.SGD"},
]


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


@pytest.mark.parametrize("target", REFUSED, ids=str)
def test_what_a_config_may_not_name(target):
    with pytest.raises(UserError, match=r"callbacks\.x\._target_=.*not among.*FASHION_HYDRA_TARGETS"):
        check_targets({"x": {"_target_": target}}, "callbacks")


def test_a_target_is_found_at_any_depth_and_behind_interpolations():
    inner = {"_target_": "subprocess.Popen", "args": ["true"]}
    optimizer = {"_target_": "torch.optim.SGD", "lr": [{"deep": inner}]}
    with pytest.raises(UserError, match=r"schedule\.optimizer\.lr\[0\]\.deep\._target_=subprocess\.Popen"):
        instantiate(OmegaConf.create({"schedule": {"optimizer": optimizer}}).schedule.optimizer)
    config = OmegaConf.create({"elsewhere": inner, "made": {"_target_": "torch.optim.SGD", "lr": "${elsewhere}"}})
    with pytest.raises(UserError, match=r"made\.lr\._target_=subprocess\.Popen"):
        instantiate(config.made)


def test_every_config_of_the_project_is_allowed():
    files = [*(PROJECT_ROOT / "conf").rglob("*.yaml"), *(PROJECT_ROOT / "experiments").rglob("*.yaml")]
    found = [file for file in files if "_target_" in file.read_text()]
    assert len(found) > 10
    for file in found:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        check_targets(values, file.name)


def test_own_code_is_trusted_by_the_environment(monkeypatch):
    with pytest.raises(UserError, match="not among"):
        instantiate(OmegaConf.create({"_target_": "collections.OrderedDict", "a": 1}))
    monkeypatch.setattr(allowed_targets, "_TRUSTED", ("collections",))
    assert instantiate(OmegaConf.create({"_target_": "collections.OrderedDict", "a": 1})) == {"a": 1}
    with pytest.raises(UserError, match="not among"):
        instantiate(OmegaConf.create({"_target_": "collectionsX.OrderedDict"}))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+hydra.callbacks.x._target_=subprocess.Popen"], r"hydra\.callbacks\.x\._target_=subprocess\.Popen"),
        (
            ["+hydra.callbacks.x={_target_:fashion_hydra.config.sweep_table.SweepTable,y:[{_target_:os.system}]}"],
            r"y\.0\._target_",
        ),
        (["hydra.callbacks.table._target_=${name}"], r"table\._target_=\$\{name\}"),
        (["+evil={_target_:os.system}", "+hydra.callbacks.x=${evil}"], "may stand for a section"),
        (["+hydra.callbacks.x='${oc.create:{_target_:os.system}}'"], "may stand for a section"),
        (["hydra.job_logging.handlers.console.class=subprocess.Popen"], r"console\.class=subprocess\.Popen"),
        (["hydra.hydra_logging.handlers.console.stream='ext://os.environ'"], r"stream=ext://os\.environ"),
        (["+hydra.job_logging.filters.x={listener:os.system}"], r"x\.listener=os\.system"),
        (["+hydra.launcher.x._target_=subprocess.Popen"], r"hydra\.launcher\.x\._target_"),
        (["+hydra.job.env_set.LD_PRELOAD=x.so"], r"hydra\.job\.env_set\.LD_PRELOAD"),
        (["+hydra.job.env_set.FASHION_HYDRA_TARGETS=os"], r"env_set\.FASHION_HYDRA_TARGETS"),
        (["-m", "hydra.job_logging.handlers.console.class=a,b"], "a sweep may not vary hydra.job_logging"),
        (["--experimental-rerun", "job.pickle"], "may run any code"),
    ],
    ids=lambda value: value[-1][:40] if isinstance(value, list) else "",
)
def test_what_hydra_would_make_is_looked_at_first(words, told):
    with pytest.raises(UserError, match=told):
        check_command(words, root=PROJECT_ROOT, config_name="train")


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=demo"],
        ["-m", "experiment=demo,winner", "schedule.lr=0.1,0.2"],
        ["-m", "hydra/launcher=submitit_local", "experiment=demo"],
        ["hydra/launcher=submitit_slurm"],
        ["experiment=demo", "hparams_search=learning_rate"],
        ["+hydra.job.env_set.OMP_NUM_THREADS=1"],
    ],
    ids=" ".join,
)
def test_what_people_run_is_allowed(words):
    check_command(words, root=PROJECT_ROOT, config_name="train")


PAYLOADS = {
    "callback": "{callbacks: {x: {_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [MARK]}}}}",
    "logging": "{job_logging: {handlers: {x: {(): os.mknod, path: MARK}}}}",
    "sweep": "{mode: MULTIRUN, sweeper: {params: {hydra.job_logging.filters.x: '{listener:os.mknod}'}}}",
}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((kind, ["experiment=evil"]) for kind in PAYLOADS),
        *((kind, ["-m", "experiment=demo,evil"]) for kind in ("callback", "logging")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_recipe_of_someone_else_runs_nothing(tmp_path, kind, words):
    mark = tmp_path / "mark"
    (tmp_path / "experiment").mkdir()
    recipe = f"# @package _global_\nhydra: {PAYLOADS[kind].replace('MARK', str(mark))}\n"
    (tmp_path / "experiment" / "evil.yaml").write_text(recipe)
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), "--config-dir", str(tmp_path), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert ("a sweep may not vary" if kind == "sweep" else "not among the classes") in done.stderr
    assert done.stderr.count("\n") == 1
    assert not mark.exists()
    assert not list(Path(tmp_path).glob("runs"))


def test_the_checked_config_is_the_one_that_hydra_composes():
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=["experiment=demo"], return_hydra_config=True)
    allowed_targets.check_composed(config)
    for name in ("trainer", "data", "model"):
        check_targets(OmegaConf.to_container(config[name], resolve=False), name)
