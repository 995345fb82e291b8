"""YAML files as plain values, within limits: no references, which could grow beyond any memory, no great depth."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line

_LARGEST, _LONGEST_VALUE, _DEEPEST = 1 << 20, 4096, 20


class _Loader(yaml.SafeLoader):
    """Like OmegaConf's: `1e-3` is a number, and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: no YAML, or more of it than a config has.
    """
    if (size := path.stat().st_size) > _LARGEST:
        raise UserError(f"{path}: {size} bytes: refused, at most {_LARGEST} expected of a config")
    depth = 0
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise ValueError("references (*NAME), or nested too deeply")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_VALUE:
                raise ValueError(f"a value of {len(event.value)} characters, at most {_LONGEST_VALUE} expected")
        return yaml.load(text, _Loader)
    except Exception as error:  # YAML has many words for what it cannot read
        raise UserError(f"{path}: not readable as YAML ({one_line(error, 120)})") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a mapping; empty where there is no file or it holds something else.

    Raises:
        UserError: it is no YAML.
    """
    values = read_yaml(path) if path.is_file() else None
    return values if isinstance(values, dict) else {}


def value_at(config: Any, key: str) -> Any:
    """Return the value at `data.root` and the like; None where there is none or where it stands for another."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if isinstance(value, str) and "${" in value else value


def flat(values: Any, place: str = "") -> dict[str, Any]:
    """Return nested mappings as one, keys joined by dots; lists count as values."""
    if not isinstance(values, Mapping):
        return {place: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{place}.{key}" if place else str(key))
    return found
