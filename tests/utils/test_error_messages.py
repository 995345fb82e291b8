"""Every error becomes one line: exceptions as raised by libraries, exit codes, and tracebacks on request."""

import errno
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from submitit.core.utils import UncompletedJobError
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from fashion_hydra.cli.main import main as cli
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.utils.error_messages import describe_error
from fashion_hydra.utils.errors import UserError
from tests.helpers import matches_message, run_script

CUDA_FULL = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 GiB is free. "
    "Process 1 has 78.04 GiB memory in use. See documentation for Memory Management"
)
BUS_ERROR = (
    "DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)
SHARED_MEMORY = "unable to write to file </torch_512_1_0>: No space left on device (28)"
JOB = "Job 7 (task: 0) with path /runs/demo/1/.submitit/7/7_0_result.pkl\nhas not produced any output (state: FINISHED)"
JOB_WITH_LINE = (
    f"{JOB}\nError stream produced:\n----------\ntrain.py: data.root=nowhere: no such folder. Give a folder\n"
)
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"
NO_KEY = wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")


def listen_on_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        torch.distributed.TCPStore("127.0.0.1", taken.getsockname()[1], is_master=True, world_size=1)


class Killed:
    """A data set whose item kills the loader process."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def lose_a_loader_process() -> None:
    list(DataLoader(Killed(), num_workers=1))  # type: ignore[arg-type]


def read_a_broken_image_in_a_loader_process() -> None:
    try:
        raise UserError("a.jpg: cannot be decoded (image file is truncated); replace or delete the file")
    except UserError:
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()  # as DataLoader re-raises errors


def load_weights_of_another_shape() -> None:
    torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(3, 2).state_dict())


class NoModel(pl.LightningModule):
    def training_step(self, batch: object, index: int) -> None: ...

    def configure_optimizers(self) -> None: ...


def resume_from_plain_weights(path: Path) -> None:
    torch.save({"state_dict": {}}, path / "a.ckpt")
    trainer = pl.Trainer(accelerator="cpu", logger=False, max_epochs=1, default_root_dir=path)
    trainer.fit(NoModel(), DataLoader([0]), ckpt_path=path / "a.ckpt")  # type: ignore[arg-type]


def write_to_a_full_device() -> None:
    with open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"1")


GPU = "the GPU's memory is full (…). Lower data.batch_size or augment.long_edge, or set …"
GPU_PREDICT = (
    "the GPU's memory is full (…). Use smaller or fewer tta.scales (tta=single is one), inference.in_flight=1, …"
)
RAM = "the machine's memory is full…. …"
WORKER = "a loader process was killed (…), usually because the machine's memory is full. …"
SHARED = "the loader processes ran out of shared memory (…). Set data.num_workers=0, or provide more: …"
FILES = "too many files are open…. Lower data.num_workers …"
PORT = "a network port is in use, perhaps by another run…. …"
LOST = "the processes of this run lost their connection (…). …"
DRIVER = "PyTorch cannot use this GPU (…). Update the driver, or set trainer.accelerator=cpu"
WEIGHTS = "the checkpoint is of another model (…). Choose the model=… …"
STATE = "the checkpoint holds no training state to resume from (…). …"
ANCHORS = "an image is too small or too narrow for the model's anchors (…). …"
STOPPING = "Early stopping conditioned on metric `val/map` which is not available. Pass in or modify ..."
CHECKPOINT = "`ModelCheckpoint(monitor='val/map')` could not find the monitored key in the returned metrics: ..."
METRIC = "the metric …, which a callback monitors, is not logged. Available: …"
WANDB = "Weights & Biases cannot be reached (…). Run `wandb login`, or set logger.wandb.offline=true …"
PACKAGE = "the package … is not installed. Run `make setup`; for clusters, …"
LAUNCHER = "… (a job of the launcher; its full log is in …)"
IMAGE = "…: cannot be decoded (…); replace or delete the file"
SPACE = "…no space left on the device. Free space, or write elsewhere: …"
NO_FILE = "…: no such file or folder. Check the name"
FOLDER = "…: is a folder; name a file"
IN_THE_WAY = "…: a file is where a folder is needed. Remove it, or choose another folder"
PERMISSION = "…: cannot be read or written (…). Change its permissions, or choose another place: …"
INTERRUPTED = "interrupted"
BUG = "this is a bug in fashion_hydra, … Please report it with the traceback, which … shows"

Raises = Callable[..., Any] | BaseException  # raises the error; or the error, if raising takes a cluster
CASES: list[tuple[str, str, str, Raises]] = [  # program, message, value in the message, source of the error
    ("train.py", GPU, "tried to allocate 2.50 GiB", torch.OutOfMemoryError(CUDA_FULL)),
    ("predict.py", GPU_PREDICT, "tried to allocate 2.50 GiB", torch.OutOfMemoryError(CUDA_FULL)),
    ("train.py", RAM, "you tried to allocate 4000000000000000 bytes", lambda: torch.empty(10**15)),
    ("train.py", RAM, "is full. Lower data.batch_size", lambda: bytearray(1 << 62)),
    ("tune_thresholds.py", RAM, "is full. Use smaller or fewer tta.scales", lambda: bytearray(1 << 62)),
    ("train.py", RAM, "Lower data.num_workers", OSError(errno.ENOMEM, "Cannot allocate memory")),
    ("train.py", WORKER, "exited unexpectedly", lose_a_loader_process),
    ("train.py", IMAGE, "a.jpg", read_a_broken_image_in_a_loader_process),
    ("train.py", SHARED, "bus error", RuntimeError(BUS_ERROR)),
    ("train.py", SHARED, "torch_", RuntimeError(SHARED_MEMORY)),
    ("train.py", FILES, "(too many", RuntimeError("Too many open files. Communication with the workers is ...")),
    ("train.py", FILES, "ulimit -n", OSError(errno.EMFILE, "Too many open files")),
    ("train.py", PORT, "(port: ", listen_on_a_port_in_use),
    ("train.py", PORT, "MASTER_PORT", OSError(errno.EADDRINUSE, "Address already in use")),
    ("train.py", LOST, "Connection closed", RuntimeError("[gloo] Connection closed by peer [10.0.0.1]:29500")),
    ("train.py", DRIVER, "driver on your system is too old", RuntimeError(OLD_DRIVER)),
    ("train.py", WEIGHTS, "size mismatch for weight", load_weights_of_another_shape),
    ("train.py", STATE, "lightning", resume_from_plain_weights),
    ("train.py", METRIC, "val/map", RuntimeError(STOPPING)),
    ("train.py", METRIC, "val/map", MisconfigurationException(CHECKPOINT)),
    ("train.py", ANCHORS, "no valid", ValueError("There is no valid anchor inside the image boundary.")),
    ("train.py", WANDB, "api key", NO_KEY),
    ("train.py", LAUNCHER, "nowhere: no such folder", UncompletedJobError(JOB_WITH_LINE)),
    ("train.py", "a job of the launcher ended early. Its log is in …", "/runs/demo/1/", UncompletedJobError(JOB)),
    ("train.py", PACKAGE, "no_such_package", lambda: importlib.import_module("no_such_package")),
    ("train.py", "…. `--help` lists the options", "devices=0", lambda: pl.Trainer(devices=0, accelerator="cpu")),
    ("train.py", SPACE, "paths.runs=FOLDER", lambda: torch.save({"a": torch.zeros(999)}, "/dev/full")),
    ("predict.py", SPACE, "out=FOLDER", write_to_a_full_device),
    ("split", SPACE, "--out", write_to_a_full_device),
    ("score", NO_FILE, "a.csv", lambda path: (path / "a.csv").open()),
    ("score", FOLDER, "test_", lambda path: path.open()),
    ("predict.py", IN_THE_WAY, "hosts", lambda: Path("/etc/hosts").mkdir()),
    ("predict.py", IN_THE_WAY, "hosts/out", lambda: Path("/etc/hosts/out").mkdir()),
    ("train.py", PERMISSION, "version", lambda: Path("/proc/version").unlink()),
]  # fmt: skip


def raised_by(source: Raises, path: Path) -> BaseException:
    if isinstance(source, BaseException):
        return source
    with pytest.raises(Exception) as caught:
        source(*([path] if "path" in source.__code__.co_varnames else []))
    return caught.value


@pytest.mark.parametrize(("program", "message", "value", "source"), CASES)
def test_an_error_of_a_library_becomes_one_line_with_advice(tmp_path, program, message, value, source):
    line, code = describe_error(raised_by(source, tmp_path), program)
    assert matches_message(message, line), line
    assert value.lower() in line.lower()
    assert "\n" not in line
    assert code == 2


def test_a_bug_is_reported_with_its_place():
    from fashion_hydra.structures.rle import runs_to_coco

    with pytest.raises(TypeError) as caught:
        runs_to_coco(None, height=2, width=2)
    line, code = describe_error(caught.value, "score")
    assert matches_message("this is a bug in fashion_hydra, TypeError at rle.py:…: …, which --debug shows", line)
    assert code == 1


def test_a_temporary_file_has_the_name_that_the_user_knows():
    error = OSError(errno.ENOSPC, "No space left on device", "runs/demo/.last.ckpt.4711.part")
    assert describe_error(error, "train.py")[0].startswith("runs/demo/last.ckpt: no space left on the device")


def test_a_long_value_leaves_the_advice_visible():
    """Values from fuzzing filled whole screens and hid the advice."""
    text = str(UserError(f"data.root={'9' * 10**6}: no such folder. Give a folder with train.csv"))
    assert len(text) < 1600
    assert text.startswith("data.root=999")
    assert text.endswith("999: no such folder. Give a folder with train.csv")
    assert str(UserError("short")) == "short"


# Exit codes. Scripts run in this process if an error must be injected, otherwise as processes.
WORKFLOWS = {
    "train.py": "fashion_hydra.workflows.train.build_training",
    "predict.py": "fashion_hydra.workflows.predict.predict",
    "tune_thresholds.py": "fashion_hydra.workflows.tune.tune",
}
ENDINGS = [
    (UserError("data.root=x: no such folder"), "data.root=x: no such folder", 2),
    (KeyError("size"), BUG, 1),
    (KeyboardInterrupt(), INTERRUPTED, 130),
]


def fail_with(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("script", WORKFLOWS)
def test_exit_codes_of_a_script(tmp_path, monkeypatch, capsys, script):
    monkeypatch.chdir(tmp_path)
    for error, message, expected in ENDINGS:
        monkeypatch.setattr(WORKFLOWS[script], fail_with(error))
        code = run_script(script, f"hydra.run.dir={tmp_path}")
        output = capsys.readouterr().err
        assert "Traceback" not in output
        line = output.splitlines()[-1]
        assert line.startswith(f"{script}: ")
        assert matches_message(message, line.removeprefix(f"{script}: ")), line
        assert code == expected
    monkeypatch.setattr(WORKFLOWS[script], fail_with(KeyError("size")))
    with pytest.raises(KeyError, match="size"):
        run_script(script, f"hydra.run.dir={tmp_path}", "traceback=true")


def test_exit_codes_of_the_console_script(monkeypatch, capsys):
    words = ["score", "a.csv", "b.csv"]
    for error, message, expected in ENDINGS:
        monkeypatch.setattr("fashion_hydra.cli.score.run", fail_with(error))
        assert cli(words) == expected
        output = capsys.readouterr().err
        assert output.count("\n") == 1
        assert matches_message(message, output.removeprefix("fashion-hydra score: ").strip()), output
        with pytest.raises(type(error)):  # Python prints the traceback
            cli(["--debug", *words])
    with pytest.raises(SystemExit):
        cli(["scor", "a.csv", "b.csv"])
    assert "invalid choice: 'scor' (choose from" in capsys.readouterr().err.splitlines()[-1]


def run_process(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("script", "word", "line"),
    [
        ("train.py", "data.folds=two", "train.py: data.folds=two: must be a whole number, such as 10"),
        ("predict.py", "data.root=x", "predict.py: no training run below runs: train a model first, or "),
        (
            "tune_thresholds.py",
            "score.pooling=null",
            "tune_thresholds.py: score.pooling=null: must have a value, such as class",
        ),
    ],
)
def test_a_script_prints_one_line_and_exits_with_2(tmp_path, script, word, line):
    """The script runs as a process: predict.py has loaded PyTorch by then, and no library prints a line."""
    done = run_process(tmp_path, sys.executable, str(PROJECT_ROOT / script), word)
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


def test_traceback_shows_the_traceback(tmp_path):
    done = run_process(
        tmp_path, sys.executable, str(PROJECT_ROOT / "train.py"), "traceback=true", "data.batch_size=two"
    )
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr
    command = [sys.executable, "-c", "from fashion_hydra.cli.main import main; main()"]
    assert "Traceback" in run_process(tmp_path, *command, "--debug", "score", "a.csv", "b.csv").stderr
