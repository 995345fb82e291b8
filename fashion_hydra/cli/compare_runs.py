"""`fashion-hydra compare-runs`: compare two training configurations on the photos that their runs held out."""

import argparse
import csv
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="training runs of configuration A, or folders of runs"
    )
    parser.add_argument(
        "--with",
        dest="others",
        metavar="RUN",
        type=Path,
        nargs="+",
        required=True,
        help="training runs of configuration B: the same folds, and the same number of runs per fold",
    )
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="checkpoint of each run; the best was chosen on the same photos, so it is biased (default: last)",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("predictions/compare-runs"), help="default: %(default)s"
    )
    parser.add_argument("--draws", metavar="N", type=int, default=1000, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option for predict.py, such as tta=flip or data.root=DIR; may be repeated",
    )
    parser.add_argument(
        "--set-with",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option for predict.py in configuration B only, also to compare with the same runs; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Make missing predictions, compare the runs, and write comparison.csv and classes.csv."""
    from fashion_hydra.training.console import silence_library_noise
    from fashion_hydra.utils.files import atomic_write
    from fashion_hydra.workflows.compare_runs import check_pairs, compare_runs, differing_options, find_runs

    if args.draws < 2:
        raise UserError(f"--draws {args.draws}: must be at least 2")
    sides = find_runs(args.runs), find_runs(args.others)
    count = check_pairs(*sides)
    silence_library_noise()
    firsts = [next(iter(side.values()))[0] for side in sides]
    print(f"runs           {len(sides[0])} folds, {count} of each; A {firsts[0].path}, B {firsts[1].path}")
    for key, (mine, other) in differing_options(*firsts).items():
        print(f"differs        {key}: A {mine}, B {other}")
    for word in args.set_with:
        print(f"differs        B predicts with {word}")
    words = args.set, [*args.set, *args.set_with]
    found = compare_runs(sides, args.out, checkpoint=args.checkpoint, words=words, draws=args.draws, seed=args.seed)
    print(f"{found.images} held-out photos; 95% intervals over photos")
    print(f"{'':12} {'A':24} {'B':24} B - A")
    for row in found.differences:
        cells = [f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for i in (row.first, row.second)]
        gain = f"{row.gain.value:+.4f} [{row.gain.low:+.4f}, {row.gain.high:+.4f}]"
        print(f"{row.metric:12} {cells[0]:24} {cells[1]:24} {gain}  {row.verdict}")
    with atomic_write(args.out / "comparison.csv") as stream:
        writer = csv.writer(stream)
        writer.writerow(["metric", *(f"{of}{end}" for of in ("a", "b", "gain") for end in ("", "_low", "_high"))])
        for row in found.differences:
            numbers = [value for i in (row.first, row.second, row.gain) for value in (i.value, i.low, i.high)]
            writer.writerow([row.metric, *(f"{value:.6f}" for value in numbers)])
    with atomic_write(args.out / "classes.csv") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class", "masks", "AP_a", "AP_b"])
        writer.writerows([name, masks, f"{a:.6f}", f"{b:.6f}"] for name, (masks, a, b) in found.classes.items())
    print(f"tables         {args.out / 'comparison.csv'}  {args.out / 'classes.csv'}")
    return 0
