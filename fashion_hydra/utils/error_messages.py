"""Turn any exception into a one-line message: what is wrong, the value, what to do; or that it is a bug.

PyTorch, Lightning and the system name neither the option to change nor a fix. `KNOWN_ERRORS` and `SYSTEM_ERRORS` add
both for the errors that users meet.
"""

import errno
import re
import traceback
from pathlib import Path
from typing import NamedTuple

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line


class KnownError(NamedTuple):
    """The message for a library's exception.

    Args:
        kind: name of the exception's class or of one of its base classes.
        pattern: regular expression to search in the exception's text, ignoring case.
        training: the message; `{0}` is the pattern's first group, or the whole text if that group is empty.
        predicting: the message for programs that do not train; if empty, `training` is used.
    """

    kind: str
    pattern: str
    training: str
    predicting: str = ""


_GPU_FULL = "the GPU's memory is full ({0}). "
_RAM_FULL = "the machine's memory is full ({0}). "
_TRAIN_SMALLER = (
    "Lower data.batch_size or augment.long_edge, or set model.gradient_checkpointing=true or "
    "trainer.precision=bf16-mixed; trainer.accumulate_grad_batches keeps the effective batch size"
)
_PREDICT_SMALLER = (
    "Use smaller or fewer tta.scales (tta=single is one), inference.in_flight=1, inference.feature_cache=host, or "
    "trainer.precision=bf16-mixed"
)
_FEWER_WORKERS = "Lower data.num_workers (0: no loader processes)"
_TOO_MANY_FILES = f"{_FEWER_WORKERS}, or raise the limit: ulimit -n 65536"
_PORT = "Stop that run, or choose another port: MASTER_PORT=29501"
_NO_SPACE = (
    "no space left on the device. Free space, or write elsewhere: {where}. Files written before are intact, and the "
    "same command resumes"
)

KNOWN_ERRORS = (
    KnownError(
        "OutOfMemoryError",
        r"(tried to allocate [\d.]+ \w+|$)",
        _GPU_FULL + _TRAIN_SMALLER,
        _GPU_FULL + _PREDICT_SMALLER,
    ),
    KnownError(
        "RuntimeError",
        r"can't allocate memory: (you tried to allocate \d+ bytes)",
        _RAM_FULL + _TRAIN_SMALLER,
        _RAM_FULL + _PREDICT_SMALLER,
    ),
    KnownError("MemoryError", r"(.*)", _RAM_FULL + _TRAIN_SMALLER, _RAM_FULL + _PREDICT_SMALLER),
    KnownError(
        "RuntimeError",
        r"(bus error|unable to (?:write to|open|allocate) (?:shared memory|file)[^.]*/(?:dev/shm|torch_))",
        "the loader processes ran out of shared memory ({0}). Set data.num_workers=0, or provide more: docker run "
        "--shm-size 16g, or a larger /dev/shm",
    ),
    KnownError(
        "RuntimeError",
        r"DataLoader worker.*(killed by signal: killed|exited unexpectedly)",
        f"a loader process was killed ({{0}}), usually because the machine's memory is full. {_FEWER_WORKERS}",
    ),
    KnownError(
        "RuntimeError",
        r"(too many open files|received 0 items of ancdata)",
        f"too many files are open ({{0}}). {_TOO_MANY_FILES}",
    ),
    KnownError(
        "RuntimeError",
        r"(?:(port: \d+).*)?(?:EADDRINUSE|address already in use)",
        f"a network port is in use, perhaps by another run ({{0}}). {_PORT}",
    ),
    KnownError(
        "RuntimeError",
        r"(NCCL error|Connection closed by peer|Connection reset by peer|timed out waiting for clients)",
        "the processes of this run lost their connection ({0}). See the first error above. Start all processes "
        "again with ckpt_path=last to resume",
    ),
    KnownError(
        "RuntimeError",
        r"(driver on your system is too old[^.]*|no kernel image is available|no NVIDIA driver)",
        "PyTorch cannot use this GPU ({0}). Update the driver, or set trainer.accelerator=cpu",
    ),
    KnownError("RuntimeError", r"(PytorchStreamWriter|inline_container|unexpected pos)", _NO_SPACE),
    KnownError(
        "RuntimeError",
        r"loading state_dict.*?((?:size mismatch|missing key|unexpected key)[^\n]*)",
        "the checkpoint is of another model ({0}). Choose the model=... and classes=... that it was trained with, or "
        "give the file as weights= instead of ckpt_path=",
    ),
    KnownError(
        "KeyError",
        r"(pytorch-lightning_version)",
        "the checkpoint holds no training state to resume from ({0} is missing). Give it as weights= instead of "
        "ckpt_path=, or another checkpoint of the run, such as checkpoints/epoch*.ckpt",
    ),
    KnownError(
        "ValueError",
        r"(no valid anchor inside the image)",
        "an image is too small or too narrow for the model's anchors ({0}). Raise augment.long_edge and "
        "augment.short_edge, or lower model.anchor_scale",
    ),
    KnownError(
        "Exception",
        r"(?:early stopping conditioned on metric |monitor=)['`](.+?)['`]",
        "the metric {0}, which a callback monitors, is not logged. Available: val/score, val/AP, val/AP50 and val/AP75 "
        "after each validation, and train/loss",
    ),
    KnownError(
        "Error",
        r"(api.key not configured|no api key configured|not logged in|permission denied|unauthorized|"
        r"error communicating with wandb|network error|timed out|run initialization has timed out)",
        "Weights & Biases cannot be reached ({0}). Run `wandb login`, or set logger.wandb.offline=true and upload the "
        "run later, or set logger=csv",
    ),
    KnownError(
        "ModuleNotFoundError",
        r"No module named '([\w.]+)'",
        'the package {0} is not installed. Run `make setup`; for clusters, pip install "fashion-hydra[slurm]"',
    ),
    KnownError(
        "UncompletedJobError",
        r"path (\S+?\.submitit)\S*.*?\n\w+\.py: ([^\n]*)",
        "{1} (a job of the launcher; its full log is in {0})",
    ),
    KnownError("UncompletedJobError", r"path (\S+?\.submitit)", "a job of the launcher ended early. Its log is in {0}"),
    KnownError("MisconfigurationException", r"(.*?)\.?$", "{0}. `--help` lists the options"),
)

