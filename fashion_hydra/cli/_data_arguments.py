"""The arguments that name a folder of images with masks, the same for every command."""

import argparse
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fashion_hydra.data.annotation_cache import AnnotationReader


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the folder and its annotation file."""
    parser.add_argument("folder", metavar="DIR", help="folder in Kaggle's layout, or as --coco or --yolo say")
    add_layout_arguments(parser)


def add_layout_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how DIR is laid out."""
    parser.add_argument("--csv", metavar="NAME", help="annotation file in DIR, when it is not train.csv")
    parser.add_argument("--coco", metavar="FILE", help="annotations in COCO's JSON format, in DIR or anywhere")
    parser.add_argument("--yolo", action="store_true", help="DIR is in YOLO's segmentation layout, with data.yaml")


def train_command(args: argparse.Namespace, *options: str) -> str:
    """The `train.py` that reads the same data, as one types it."""
    words = ["data=yolo"] if args.yolo else ["data=coco", f"data.annotations={args.coco}"] if args.coco else []
    words += [f"data.annotations={args.csv}"] if args.csv else []
    return shlex.join(["python", "train.py", *words, f"data.root={args.folder}", *options])


def reader_of(args: argparse.Namespace) -> "AnnotationReader":
    """What the arguments name."""
    from fashion_hydra.data.coco import CocoReader
    from fashion_hydra.data.kaggle import KaggleReader
    from fashion_hydra.data.yolo import YoloReader

    if args.yolo:
        return YoloReader(args.folder)
    return CocoReader(args.folder, args.coco) if args.coco else KaggleReader(args.folder, args.csv)
