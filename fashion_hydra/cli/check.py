"""`fashion-hydra check DIR`: list every fault of a data set, one per line."""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.cli._data_arguments import add_data_arguments, reader_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fashion_hydra.data.annotations import DataFault


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--report", type=Path, metavar="CSV", help="also write the faults as a table")
    parser.add_argument(
        "--quick", action="store_true", help="read only headers and ends of images, not all pixels (as training does)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the faults and a summary; return 1 if there are faults or nothing can be used."""
    from fashion_hydra.data.annotation_cache import UnusableData, load_annotations
    from fashion_hydra.data.annotations import write_faults

    reader = reader_of(args)
    usable, reason = "nothing", ""
    try:
        annotations, faults = load_annotations(reader, decode=not args.quick)
        masks, crowds = len(annotations.class_ids), len(annotations.crowd_ids)
        categories = len(set(annotations.categories))
        usable = f"{len(annotations)} images with {masks} masks of {categories} categories"
        usable += f" and {crowds} crowd regions" if crowds else ""
    except UnusableData as error:
        faults, reason = list(error.faults), str(error)
    for fault in faults:
        print(fault)
    if args.report is not None:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        write_faults(args.report, faults)
    print_summary(args.folder, faults, usable)
    print(f"images: {reader.folder}")
    if not reason and not masks:
        reason = "no mask can be used, so there is nothing to train on"
    if reason:
        print(reason)
    return 1 if reason or any(not fault.is_remark for fault in faults) else 0


def print_summary(folder: str, faults: "Sequence[DataFault]", usable: str) -> None:
    """Print the number of faults and remarks of each kind, and the usable data."""
    remarks = sum(fault.is_remark for fault in faults)
    wrong = len(faults) - remarks
    counted = f"{wrong or 'no'} faults" + (f", {remarks} remarks" if remarks else "")
    print("\n" * bool(faults) + f"{folder}: {counted}; can be used: {usable}")
    for kind, count in Counter(fault.kind for fault in faults).most_common():
        print(f"{count:8d}  {kind}")
