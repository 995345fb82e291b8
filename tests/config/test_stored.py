"""Runs of earlier versions can be read, and a run's config imports only packages that the user trusts."""

import pytest
import yaml

from fashion_hydra.config.stored import StoredRun
from fashion_hydra.data.coco import CocoReader
from fashion_hydra.data.kaggle import KaggleReader
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError

BEFORE = """
name: demo
seed: 777
debug: false
paths:
  project: ${project_root:}
  runs: runs
  output_dir: ${hydra:runtime.output_dir}
data:
  _target_: fashion_hydra.data.datamodule.FashionDataModule
  eval_scale: ${tta.scales.0}
  folds: 4
  fold: 1
  test_fold: 2
  split_seed: 5
  split_file: null
  batch_size: 4
  num_workers: 0
  seed: ${seed}
  on_fault: drop
  report_dir: ${paths.output_dir}
  root: ROOT
  annotations: null
  source:
    _target_: READER
    _partial_: true
classes:
  name: present
  train: present
  drop: []
augment:
  short_edge: [136, 160]
  long_edge: 208
  flip: 0.5
  photometric_on: resized
  mask_sampling: centre
  photometric: []
tta:
  scales:
  - - 152
    - 208
  factors: null
  flips:
  - false
logger:
  csv:
    _target_: pytorch_lightning.loggers.CSVLogger
    save_dir: ${paths.output_dir}
  tensorboard:
    _target_: pytorch_lightning.loggers.TensorBoardLogger
    save_dir: ${paths.output_dir}
    name: tensorboard
    version: ''
  mine:
    _target_: os.system
    command: touch HACKED
"""
"""Config of a run, as saved by Hydra at commit 7173b55."""


def write_run(folder, root, reader="fashion_hydra.data.kaggle.KaggleFolder", **changes):
    (folder / ".hydra").mkdir(parents=True)
    values = yaml.safe_load(BEFORE.replace("ROOT", str(root)).replace("READER", reader))
    for group, options in changes.items():
        values[group] |= options
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(values))
    return RunFolder(folder)


def write_split(run, root):
    lines = [f"{path.name},{i % 4}" for i, path in enumerate(sorted((root / "train").iterdir()))]
    run.split_file.write_text("\n".join(["ImageId,fold", *lines]) + "\n")
    return lines


def test_a_run_of_before_the_schemas_is_read_and_split_as_it_was(wardrobe, tmp_path):
    run = write_run(tmp_path / "demo" / "date", wardrobe)
    lines = write_split(run, wardrobe)
    stored = StoredRun.read(run)
    assert stored.root == str(wardrobe)
    data = stored.datamodule(None, ())
    assert data.make_reader is KaggleReader
    assert (data.eval_scale, data.seed, data.augment.long_edge) == ((152, 208), 777, 208)
    for chosen, fold in ((data.is_validation, 1), (data.is_test, 2)):
        wanted = {line.partition(",")[0] for line in lines if line.endswith(f",{fold}")}
        assert set(data.annotations.image_ids[chosen]) == wanted & set(data.annotations.image_ids)


def test_its_reader_is_known_by_name_and_never_imported(tmp_path):
    for reader, kind in (("fashion_hydra.data.coco_json.CocoFile", CocoReader), ("os.system", KaggleReader)):
        run = write_run(tmp_path / kind.__name__ / "date", tmp_path, reader)
        with pytest.raises(UserError, match=r"no such file|data\.annotations|no train\.csv"):
            StoredRun.read(run).datamodule(None, ())


def test_its_trackers_are_those_of_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "demo" / "date", tmp_path)
    [tracker] = StoredRun.read(run).trackers()
    assert type(tracker).__name__ == "TensorBoardLogger"
    assert tracker.save_dir == str(run.path)
    assert not (tmp_path / "HACKED").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"augment": {"photometric": [{"_target_": "subprocess.Popen", "args": "touch HACKED"}]}}, "subprocess.Popen"),
        ({"data": {"format": "shutil.rmtree"}}, "shutil.rmtree"),
    ],
)
def test_code_that_a_runs_config_names_needs_trust(wardrobe, tmp_path, changes, named):
    run = write_run(tmp_path / "demo" / "date", wardrobe, **changes)
    with pytest.raises(UserError, match=rf"refused, because it would import code from {named}\..*set trust=\["):
        StoredRun.read(run).datamodule(None, ("mypackage",))


def test_the_config_that_train_saves_comes_before_hydras(wardrobe, tmp_path):
    run = write_run(tmp_path / "demo" / "date", wardrobe)
    values = yaml.safe_load((run.path / ".hydra" / "config.yaml").read_text())
    run.save_config({**values, "data": {**values["data"], "root": "elsewhere"}})
    assert StoredRun.read(run).root == "elsewhere"


@pytest.mark.parametrize("content", ["a: 1", "[1, 2]", "data: 3"])
def test_another_config_is_refused_or_none(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    if content.startswith("["):
        assert StoredRun.read(RunFolder(tmp_path)) is None
    else:
        with pytest.raises(UserError, match="not that of a training run"):
            StoredRun.read(RunFolder(tmp_path))
