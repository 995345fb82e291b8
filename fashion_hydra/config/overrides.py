"""The words of an entry script's command line: what Hydra shall read, of which type, and what it refuses."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line

CONF = Path(__file__).resolve().parents[2] / "conf"
_SCRIPTS = {"train.py": "train", "predict.py": "predict", "tune_thresholds.py": "tune"}
_PATHS = (
    "data.root", "data.annotations", "data.split_file", "weights", "ckpt_path", "checkpoint", "out", "truth",
    "paths.runs", "paths.tuned", "ensemble.run", "candidates.folder", "postprocess.file", "postprocess.calibration",
    "model.backbone.weights", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
_ANY_TYPE = ("trainer.devices", "trainer.precision", "classes.train", "hydra.")
_FRACTIONS = ("schedule.gradient_clip", "trainer.gradient_clip_val", "per_class.shrinkage", "expected.weight")
"""Numbers that are whole in conf/ and need not be."""
_NULL = ("trainer.", "model.", "tta.", "schedule.gradient_clip", "ensemble.soup_batches")
"""Options that null switches off, though conf/ has a value."""
_NEVER_NULL = ("data.root", "name", "out", "output", "pooling")


def readable(words: Sequence[str]) -> list[str]:
    """The command line as Hydra can read it: `-m` before the options, and paths quoted that its grammar trips over."""
    flags = [word for word in words if word in ("-m", "--multirun")]
    sweep = bool(flags) or any(word.startswith("hparams_search=") for word in words)
    return flags[:1] + [_quoted(word, sweep) for word in words if word not in flags]


def _quoted(word: str, sweep: bool) -> str:
    key, _, value = word.partition("=")
    if (
        key not in _PATHS
        or value[:1] in ("'", '"')
        or "${" in value
        or re.fullmatch(r"[\w./:@%+ ~-]*", value, re.ASCII)
    ):
        return word
    if sweep and "," in value and not Path(value).exists():
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def checked(cfg: DictConfig) -> DictConfig:
    """The config, once each option that the command line gives is of the type that it has in conf/.

    Raises:
        UserError: the first that is not.
    """
    given = HydraConfig.get().overrides.task
    keys = [key for word in given if (key := word.partition("=")[0])[:1] not in ("+", "~") and not _is_group(key)]
    if keys:
        groups = [word for word in given if _is_group(word.partition("=")[0])]
        defaults = compose(HydraConfig.get().job.config_name, overrides=groups)
        for key in keys:
            if not key.startswith(_ANY_TYPE):
                _check(key, OmegaConf.select(cfg, key), OmegaConf.select(defaults, key))
    return cfg


def _is_group(key: str) -> bool:
    return (CONF / key.lstrip("+~").partition("@")[0]).is_dir()


def _check(key: str, value: Any, default: Any) -> None:
    """Refuse a value of another type than the default's."""
    if value is None:
        typed = default is not None and not isinstance(default, str)
        if key in _NEVER_NULL or (typed and not key.startswith(_NULL)):
            raise UserError(f"{key}=null: a value expected{_such_as(default)}")
    elif (wanted := _mismatch(key, value, default)) is not None:
        raise UserError(f"{key}={_shown(value)}: {wanted} expected{_such_as(default)}")


