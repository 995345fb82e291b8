"""`fashion-hydra split DIR`: write folds as an editable CSV, and print how even they are."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.cli._data_arguments import add_data_arguments, reader_of, train_command
from fashion_hydra.cli._out_argument import add_force_argument

if TYPE_CHECKING:
    import numpy as np

    from fashion_hydra.data.annotations import Annotations
    from fashion_hydra.data.split import Deviation

_LISTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--folds", type=int, default=10, metavar="K", help="number of folds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=777, help="seed of the shuffling (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("split.csv"), metavar="CSV", help="file to write (default: %(default)s)"
    )
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Split the data set, compare the folds with random ones, and write the file."""
    from fashion_hydra.data.annotation_cache import load_annotations
    from fashion_hydra.data.split import stratified_folds, write_split
    from fashion_hydra.utils.errors import UserError

    if args.out.is_dir():
        raise UserError(f"--out {args.out}: a folder; name a file, such as {args.out / 'split.csv'}")
    if args.out.exists() and not args.force:
        raise UserError(f"{args.out} exists already; give another --out, or --force to overwrite it")
    annotations, _ = load_annotations(reader_of(args))
    table = annotations.category_table()
    fold_of = stratified_folds(table, folds=args.folds, seed=args.seed)
    print_deviations(annotations, table, fold_of, seed=args.seed)
    print_unbalanced(annotations, table, fold_of)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_split(args.out, annotations.image_ids, fold_of)
    print(f"\nwritten: {args.out}. Images without a fold or without a row are not used.")
    print(f"next: {train_command(args, f'data.split_file={args.out}', 'data.fold=0')}")
    return 0


def print_deviations(annotations: "Annotations", table: "np.ndarray", fold_of: "np.ndarray", *, seed: int) -> None:
    """Print a line per fold: images, and how much class shares differ between validation and training."""
    from fashion_hydra.data.split import deviation, random_deviation

    names = list(annotations.names.values())

    def cells(found: "Deviation | None") -> str:
        if found is None:
            return f"{'-':>7} {'-':>7}  {'':20}"
        return f"{found.mean:7.1%} {found.worst:7.1%}  {names[found.worst_class].split(',')[0][:20]:20}"

    print("Difference in the share of images per class, validation against training:")
    print(f"{'fold':>4} {'images':>7}   {'mean':>7} {'worst':>7}  {'':20}   random: mean   worst")
    for fold in range(int(fold_of.max()) + 1):
        validation = fold_of == fold
        found, random = deviation(table, validation), random_deviation(table, validation, seed=seed + fold)
        drawn = f"{'-':>11} {'-':>7}" if random is None else f"{random.mean:11.1%} {random.worst:7.1%}"
        print(f"{fold:4d} {validation.sum():7d}   {cells(found)}  {drawn}")


def print_unbalanced(annotations: "Annotations", table: "np.ndarray", fold_of: "np.ndarray") -> None:
    """Print what could not be balanced: rare classes, and folds without any mask."""
    from fashion_hydra.data.split import unbalanced

    rare, empty = unbalanced(table, fold_of)
    names = list(annotations.names.values())
    if rare:
        counted = [f"{names[column].split(',')[0]} ({int(table[:, column].sum())})" for column in rare]
        listed = ", ".join(counted[:_LISTED]) + (f" and {len(rare) - _LISTED} more" if len(rare) > _LISTED else "")
        print(f"\nin fewer images than folds, so some folds lack these classes: {listed}")
    if empty:
        print(f"\nwithout any mask: fold {', '.join(map(str, empty))}. Validation needs masks; choose fewer folds")
