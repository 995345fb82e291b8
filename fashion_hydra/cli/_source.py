"""The arguments that name a folder of images with masks, the same for every command."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fashion_hydra.data.annotation_cache import Source


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the folder and its annotation file."""
    parser.add_argument("folder", metavar="DIR", help="folder in Kaggle's layout, or of images with --coco")
    parser.add_argument("--csv", metavar="NAME", help="annotation file in DIR, when it is not train.csv")
    parser.add_argument("--coco", metavar="FILE", help="annotations in COCO's JSON format, in DIR or anywhere")


def source_of(args: argparse.Namespace) -> "Source":
    """What the arguments name."""
    from fashion_hydra.data.coco import CocoFile
    from fashion_hydra.data.kaggle import KaggleFolder

    return CocoFile(args.folder, args.coco) if args.coco else KaggleFolder(args.folder, args.csv)
