"""`fashion-hydra wardrobe DIR`: draw the embedded data set."""

import argparse
from pathlib import Path

from fashion_hydra.data.imaterialist import CATEGORIES
from fashion_hydra.wardrobe import Summary, write_wardrobe
from fashion_hydra.wardrobe.sheet import contact_sheet
from fashion_hydra.wardrobe.writer import draw_image

SHEET_IMAGES = 12
SHEET_SIZE = 512  # minimum long edge of the sheet's images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=240, metavar="N", help="training images (default: %(default)s)")
    parser.add_argument("--test", type=int, default=60, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        metavar="S",
        help="long edge in pixels, 96-2048 (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="K",
        help="the same seed draws the same images (default: %(default)s)",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="PNG",
        help=f"also write a contact sheet of the first {SHEET_IMAGES} images",
    )


def run(args: argparse.Namespace) -> int:
    """Draw the data set, and print a summary and the next command."""
    summary = write_wardrobe(args.folder, train=args.train, test=args.test, size=args.size, seed=args.seed)
    if args.sheet is not None:
        count = min(SHEET_IMAGES, args.train)
        size = max(args.size, SHEET_SIZE)
        pictures = [draw_image(seed=args.seed, split="train", index=i, size=size) for i in range(count)]
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(pictures).save(args.sheet, optimize=True)
    print(_describe(summary, args.folder))
    if args.sheet is not None:
        print(f"contact sheet: {args.sheet}")
    print(f"next: python train.py experiment=demo data.root={args.folder}")
    return 0


def _describe(summary: Summary, folder: Path) -> str:
    state = "drawn in" if summary.written else "already there:"
    counts = "; ".join(
        f"{summary.images[split]} {split} images with {summary.masks[split]} masks" for split in summary.images
    )
    names = ", ".join(f"{CATEGORIES[c].name.split(',')[0]} {n}" for c, n in summary.masks_per_category.items())
    return f"{state} {folder}: {counts}\n{len(summary.masks_per_category)} categories (masks): {names}"
