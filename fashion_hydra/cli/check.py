"""`fashion-hydra check DIR`: every fault of a data set, one a line."""

import argparse
from collections import Counter
from pathlib import Path

from fashion_hydra.cli._data_arguments import add_data_arguments, reader_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--report", type=Path, metavar="CSV", help="also write the faults as a table")
    parser.add_argument(
        "--quick", action="store_true", help="read images' headers and ends, not all of their pixels (as training does)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the faults and a summary; 1 if there are any."""
    from fashion_hydra.data.annotation_cache import load_annotations
    from fashion_hydra.data.annotations import write_faults

    annotations, faults = load_annotations(reader_of(args), decode=not args.quick)
    for fault in faults:
        place = f" row {fault.row}" if fault.row else ""
        print(f"{fault.kind}: {fault.image_id}{place}: {fault.value} -> {fault.action}")
    if args.report is not None:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        write_faults(args.report, faults)
    masks, categories = len(annotations.class_ids), len(set(annotations.categories))
    usable = f"{len(annotations)} images with {masks} masks of {categories} categories"
    if not faults:
        print(f"{args.folder}: no faults, {usable}")
        return 0
    kinds = Counter(fault.kind for fault in faults)
    print(f"\n{args.folder}: {len(faults)} faults; can be used: {usable}")
    for kind, count in kinds.most_common():
        print(f"{count:8d}  {kind}")
    return 1
