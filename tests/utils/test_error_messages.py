"""The mistakes that people make, and what they are told: in docs/mistakes.md's words, with the value, in one line."""

import contextlib
import csv
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from submitit.core.utils import UncompletedJobError

from fashion_hydra.cli.main import main as cli
from fashion_hydra.config.resolvers import PROJECT_ROOT
from fashion_hydra.utils.errors import UserError

PAGE = PROJECT_ROOT / "docs" / "mistakes.md"
TRAIN = (
    "train.py experiment=demo trainer.accelerator=cpu data.root=DATA data.folds=5 augment.short_edge=[64,96] "
    "tta.scales=[[80,128]] schedule.epochs=1 +trainer.limit_train_batches=1 +trainer.limit_val_batches=1 "
    "callbacks.progress.refresh_rate=0 "
)
PREDICT = "predict.py trainer.accelerator=cpu data.num_workers=0 callbacks.progress.refresh_rate=0 data.limit=1 data.root=DATA "
TUNE = "tune_thresholds.py trainer.accelerator=cpu data.num_workers=0 callbacks.progress.refresh_rate=0 "


class Mistake(NamedTuple):
    """A command that cannot do what was meant.

    Args:
        command: as it is typed; words in capitals stand for the files and folders of `PLACES`.
        value: that the message names.
        told: as docs/mistakes.md has it; an ellipsis stands for anything.
        fault: of the machine, one of `FAULTS`.
    """

    command: str
    value: str
    told: str
    fault: str = ""


CHOICE = "…=…: no such choice. There are …"
OPTION = "…: no such option. Perhaps …"
WHOLE = "…=…: a whole number expected, such as …"
LIST = "…=…: a list expected, such as …"
SHARE = "…=…: between 0 and 1 expected"
ROOT = "data.root=…: no such folder. Give a folder …"
FILE_ROOT = "data.root=…: is a file. Give a folder …"
NO_FILE = "…: no such file or folder. Check the name"
FOLDER = "…: is a folder; name a file"
A_FOLDER = "…: a folder; name a file, such as …"
IN_THE_WAY = "…: a file is where a folder is wanted. Remove it, or name another folder"
RIGHT = "…: cannot be read or written (…). Ask for the right, or choose another place: …"
SPACE = "…no space left on the device. Make room, or write elsewhere: …"
SEPARATOR = "…Its columns are separated by …: save it as CSV separated by commas"
UTF8 = "…: byte … is not UTF-8 (…). Save the file as CSV in UTF-8, or give the right one"
CKPT = "ckpt_path=…: no such file; leave ckpt_path out to start anew"
NOT_WRITTEN = "…: not written (…; … MiB free). Make room, then give the same command with ckpt_path=last…"
DAMAGED = "…: not a whole checkpoint of plain data (…). Give another of the run's"
OTHERS = "…: holds candidates of other …: …, this run has …. Give another out=FOLDER, or remove that one"
CATEGORY = "…: no category named …"
GPU = "the GPU's memory is full (…). Lower data.batch_size or augment.long_edge, or give …"
GPU_PREDICT = (
    "the GPU's memory is full (…). Give smaller or fewer tta.scales (tta=single is one), inference.in_flight=1, …"
)
MEMORY = "the machine's memory is full (…). …"
SHARED = "the loader processes have too little shared memory (…). Give data.num_workers=0, or more of it: …"
WORKER = "a loader process was ended from outside (…), most often because the machine's memory is full. …"
FILES = "too many files are open (…). Give fewer data.num_workers …"
PORT = "port … of this machine is taken, perhaps by a run that still goes on. …"
LOST = "the processes of this run lost one another (…). …"
DRIVER = "PyTorch cannot use this GPU (…). Update the driver, or give trainer.accelerator=cpu"
WANDB = "Weights & Biases cannot be reached (…). Run `wandb login`, or give logger.wandb.offline=true …"
BUG = "this is a bug in fashion_hydra, … Please report it with the traceback, which … shows"

