"""A user's package outside the repository: its callback, transform, backbone and model builder, by import path.

Train, predict, tune and average with its checkpoint. Code named in a checkpoint is imported only if the command trusts
the package.
"""

import csv
import sys

import pytest
import torch

from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.utils.errors import UserError
from tests.helpers import SMALL_TRAIN

MODULE = '''
"""Code of a user's own."""

import albumentations as A
import torch
from pytorch_lightning import Callback
from torch import nn

from fashion_hydra.model.htc import build_htc


class Steps(Callback):
    """Count steps."""

    def __init__(self, file):
        self.file, self.count = file, 0

    def on_train_batch_end(self, *args, **options):
        self.count += 1

    def on_train_end(self, trainer, module):
        with open(self.file, "w") as stream:
            stream.write(str(self.count))


class Grey(A.ImageOnlyTransform):
    """One value everywhere."""

    def __init__(self, value, p=1.0):
        super().__init__(p=p)
        self.value = value

    def apply(self, img, **params):
        return (0 * img + self.value).astype("uint8")


class Stripes(nn.Module):
    """Four strides of plain convolutions."""

    def __init__(self, width):
        super().__init__()
        widths = [3, width, width, width, width]
        self.first = nn.Conv2d(3, 3, 3, 2, 1)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:]))

    def init_weights(self):
        """Nothing but PyTorch's own."""

    def forward(self, x):
        x, found = self.first(x), []
        for stage in self.stages:
            x = stage(x).relu()
            found.append(x)
        return found


def build_mine(num_classes, backbone, neck_channels, **options):
    """A cascade with narrower heads than any config has."""
    return build_htc(num_classes=num_classes, backbone=backbone, neck_channels=neck_channels, **options)
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """An importable package unknown to fashion_hydra."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").write_text("")
    (folder / "mypackage" / "parts.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield "mypackage.parts"
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def run(package, wardrobe, tmp_path_factory):
    """A training run that uses everything in the package."""
    from fashion_hydra.workflows.train import train

    folder = tmp_path_factory.mktemp("runs") / "mine" / "first"
    counted = folder.parent / "steps.txt"
    backbone = [
        f"~model.backbone.{key}" for key in ("depth", "base_channels", "style", "norm_eval", "frozen_stages")
    ]  # mmdet's own arguments
    options = compose_options(
        "train",
        *(word for word in SMALL_TRAIN if not word.startswith("model.backbone")),
        *backbone,
        f"model.backbone.type={package}.Stripes",
        "+model.backbone.width=8",
        "model.backbone.channels=[8,8,8,8]",
        f"model._target_={package}.build_mine",
        f"+callbacks.steps={{_target_:{package}.Steps,file:{counted}}}",
        f"augment.photometric=[{{_target_:{package}.Grey,value:77}}]",
        "schedule/optimizer=rmsprop",
        "data.num_workers=0",
        "schedule.epochs=3",
        f"data.root={wardrobe}",
        f"paths.output_dir={folder}",
    )
    train(options, Command())
    return folder, int(counted.read_text())


def test_training_uses_all_of_it(run, package):
    from fashion_hydra.data.augment import Photometric

    folder, steps = run
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert steps == content["global_step"] > 0
    assert content["model"]["_target_"] == f"{package}.build_mine"
    assert any(name.startswith("detector.net.backbone.stages.3") for name in content["state_dict"])
    assert content["optimizer_states"][0]["param_groups"][0]["alpha"] == 0.99
    varied = Photometric([{"_target_": f"{package}.Grey", "value": 77}])
    assert (varied(torch.zeros(4, 5, 3, dtype=torch.uint8).numpy(), 0) == 77).all()


def predict_words(run, out):
    common = ["trainer.accelerator=cpu", "data.num_workers=0", "callbacks.progress.refresh_rate=0", "data.images=val"]
    return [*common, f"ensemble.run={run[0]}", f"out={out}", f"paths.output_dir={out}"]


def test_predicting_and_tuning_import_what_the_command_trusts(run, tmp_path):
    from fashion_hydra.workflows.predict import predict
    from fashion_hydra.workflows.tune import tune

    trusting = [*predict_words(run, tmp_path / "out"), "trust=[mypackage]", "ensemble=top3", "data.limit=2"]
    predict(compose_options("predict", *trusting), Command())
    assert len(list((tmp_path / "out" / "candidates" / "images").iterdir())) == 2
    few = ["grid.score_thr=[0.3]", "grid.drop=[all]", "grid.min_area=[1]", "search.trials=0", "folds=2"]
    words = [*predict_words(run, tmp_path / "tuned"), "trust=[mypackage]", "ensemble=single", *few]
    tune(compose_options("tune", *words, "candidates.score_floor=0.2"), Command())
    with (tmp_path / "tuned" / "methods.csv").open() as stream:
        assert next(csv.DictReader(stream))["method"] == "untuned"


def test_averaging_trusts_the_transform_of_the_run_too(run, tmp_path):
    from fashion_hydra.workflows.predict import predict

    words = [*predict_words(run, tmp_path / "out"), "ensemble=soup", "ensemble.soup_batches=1", "data.limit=1"]
    predict(compose_options("predict", *words, "trust=[mypackage]"), Command())
    assert len(list((run[0] / "checkpoints").glob("soup-*.ckpt"))) == 1


def test_a_checkpoint_that_names_code_imports_none_of_it(run, tmp_path, monkeypatch):
    from fashion_hydra.workflows.predict import predict

    monkeypatch.delitem(sys.modules, "mypackage.parts")
    options = compose_options("predict", *predict_words(run, tmp_path / "out"))
    with pytest.raises(
        UserError, match=r"would import code from mypackage\.parts\.build_mine\..* set trust=\[mypackage\]"
    ):
        predict(options, Command())
    assert "mypackage.parts" not in sys.modules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model._target_=mypackage.nowhere.build"], r"model\._target_=mypackage\.nowhere\.build: cannot be imported"),
        (["model._target_=mypackage.parts.Grey"], r"model: mypackage\.parts\.Grey rejects its arguments"),
        (["+callbacks.x._target_=mypackage.parts.Nothing"], r"callbacks\.x: .*Nothing"),
        (["+callbacks.x.file=a"], r"callbacks\.x=.*must have _target_, the import path"),
        (["data.format=yaml"], r"data\.format=yaml: give kaggle, coco, yolo, or the import path of a reader"),
    ],
)
def test_code_that_is_not_there_is_named(package, wardrobe, tmp_path, words, message):
    from fashion_hydra.workflows.train import build_training

    small = [*SMALL_TRAIN, "data.num_workers=0", f"data.root={wardrobe}", f"paths.output_dir={tmp_path}"]
    with pytest.raises(UserError, match=message):
        build_training(compose_options("train", *small, *words), Command())
