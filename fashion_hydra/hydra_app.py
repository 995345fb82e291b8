"""The helper beside the entry scripts: resolvers, errors in one line, config -> objects."""

import datetime
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.data.classes import ClassSet, find_category
from fashion_hydra.errors import UserError
from fashion_hydra.mistakes import told
from fashion_hydra.options import readable, refusal

if TYPE_CHECKING:  # `--help` shall not wait for torch
    from fashion_hydra.expected import Calibration
    from fashion_hydra.postprocess import Postprocess

T = TypeVar("T")
PROJECT_ROOT = Path(__file__).resolve().parent.parent
_TRACEBACKS = "FASHION_HYDRA_TRACEBACKS"
_STAMP = "%Y-%m-%d_%H-%M-%S"


def register_resolvers() -> None:
    """Make known to the config: `${project_root:}`, `${run_dir:...}`, `${record_id:FOLDER}`, the name of a run's record
    with a tracker, `${leaf:PATH,WITHOUT}`, a path's last name, and `${choice:GROUP}`, what a group was chosen to be."""
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("record_id", record_id, replace=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)
    OmegaConf.register_new_resolver("leaf", lambda path, without: Path(path).name if path else without, replace=True)


def choice(group: str, *, _root_: DictConfig) -> str:
    """What a group was chosen to be; unlike Hydra's own resolver also while a multirun begins."""
    hydra = _root_.hydra if "hydra" in _root_ else HydraConfig.get()
    return str(hydra.runtime.choices[group])


def run_dir(runs: str, name: str, ckpt_path: str | None) -> str:
    """The folder of a run: a new one by date, or with `ckpt_path=last` the newest that has a checkpoint, if any.

    Processes that torchrun or srun started name it by their job, or each might read another second from its clock.
    """
    if ckpt_path == "last" and (found := newest_checkpoint(Path(runs) / name)):
        return str(found.parent.parent)
    return str(Path(runs) / name / (_job_name() or datetime.datetime.now().strftime(_STAMP)))


def _job_name() -> str | None:
    """What the processes of a job on several devices, started from outside, have in common; None for others."""
    if (torchrun := os.environ.get("TORCHELASTIC_RUN_ID")) is not None:
        return f"torchrun-{os.getppid() if torchrun == 'none' else torchrun}"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    return None


