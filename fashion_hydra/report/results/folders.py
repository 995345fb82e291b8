"""What a folder is, by what lies in it, and the config that Hydra saved there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fashion_hydra.postprocess.rule_files import checked_yaml
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.text import one_line

KINDS = ("ladder", "tuning", "prediction", "training")


def kinds_of(folder: Path) -> list[str]:
    """Which of `KINDS` a folder is, by what is in it.

    Raises:
        UserError: it is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give folders of runs/, tuned/, predictions/ or a ladder")
    signs = {
        "ladder": (folder / "ladder.csv").is_file(),
        "tuning": (folder / "methods.csv").is_file(),
        "prediction": (folder / "submission.csv").is_file(),
        "training": any(folder.glob("csv/version_*/metrics.csv")),
    }
    if found := [kind for kind in KINDS if signs[kind]]:
        return found
    if (folder / "candidates" / "manifest.json").is_file():
        raise UserError(f"{folder}: candidates without submission.csv. Run predict.py out={folder} output=csv again")
    there = ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{folder}: not a folder that can be reported (found: {there}). It holds none of csv/version_*/metrics.csv (a "
        "training run), methods.csv (tuning), submission.csv (a prediction), ladder.csv (a ladder)"
    )


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config that Hydra saved in a folder, as it was written; empty without one."""
    return read_yaml(folder / ".hydra" / "config.yaml")


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A mapping in a file; empty without a file or where it holds something else.

    Raises:
        UserError: it is no YAML.
    """
    if not path.is_file():
        return {}
    text = checked_yaml(path)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML ({one_line(error, 120)})") from error
    return values if isinstance(values, dict) else {}


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value at `data.root` and the like; None where there is none or where it stands for another."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if isinstance(value, str) and "${" in value else value
