"""Read YAML files as plain values, within limits: no aliases, which could exhaust memory, and no deep nesting."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line

_LARGEST, _LONGEST_VALUE, _DEEPEST = 1 << 20, 4096, 20


class _Loader(yaml.SafeLoader):
    """A loader that reads `1e-3` as a number and a date as text, like OmegaConf."""


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
        UserError: the file is not valid YAML, or is larger or deeper than any config.
    """
    if (size := path.stat().st_size) > _LARGEST:
        raise UserError(f"{path}: {size} bytes: refused, a config has at most {_LARGEST}")
    depth = 0
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise ValueError("it has aliases (*NAME), or is nested too deeply")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_VALUE:
                raise ValueError(f"a value has {len(event.value)} characters, must have at most {_LONGEST_VALUE}")
        return yaml.load(text, _Loader)
    except Exception as error:  # the parser raises exceptions of many kinds
        raise UserError(f"{path}: not readable as YAML ({one_line(error, 120)})") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a mapping; return an empty one if the file does not exist or holds anything else.

    Raises:
        UserError: the file is not valid YAML.
    """
    values = read_yaml(path) if path.is_file() else None
    return values if isinstance(values, dict) else {}


def value_at(config: Any, key: str) -> Any:
    """Return the value at a dotted key such as `data.root`; None if it is missing or an interpolation."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if isinstance(value, str) and "${" in value else value


def flat(values: Any, place: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one, with keys joined by dots; lists are values."""
    if not isinstance(values, Mapping):
        return {place: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{place}.{key}" if place else str(key))
    return found
