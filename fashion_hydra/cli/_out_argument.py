"""The output file of a command: check its suffix, and overwrite it only with `--force`."""

import argparse
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--force`."""
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def check_out(out: Path, suffix: str, *, force: bool) -> None:
    """Raise `UserError` if the file has another suffix, or exists and `force` is not set."""
    if out.suffix != suffix:
        raise UserError(f"{out}: must be a name that ends in {suffix}")
    if out.exists() and not force:
        raise UserError(f"{out} exists already; give another name, or --force to overwrite it")