_READ_OR_WRITE = "cannot be read or written ({reason}). Change its permissions, or choose another place: {where}"
SYSTEM_ERRORS = {
    errno.ENOENT: "no such file or folder. Check the name",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "a file is where a folder is needed. Remove it, or choose another folder",
    errno.EEXIST: "a file is where a folder is needed. Remove it, or choose another folder",
    errno.EACCES: _READ_OR_WRITE,
    errno.EPERM: _READ_OR_WRITE,
    errno.EROFS: _READ_OR_WRITE,
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EMFILE: f"too many files are open. {_TOO_MANY_FILES}",
    errno.ENOMEM: f"the machine's memory is full. {_FEWER_WORKERS}",
    errno.EADDRINUSE: f"a network port is in use, perhaps by another run. {_PORT}",
}
OUTPUT_OPTIONS = {
    "train.py": "paths.runs=FOLDER (FASHION_HYDRA_CACHE=FOLDER for the annotation cache)",
    "predict.py": "out=FOLDER",
    "tune_thresholds.py": "out=FOLDER",
}


def describe_error(error: BaseException, program: str) -> tuple[str, int]:
    """Return the one-line message for an exception and the exit code.

    Args:
        error: the exception that ended the program.
        program: name of the script, such as `train.py`, or of the subcommand of `fashion-hydra`.

    Returns:
        The message, and the exit code: 2 for a user error or a limit of the machine, 130 for Ctrl-C, 1 for a bug.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    message = _user_message(error, program)
    if message is not None:
        return one_line(message), 2
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "fashion_hydra" in Path(frame.filename).parts] or frames
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    option = "traceback=true" if program in OUTPUT_OPTIONS else "--debug"
    return one_line(
        f"this is a bug in fashion_hydra, {type(error).__name__}{place}: {str(error)[:300]}. Please report it with the "
        f"traceback, which {option} shows"
    ), 1


def _user_message(error: BaseException, program: str) -> str | None:
    """Return the message for a user error or a limit of the machine; None for anything else."""
    message = str(error)
    if "in DataLoader worker process" in message:  # the worker's traceback, whose last line is the error
        message = message.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, UserError):
        return message
    where = OUTPUT_OPTIONS.get(program, "--out, or another folder")
    names = {kind.__name__ for kind in type(error).__mro__}
    for known in KNOWN_ERRORS:
        if known.kind in names and (found := re.search(known.pattern, message, re.IGNORECASE | re.DOTALL)):
            text = known.training if program == "train.py" or not known.predicting else known.predicting
            groups = [one_line(group or message, 200) for group in found.groups("")]
            return text.format(*groups, where=where).replace(" ()", "")
    if not isinstance(error, OSError):
        return None
    if (meaning := SYSTEM_ERRORS.get(error.errno or 0)) is None:
        return message
    return _path_prefix(error.filename2 or error.filename) + meaning.format(reason=error.strerror, where=where)


def _path_prefix(path: object) -> str:
    """Return `PATH: ` with the final name of a temporary file, or an empty text if there is no path."""
    if path is None or isinstance(path, int):
        return ""
    shown = path.decode(errors="replace") if isinstance(path, bytes) else str(path)
    return re.sub(r"(^|/)\.([^/]+)\.\d+\.part$", r"\1\2", shown) + ": "
