"""Untrusted checkpoints: their code is never run, and their models are built only from layers."""

import copy
import os
import pickle
import struct
import zipfile

import pytest
import pytorch_lightning as pl
import torch

from fashion_hydra.model.checkpoint import load_member, read_checkpoint
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.soup import make_soup
from fashion_hydra.model.weights.files import read_file
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError
from fashion_hydra.workflows.train import TrainingSetup, train
from tests.helpers import tiny_checkpoint_content


@pytest.fixture(scope="module")
def content():
    return tiny_checkpoint_content(class_ids=(6, 23))


def saved(path, content, **how):
    torch.save(content, path, **how)
    return path


def changed(content, place, value):
    made = {**content, **copy.deepcopy({key: content[key] for key in ("classes", "model", "eval_scale")})}
    *way, last = place.split(".")
    inner = made
    for name in way:
        inner = inner[name]
    inner[last] = value
    return made


def test_a_valid_checkpoint_loads(content, tmp_path):
    member = load_member(saved(tmp_path / "a.ckpt", content))
    assert (member.classes.ids, member.scale) == ((6, 23), (96, 144))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def fit(path):
    module = pl.LightningModule()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    train(TrainingSetup(pl.LightningDataModule(), module, trainer, path))


READERS = {
    "a model": load_member,
    "a run": lambda path: RunFolder(path.parent.parent).best(1),
    "a soup": lambda path: make_soup([path, path], list, count=1, seed=0, device=torch.device("cpu")),
    "weights": read_file,
    "training": fit,
}


@pytest.mark.parametrize("kind", ["zip", "old", "plain pickle", "hidden"])
@pytest.mark.parametrize("reader", READERS)
def test_no_payload_is_run(content, tmp_path, reader, kind):
    mark = tmp_path / "mark"
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    evil = {**content, "callbacks": {"ModelCheckpoint": Touch(mark)}}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(evil))
    elif kind == "hidden":  # hidden in the metadata of a tensor
        tensor = torch.zeros(1)
        tensor.note = Touch(mark)
        saved(path, {**content, "state_dict": {"detector.x": tensor}})
    else:
        saved(path, evil, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(Exception) as caught:
        READERS[reader](path)
    assert not mark.exists()
    assert reader == "training" or isinstance(caught.value, UserError)
    if kind != "plain pickle":
        torch.load(path, weights_only=False)
        assert mark.exists(), "the payload is a real one"


HOSTILE = {
    "model.backbone.type": ["subprocess.Popen", "mmdet.ResNet", "MaskRCNN", "ConvModule", 5, None, ["ResNet"]],
    "model.backbone.init_cfg": [{"type": "Pretrained", "checkpoint": "/etc/passwd"}, [{"type": "Pretrained"}]],
    "model.backbone.pretrained": ["http://localhost:1/x.pth"],
    "model.backbone._scope_": ["antigravity"],
    "model.backbone.norm_cfg": [{"type": "builtins.exec"}, {"type": "MaskRCNN"}, {"type": None}],
    "model.backbone.conv_cfg": [{"type": "os.system"}],
    "model.backbone.dcn": [{"type": "KnowledgeDistillationSingleStageDetector", "fallback_on_stride": False}],
    "model.backbone.plugins": [[{"cfg": {"type": "os.system"}, "position": "after_conv1"}]],
    "model.backbone.base_channels": [10**6, torch.ones(1)],
    "model.mask_roi_size": [9999],
    "model.mask_convs": [10**9],
    "model.neck_channels": [10_000],
    "model.anchor_ratios": [[1.0] * 2000, float("inf")],
    "model._target_": ["os.system"],
    "model.stage_ious": [5, []],
    "model": [[], {}, None],
    "classes.ids": [[6], ["6", "23"], None, [True, False]],
    "classes.names": [[6, 23], "ab", torch.ones(2)],
    "classes": [None, torch.ones(2)],
    "eval_scale": [[10**9, 10**9], [-1, 5], 7, [1.5, 2], torch.ones(2)],
    "state_dict": [[], {"x": 5}, {5: torch.ones(1)}],
}


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in HOSTILE.items() for value in values], ids=str
)
def test_what_describes_no_model_is_refused_by_the_files_name(content, tmp_path, place, value):
    path = saved(tmp_path / "evil.ckpt", changed(content, place, value))
    with pytest.raises(UserError, match=r"evil\.ckpt: "):
        load_member(path)


def test_layers_of_mmdet_stay_possible(content, tmp_path):
    plugin = {"cfg": {"type": "ContextBlock", "ratio": 0.25}, "position": "after_conv3"}
    backbone = {"type": "ResNet", "depth": 50, "plugins": [plugin], "norm_cfg": {"type": "GN", "num_groups": 2}}
    described = {**content["model"], "backbone": {**content["model"]["backbone"], **backbone}}
    described["backbone"]["channels"] = [32, 64, 128, 256]
    build_htc(num_classes=2, **{k: v for k, v in described.items() if k != "_target_"})


def test_a_packed_checkpoint_is_refused(content, tmp_path):
    plain, packed = saved(tmp_path / "plain.ckpt", content), tmp_path / "packed.ckpt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    for reader in (read_checkpoint, read_file):
        with pytest.raises(UserError, match=r"packed\.ckpt: refused, its parts would unpack to \d+ bytes"):
            reader(packed)


def test_an_archive_without_content_is_refused(content, tmp_path):
    plain, hollow = saved(tmp_path / "plain.ckpt", content), tmp_path / "hollow.ckpt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(hollow, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"" if name.endswith("data.pkl") else source.read(name))
    for reader in (read_checkpoint, read_file):
        with pytest.raises(UserError, match=r"hollow\.ckpt: damaged, or not a "):
            reader(hollow)


def test_an_archive_of_several_disks_is_refused(tmp_path):
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 2)  # an archive of two disks
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04" + bytes(60) + locator + b"PK\x05\x06" + bytes(18))
    for reader in (read_checkpoint, read_file):
        with pytest.raises(UserError, match=r"a\.pth: damaged, or not a "):
            reader(tmp_path / "a.pth")
