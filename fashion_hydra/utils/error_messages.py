"""Any exception -> one line for a person: what is wrong, the value, what to do; or that it is a bug.

What PyTorch, Lightning and the system raise says neither which option is at fault nor what to do; `KNOWN_ERRORS` and
`SYSTEM_ERRORS` say it for what users meet.
"""

import errno
import re
import traceback
from pathlib import Path
from typing import NamedTuple

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line


class KnownError(NamedTuple):
    """What to say of a library's exception.

    Args:
        kind: name of the exception's class or of one of its bases.
        pattern: looked for in its message; case does not count.
        training: what is said; groups of the pattern stand in braces, by number.
        predicting: the same where no model is trained; empty for the same words.
    """

    kind: str
    pattern: str
    training: str
    predicting: str = ""


_GPU_FULL = "the GPU's memory is full ({0}). "
_RAM_FULL = "the machine's memory is full ({0}). "
_TRAIN_SMALLER = (
    "Lower data.batch_size or augment.long_edge, or give model.gradient_checkpointing=true or "
    "trainer.precision=bf16-mixed; trainer.accumulate_grad_batches keeps the batch of a step"
)
_PREDICT_SMALLER = (
    "Give smaller or fewer tta.scales (tta=single is one), inference.in_flight=1, inference.feature_cache=host, or "
    "trainer.precision=bf16-mixed"
)
_FEWER_WORKERS = "Give fewer data.num_workers (0: no loader processes)"
_NO_SPACE = (
    "no space left on the device. Make room, or write elsewhere: {where}. What was there before is whole, and the same "
    "command goes on"
)
_NO_STATE = (
    "a checkpoint holds no state to go on from ({0}). Give it as weights= in place of ckpt_path=, or give another one "
    "of the run, such as checkpoints/epoch*.ckpt"
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
        "the loader processes have too little shared memory ({0}). Give data.num_workers=0, or more of it: docker run "
        "--shm-size 16g, or a larger /dev/shm",
    ),
    KnownError(
        "RuntimeError",
        r"DataLoader worker.*(killed by signal: killed|exited unexpectedly)",
        "a loader process was ended from outside ({0}), most often because the machine's memory is full. "
        + _FEWER_WORKERS,
    ),
    KnownError(
        "RuntimeError",
        r"(too many open files|received 0 items of ancdata)",
        "too many files are open ({0}). " + _FEWER_WORKERS + ", or raise the limit: ulimit -n 65536",
    ),
    KnownError(
        "RuntimeError",
        r"(?:port: (\d+).*)?(?:EADDRINUSE|address already in use)",
        "port {0} of this machine is taken, perhaps by a run that still goes on. End that one, or choose another "
        "port: MASTER_PORT=29501",
    ),
    KnownError(
        "RuntimeError",
        r"(NCCL error|Connection closed by peer|Connection reset by peer|timed out waiting for clients)",
        "the processes of this run lost one another ({0}). The first of them that ended says why, above; start all of "
        "them again, with ckpt_path=last to go on",
    ),
    KnownError(
        "RuntimeError",
        r"(driver on your system is too old[^.]*|no kernel image is available|no NVIDIA driver)",
        "PyTorch cannot use this GPU ({0}). Update the driver, or give trainer.accelerator=cpu",
    ),
    KnownError("RuntimeError", r"(PytorchStreamWriter|inline_container|unexpected pos)", _NO_SPACE),
    KnownError(
        "RuntimeError",
        r"loading state_dict.*?((?:size mismatch|missing key|unexpected key)[^\n]*)",
        "the checkpoint's weights are of another model ({0}). Choose the same model=... and classes=... as then, or "
        "give the file as weights= in place of ckpt_path=",
    ),
    KnownError("KeyError", r"(pytorch-lightning_version)", _NO_STATE),
    KnownError(
        "ValueError",
        r"(no valid anchor inside the image)",
        "an image is too small or too narrow for the model's anchors ({0}). Raise augment.long_edge and "
        "augment.short_edge, or lower model.anchor_scale",
    ),
    KnownError(
        "Error",
        r"(api.key not configured|no api key configured|not logged in|permission denied|unauthorized|"
        r"error communicating with wandb|network error|timed out|run initialization has timed out)",
        "Weights & Biases cannot be reached ({0}). Run `wandb login`, or give logger.wandb.offline=true and send the "
        "record later, or logger=csv",
    ),
    KnownError(
        "ModuleNotFoundError",
        r"No module named '([\w.]+)'",
        'the package {0} is not installed. Run `make setup`; for clusters pip install "fashion-hydra[slurm]"',
    ),
    KnownError(
        "UncompletedJobError",
        r"path (\S+?\.submitit)\S*.*?\n\w+\.py: ([^\n]*)",
        "{1} (a job of the launcher; its whole log is in {0})",
    ),
    KnownError(
        "UncompletedJobError", r"path (\S+?\.submitit)", "a job of the launcher ended early; its log in {0} says why"
    ),
    KnownError("MisconfigurationException", r"(.*)", "{0}. `--help` lists the options"),
)

