"""The file that a command writes: its name checked, and another one never overwritten unasked."""

import argparse
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--force`."""
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def check_out(out: Path, suffix: str, *, force: bool) -> None:
    """Raise `UserError` for a file of another suffix, or one that exists, unless forced."""
    if out.suffix != suffix:
        raise UserError(f"{out}: a name that ends in {suffix} expected")
    if out.exists() and not force:
        raise UserError(f"{out} is there already; give another name, or --force to write over it")