CATALOGUE = [
    # The command line
    Mistake(TRAIN + "model=htc_r101", "model=htc_r101", CHOICE),
    Mistake(TRAIN + "experiment=wardrobe", "experiment=wardrobe", CHOICE),
    Mistake(PREDICT + "ensemble=top5", "ensemble=top5", CHOICE),
    Mistake(TRAIN + "-m hydra/launcher=joblib", "hydra/launcher=joblib", CHOICE),
    Mistake(TRAIN + "data.batchsize=2", "data.batchsize: no such option. Perhaps data.batch_size", OPTION),
    Mistake(TRAIN + "epochs=2", "epochs: no such option. Perhaps schedule.epochs", OPTION),
    Mistake(PREDICT + "model=htc_tiny", "model: predict.py", "…: … has no such option or group; its groups are …"),
    Mistake(PREDICT + "experiment=demo", "demo", "experiment=…: not made for …, which has no group …"),
    Mistake(TRAIN + "model = htc_tiny", "model", "…: not of the form KEY=VALUE. …"),
    Mistake(TRAIN + "logger=null", "logger", "…: a group cannot be null; name one of its choices, which --help lists"),
    Mistake(TRAIN + "data.batch_size=two", "data.batch_size=two", WHOLE),
    Mistake(TRAIN + "data.batch_size=1.5", "data.batch_size=1.5", WHOLE),
    Mistake(PREDICT + "data.num_workers=many", "data.num_workers=many", WHOLE),
    Mistake(TRAIN + "schedule.lr=fast", "schedule.lr=fast", "…=…: a number expected, such as …"),
    Mistake(PREDICT + "draw=perhaps", "draw=perhaps", "…=…: true or false expected, such as …"),
    Mistake(PREDICT + "ensemble.members=a.ckpt", "ensemble.members=a.ckpt", LIST),
    Mistake(TUNE + "grid.score_thr=0.5", "grid.score_thr=0.5", LIST),
    Mistake(TRAIN + "data.root=null", "data.root=null", "…=null: a value expected, …"),
    Mistake(TRAIN + "postprocess.score_thr=2", "postprocess.score_thr=2", SHARE),
    Mistake(PREDICT + "ensemble.run=RUN output=png", "output=png", "output=…: give one or more of csv, coco, masks"),
    Mistake(PREDICT + "data.images=all ensemble.run=RUN", "all", "data.images=…: give test, val, test_fold"),
    # Devices
    Mistake(
        TRAIN + "trainer.accelerator=auto trainer.devices=88", "=88",
        "trainer.devices=…: this machine has … GPUs. …",
    ),
    Mistake(TRAIN + "trainer.devices=two", "=two", "trainer.devices=…: give a number, a list of indices, or auto"),
    Mistake(
        TRAIN + "trainer.accelerator=gpu", "accelerator=gpu",
        "trainer.accelerator=…: PyTorch finds no GPU on this machine. …",
        "no GPU",
    ),
    Mistake(
        TRAIN + "seed=1,2 -m trainer.devices=2", "trainer.devices=2",
        "trainer.devices=…: a multirun (-m) in this process takes one device a job. …",
    ),
    Mistake(TUNE + "-m trainer.devices=2 candidates.folder=USED", "=2", "trainer.devices=…: a multirun (-m) …"),
    # Data
    Mistake(TRAIN + "data.root=nowhere", "data.root=nowhere", ROOT),
    Mistake(PREDICT + "ensemble.run=RUN data.root=nowhere", "data.root=nowhere", ROOT),
    Mistake("fashion-hydra check nowhere", "nowhere", ROOT),
    Mistake(TRAIN + "data.root=DATA/train.csv", "train.csv", FILE_ROOT),
    Mistake(
        TRAIN + "data.root=EMPTY", "(found: nothing)",
        "data.root=…: no train.csv (found: …). Put Kaggle's train.csv there, or name it with …",
    ),
    Mistake(
        TRAIN + "data.root=NO_LABELS", "no_labels",
        "data.root=…: no label_descriptions.json. Put Kaggle's there: it names the categories",
    ),
    Mistake(
        TRAIN + "data.root=NO_IMAGES", "missing-image",
        "…: none of the … images that the annotations name is usable; first: …. Put the images there; …",
    ),
    Mistake(
        TRAIN + "data.root=OTHER_COLUMNS", "no column EncodedPixels",
        "…: no column … (header: …). Rename the columns as Kaggle's train.csv: …",
    ),
    Mistake(TRAIN + "data.root=SEMICOLONS", "semicolons", SEPARATOR),
    Mistake("fashion-hydra check SEMICOLONS", "semicolons", SEPARATOR),
    Mistake("fashion-hydra score TRUTH SEMICOLON_TRUTH", "semicolons", SEPARATOR),
    Mistake(TRAIN + "data.root=LATIN", "xe4", UTF8),
    Mistake("fashion-hydra submit-check LATIN/train.csv", "xe4", UTF8),
    Mistake(
        TRAIN + "data=coco data.annotations=a.json", "a.json",
        "data.annotations=…: no such file, neither here nor below …. Give the JSON file",
    ),
    Mistake(TRAIN + "data.folds=100", "100", "data.folds=…: between 2 and the number of images (…) expected"),
    Mistake(TRAIN + "data.fold=7", "data.fold=7", "data.fold=…: between 0 and … expected (data.folds=…)"),
    Mistake(
        TRAIN + "data.split_file=a.csv", "a.csv",
        "data.split_file=…: no such file. `fashion-hydra split` writes one",
    ),
    Mistake(TRAIN + "data.split_file=OTHER_SPLIT", "strange.jpg", "…, row …: the data has no image …"),
    Mistake(TRAIN + "classes.drop=[bananas]", "'bananas'; nearest: 'pants'", CATEGORY),
    Mistake(PREDICT + "ensemble.run=RUN postprocess.drop_classes=[kilt]", "'kilt'", CATEGORY),
    Mistake(TRAIN + "classes.train=[99]", "99", "…: no category …; ids are … to …"),
    Mistake(
        TRAIN + "data.on_fault=error", "size-mismatch",
        "…: … faults, the first in row …. Mend them or set data.on_fault=drop; …",
    ),
    Mistake(
        TRAIN + "data.num_workers=1", "changed.jpg", "…: cannot be decoded (…); mend or remove the file", "broken image"
    ),
    Mistake(
        PREDICT + "ensemble.run=RUN data.root=EMPTY", "empty",
        "…: no images. Give data.root=FOLDER with pictures in it, or in its folder test/",
    ),
    # Checkpoints
    Mistake(TRAIN + "ckpt_path=a.ckpt", "a.ckpt", CKPT),
    Mistake(TRAIN + "ckpt_path=HALF", "PytorchStreamReader", DAMAGED),
    Mistake(TRAIN + "ckpt_path=DATA/train.csv", "no file of torch.save", DAMAGED),
    Mistake(
        TRAIN + "model.fc_channels=64 ckpt_path=RUN/checkpoints/last.ckpt", "size mismatch for detector.net.roi_head",
        "the checkpoint's weights are of another model (…). Choose the same model=… …",
    ),
    Mistake(
        TRAIN + "classes=no_attributes ckpt_path=RUN/checkpoints/last.ckpt", "33",
        "the checkpoint was trained on … classes …, this run has …; choose the same classes=… …",
    ),
    Mistake(
        TRAIN + "model.backbone.base_channels=16 model.backbone.channels=[16,32,64,128] "
        "weights=RUN/checkpoints/last.ckpt",
        "last.ckpt", "weights=…, does not fit this model in … tensors …. Choose the model and model/backbone that …",
    ),
    Mistake(TRAIN + "weights=a.pth", "a.pth", "…: no such file. Give a file, or an address with http:// or https://"),
    Mistake(PREDICT + "checkpoint=a.ckpt", "a.ckpt", "checkpoint=…: no such file. …"),
    Mistake(PREDICT + "checkpoint=EMPTY", "empty", "checkpoint=…: is a folder; name a file in it"),
    Mistake(
        PREDICT + "checkpoint=HALF", "half.ckpt",
        "…: not a whole checkpoint of plain data (…). Give another of the run's",
    ),
    Mistake(
        PREDICT + "paths.runs=EMPTY", "empty",
        "no training run below …: give checkpoint=FILE, ensemble.members=[FILES] or ensemble.run=FOLDER",
    ),
    Mistake(
        PREDICT + "ensemble.run=EMPTY", "empty",
        "ensemble.run=…: no checkpoints/last.ckpt there. Give the folder of a training run",
    ),
    Mistake(
        PREDICT + "ensemble=top3 ensemble.run=RUN", "1 kept checkpoints, 3 wanted",
        "ensemble.run=…: … kept checkpoints, … wanted. Give ensemble=single, a run of more epochs, …",
    ),
    Mistake(
        PREDICT + "ensemble.members=[RUN/checkpoints/last.ckpt,OTHER_CLASSES]", "99]",
        "ensemble: … has … classes, … …. Members must have been trained on the same classes",
    ),
    # Candidates, thresholds, truth
    Mistake(PREDICT + "ensemble.run=RUN out=USED tta=flip", "(flips): [false]", OTHERS),
    Mistake(PREDICT + "ensemble.run=RUN out=USED data.limit=2", "images", OTHERS),
    Mistake(
        PREDICT + "ensemble.run=RUN out=USED_DAMAGED", ".npz",
        "…: damaged candidates (…); remove it and run predict.py again",
    ),
    Mistake(
        PREDICT + "ensemble.run=RUN postprocess=a.yaml", "a.yaml",
        "postprocess=…: no such file. tune_thresholds.py writes one",
    ),
    Mistake(
        PREDICT + "ensemble.run=RUN postprocess=tuned", "epoch00",
        "postprocess=tuned: no tuned.yaml below … was tuned for … (…). …"
    ),
    Mistake(PREDICT + "ensemble.run=RUN postprocess=OTHER_TUNED", "99", "…: no category …; ids are … to …"),
    Mistake(
        PREDICT + "ensemble.run=RUN postprocess.score_thr=0.01", "score_thr=0.01",
        "postprocess.score_thr=… is below what the candidates hold (score_floor …): give … or more, …",
    ),
    Mistake(
        PREDICT + "ensemble.run=RUN postprocess.iou_thr=0.35", "iou_thr=0.35",
        "postprocess.iou_thr=… is not among the thresholds that the candidates are exact for (…): give one of them, …",
    ),
    Mistake(
        TUNE + "candidates.folder=EMPTY", "empty",
        "…: no manifest.json: not a folder of candidates. predict.py makes one",
    ),
    Mistake(
        TUNE + "candidates.folder=USED truth=a.csv", "a.csv",
        "truth=…: no such file. Give truth=FILE.csv, the true masks of the images",
    ),
    Mistake(
        TUNE + "candidates.folder=USED truth=DATA/train.csv", "20 of 20",
        "…: no candidates of … of … images with truth, the first …. Predict them, or give the truth of …",
    ),
    Mistake(
        "fashion-hydra score DATA/train.csv USED/submission.csv", "1 of 1",
        "… of … predicted images are not in the truth, the first …. Check that both files are of the same image set, …",
    ),
    Mistake(
        "fashion-hydra report USED", "truth.csv",
        "…: no such file, so what is true is not known. Give --truth TRUTH.csv, …",
    ),
    Mistake(
        "fashion-hydra compare EMPTY USED", "empty",
        "…: no methods.csv: not a folder that tune_thresholds.py wrote",
    ),
    Mistake(
        "fashion-hydra ladder RUN", "--truth",
        "--truth: the test images' true masks are needed, or --images val or test_fold"
    ),
    Mistake(
        "fashion-hydra import-checkpoint DATA/train.csv a.safetensors", "train.csv",
        "…: neither a safetensors file nor a whole one of torch.save (begins with …). …",
    ),
    # Files and folders
    Mistake("fashion-hydra score a.csv DATA/train.csv", "a.csv", NO_FILE),
    Mistake("fashion-hydra score DATA TRUTH", "wardrobe", FOLDER),
    Mistake("fashion-hydra split DATA --out EMPTY", "empty", A_FOLDER),
    Mistake("fashion-hydra export-coco DATA EMPTY", "empty", A_FOLDER),
    Mistake("fashion-hydra eda DATA --out EMPTY", "empty", A_FOLDER),
    Mistake(
        "fashion-hydra split DATA --out OTHER_SPLIT", "other_split.csv",
        "… is there already; give another …, or --force to write over it",
    ),
    Mistake(PREDICT + "ensemble.run=RUN out=TRUTH", "truth.csv", IN_THE_WAY),
    Mistake(TRAIN + "paths.runs=READ_ONLY", "read_only", RIGHT),
    Mistake(PREDICT + "ensemble.run=RUN out=READ_ONLY/out", "read_only", RIGHT),
    Mistake("fashion-hydra split DATA --out READ_ONLY/a.csv", "read_only/a.csv", RIGHT),
    Mistake(TRAIN + "paths.runs=SMALL_DISK ~callbacks.curves ~callbacks.pictures", "last.ckpt", NOT_WRITTEN),
    Mistake(PREDICT + "ensemble.run=RUN out=FULL/out", "out=FOLDER", SPACE),
    Mistake("fashion-hydra export-coco DATA FULL/a.json", "--out", SPACE),
    # The machine
    Mistake(TRAIN, "tried to allocate 2.50 GiB", GPU, "GPU out of memory"),
    Mistake(PREDICT + "ensemble.run=RUN", "tried to allocate 2.50 GiB", GPU_PREDICT, "GPU out of memory"),
    Mistake(TRAIN, "you tried to allocate 99999999999 bytes", MEMORY, "out of memory"),
    Mistake(TRAIN + "data.num_workers=1", "exited unexpectedly", WORKER, "worker killed"),
    Mistake(TRAIN, "bus error", SHARED, "no shared memory"),
    Mistake(TRAIN, "torch_", SHARED, "no shared memory to write"),
    Mistake(TRAIN, "Too many open files", FILES, "many files"),
    Mistake(TRAIN, "port ", PORT, "port taken"),
    Mistake(TRAIN, "Connection closed by peer", LOST, "other process lost"),
    Mistake(TRAIN, "driver on your system is too old", DRIVER, "old driver"),
    Mistake(TRAIN + "logger=wandb logger.wandb.offline=false", "api", WANDB, "not logged in"),
    Mistake(TRAIN, "nowhere: no such folder", "… (a job of the launcher; its whole log is in …)", "job failed"),
    Mistake(
        TRAIN, "no valid anchor", "an image is too small or too narrow for the model's anchors (…). …", "no anchors",
    ),
    Mistake(
        TRAIN, "submitit", "the package … is not installed. Run `make setup`; for clusters …", "package missing"
    ),
    Mistake(TRAIN, "KeyError", BUG, "bug"),
    Mistake("fashion-hydra check DATA", "KeyError", BUG, "bug"),
    Mistake(TRAIN, "interrupted", "interrupted", "Ctrl-C"),
]  # fmt: skip

