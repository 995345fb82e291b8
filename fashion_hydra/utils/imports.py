"""Objects by their import path, such as `mypackage.models.build_mine`."""

import importlib
from collections.abc import Sequence
from typing import Any

from fashion_hydra.utils.errors import UserError

OWN_PACKAGE = "fashion_hydra"


def import_object(path: str, option: str) -> Any:
    """Import a class or a function by its path.

    Args:
        path: package, module and name, separated by dots.
        option: what names it, for the message.

    Raises:
        UserError: there is no such module or name.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise UserError(f"{option}={path}: an import path expected, such as mypackage.module.Name")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{option}={path}: not importable ({error}). Check the path, and that it is installed"
        ) from error


def is_trusted(path: str, trusted: Sequence[str]) -> bool:
    """Whether an import path lies in this package or in one of those named by the user."""
    return any(path.startswith(f"{package}.") for package in (OWN_PACKAGE, *trusted))


def check_trusted(path: str, trusted: Sequence[str], place: str) -> None:
    """Raise `UserError` for code that a file names and the user does not.

    Args:
        path: the import path in the file.
        trusted: packages that the command names, with `trust=[...]`.
        place: the file and the entry in it.
    """
    if not is_trusted(path, trusted):
        package = path.partition(".")[0]
        raise UserError(
            f"{place}: refused, as code of {path} would be imported. If you trust the file and the package, give "
            f"trust=[{package}]"
        )
