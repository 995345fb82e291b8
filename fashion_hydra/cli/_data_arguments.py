"""Arguments for a folder of images with masks, shared by the commands."""

import argparse
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fashion_hydra.data.annotation_cache import AnnotationReader


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the folder and its annotation file."""
    parser.add_argument("folder", metavar="DIR", help="data set, in Kaggle's layout unless --coco or --yolo is given")
    add_layout_arguments(parser)


def add_layout_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the layout of DIR."""
    parser.add_argument("--csv", metavar="NAME", help="annotation file in DIR (default: train.csv)")
    parser.add_argument("--coco", metavar="FILE", help="annotations in COCO's JSON format, in DIR or elsewhere")
    parser.add_argument("--yolo", action="store_true", help="DIR is in YOLO's segmentation layout, with data.yaml")


def train_command(args: argparse.Namespace, *options: str) -> str:
    """Return the shell command of `train.py` for the same data."""
    words = ["data=yolo"] if args.yolo else ["data=coco", f"data.annotations={args.coco}"] if args.coco else []
    words += [f"data.annotations={args.csv}"] if args.csv else []
    return shlex.join(["python", "train.py", *words, f"data.root={args.folder}", *options])


def reader_of(args: argparse.Namespace) -> "AnnotationReader":
    """Return the annotation reader that the arguments select."""
    from fashion_hydra.data.coco import CocoReader
    from fashion_hydra.data.kaggle import KaggleReader
    from fashion_hydra.data.yolo import YoloReader

    if args.yolo:
        return YoloReader(args.folder)
    return CocoReader(args.folder, args.coco) if args.coco else KaggleReader(args.folder, args.csv)