MADE_BY_MAKE = "Python 3.11 to 3.13 needed, … is …: set PYTHON=…"
CUDA_FULL = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 GiB is free. "
    "Process 1 has 78.04 GiB memory in use. See documentation for Memory Management"
)


# What stands for the capitals in a command: made when a command names it.
def changed(data: Path, folder: Path, file: str, content: bytes | None) -> Path:
    """The data set with another file, or without it; its images are not copied."""
    folder.mkdir()
    for path in data.iterdir():
        if path.name != file:
            (folder / path.name).symlink_to(path)
    if content is not None:
        (folder / file).write_bytes(content)
    return folder


def annotations(change: Callable[[str], str], encoding: str = "utf-8") -> Callable[..., Path]:
    def make(path: Path, data: Path, trained: Path) -> Path:
        return changed(data, path, "train.csv", change((data / "train.csv").read_text()).encode(encoding))

    return make


def without(file: str) -> Callable[..., Path]:
    return lambda path, data, trained: changed(data, path, file, None)


def empty(path: Path, data: Path, trained: Path) -> Path:
    path.mkdir()
    return path


def used(path: Path, data: Path, trained: Path) -> Path:
    return shutil.copytree(trained.parent / "used", path)


def used_damaged(path: Path, data: Path, trained: Path) -> Path:
    [file] = used(path, data, trained).glob("candidates/images/*.npz")
    file.write_bytes(file.read_bytes()[:99])
    return path


