"""`fashion-hydra submit-check CSV`: list every breach of the competition's rules in a submission."""

import argparse
from collections import Counter
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("submission", metavar="CSV", type=Path, help="may be .csv.gz or .csv.zip")
    parser.add_argument(
        "--sample", metavar="sample_submission.csv", type=Path, help="lists the images that must have a row"
    )


def run(args: argparse.Namespace) -> int:
    """Print a line per fault and a summary; return 1 if there are faults."""
    from fashion_hydra.formats.submission_check import check_submission

    found = check_submission(args.submission, args.sample)
    counts = f"{found.rows} rows, {found.images} images, {found.masks} masks"
    if not found.faults:
        unknown = "" if args.sample else " (missing images are not checked without --sample)"
        print(f"{args.submission}: valid, {counts}{unknown}")
        return 0
    for fault in found.faults:
        place = " ".join([fault.image] * bool(fault.image) + [f"row {fault.row}"] * bool(fault.row)) or "file"
        print(f"{fault.kind}: {place}: {fault.value}")
    print(f"\n{args.submission}: {len(found.faults)} faults; {counts}")
    for kind, count in Counter(fault.kind for fault in found.faults).most_common():
        print(f"{count:8d}  {kind}")
    return 1
