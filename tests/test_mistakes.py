"""Deliberate user errors, whose messages must contain the value, and unusual but valid input."""

import contextlib
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fashion_hydra.cli.main import main as cli
from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.config.words import readable_words
from fashion_hydra.utils.error_messages import describe_error
from tests.helpers import SMALL_PREDICT, SMALL_TRAIN, matches_message, run_script
from tests.utils import test_error_messages as errors

QUICK = ("data.num_workers=0", "schedule.epochs=1", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1")
WORDS = {
    "train": (*SMALL_TRAIN, *QUICK, "data.root=DATA", "paths.output_dir=OUT"),
    "predict": (*SMALL_PREDICT, "data.limit=1", "data.root=DATA", "out=OUT"),
    "tune": (*SMALL_PREDICT, "out=OUT"),
}
"""Words that the commands of `MISTAKES` start with."""
SCRIPTS = {"train": "train.py", "predict": "predict.py", "tune": "tune_thresholds.py"}


class Mistake(NamedTuple):
    """A command with a user error.

    Args:
        command: a script runs as typed; `train`, `predict` and `tune` call the script's function with the config
            composed from the words. Words in capitals stand for the files and folders of `PLACES`.
        value: value that the message must contain.
        message: expected message; an ellipsis matches any text.
    """

    command: str
    value: str
    message: str


CHOICE = "…=…: no such choice. Available: …"
OPTION = "…: no such option. Perhaps …"
WHOLE = "…=…: must be a whole number, such as …"
LIST = "…=…: must be a list, such as …"
ROOT = "data.root=…: no such folder. Give a …"
A_FOLDER = "…: a folder; name a file, such as …"
SEPARATOR = "…Its columns are separated by …: save it as CSV separated by commas"
UTF8 = "…: byte … is not UTF-8 (…). Save the file as CSV in UTF-8, or choose another file"
DAMAGED = "…: damaged, or not a checkpoint of plain data (…). Use another checkpoint of the run"
OTHERS = "…: holds candidates of other …: …, this run has …. Give another out=FOLDER, or delete this folder"
OTHER_PYTHON = "Python 3.11 to 3.13 needed, … is …: set PYTHON=…"
CATEGORY = "…: no category named …"

COMMAND_LINES = [
    # The command line
    Mistake("train.py model=htc_r101", "model=htc_r101", CHOICE),
    Mistake("train.py experiment=wardrobe", "experiment=wardrobe", CHOICE),
    Mistake("predict.py ensemble=top5", "ensemble=top5", CHOICE),
    Mistake("train.py -m hydra/launcher=joblib", "hydra/launcher=joblib", CHOICE),
    Mistake("train.py data.batchsize=2", "data.batchsize: no such option. Perhaps data.batch_size", OPTION),
    Mistake("train.py epochs=2", "epochs: no such option. Perhaps schedule.epochs", OPTION),
    Mistake("predict.py model=htc_tiny", "model: predict.py", "…: … has no such option or group; its groups are …"),
    Mistake("predict.py experiment=demo", "demo", "experiment=…: not for …, which has no group …"),
    Mistake("train.py model = htc_tiny", "model", "…: not of the form KEY=VALUE. …"),
    Mistake("train.py logger=null", "logger", "…: must be the name of a choice; --help lists them"),
    Mistake("train.py data.folds=two", "data.folds=two", WHOLE),
    Mistake("train.py data.folds=1.5", "data.folds=1.5", WHOLE),
    Mistake("predict.py data.num_workers=many", "data.num_workers=many", WHOLE),
    Mistake("train.py schedule.lr=fast", "schedule.lr=fast", "…=…: must be a number, such as …"),
    Mistake("predict.py draw=perhaps", "draw=perhaps", "…=…: must be true or false, such as …"),
    Mistake("predict.py ensemble.members=a.ckpt", "ensemble.members=a.ckpt", LIST),
    Mistake("tune_thresholds.py grid.score_thr=0.5", "grid.score_thr=0.5", LIST),
    Mistake("train.py data.root=null", "data.root=null", "…=null: must have a value, …"),
    # Devices
    Mistake("train.py seed=1,2 -m trainer.devices=2", "trainer.devices=2",
            "trainer.devices=…: jobs that share a process, as in a multirun (-m), use one device each. …"),
    Mistake("tune_thresholds.py -m trainer.devices=2 candidates.folder=USED", "=2",
            "trainer.devices=…: jobs that share a process, as in a multirun (-m), …"),
    # Files and folders
    Mistake("train.py paths.runs=READ_ONLY", "read_only", errors.PERMISSION),
]  # fmt: skip
MISTAKES = [
    # The command line
    Mistake("train postprocess.score_thr=2", "postprocess.score_thr=2", "…=…: must be between 0 and 1"),
    Mistake(
        "predict ensemble.run=RUN output=png", "output=png", "output=…: give one or more of csv, csv_2020, coco, masks"
    ),
    Mistake("train score.match=id", "score.match=id", "score.match=…: …"),
    Mistake(
        "train model.attributes=true model.attribute_loss=mse",
        "attribute_loss=mse",
        "model.attribute_loss=… model.attribute_weight=…: must be a loss among … and a weight above 0",
    ),
    Mistake(
        "predict ensemble.run=RUN postprocess.attributes=expected",
        "attributes=expected",
        "postprocess.attributes=…: …",
    ),
    Mistake("predict data.images=all ensemble.run=RUN", "all", "data.images=…: give test, val, test_fold"),
    # Devices
    Mistake("train trainer.accelerator=auto trainer.devices=88", "=88",
            "trainer.devices=…: this machine has … GPUs. …"),
    Mistake("train trainer.devices=two", "=two", "trainer.devices=…: give a number, a list of indices, or auto"),
    Mistake("train trainer.precision=64-true", "=64-true", "trainer.precision=…: give 32-true, bf16-mixed, 16-mixed"),
    Mistake("train trainer.accelerator=gpu", "accelerator=gpu",
            "trainer.accelerator=…: PyTorch finds no GPU on this machine. …"),
    # Data
    Mistake("train data.root=nowhere", "data.root=nowhere", ROOT),
    Mistake("predict ensemble.run=RUN data.root=nowhere", "data.root=nowhere", ROOT),
    Mistake("fashion-hydra check nowhere", "nowhere", ROOT),
    Mistake("train data.root=DATA/train.csv", "train.csv", "data.root=…: is a file. Give a folder …"),
    Mistake("train data.root=EMPTY", "(found: nothing)",
            "data.root=…: no train.csv (found: …). Put Kaggle's train.csv there, or name it with …"),
    Mistake("train data.root=NO_IMAGES", "missing-image",
            "…: none of the … images in the annotations is usable; first: …. …"),
    Mistake("train data.root=OTHER_COLUMNS", "no column EncodedPixels",
            "…: no column … (header: …). Rename the columns as Kaggle's train.csv: …"),
    Mistake("train data.root=SEMICOLONS", "semicolons", SEPARATOR),
    Mistake("fashion-hydra check SEMICOLONS", "semicolons", SEPARATOR),
    Mistake("fashion-hydra score TRUTH SEMICOLON_TRUTH", "semicolons", SEPARATOR),
    Mistake("train data.root=LATIN", "xe4", UTF8),
    Mistake("fashion-hydra submit-check LATIN/train.csv", "xe4", UTF8),
    Mistake("train data=coco data.annotations=a.json", "a.json",
            "data.annotations=…: no such file, neither here nor below …. Give the JSON file"),
    Mistake("train data.folds=100", "100", "data.folds=…: must be between 2 and the number of images (…)"),
    Mistake("train data.fold=7", "data.fold=7", "data.fold=…: must be between 0 and … (data.folds=…)"),
    Mistake("train data.split_file=a.csv", "a.csv",
            "data.split_file=…: no such file. `fashion-hydra split` writes one"),
    Mistake("train data.split_file=OTHER_SPLIT", "strange.jpg", "…, row …: the data has no image …"),
    Mistake("train classes.drop=[bananas]", "'bananas'; nearest: 'pants'", CATEGORY),
    Mistake("predict ensemble.run=RUN postprocess.drop_classes=[kilt]", "'kilt'", CATEGORY),
    Mistake("train classes.train=[99]", "99", "…: no category …; ids are … to …"),
    Mistake("train data.on_fault=error", "size-mismatch",
            "…: … faults, the first …. Fix them or set data.on_fault=drop; …"),
    Mistake("predict ensemble.run=RUN data.root=EMPTY", "empty",
            "…: no images. Give data.root=FOLDER with pictures in it, or in its folder test/…"),
    Mistake("predict ensemble.run=RUN data.root=DATA/train.csv", "train.csv",
            "data.root=…: is a file, but not a picture. Give a picture, a folder of pictures, or one with test/"),
    Mistake("predict ensemble.run=RUN data.root=PHONE", "1 .heic",
            "…: … .heic/.heif pictures, which need Pillow's plugin: pip install pillow-heif, or save them as JPEG"),
    Mistake("train data=coco data.annotations=a.json data.crowd=keep", "=keep",
            "data.crowd=…: give ignore or train"),
    Mistake("train classes.train=[45]", "14 train",
            "…: none of the … training images has a mask of a class to learn (…); …"),
    Mistake("train classes.train=[2] data.fold=0", "validation",
            "…: none of the … validation images has a mask of a class to learn (…), so there is nothing to score. …"),
    # Checkpoints
    Mistake("train ckpt_path=a.ckpt", "a.ckpt", "ckpt_path=…: no such file; leave ckpt_path out to start from scratch"),
    Mistake("train ckpt_path=HALF", "PytorchStreamReader", DAMAGED),
    Mistake("train ckpt_path=DATA/train.csv", "not a file of torch.save", DAMAGED),
    Mistake("train model.fc_channels=64 ckpt_path=LAST", "size mismatch for detector.net.roi_head", errors.WEIGHTS),
    Mistake("train classes=no_attributes ckpt_path=LAST", "33",
            "the checkpoint was trained on … classes …, this run has …; choose the same classes=… …"),
    Mistake("train model.backbone.base_channels=16 model.backbone.channels=[16,32,64,128] weights=LAST", "last.ckpt",
            "weights=…, does not fit this model in … tensors …. Choose the model and model/backbone that …"),
    Mistake("train weights=a.pth", "a.pth",
            "weights=…: no such file. Give a file, a URL with http:// or https://, or a name in …"),
    Mistake("train weights=timm:resnet51", "resnet51", "…: timm has no such network…"),
    Mistake("train weights=coco", "ResNet", "weights=coco: no weights known for this …. …"),
    Mistake("train model.backbone.weights=imagenet", "ResNet",
            "model.backbone.weights=imagenet: no weights known for this …. Give a file, a URL, or null …"),
    Mistake("predict checkpoint=a.ckpt", "a.ckpt", "checkpoint=…: no such file. …"),
    Mistake("predict checkpoint=strret", "street",
            "checkpoint=…: no such file, and no model of that name in models/ (there: …)"),
    Mistake("predict checkpoint=EMPTY", "empty", "checkpoint=…: is a folder; name a file in it"),
    Mistake("predict checkpoint=HALF", "half", DAMAGED),
    Mistake("predict paths.runs=EMPTY", "empty",
            "no training run below …: train a model first, or give checkpoint=street, checkpoint=FILE, "
            "ensemble.members=[FILES] or ensemble.run=FOLDER"),
    Mistake("predict ensemble.run=EMPTY", "empty",
            "ensemble.run=…: no checkpoints/last.ckpt there. Give the folder of a training run"),
    Mistake("predict ensemble=top3 ensemble.run=RUN", "1 checkpoints with scores, 3 requested",
            "ensemble.run=…: … checkpoints with scores, … requested. Use ensemble=single or a run with more …"),
    Mistake("predict ensemble.run=RUN ensemble.count=0", "=0", "ensemble.count=…: must be at least 1"),
    Mistake("train model.fc_channels=0", "=0", "model.…=…: must be at least …"),
    Mistake("train model.anchor_ratios=[]", "[]", "model.…=…: must be above 0"),
    Mistake("train model.backbone.channels=[1,2,3,4]", "[1,2,3,4]", "model.backbone.channels=…: the backbone has …"),
    Mistake("train +model.backbone.strides=[1,1,2,2]", "[4,4,8,16]",
            "model.backbone: must return features at strides …, returns …"),
    Mistake("train model.backbone.std=[1,2,0]", "[1,2,0]",
            "model.backbone.…=…: must be three numbers, above 0 for std"),
    Mistake("train tta.scales=[[64]]", "[[64]]", "tta.scales=…: must be one or more of [SHORT,LONG], …"),
    Mistake("predict ensemble.run=RUN tta.scales=[[64,96]]", "[[64, 96]]",
            "tta.scales=… tta.factors=…: both set the scales. Give tta.factors=null with tta.scales, or …"),
    Mistake("train augment.crop=[64]", "[64]", "augment.crop=…: must be null, or [SHORT,LONG] in pixels, …"),
    Mistake("train augment.crop_keeps=2", "=2", "augment.crop_keeps=…: must be a share between 0 and 1"),
    Mistake("train schedule.layer_decay=0", "layer_decay=0", "schedule.…=…: must be above 0 and at most 1. …"),
    Mistake("train trainer.max_epochs=7", "max_epochs=7",
            "trainer.max_epochs=… schedule.epochs=…: the learning rate follows schedule.epochs. "
            "Give only schedule.epochs"),
    Mistake("train schedule/optimizer=sgd ckpt_path=LAST", "AdamW",
            "schedule/optimizer: the checkpoint has …, this run …. Use the same optimizer, or start a new run …"),
    Mistake("train callbacks=ema callbacks.ema.decay=1", "=1",
            "callbacks.ema.decay=…: must be at least 0 and below 1"),
    Mistake("train data.batch_size=null schedule.batch=3 trainer.accumulate_grad_batches=2", "=3",
            "schedule.batch=…: … devices x … accumulated batches do not share it evenly. …"),
    Mistake("train schedule.warmup_steps=-1", "=-1", "schedule: … must be at least 0, …"),
    Mistake("train schedule.optimizer.weight_decay=-1", "-1", "schedule.optimizer: …"),
    Mistake("train model.neck_channels=24", "=24",
            "model.mask_channels=… model.neck_channels=…: must be equal, …"),
    Mistake("predict ensemble.members=[LAST,OTHER_CLASSES]", "99]",
            "ensemble: … has … classes, … …. Members must have been trained on the same classes"),
    # Candidates, thresholds, truth
    Mistake("predict ensemble.run=RUN out=USED tta=flip", "(flips): [false]", OTHERS),
    Mistake("predict ensemble.run=RUN out=USED data.images=val", "train",
            "…: holds candidates of other images (… in …), this run has … in …. Give another out=FOLDER, or delete …"),
    Mistake("predict ensemble.run=RUN out=USED_DAMAGED", ".npz",
            "…: damaged candidates (…); delete it and run predict.py again"),
    Mistake("predict ensemble.run=RUN postprocess=a.yaml", "a.yaml",
            "postprocess=…: no such file. tune_thresholds.py writes one"),
    Mistake("predict ensemble.run=RUN postprocess=tuned", "epoch00",
            "postprocess=tuned: no tuned.yaml below … was tuned for … (…). …"),
    Mistake("predict ensemble.run=RUN postprocess=OTHER_TUNED", "99", "…: no category …; ids are … to …"),
    Mistake("predict ensemble.run=RUN postprocess.score_thr=0.01", "score_thr=0.01",
            "postprocess.score_thr=… is below what the candidates hold (score_floor …): give … or more, …"),
    Mistake("predict ensemble.run=RUN postprocess.iou_thr=0.35", "iou_thr=0.35",
            "postprocess.iou_thr=… is not among the thresholds that the candidates are exact for (…): give one of …"),
    Mistake("tune candidates.folder=USED search.score_thr=[1,0]", "[1.0, 0.0]",
            "search.…=…: must be [LOWEST,HIGHEST], …"),
    Mistake("tune candidates.folder=USED search.mask_step=0", "=0",
            "search.trials=… search.mask_step=…: the first must be at least 0, the second above 0"),
    Mistake("tune candidates.folder=USED per_class.step=0", "=0",
            "per_class.step=… per_class.shrinkage=… expected.weight=…: …"),
    Mistake("tune candidates.folder=EMPTY", "empty",
            "…: no manifest.json: not a folder of candidates. predict.py makes one"),
    Mistake("tune candidates.folder=USED truth=a.csv", "a.csv",
            "truth=…: no such file. Give truth=FILE.csv, the true masks of the images"),
    Mistake("tune candidates.folder=USED truth=DATA/train.csv", "20 of 20",
            "…: no candidates of … of … images with truth, the first …. Predict these images, or give the truth of …"),
    Mistake("fashion-hydra score DATA/train.csv USED/submission.csv", "1 of 1",
            "… of … predicted images are not in the truth, the first …. Check that both files are of the same …"),
    Mistake("fashion-hydra evaluate DATA/train.csv USED/submission.csv", "1 of 1",
            "…: … of … images are not in …, the first …. Give the truth of these images"),
    Mistake("fashion-hydra evaluate OTHER_RESULTS OTHER_RESULTS", "other_results",
            "…: must be a list of results, each with image_id, category_id, segmentation and score. …"),
    Mistake("fashion-hydra report USED", "truth.csv",
            "…: no such file, so the true masks are unknown. Give --truth TRUTH.csv, …"),
    Mistake("fashion-hydra compare EMPTY USED", "empty",
            "…: no methods.csv: not a folder that tune_thresholds.py wrote"),
    Mistake("fashion-hydra ladder RUN", "--truth",
            "--truth: give the true masks of the test images, or choose --images val or test_fold"),
    Mistake("fashion-hydra import-checkpoint DATA/train.csv a.safetensors", "train.csv",
            "…: neither a safetensors file nor a complete file of torch.save (begins with …). …"),
    # Files and folders
    Mistake("fashion-hydra score a.csv DATA/train.csv", "a.csv", errors.NO_FILE),
    Mistake("fashion-hydra score DATA TRUTH", "wardrobe", errors.FOLDER),
    Mistake("fashion-hydra split DATA --out EMPTY", "empty", A_FOLDER),
    Mistake("fashion-hydra export-coco DATA EMPTY", "empty", A_FOLDER),
    Mistake("fashion-hydra eda DATA --out EMPTY", "empty", A_FOLDER),
    Mistake("fashion-hydra split DATA --out OTHER_SPLIT", "other_split",
            "… exists already; give another …, or --force to overwrite it"),
    Mistake("predict ensemble.run=RUN out=TRUTH", "truth.csv", errors.IN_THE_WAY),
    Mistake("predict ensemble.run=RUN out=READ_ONLY/out", "read_only", errors.PERMISSION),
    Mistake("fashion-hydra split DATA --out READ_ONLY/a.csv", "read_only/a.csv", errors.PERMISSION),
    Mistake("train paths.output_dir=SMALL_DISK/run ~callbacks.curves ~callbacks.pictures", "last.ckpt",
            "…: not written (…; … MiB free). Free disk space and repeat the command with ckpt_path=last…"),
    Mistake("predict ensemble.run=RUN out=FULL/out", "out=FOLDER", errors.SPACE),
    Mistake("fashion-hydra export-coco DATA FULL/a.json", "--out", errors.SPACE),
]  # fmt: skip


# Files and folders that words in capitals stand for, created for commands that use them.
MOUNTED = {"READ_ONLY": "64k", "SMALL_DISK": "100k", "FULL": "16k"}
PLACES = (
    "DATA", "TRUTH", "RUN", "LAST", "OUT", "EMPTY", "NO_LABELS", "NO_IMAGES", "OTHER_COLUMNS", "SEMICOLONS", "LATIN",
    "SEMICOLON_TRUTH", "PHONE", "OTHER_RESULTS", "OTHER_SPLIT",
    "OTHER_TUNED", "HALF", "OTHER_CLASSES", "USED", "USED_DAMAGED", *MOUNTED,
)  # fmt: skip
RULE = "score_thr: 0.5\niou_thr: 0.5\nmask_thr: 0.5\nmax_per_image: 9\ndrop_classes: [99]\n"


def make_place(name: str, path: Path, data: Path, run: Path) -> Path:
    """Create or find a file or folder of `PLACES`, and return its path."""
    last, rows = run / "checkpoints" / "last.ckpt", (data / "train.csv").read_text()
    match name:
        case "DATA" | "RUN" | "LAST" | "OUT" | "TRUTH":
            return {"DATA": data, "RUN": run, "LAST": last, "OUT": path, "TRUTH": data / "test_truth.csv"}[name]
        case "EMPTY":
            path.mkdir()
        case "NO_IMAGES":
            copy_with(data, path, "train", None)
        case "OTHER_COLUMNS":
            copy_with(data, path, "train.csv", rows.replace("EncodedPixels", "RLE").encode())
        case "SEMICOLONS":
            copy_with(data, path, "train.csv", rows.replace(",", ";").encode())
        case "LATIN":
            copy_with(data, path, "train.csv", f"{rows}Mäntel.jpg,1 1,9,9,6\n".encode("latin-1"))
        case "SEMICOLON_TRUTH":
            path.write_text((data / "test_truth.csv").read_text().replace(",", ";"))
        case "PHONE":
            path.mkdir()
            (path / "IMG_0001.HEIC").touch()
        case "OTHER_RESULTS":
            path = path.with_suffix(".json")
            path.write_text('{"images": [], "annotations": [], "categories": []}')
        case "OTHER_SPLIT":
            path.write_text("ImageId,fold\nstrange.jpg,0\n")
        case "OTHER_TUNED":
            path = path.with_suffix(".yaml")
            path.write_text(RULE)
        case "HALF":
            path.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
        case "OTHER_CLASSES":
            content = torch.load(last, weights_only=True)
            content["classes"]["ids"][-1] = 99
            torch.save(content, path)
        case "USED" | "USED_DAMAGED":
            shutil.copytree(run.parent / "used", path)
            [file] = path.glob("candidates/images/*.npz")
            file.write_bytes(file.read_bytes()[: 99 if name == "USED_DAMAGED" else None])
        case _:
            mount(name, path)
    return path


def copy_with(data: Path, folder: Path, file: str, content: bytes | None) -> Path:
    """Copy the data set by links, with one file replaced or removed."""
    folder.mkdir()
    for path in data.iterdir():
        if path.name != file:
            (folder / path.name).symlink_to(path)
    if content is not None:
        (folder / file).write_bytes(content)
    return folder


def mount(name: str, path: Path) -> None:
    """Mount a small file system: READ_ONLY, FULL, or SMALL_DISK, which is too small for a checkpoint."""
    path.mkdir()
    if name == "READ_ONLY" and os.getuid() != 0:  # root can write everywhere
        path.chmod(0o555)
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={MOUNTED[name]}", "tmpfs", path]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    if name == "READ_ONLY":
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    if name == "FULL":
        with contextlib.suppress(OSError), (path / "filled").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))