def join_local_job() -> None:
    """Tell Lightning, before it is imported, of the tasks that submitit started on this machine as one job.

    Those of SLURM and torchrun it finds itself.
    """
    job = {name: os.environ.get(f"SUBMITIT_LOCAL_{name}", "1") for name in ("NTASKS", "LOCALID", "JOB_ID")}
    if int(job["NTASKS"]) > 1:
        port = 20000 + int(hashlib.sha256(job["JOB_ID"].encode()).hexdigest(), 16) % 40000
        os.environ |= {"WORLD_SIZE": job["NTASKS"], "LOCAL_RANK": job["LOCALID"], "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def record_id(folder: str) -> str:
    """The same for a run that goes on in its folder, so that its record goes on too."""
    return hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:12]


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of any run below a folder."""
    found = sorted(folder.glob("*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def one_line_errors(task: Callable[[], T]) -> Callable[[], T]:
    """Decorate an entry script's main: whatever ends it becomes one line, see `told_in_one_line`.

    Tracebacks stay with `debug=true` or HYDRA_FULL_ERROR=1.
    """

    @functools.wraps(task)
    def wrapped() -> T:
        wanted = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in [a.lower() for a in sys.argv]
        os.environ.setdefault(_TRACEBACKS, str(int(wanted)))  # processes that this one starts find it set
        sys.argv[1:] = readable([word for given in sys.argv[1:] for word in _tuned_file(given)])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # the same bits for any number of threads, at no cost
        return told_in_one_line(task)

    return wrapped


def _tuned_file(word: str) -> list[str]:
    """`postprocess=FILE.yaml` in the words that Hydra knows, everything else as it is."""
    group, _, value = word.partition("=")
    if group != "postprocess" or not value.endswith(".yaml"):
        return [word]
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return ["postprocess=tuned", f"postprocess.file='{quoted}'"]


def told_in_one_line(task: Callable[[], T]) -> T:
    """Do the task; a mistake of the user's ends the program with one line and exit code 2, a bug with 1.

    Called inside Hydra's main too, because Hydra says a line of its own about an error that passes through it.
    """
    try:
        return task()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(_TRACEBACKS) == "1":
            raise
        script = f"{HydraConfig.get().job.name}.py" if HydraConfig.initialized() else Path(sys.argv[0]).name
        line, code = told(refusal(error, script, sys.argv[1:]), script)
        print(f"{script}: {line}", file=sys.stderr)
        sys.exit(code)


def build(kind: type[T], config: DictConfig, group: str, *, without: tuple[str, ...] = ()) -> T:
    """Make a frozen dataclass from a config group.

    Raises:
        UserError: a key that the group does not have, or one that is missing.
    """
    values: dict[str, Any] = {k: v for k, v in _plain(config).items() if k not in without}
    _refuse_unknown(values, [f.name for f in fields(kind)], group)  # type: ignore[arg-type]
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{group}: {error}") from error


def build_postprocess(config: DictConfig, classes: ClassSet) -> "Postprocess":
    """Make the rule of a model's answers from the group `postprocess`, which names categories by id or name.

    Args:
        config: fields of `fashion_hydra.postprocess.Postprocess`, but `class_score_thr` (category -> threshold) in
            place of `label_score_thr`, and `drop_classes`, left out besides the class set's own `drop`, in place of
            `dropped_labels`.
        classes: behind the model's labels.

    Raises:
        UserError: a key that the group does not have, one that is missing, a value out of its range, or a category
            that the model does not know.
    """
    from fashion_hydra.postprocess import Postprocess

    values = _plain(config)
    if "file" in values:
        raise UserError(
            "postprocess=tuned: only predict.py reads tuned files; give postprocess=winner or mmdet_default"
        )
    known = [f.name for f in fields(Postprocess) if f.name not in ("label_score_thr", "dropped_labels")]
    _refuse_unknown(values, [*known, "class_score_thr", "drop_classes", "select"], "postprocess")
    values["calibration"] = _calibration(values.pop("select", "threshold"), values.get("calibration"), classes)
    if not isinstance(steps := values.get("steps") or [], list):
        raise UserError(f"postprocess.steps={steps}: a list of names expected, such as [fill_holes]")
    values["steps"] = tuple(steps)
    thresholds, dropped = values.pop("class_score_thr", None) or {}, values.pop("drop_classes", None) or []
    if not isinstance(thresholds, dict):
        raise UserError(f"postprocess.class_score_thr={thresholds}: category to threshold expected, such as {{23:0.6}}")
    if not isinstance(dropped, list):
        raise UserError(f"postprocess.drop_classes={dropped}: a list of ids or names expected, such as [0,hat]")
    label_score_thr = {}
    for entry, threshold in thresholds.items():
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise UserError(f"postprocess.class_score_thr={{{entry}: {threshold}}}: between 0 and 1 expected")
        label_score_thr[_label(entry, classes, "postprocess.class_score_thr")] = float(threshold)
    labels = [_label(entry, classes, "postprocess.drop_classes") for entry in dropped]
    dropped_labels = tuple(sorted({*classes.dropped_labels(), *labels}))
    try:
        return Postprocess(**values, label_score_thr=label_score_thr, dropped_labels=dropped_labels)
    except TypeError as error:
        raise UserError(f"postprocess: {error}") from error


def _calibration(select: object, file: object, classes: ClassSet) -> "Calibration | None":
    """The calibration that `postprocess.select` asks for."""
    from fashion_hydra.tuned import read_calibration

    if select not in ("threshold", "expected"):
        raise UserError(f"postprocess.select={select}: give threshold or expected")
    if select == "threshold":
        return None
    if file is None:
        raise UserError(
            "postprocess.select=expected: needs postprocess.calibration=FILE, as tune_thresholds.py writes it; "
            "postprocess=tuned knows its own"
        )
    return read_calibration(Path(str(file)), classes)


def _label(entry: object, classes: ClassSet, option: str) -> int:
    """The label of a category by id or name; an id may have become text on the command line."""
    names = classes.by_id()
    if isinstance(entry, int):
        return classes.label_of()[find_category(entry, names, option)]
    text = str(entry)
    by_id = text.isdecimal() and text not in classes.names
    return classes.label_of()[find_category(int(text) if by_id else text, names, option)]


def _refuse_unknown(values: dict[str, Any], known: list[str], group: str) -> None:
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"{group}.{unknown[0]}: no such option; {group} has {', '.join(known)}")


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
