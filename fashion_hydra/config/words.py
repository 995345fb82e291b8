"""Prepare the words of a command line for Hydra's grammar."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_MULTIRUN = ("-m", "--multirun")
_WITH_VALUE = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c",
               "--info", "-i", "--experimental-rerun")  # fmt: skip


def option_name(word: str) -> str:
    """Return the name of the option that an override sets, adds (`+`, `++`) or removes (`~`)."""
    return word.lstrip("+~").partition("=")[0]


def config_flags(words: Sequence[str]) -> list[str]:
    """Return the flags that choose configs, with their values."""
    choosing = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
    flags: list[str] = []
    for i, word in enumerate(words):
        if word.partition("=")[0] in choosing or (i > 0 and words[i - 1] in choosing):
            flags.append(word)
    return flags


def readable_words(words: Sequence[str]) -> list[str]:
    """Return the words in a form that Hydra can parse.

    Flags come first, paths that Hydra's grammar cannot read are quoted, and `postprocess=FILE.yaml` becomes
    `postprocess=tuned postprocess.file=FILE.yaml`.
    """
    flags: list[str] = []
    options: list[str] = []
    for i, word in enumerate(words):
        is_flag = word.startswith("-") or (i > 0 and words[i - 1] in _WITH_VALUE)
        (flags if is_flag else options).append(word)
    sweeps = any(flag in _MULTIRUN for flag in flags) or any(word.startswith("hparams_search=") for word in options)
    parser = OverridesParser.create()
    return flags + [_quoted(part, parser, sweeps=sweeps) for word in options for part in _rule_file(word)]


def _rule_file(word: str) -> list[str]:
    group, _, value = word.partition("=")
    if group != "postprocess" or not value.endswith(".yaml"):
        return [word]
    return ["postprocess=tuned", f"postprocess.file={value}"]


def _quoted(word: str, parser: OverridesParser, *, sweeps: bool) -> str:
    """Quote a value that is meant as text: it is not valid in Hydra's grammar, or it is an existing path."""
    key, separator, value = word.partition("=")
    if not separator or value[:1] in ("", "'", '"') or "${" in value:
        return word
    try:
        override = parser.parse_override(word)
    except HydraException:
        if not key.replace(".", "").replace("_", "").lstrip("+").isalnum():
            return word  # Hydra reports what is wrong with it
        if value.startswith("[") and value.endswith("]"):  # a list of names, such as epoch=6.ckpt
            return f"{key}=[{','.join(_text(name) for name in value[1:-1].split(','))}]"
        return _in_quotes(key, value)
    is_path = "/" in value or _exists(value)
    if override.is_sweep_override():
        return _in_quotes(key, value) if is_path and (not sweeps or _exists(value)) else word
    return _in_quotes(key, value) if not isinstance(override.value(), str) and _exists(value) else word


def _in_quotes(key: str, value: str) -> str:
    return f"{key}={_text(value)}"


def _text(value: str) -> str:
    """Return a value in quotes; a quoted value is returned unchanged."""
    if value[:1] in ("'", '"') and value[-1:] == value[:1]:
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):
        return False