def half(path: Path, data: Path, trained: Path) -> Path:
    whole = (trained / "checkpoints" / "last.ckpt").read_bytes()
    path.with_suffix(".ckpt").write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(".ckpt")


def other_classes(path: Path, data: Path, trained: Path) -> Path:
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    content["classes"]["ids"][-1] = 99
    torch.save(content, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


def semicolon_truth(path: Path, data: Path, trained: Path) -> Path:
    path.with_suffix(".csv").write_text((data / "test_truth.csv").read_text().replace(",", ";"))
    return path.with_suffix(".csv")


def written(suffix: str, text: str) -> Callable[..., Path]:
    def make(path: Path, data: Path, trained: Path) -> Path:
        path.with_suffix(suffix).write_text(text)
        return path.with_suffix(suffix)

    return make


def mounted(path: Path, size: str, *, read_only: bool) -> Path:
    """A file system of its own, where this may mount one."""
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False, capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    return path


def read_only(path: Path, data: Path, trained: Path) -> Path:
    if os.getuid() == 0:  # who may write everywhere
        return mounted(path, "64k", read_only=True)
    path.mkdir()
    path.chmod(0o555)
    return path


def small_disk(path: Path, data: Path, trained: Path) -> Path:
    """Too small for a checkpoint."""
    return mounted(path, "100k", read_only=False)


def full(path: Path, data: Path, trained: Path) -> Path:
    mounted(path, "16k", read_only=False)
    with contextlib.suppress(OSError), (path / "filled").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return path


PLACES: dict[str, Callable[..., Path]] = {
    "DATA": lambda path, data, trained: data,
    "TRUTH": lambda path, data, trained: data / "test_truth.csv",
    "RUN": lambda path, data, trained: trained,
    "EMPTY": empty,
    "NO_LABELS": without("label_descriptions.json"),
    "NO_IMAGES": without("train"),
    "OTHER_COLUMNS": annotations(lambda text: text.replace("EncodedPixels", "RLE")),
    "SEMICOLONS": annotations(lambda text: text.replace(",", ";")),
    "SEMICOLON_TRUTH": semicolon_truth,
    "LATIN": annotations(lambda text: text + "Mäntel.jpg,1 1,9,9,6\n", "latin-1"),
    "OTHER_SPLIT": written(".csv", "ImageId,fold\nstrange.jpg,0\n"),
    "OTHER_TUNED": written(
        ".yaml", "score_thr: 0.5\niou_thr: 0.5\nmask_thr: 0.5\nmax_per_image: 9\ndrop_classes: [99]\n"
    ),
    "HALF": half,
    "OTHER_CLASSES": other_classes,
    "USED": used,
    "USED_DAMAGED": used_damaged,
    "READ_ONLY": read_only,
    "SMALL_DISK": small_disk,
    "FULL": full,
}


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


def in_a_step(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Training and prediction fail with this at their first image."""
    patch.setattr("fashion_hydra.model.detector.Detector.loss", raising(error))
    patch.setattr("fashion_hydra.model.detector.Detector.features", raising(error))


def killed_worker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fashion_hydra.data.dataset.read_pixels", lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))


def broken_image(patch: pytest.MonkeyPatch) -> None:
    from fashion_hydra.utils.errors import UserError

    error = UserError("changed.jpg: cannot be decoded (image file is truncated); mend or remove the file")
    patch.setattr("fashion_hydra.data.dataset.read_pixels", raising(error))


def port_taken(patch: pytest.MonkeyPatch) -> None:
    """The error that torch raises for a port that is in use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RuntimeError) as caught:
            torch.distributed.TCPStore("127.0.0.1", taken.getsockname()[1], is_master=True, world_size=1)
    in_a_step(patch, caught.value)


def bug(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fashion_hydra.data.annotation_cache.load_annotations", raising(KeyError("size")))
    patch.setattr("fashion_hydra.data.datamodule.load_annotations", raising(KeyError("size")))


def wandb_refuses(patch: pytest.MonkeyPatch) -> None:
    import wandb

    patch.setattr(wandb, "init", raising(wandb.errors.UsageError("No API key configured. Use `wandb login`.")))


SHM = "unable to write to file </torch_512_1_0>: No space left on device (28)"
BUS = (
    "DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)
JOB = (
    "Job 7 (task: 0) with path /runs/demo/1/.submitit/7/7_0_result.pkl\nhas not produced any output (state: FINISHED)\n"
    "Error stream produced:\n----------\ntrain.py: data.root=nowhere: no such folder. Give a folder\n"
)
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"
FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no GPU": lambda patch: patch.setattr(torch.cuda, "device_count", lambda: 0),
    "GPU out of memory": lambda patch: in_a_step(patch, torch.OutOfMemoryError(CUDA_FULL)),
    "out of memory": lambda patch: in_a_step(
        patch, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes.")
    ),
    "worker killed": killed_worker,
    "broken image": broken_image,
    "no shared memory": lambda patch: in_a_step(patch, RuntimeError(BUS)),
    "no shared memory to write": lambda patch: in_a_step(patch, RuntimeError(SHM)),
    "many files": lambda patch: in_a_step(patch, RuntimeError("Too many open files. Communication with the workers")),
    "port taken": port_taken,
    "other process lost": lambda patch: in_a_step(
        patch, RuntimeError("[gloo] Connection closed by peer [10.0.0.1]:29500")
    ),
    "old driver": lambda patch: in_a_step(patch, RuntimeError(OLD_DRIVER)),
    "not logged in": wandb_refuses,
    "job failed": lambda patch: in_a_step(patch, UncompletedJobError(JOB)),
    "no anchors": lambda patch: in_a_step(patch, ValueError("There is no valid anchor inside the image boundary.")),
    "package missing": lambda patch: in_a_step(patch, ModuleNotFoundError("No module named 'submitit'")),
    "bug": bug,
    "Ctrl-C": lambda patch: patch.setattr(
        "fashion_hydra.data.datamodule.load_annotations", raising(KeyboardInterrupt())
    ),
}


@pytest.fixture(scope="module")
def trained(wardrobe, tmp_path_factory):
    """A training run's folder, and beside it a prediction's, `used`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert called(TRAIN + f"hydra.run.dir={folder}", {"DATA": wardrobe}) == 0
    assert called(PREDICT + f"ensemble.run=RUN out={folder.parent / 'used'}", {"DATA": wardrobe, "RUN": folder}) == 0
    return folder


def called(command: str, places: dict[str, Path]) -> int:
    """Run a command in this process; its exit code."""
    words = [
        re.sub(r"\b[A-Z]{2,}(_[A-Z]+)*\b", lambda found: str(places.get(found[0], found[0])), w)
        for w in shlex.split(command)
    ]
    if words[0] == "fashion-hydra":
        return cli(words[1:])
    script = str(PROJECT_ROOT / words[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words[1:]])
        for name in ("FASHION_HYDRA_TRACEBACKS", "HYDRA_FULL_ERROR", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.setenv(name, os.environ.get(name, ""))  # what the script sets goes when it ends
            patch.delenv(name)
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture
def placed(wardrobe, trained, tmp_path):
    """Makes what stands for the capitals in a command."""
    made: dict[str, Path] = {}

    def place(command: str) -> dict[str, Path]:
        for name in sorted(set(PLACES) & set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b", command))):
            made[name] = PLACES[name](tmp_path / name.lower(), wardrobe, trained)
        return made

    yield place
    for name in ("READ_ONLY", "SMALL_DISK", "FULL"):
        if name in made and os.path.ismount(made[name]):
            subprocess.run(["umount", "--lazy", made[name]], check=True)


def pattern_of(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…")))


def short(mistake: Mistake) -> str:
    command = mistake.command
    for common in (TRAIN, PREDICT, TUNE):
        command = command.replace(common, f"{common.partition(' ')[0]} ")
    return f"{command} {mistake.fault}".strip()


@pytest.mark.parametrize("mistake", CATALOGUE, ids=short)
def test_a_mistake_is_told_in_one_line(mistake, placed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if mistake.fault:
        FAULTS[mistake.fault](monkeypatch)
    places = placed(mistake.command)
    capsys.readouterr()
    code = called(mistake.command, places)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    line = said.splitlines()[-1]
    assert re.search(pattern_of(mistake.told), line, re.IGNORECASE), line
    assert mistake.value.lower() in line.lower()
    assert code == {"interrupted": 130, BUG: 1}.get(mistake.told, 2)
    program = mistake.command.split()[0]
    assert line.startswith(f"{program}: " if program != "fashion-hydra" else "fashion-hydra ")


def test_the_page_and_the_catalogue_agree():
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 and row[1].strip() and row[2].strip(" |") for row in rows)
    shown = {row[0].removeprefix("| ").strip("` ") for row in rows}
    assert shown == {mistake.told for mistake in CATALOGUE} | {MADE_BY_MAKE}
    assert len(CATALOGUE) >= 30


def typed(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    """A command as a shell starts it, from a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.py", "data.batch_size=two"], "train.py: data.batch_size=two: a whole number expected, such as 2"),
        (["predict.py", "data.root=x"], "predict.py: no training run below runs: give checkpoint=FILE, "),
        (["tune_thresholds.py", "pooling=null"], "tune_thresholds.py: pooling=null: a value expected, such as class"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_script_says_one_line_and_ends_with_2(tmp_path, words, line):
    done = typed(tmp_path, sys.executable, str(PROJECT_ROOT / words[0]), *words[1:])
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


def test_what_is_told_has_an_end():
    """Values that fuzzing made filled whole screens, and hid what to do."""
    told = str(UserError(f"data.root={'9' * 10**6}: no such folder. Give a folder with train.csv"))
    assert len(told) < 1600
    assert told.startswith("data.root=999")
    assert told.endswith("999: no such folder. Give a folder with train.csv")
    assert str(UserError("short")) == "short"


def test_debug_shows_the_traceback(tmp_path):
    done = typed(tmp_path, sys.executable, str(PROJECT_ROOT / "train.py"), "debug=true", "ckpt_path=missing.ckpt")
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr
    command = [sys.executable, "-c", "from fashion_hydra.cli.main import main; main()"]
    done = typed(tmp_path, *command, "--debug", "score", "a.csv", "b.csv")
    assert "Traceback" in done.stderr
    done = typed(tmp_path, *command, "scor", "a.csv", "b.csv")
    assert "invalid choice: 'scor' (choose from" in done.stderr.splitlines()[-1]


def test_make_says_which_python_it_needs(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.version_info = (3, 9, 1, 'final', 0)\n$2\"\n"
    )
    old.chmod(0o755)
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / file, tmp_path)
    done = typed(tmp_path, "make", "setup", f"PYTHON={old}")
    assert re.search(pattern_of(MADE_BY_MAKE), done.stderr), done.stderr
    assert f"{old} is 3.9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


# What must work.
NAME = "mäntel = röcke, (neu) [2] 'x'"


@pytest.fixture
def strange(wardrobe, tmp_path):
    """The data set in a folder whose name has everything that a name may have."""
    (tmp_path / NAME).mkdir()
    return shutil.copytree(wardrobe, tmp_path / NAME / "wardrobe")


def test_strange_names_work_from_any_folder(strange, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / NAME)
    places = {"DATA": Path("wardrobe"), "WHOLE": strange, "OUT": tmp_path / NAME / "out=1"}
    assert called(TRAIN + "hydra.run.dir=OUT", places) == 0, capsys.readouterr().err
    assert called(PREDICT.replace("DATA", "WHOLE") + "ensemble.run=OUT out=OUT/predicted", places) == 0
    assert (places["OUT"] / "predicted" / "submission.csv").is_file()
    assert called("fashion-hydra check WHOLE --quick", places) == 1  # it has two faults by design


@pytest.mark.parametrize(
    "change",
    [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n"), lambda text: text.rstrip("\n")],
    ids=["BOM", "Windows", "no last line end"],
)
def test_what_spreadsheet_programs_do_to_files_does_no_harm(wardrobe, tmp_path, change):
    from fashion_hydra.data.kaggle import read_annotations

    for name in ("train.csv", "label_descriptions.json"):
        folder = changed(wardrobe, tmp_path / name, name, change((wardrobe / name).read_text()).encode())
        annotations, faults = read_annotations(folder)
        plain, known = read_annotations(wardrobe)
        assert annotations.image_ids.tolist() == plain.image_ids.tolist()
        assert (annotations.runs == plain.runs).all()
        assert len(faults) == len(known)


def test_a_read_only_cache_is_done_without(wardrobe, placed, monkeypatch):
    from fashion_hydra.data.kaggle import read_annotations

    monkeypatch.setenv("FASHION_HYDRA_CACHE", str(placed("READ_ONLY")["READ_ONLY"]))
    assert len(read_annotations(wardrobe)[0]) == 18


@pytest.mark.parametrize("file", ["manifest.json", "boxes.npy", "records.json", "faults.csv"])
def test_a_damaged_cache_is_made_anew(wardrobe, tmp_path, monkeypatch, file):
    from fashion_hydra.data.kaggle import read_annotations

    monkeypatch.setenv("FASHION_HYDRA_CACHE", str(tmp_path))
    whole, known = read_annotations(wardrobe)
    boxes = whole.boxes.tolist()
    [kept] = tmp_path.glob(f"records-*/{file}")
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    again, faults = read_annotations(wardrobe)
    assert again.boxes.tolist() == boxes
    assert again.names == whole.names
    assert faults == known


def test_a_sweep_needs_no_folder_named(trained, tmp_path, monkeypatch, capsys):
    """The folder of the answers is by default named by groups, which Hydra's own resolver does not know yet."""
    monkeypatch.chdir(tmp_path)
    places = {"USED": trained.parent / "used", "TRUTH": tmp_path / "truth.csv"}
    with (places["USED"] / "submission.csv").open() as stream:
        image = next(csv.DictReader(stream))["ImageId"]
    places["TRUTH"].write_text(f"ImageId,EncodedPixels,ClassId\n{image},1 9,23\n")
    sweep = "postprocess.score_thr=0.3,0.4 candidates.folder=USED truth=TRUTH -m"
    assert called(TUNE + sweep, places) == 0, capsys.readouterr().err
    [table] = tmp_path.glob("tuned/run-single-own/sweeps/*/sweep.csv")
    assert len(table.read_text().splitlines()) == 3