def _mismatch(key: str, value: Any, default: Any) -> str | None:
    """What is wanted in place of the value, None if it will do."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match default:
        case bool():
            return None if isinstance(value, bool) else "true or false"
        case int() if key not in _FRACTIONS:
            return None if is_number and value == int(value) else "a whole number"
        case int() | float():
            return None if is_number else "a number"
        case ListConfig():
            if not isinstance(value, ListConfig):
                return "a list"
            first = default[0] if len(default) else None
            return next((f"a list, each entry {found}" for v in value if (found := _mismatch(key, v, first))), None)
        case DictConfig():
            return None if isinstance(value, DictConfig) else "a group of options"
    return None


def _such_as(default: Any) -> str:
    return "" if default is None else f", such as {_shown(default)}"


def _shown(value: Any) -> str:
    """A value as the command line writes it."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_shown, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def refusal(error: BaseException, script: str, words: Sequence[str]) -> BaseException:
    """The mistake behind an error of Hydra's, as a `UserError` in the words of the command line; others as they are.

    Args:
        error: what ended the script.
        script: its name.
        words: its command line.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if cause is not None:
        return cause
    text = one_line(str(error).partition("Config search path")[0])
    match error:
        case OverrideParseException():
            return UserError(
                f"{error.override}: not of the form KEY=VALUE. Write it without spaces around =, and quote a value "
                "with special characters twice: 'KEY=\"VALUE\"'"
            )
        case MissingConfigException() if error.missing_cfg_file and error.options:
            group, _, name = error.missing_cfg_file.rpartition("/")
            slurm = '. For clusters: pip install "fashion-hydra[slurm]"' if name.startswith("submitit") else ""
            return UserError(f"{group}={name}: no such choice. There are {', '.join(error.options)}{slurm}")
        case ConfigCompositionException():
            return UserError(_not_an_option(text, script, words))
        case InstantiationException():
            return _behind(error, text)
        case OmegaConfBaseException():
            key = re.search(r"Key '(.+?)' is not in struct|Interpolation key '(.+?)' not found", text)
            if key is not None:
                return UserError(f"{key[1] or key[2]}: needed, and not there. Give it a value on the command line")
            return UserError(re.sub(r" (full_key|reference_type|object_type)[:=].*", "", text))
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        empty = [word.partition("=")[0] for word in words if word.endswith(("=null", "="))]
        return UserError(f"{' '.join(empty)}: a group cannot be null; name one of its choices, which --help lists")
    return error


def _behind(error: InstantiationException, text: str) -> BaseException:
    """What an object of the config failed with, and whose it is."""
    cause = error.__cause__
    key = re.search(r"full_key: (\S+)", text)
    where = key[1] if key else "config"
    if cause is None or text.startswith("Error locating target"):
        return UserError(f"{where}: {text.partition(', set env var')[0].partition(' full_key')[0]}")
    if isinstance(cause, OSError | MemoryError | RuntimeError):
        return cause
    return UserError(f"{where}: {cause}. `--cfg job` shows what is given, and --help the choices")


def _not_an_option(text: str, script: str, words: Sequence[str]) -> str:
    """What to say of an option or a group that a config does not have, with the nearest that it has."""
    found = re.match(r"(?:In '(.+?)': )?Could not (?:override|delete) '(.*?)'", text)
    if found is None or script not in _SCRIPTS:
        return text
    recipe, key = found.groups()
    if recipe is not None:
        group, _, name = recipe.rpartition("/")
        return f"{group}={name}: not made for {script}, which has no group {key}. --help lists its groups"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = [word for word in words if _is_group(word.partition("=")[0]) and word.partition("=")[0] != key]
        defaults = compose(_SCRIPTS[script], overrides=groups, return_hydra_config=True)
    if "defaults list" in text:
        known = sorted(name for name in defaults.hydra.runtime.choices if "/" not in name and "@" not in name)
        return f"{key}: {script} has no such option or group; its groups are {', '.join(known)}{_near(key, defaults)}"
    return f"{key}: no such option{_near(key, defaults)}. --help lists them all"


def _near(key: str, defaults: DictConfig) -> str:
    options = [option for option in _options(defaults) if not option.startswith("hydra.")]
    group, _, name = key.rpartition(".")
    same = [option for option in options if option.rpartition(".")[2] == name]
    beside = [option for option in options if option.rpartition(".")[0] == group]
    near = same or difflib.get_close_matches(key, beside or options, n=3, cutoff=0.8)
    return f". Perhaps {' or '.join(near[:3])}" if near else ""


def _options(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every option's full name."""
    for key in map(str, config):
        node = config._get_node(key)
        yield f"{prefix}{key}"
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from _options(node, f"{prefix}{key}.")
