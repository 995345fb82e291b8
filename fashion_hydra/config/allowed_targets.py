"""Which code a config may name: YAML from elsewhere must not be able to run what it likes.

`_target_` may be a class of this package, an optimizer of torch, or a trainer, callback, logger and the like of
Lightning, by its public name. Hydra makes callbacks, launchers, sweepers and log handlers before any code of ours runs,
so they are looked at first, in a config composed for that. FASHION_HYDRA_TARGETS in the environment, which no config
can set in time, names further packages.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from hydra import utils
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fashion_hydra.utils.errors import UserError

T = TypeVar("T")
VARIABLE = "FASHION_HYDRA_TARGETS"
_TRUSTED = tuple(name for name in os.environ.get(VARIABLE, "").split(",") if name)
_PACKAGE = Path(__file__).resolve().parents[1]
# A name in capitals is a class there; any deeper path could lead to a module that another one imported.
_LIBRARIES = re.compile(
    r"torch\.optim\.[A-Z]\w*"
    r"|pytorch_lightning\.Trainer"
    r"|pytorch_lightning\.(callbacks|loggers|strategies|accelerators|profilers|plugins)\.[A-Z]\w*"
    r"|pytorch_lightning\.plugins\.(environments|io|precision)\.[A-Z]\w*"
    r"|hydra\._internal\.core_plugins\.basic_(launcher\.BasicLauncher|sweeper\.BasicSweeper)"
    r"|hydra\.experimental\.callbacks\.LogJobReturnCallback"
    r"|hydra_plugins\.hydra_submitit_launcher\.submitit_launcher\.(Local|Slurm)Launcher"
)
_OURS = re.compile(r"fashion_hydra((?:\.[a-z]\w*)+)\.([A-Z]\w*|build_\w+)")
_LOGGING = re.compile(
    r"logging\.(Stream|File|Null)Handler|logging\.handlers\.(Rotating|TimedRotating|Watched)FileHandler"
    r"|logging\.Formatter|colorlog\.ColoredFormatter|(ext://)?sys\.std(out|err)"
)
_LOGGING_KEYS = ("()", "class", "queue", "listener")
_MADE_BY_HYDRA = ("callbacks", "launcher", "sweeper")
_LOGS = ("hydra_logging", "job_logging")
_TEXT_OF_HYDRA = re.compile(
    r"\$\{hydra[.:](runtime\.(output_dir|cwd)|job\.(name|id|num|override_dirname)|(run|sweep)\.dir)\}"
)
_EARLY_VARIABLES = re.compile(r"(LD_|PYTHON|HYDRA_|FASHION_HYDRA_).*|PATH")


def instantiate(config: DictConfig, **how: Any) -> Any:
    """Hydra's `instantiate`, once every `_target_` in the config is known to be allowed.

    Raises:
        UserError: one is not.
    """
    if OmegaConf.is_config(config):
        check_targets(OmegaConf.to_container(config, resolve=True), config._get_full_key(None))
    return utils.instantiate(config, **how)


def check_targets(values: Any, key: str) -> None:
    """Raise `UserError` for a `_target_` that is not allowed, at any depth of plain values.

    Args:
        values: a config as plain values.
        key: where it stands in the whole.
    """
    for place, value in _leaves(values, key):
        if place.rpartition(".")[2] == "_target_" and not _is_allowed(value):
            raise _refusal(place, value)


def check_composed(config: DictConfig) -> None:
    """Raise `UserError` for anything in Hydra's own part of a config that would run what is not allowed."""
    for name in (*_MADE_BY_HYDRA, *_LOGS):
        for place, last, value in _texts(config.hydra.get(name), f"hydra.{name}"):
            if name in _MADE_BY_HYDRA and last == "_target_" and not _is_allowed(value):
                raise _refusal(place, value)
            named = last in _LOGGING_KEYS or str(value).startswith("ext://")
            if name in _LOGS and named and not (_LOGGING.fullmatch(str(value)) or _is_trusted(value)):
                raise _refusal(place, value)
    for variable in config.hydra.job.get("env_set") or ():
        if _EARLY_VARIABLES.fullmatch(str(variable)):
            raise UserError(f"hydra.job.env_set.{variable}: refused, as it decides what code runs. Set it in the shell")


