"""Import objects by their path, such as `mypackage.models.build_mine`."""

import importlib
from collections.abc import Sequence
from typing import Any

from fashion_hydra.utils.errors import UserError

OWN_PACKAGE = "fashion_hydra"


def import_object(path: str, option: str) -> Any:
    """Import a class or a function by its path.

    Args:
        path: package, module and name, separated by dots.
        option: the option that holds the path, for the message.

    Raises:
        UserError: the module or the name does not exist.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise UserError(f"{option}={path}: not an import path. Write it as mypackage.module.Name")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{option}={path}: cannot be imported ({error}). Check the path, and that the package is installed"
        ) from error


def is_trusted(path: str, trusted: Sequence[str]) -> bool:
    """Return whether an import path is in this package or in a package that the user trusts."""
    return any(path.startswith(f"{package}.") for package in (OWN_PACKAGE, *trusted))


def check_trusted(path: str, trusted: Sequence[str], place: str) -> None:
    """Raise `UserError` if a file names code that the user does not trust.

    Args:
        path: the import path in the file.
        trusted: packages that the user trusts with `trust=[...]`.
        place: the file and the entry in it, for the message.
    """
    if not is_trusted(path, trusted):
        package = path.partition(".")[0]
        raise UserError(
            f"{place}: refused, because it would import code from {path}. If you trust the file and the package, set "
            f"trust=[{package}]"
        )
