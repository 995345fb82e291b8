"""`fashion-hydra export-coco DIR OUT.json`: write a data set in COCO's format."""

import argparse
import shlex
from pathlib import Path

from fashion_hydra.cli._data_arguments import add_data_arguments, reader_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("out", type=Path, metavar="OUT.json", help="file to write")
    parser.add_argument("--split", type=Path, metavar="CSV", help="export only the images of --folds of this split")
    parser.add_argument("--folds", type=int, nargs="+", metavar="K", help="folds of --split to export")


def run(args: argparse.Namespace) -> int:
    """Write the file and print a summary."""
    import numpy as np

    from fashion_hydra.data.annotation_cache import load_annotations
    from fashion_hydra.data.annotations import describe_faults
    from fashion_hydra.data.coco_export import write_coco
    from fashion_hydra.data.split import read_split
    from fashion_hydra.utils.errors import UserError

    if (args.split is None) != (args.folds is None):
        raise UserError("--split and --folds belong together: give both or neither")
    if args.out.is_dir():
        raise UserError(f"{args.out}: a folder; name a file, such as {args.out / 'annotations.json'}")
    reader = reader_of(args)
    annotations, faults = load_annotations(reader)
    chosen = np.arange(len(annotations))
    if args.split is not None:
        left_out = frozenset(fault.image_id for fault in faults)
        chosen = np.flatnonzero(np.isin(read_split(args.split, annotations.image_ids, left_out=left_out), args.folds))
        if not len(chosen):
            raise UserError(f"--folds {' '.join(map(str, args.folds))}: no image of {args.split} is in these folds")
    masks, crowds = write_coco(annotations, args.out, chosen.tolist())
    more = f", {crowds} crowd regions" if crowds else ""
    print(f"{args.out}: {len(chosen)} images, {masks} masks{more}, {len(annotations.names)} categories")
    print(describe_faults(faults))
    words = ["python", "train.py", "data=coco", f"data.root={reader.folder}", f"data.annotations={args.out.absolute()}"]
    print(f"next: {shlex.join(words)}")
    return 0
