"""`fashion-hydra pseudo-label DIR PREDICTIONS PICTURES OUT`: add photos with predicted masks to a training set."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.cli._data_arguments import add_data_arguments, reader_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fashion_hydra.workflows.pseudo_label import PseudoLabels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="predict.py's folder for PICTURES")
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help="photos without masks, predict.py's input")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, in Kaggle's layout")
    parser.add_argument(
        "--tags",
        type=Path,
        metavar="CSV",
        help="categories on each picture: columns image and categories (ids separated by spaces)",
    )
    parser.add_argument(
        "--split", type=Path, metavar="CSV", help="folds of DIR (default: train.py's; a run's are in RUN/split.csv)"
    )
    parser.add_argument("--score-thr", type=float, default=0.5, help="minimum score of a mask (default: %(default)s)")
    parser.add_argument(
        "--tag-thr", type=float, default=0.05, help="minimum score of a tagged class's best mask (default: %(default)s)"
    )
    parser.add_argument("--mask-thr", type=float, default=0.5, help="threshold of mask pixels (default: %(default)s)")
    parser.add_argument(
        "--missing",
        type=int,
        default=1,
        metavar="N",
        help="leave out pictures with more than N tagged classes without a mask (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder and print a summary."""
    from fashion_hydra.workflows.pseudo_label import PseudoLabelRule, write_pseudo_labelled

    rule = PseudoLabelRule(args.score_thr, args.tag_thr, args.mask_thr, args.missing)
    result, names = write_pseudo_labelled(
        reader_of(args), args.predictions, args.pictures, args.out, rule=rule, tags=args.tags, split=args.split
    )
    print_result(result, names, has_tags=args.tags is not None)
    if result.faults:
        print(f"left out: {result.faults} faults of the data set (fashion-hydra check lists them)")
    print(f"\nwritten: {args.out}, {result.labelled} photos followed by {result.added} pseudo-labelled ones")
    print(f"next: python train.py data.root={args.out} data.split_file={args.out / 'split.csv'}")
    return 0


def print_result(result: "PseudoLabels", names: "Mapping[int, str]", *, has_tags: bool) -> None:
    """Print a line per class, and the reasons for pictures left out."""
    print(f"{'class':26} {'masks':>6}" + (f" {'tagged':>7} {'with a mask':>12}" if has_tags else ""))
    for category in sorted(result.masks.keys() | result.tagged.keys()):
        tagged, found = result.tagged[category], result.found[category]
        share = f"{found / tagged:12.0%}" if tagged else ""
        print(f"{names[category][:26]:26} {result.masks[category]:6}" + (f" {tagged:7} {share}" if has_tags else ""))
    for reason, count in result.left_out.most_common():
        print(f"left out: {count} pictures, {reason}")