def checked_first(config_name: str) -> Callable[[Callable[[], T]], Callable[[], T]]:
    """Decorate a script's `hydra.main`: what the command line asks Hydra to make is looked at before Hydra is called.

    Args:
        config_name: of the script's main config.
    """

    def decorate(task: Callable[[], T]) -> Callable[[], T]:
        @functools.wraps(task)
        def wrapped() -> T:
            check_command(sys.argv[1:], root=_PACKAGE.parent, config_name=config_name)
            return task()

        return wrapped

    return decorate


def check_command(words: Sequence[str], *, root: Path, config_name: str) -> None:
    """Compose what a command line asks for, and in a multirun what it varies, and check it before Hydra makes anything.

    Args:
        words: of the command line.
        root: the script's folder, with its configs in conf/.
        config_name: of its main one.

    Raises:
        UserError: see `check_composed`.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path, get_args_parser
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    args = get_args_parser().parse_args(words)
    if args.experimental_rerun is not None:
        raise UserError(f"--experimental-rerun={args.experimental_rerun}: refused, as a pickle may run any code")
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        return  # these compose and print, and make nothing
    configs = args.config_path or "conf"
    search_path = create_config_search_path(configs if "://" in configs else str((root / configs).resolve()))
    if args.config_dir is not None:
        folder = f"file://{os.path.abspath(args.config_dir)}"
        search_path.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    loader = ConfigLoaderImpl(search_path)

    def compose(overrides: list[str]) -> DictConfig:
        config = loader.load_configuration(
            args.config_name or config_name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
        )
        check_composed(config)
        return config

    config = compose(args.overrides)
    if not args.multirun and str(config.hydra.mode) != "RunMode.MULTIRUN":
        return
    params: Mapping[Any, Any] = config.hydra.sweeper.get("params") or {}
    varied = [*args.overrides, *(f"{key}={value}" for key, value in params.items())]
    choices = []
    for override in OverridesParser.create(config_loader=loader).parse_overrides(varied):
        name, is_swept = override.key_or_group, override.is_sweep_override()
        if not is_swept and override.input_line in args.overrides:
            continue
        if name == "hydra" or name.startswith("hydra."):
            raise UserError(f"{override.input_line}: refused, a sweep may not vary {name}. Give it one value")
        if loader.get_group_options(name):
            values = override.sweep_string_iterator() if is_swept else [override.value()]
            choices.append([f"{override.get_key_element()}={value}" for value in values])
    for chosen in product(*choices):
        compose([*args.overrides, *chosen])


def _texts(node: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    """Place, last name and value of whatever is no section, as it is written; what stands for a section is refused."""
    if not OmegaConf.is_config(node):
        return
    names: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    written: Any = OmegaConf.to_container(node, resolve=False)
    for name in names:
        here = f"{place}.{name}"
        if OmegaConf.is_interpolation(node, name):
            if _may_be_section(node, name, written[name]):
                raise UserError(
                    f"{here}={written[name]}: refused, as it may stand for a section. Write the section there"
                )
            yield here, str(name), written[name]
        elif not OmegaConf.is_missing(node, name):
            yield here, str(name), node[name]
            yield from _texts(node[name], here)


def _may_be_section(node: Any, name: Any, text: str) -> bool:
    if not (text.startswith("${") and text.endswith("}")) or _TEXT_OF_HYDRA.fullmatch(text):
        return False  # text around an interpolation makes text of it
    try:
        return OmegaConf.is_config(node[name])
    except OmegaConfBaseException:
        return True


def _leaves(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value that is neither mapping nor list, with its place; a `_target_` is one whatever it is."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            if name == "_target_":
                yield f"{key}._target_".lstrip("."), value
            else:
                yield from _leaves(value, f"{key}.{name}".lstrip("."))
    elif isinstance(values, list | tuple):
        for i, value in enumerate(values):
            yield from _leaves(value, f"{key}[{i}]")
    else:
        yield key, values


def _is_allowed(target: object) -> bool:
    if not isinstance(target, str):
        return False
    if ours := _OURS.fullmatch(target):
        module = _PACKAGE.joinpath(*ours[1].split("."))
        return module.with_suffix(".py").is_file() or (module / "__init__.py").is_file()
    return bool(_LIBRARIES.fullmatch(target)) or _is_trusted(target)


def _is_trusted(target: object) -> bool:
    return isinstance(target, str) and any(target == name or target.startswith(f"{name}.") for name in _TRUSTED)


def _refusal(place: str, value: object) -> UserError:
    return UserError(
        f"{place}={value}: not among the classes that a config may name (fashion_hydra's, Lightning's, torch.optim's), "
        f"as others could run any code. Name the package of code that you trust in the environment variable {VARIABLE}"
    )