@pytest.fixture(scope="module")
def run(wardrobe, tmp_path_factory):
    """The folder of a training run, with a prediction folder `used` beside it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    places = {"DATA": wardrobe, "OUT": folder, "RUN": folder}
    call("train", places)
    call("predict ensemble.run=RUN", {**places, "OUT": folder.parent / "used"})
    return folder


def insert_places(command: str, places: dict[str, Path]) -> list[str]:
    """Split a command into words, and replace words in capitals by paths."""
    return [
        re.sub(r"\b[A-Z]{2,}(_[A-Z]+)*\b", lambda found: str(places.get(found[0], found[0])), word)
        for word in shlex.split(command)
    ]


def call(command: str, places: dict[str, Path]) -> None:
    """Run a script's command line in this process, and let exceptions propagate."""
    from fashion_hydra.workflows.predict import predict
    from fashion_hydra.workflows.train import train
    from fashion_hydra.workflows.tune import tune

    name, *words = insert_places(command, places)
    common = insert_places(shlex.join(WORDS[name]), places)
    options = compose_options(name, *common, *readable_words(words))
    {"train": train, "predict": predict, "tune": tune}[name](options, Command((*common, *words)))


@pytest.fixture
def make_places(wardrobe, run, tmp_path):
    """Return a function that creates the files and folders that a command uses."""
    made: dict[str, Path] = {}

    def make(command: str) -> dict[str, Path]:
        name = command.partition(" ")[0]
        words = " ".join([*WORDS.get(name, ()), command])
        for name in sorted(set(PLACES) & set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b", words))):
            made[name] = make_place(name, tmp_path / name.lower(), wardrobe, run)
        return made

    yield make
    for name in MOUNTED:
        if name in made and os.path.ismount(made[name]):
            subprocess.run(["umount", "--lazy", made[name]], check=True)


@pytest.mark.parametrize("mistake", COMMAND_LINES, ids=lambda mistake: mistake.command)
def test_a_script_refuses_its_command_line(mistake, make_places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script, *words = insert_places(mistake.command, make_places(mistake.command))
    capsys.readouterr()
    code = run_script(script, *words)
    output = capsys.readouterr().err
    assert "Traceback" not in output
    line = output.splitlines()[-1]
    assert line.startswith(f"{script}: ")
    check(mistake, line, code)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.command)
def test_a_mistake_becomes_one_line(mistake, make_places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    places = make_places(mistake.command)
    capsys.readouterr()
    name = mistake.command.partition(" ")[0]
    if name == "fashion-hydra":
        code = cli(insert_places(mistake.command, places)[1:])
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("fashion-hydra ")
    else:
        with pytest.raises(Exception) as caught:
            call(mistake.command, places)
        line, code = describe_error(caught.value, SCRIPTS[name])
    check(mistake, line, code)


@pytest.mark.parametrize(
    ("command", "function", "error", "message"),
    [
        ("train", "fashion_hydra.model.detector.Detector.loss", torch.OutOfMemoryError(errors.CUDA_FULL), errors.GPU),
        (
            "predict ensemble.run=RUN",
            "fashion_hydra.model.detector.Detector.features",
            torch.OutOfMemoryError(errors.CUDA_FULL),
            errors.GPU_PREDICT,
        ),
        ("train logger=wandb logger.wandb.offline=false", "wandb.init", errors.NO_KEY, errors.WANDB),
    ],
)
def test_lightning_passes_errors_of_libraries_on(make_places, monkeypatch, command, function, error, message):
    monkeypatch.setattr(function, errors.fail_with(error))
    with pytest.raises(type(error)) as caught:
        call(command, make_places(command))
    assert matches_message(message, describe_error(caught.value, SCRIPTS[command.split()[0]])[0])


def check(mistake: Mistake, line: str, code: int) -> None:
    assert matches_message(mistake.message, line), line
    assert mistake.value.lower() in line.lower()
    assert "\n" not in line
    assert code == 2


def test_make_names_the_python_it_needs(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.version_info = (3, 9, 1, 'final', 0)\n$2\"\n"
    )
    old.chmod(0o755)
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / file, tmp_path)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert matches_message(OTHER_PYTHON, done.stderr), done.stderr
    assert f"{old} is 3.9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


# Input that must work.
NAME = "mäntel = röcke, (neu) [2] 'x'"


@pytest.fixture
def strange_folder(wardrobe, tmp_path):
    """The data set in a folder whose name contains many special characters."""
    (tmp_path / NAME).mkdir()
    return shutil.copytree(wardrobe, tmp_path / NAME / "wardrobe")


def test_scripts_take_strange_names_and_run_in_any_folder(strange_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / NAME)
    out = tmp_path / NAME / "out=1"
    train = [*SMALL_TRAIN, *QUICK, "data.root=wardrobe", f"hydra.run.dir={out}"]
    assert run_script("train.py", *train) == 0, capsys.readouterr().err
    predict = [*SMALL_PREDICT, "data.limit=1", f"data.root={strange_folder}", f"ensemble.run={out}"]
    assert run_script("predict.py", *predict, f"out={out}/predicted") == 0
    assert (out / "predicted" / "submission.csv").is_file()
    assert cli(["check", str(strange_folder), "--quick"]) == 1  # the wardrobe has two faults by design


@pytest.mark.parametrize(
    "change",
    [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n"), lambda text: text.rstrip("\n")],
    ids=["BOM", "Windows", "no last line end"],
)
def test_what_spreadsheet_programs_do_to_files_does_no_harm(wardrobe, tmp_path, change):
    from fashion_hydra.data.kaggle import read_annotations

    plain, known = read_annotations(wardrobe)
    for name in ("train.csv", "label_descriptions.json"):
        folder = copy_with(wardrobe, tmp_path / name, name, change((wardrobe / name).read_text()).encode())
        annotations, faults = read_annotations(folder)
        assert annotations.image_ids.tolist() == plain.image_ids.tolist()
        assert (annotations.runs == plain.runs).all()
        assert len(faults) == len(known)


def test_a_read_only_cache_is_not_used(wardrobe, make_places, monkeypatch):
    from fashion_hydra.data.kaggle import read_annotations

    monkeypatch.setenv("FASHION_HYDRA_CACHE", str(make_places("fashion-hydra check READ_ONLY")["READ_ONLY"]))
    assert len(read_annotations(wardrobe)[0]) == 18


def test_a_sweep_needs_no_name_for_its_folder(run, tmp_path, monkeypatch, capsys):
    """The default output folder is named after config groups, which Hydra's own resolver does not know yet."""
    monkeypatch.chdir(tmp_path)
    used, truth = run.parent / "used", tmp_path / "truth.csv"
    with (used / "submission.csv").open() as stream:
        image = next(csv.DictReader(stream))["ImageId"]
    truth.write_text(f"ImageId,EncodedPixels,ClassId\n{image},1 9,23\n")
    words = [*SMALL_PREDICT, f"candidates.folder={used}", f"truth={truth}", "postprocess.score_thr=0.3,0.4", "-m"]
    assert run_script("tune_thresholds.py", *words) == 0, capsys.readouterr().err
    [table] = tmp_path.glob("tuned/run/sweeps/*/sweep.csv")
    assert len(table.read_text().splitlines()) == 3
