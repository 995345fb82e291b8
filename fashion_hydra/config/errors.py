"""Turn errors of Hydra and OmegaConf into messages: the option, its value, what is wrong, and the nearest option."""

import difflib
import re
from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fashion_hydra.config.places import CONF
from fashion_hydra.config.words import option_name
from fashion_hydra.utils.errors import UserError

_CONFIGS = {"train.py": "train", "predict.py": "predict", "tune_thresholds.py": "tune"}
_RULES = (
    (r"converted to Integer|type hint '(?:Optional\[)?int", "must be a whole number"),
    (r"converted to Float|type hint '(?:Optional\[)?float", "must be a number"),
    (r"not a valid bool|type hint '(?:Optional\[)?bool", "must be true or false"),
    (r"is not Optional", "must have a value"),
    (r"is not a ListConfig|Cannot assign \w+ to ListConfig|List\[", "must be a list"),
    (r"not a subclass of (?!dict)|Cannot assign \w+ to DictConfig|is not a subclass", "must be a group of options"),
    (r"to string|type hint '(?:Optional\[)?str", "must be text"),
)
"""Pattern in OmegaConf's message -> rule for the value."""


def user_error(error: BaseException, script: str, words: Sequence[str]) -> BaseException:
    """Return a `UserError` in terms of the command line for an error of Hydra or OmegaConf; other errors unchanged.

    Args:
        error: exception that ended the script.
        script: name of the script.
        words: command line of the script.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if cause is not None:
        return cause
    text = " ".join(str(error).partition("Config search path")[0].split())
    match error:
        case OverrideParseException():
            return UserError(
                f"{error.override}: not of the form KEY=VALUE. Write it without spaces around =, and quote a value "
                "with special characters twice: 'KEY=\"VALUE\"'"
            )
        case MissingConfigException() if error.missing_cfg_file and error.options:
            return UserError(_no_such_choice(error))
        case SearchPathException():
            return UserError(f"{text.rstrip('.')}. Check the folder's name")
        case ConfigCompositionException() if found := re.search(r"Ambiguous value for argument '(.+?)'", text):
            key, _, value = found[1].partition("=")
            return UserError(f"{found[1]}: several values. Give -m to try each, or {key}=[{value}] for a list")
        case ConfigCompositionException():
            return UserError(_composition(error, text, script, words))
        case InstantiationException():
            return _instantiation(error, text)
        case OmegaConfBaseException():
            missing = re.search(r"Missing mandatory value: (\S+)|Interpolation key '(.+?)' not found", text)
            if missing is not None:
                return UserError(f"{missing[1] or missing[2]}: required, but missing. Give it on the command line")
            return UserError(_value(error, text, script, words))
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        given = [word for word in words if re.search(r"=(null|true|false|[\d.]*)$", word, re.IGNORECASE)]
        hint = ". Give traceback=true to see tracebacks" if any(word.startswith("debug=") for word in given) else ""
        return UserError(f"{' '.join(given)}: must be the name of a choice; --help lists them{hint}")
    return error


def _no_such_choice(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = error.options or ()
    near = difflib.get_close_matches(name, options, n=1)
    hint = f"; nearest: {near[0]}" if near else ""
    if name.startswith("submitit"):
        hint = '. For clusters: pip install ".[slurm]"'
    if name == "joblib":
        hint = '. For parallel jobs on this machine: pip install ".[joblib]"'
    if name == "optuna":
        hint = ". Hydra's Optuna plugin needs an Optuna version that the threshold search does not support"
    return f"{group}={name}: no such choice. Available: {', '.join(options)}{hint}"


def _composition(error: ConfigCompositionException, text: str, script: str, words: Sequence[str]) -> str:
    """Describe an unknown option or a value of the wrong type, on the command line or in a file."""
    cause = error.__cause__
    unknown = re.match(r"Could not (?:override|delete|append)[^']*'(.*?)'", text)
    in_file = re.match(r"In '(.+?)': ", text)
    key = re.search(r"Key '(\w+)' (?:is not in struct|not in '\w+')", f"{text} {cause or ''}")
    if in_file is not None:
        where, full_key = in_file[1], re.search(r"full_key: (\S+)", text)
        if "override" in text and (missing := re.search(r"Could not override '(.+?)'", text)):
            group, _, name = where.rpartition("/")
            return f"{group}={name}: not for {script}, which has no group {missing[1]}. --help lists its groups"
        if key is not None and full_key is not None:
            return f"{where}.yaml: {full_key[1]}: no such option{_nearest(full_key[1], script, words)}"
        return f"{where}.yaml: {_value(cause or error, text, script, ())}"
    if unknown is not None:
        name = unknown[1]
        if "defaults list" in text:
            return _no_such_group(name, script, words)
        return f"{name}: no such option{_nearest(name, script, words)}. --help lists them all"
    return _value(cause or error, str(cause or error), script, words)


def _value(error: BaseException, text: str, script: str, words: Sequence[str]) -> str:
    """Describe a value of the wrong type."""
    text = " ".join(text.split())
    found = re.search(r"full_key: (\S+)", text)
    place = found[1] if found else str(getattr(error, "full_key", "") or "config")
    option = re.sub(r"\[\d+\]", "", place)
    values = [word.partition("=")[2] for word in words if word.partition("=")[0].lstrip("+") == option]
    in_message = re.search(r"[Vv]alue '(.*?)'", text)
    shown = values[-1] if values else in_message[1] if in_message else ""
    rule = next((rule for pattern, rule in _RULES if re.search(pattern, text)), None)
    if rule is None:
        return f"{place}: {re.sub(r' (full_key|reference_type|object_type)[:=].*', '', text)}"
    config = _defaults(script, [word for word in words if option_name(word) != option])
    default = OmegaConf.select(config, option) if config is not None else None
    example = "" if default is None or isinstance(default, DictConfig) else f", such as {_shown(default)}"
    return f"{option}={shown}: {'each entry ' if place != option else ''}{rule}{example}"


def _shown(value: object) -> str:
    """Format a value as on the command line."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _instantiation(error: InstantiationException, text: str) -> BaseException:
    """Describe why an object of the config could not be created."""
    cause = error.__cause__
    key = re.search(r"full_key: (\S+)", text)
    where = key[1] if key else "config"
    if cause is None or text.startswith("Error locating target"):
        return UserError(f"{where}: {text.partition(', set env var')[0].partition(' full_key')[0]}")
    if isinstance(cause, OSError | MemoryError | RuntimeError):
        return cause
    return UserError(f"{where}: {cause}. `--cfg job` shows the given options, and --help the choices")