_READ_OR_WRITE = "cannot be read or written ({reason}). Ask for the right, or choose another place: {where}"
SYSTEM_ERRORS = {
    errno.ENOENT: "no such file or folder. Check the name",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "a file is where a folder is wanted. Remove it, or name another folder",
    errno.EEXIST: "a file is where a folder is wanted. Remove it, or name another folder",
    errno.EACCES: _READ_OR_WRITE,
    errno.EPERM: _READ_OR_WRITE,
    errno.EROFS: _READ_OR_WRITE,
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EMFILE: "too many files are open. " + _FEWER_WORKERS + ", or raise the limit: ulimit -n 65536",
    errno.ENOMEM: "the machine's memory is full. " + _FEWER_WORKERS,
    errno.EADDRINUSE: "a port of this machine is taken. Choose another: MASTER_PORT=29501",
}
OUTPUT_OPTIONS = {
    "train.py": "paths.runs=FOLDER (FASHION_HYDRA_CACHE=FOLDER for what is kept of data)",
    "predict.py": "out=FOLDER",
    "tune_thresholds.py": "out=FOLDER",
}


def describe_error(error: BaseException, program: str) -> tuple[str, int]:
    """What to say of an exception, in one line, and the exit code: 2 for a mistake of the user's, 1 for a bug.

    Args:
        error: whatever ended the program.
        program: the script's name, or the command's.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    line = _known(error, program)
    if line is not None:
        return one_line(line), 2
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "fashion_hydra" in Path(frame.filename).parts] or frames
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    how = "debug=true" if program in OUTPUT_OPTIONS else "--debug"
    return one_line(
        f"this is a bug in fashion_hydra, {type(error).__name__}{place}: {str(error)[:300]}. Please report it with the "
        f"traceback, which {how} shows"
    ), 1


def _known(error: BaseException, program: str) -> str | None:
    """What to say of a user's mistake or of what the machine lacks; None for anything else."""
    message = str(error)
    if "in DataLoader worker process" in message:  # the worker's traceback; its last line is the error
        message = message.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, UserError):
        return message
    where = OUTPUT_OPTIONS.get(program, "--out, or another folder")
    names = {kind.__name__ for kind in type(error).__mro__}
    for advice in KNOWN_ERRORS:
        if advice.kind in names and (found := re.search(advice.pattern, message, re.IGNORECASE | re.DOTALL)):
            text = advice.training if program == "train.py" or not advice.predicting else advice.predicting
            groups = [one_line(group or message, 200) for group in found.groups("")]
            return text.format(*groups, where=where)
    if not isinstance(error, OSError):
        return None
    path = _meant(error.filename2 or error.filename)
    if (meaning := SYSTEM_ERRORS.get(error.errno or 0)) is None:
        return message
    return path + meaning.format(reason=error.strerror, where=where)


def _meant(path: object) -> str:
    """A path as the user knows it, without what a file is called until it is whole."""
    if path is None or isinstance(path, int):
        return ""
    shown = path.decode(errors="replace") if isinstance(path, bytes) else str(path)
    return re.sub(r"(^|/)\.([^/]+)\.\d+\.part$", r"\1\2", shown) + ": "