def _no_such_group(key: str, script: str, words: Sequence[str]) -> str:
    config = _defaults(script, [word for word in words if option_name(word) != key])
    if config is None:
        return f"{key}: no such option or group. --help lists them"
    groups = sorted(name for name in config.hydra.runtime.choices if "/" not in name and "@" not in name)
    return f"{key}: {script} has no such option or group; its groups are {', '.join(groups)}{_near(key, config)}"


def _nearest(key: str, script: str, words: Sequence[str]) -> str:
    config = _defaults(script, [w for w in words if option_name(w) != key])
    return _near(key, config) if config is not None else ""


def _defaults(script: str, words: Sequence[str]) -> DictConfig | None:
    """Compose the script's config with the given groups, to list its options; None if that fails."""
    if script not in _CONFIGS:
        return None
    groups = [word for word in words if (CONF / option_name(word).partition("@")[0]).is_dir()]
    for overrides in (groups, []):
        try:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                return compose(_CONFIGS[script], overrides=overrides, return_hydra_config=True)
        except Exception:  # a second mistake in the command, which is reported once the first is fixed
            continue
    return None


def _near(key: str, config: DictConfig) -> str:
    options = [option for option in _options(config) if not option.startswith("hydra.")]
    group, _, name = key.rpartition(".")
    same = [option for option in options if option.rpartition(".")[2] == name]
    beside = [option for option in options if option.rpartition(".")[0] == group]
    alike = difflib.get_close_matches(name, [option.rpartition(".")[2] for option in beside], n=2, cutoff=0.75)
    near = same or [f"{group}.{name}".lstrip(".") for name in alike]
    near = near or difflib.get_close_matches(key, options, n=3, cutoff=0.8)
    return f". Perhaps {' or '.join(near[:3])}" if near else ""


def _options(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the full name of every option."""
    for key in map(str, config):
        yield f"{prefix}{key}"
        node = config._get_node(key)
        if (
            isinstance(node, DictConfig)
            and not node._is_none()
            and not node._is_interpolation()
            and not isinstance(node, ListConfig)
            and not node._is_missing()
        ):
            yield from _options(node, f"{prefix}{key}.")
