"""`fashion-hydra evaluate`: print COCO's average precision of results, as pycocotools computes it."""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `--help` must not wait for numpy
    from fashion_hydra.evaluation.coco_files import Comparison
    from fashion_hydra.utils.types import FloatArray

_LISTED = 20
_MEANINGS = {
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "AP_small": "up to 32 x 32 pixels",
    "AP_medium": "up to 96 x 96 pixels",
    "AP_large": "larger",
    "AR_1": "recall with the best prediction per image and class",
    "AR_10": "with the best 10",
    "AR_100": "with the best 100",
    "AR_small": "with the best 100, by size",
    "AR_medium": "",
    "AR_large": "",
    "boundary_AP": "by the smaller of mask IoU and boundary IoU",
    "AP_F1": "IoU and F1 of the attributes 0.50 to 0.95 (Fashionpedia)",
    "AP50_F1": "IoU 0.50, F1 0.50 to 0.95",
    "AP75_F1": "IoU 0.75, F1 0.50 to 0.95",
    "AP_F1_50": "IoU 0.50 to 0.95, F1 0.50",
    "AP_F1_75": "IoU 0.50 to 0.95, F1 0.75",
    "AP50_F1_50": "IoU 0.50, F1 0.50",
    "AP50_F1_75": "IoU 0.50, F1 0.75",
    "AP75_F1_50": "IoU 0.75, F1 0.50",
    "AP75_F1_75": "IoU 0.75, F1 0.75",
    "AP_F1_small": "up to 32 x 32 pixels",
    "AP_F1_medium": "up to 96 x 96 pixels",
    "AP_F1_large": "larger",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="COCO JSON with annotations, or a train.csv")
    parser.add_argument("results", metavar="RESULTS", type=Path, help="COCO results (output=coco), or a submission")
    parser.add_argument("--per-class", action="store_true", help="print a table of classes, in the order of TRUTH")
    parser.add_argument("--boundary", action="store_true", help="also print boundary AP (Cheng et al., CVPR 2021)")
    parser.add_argument(
        "--predicted",
        action="store_true",
        help="leave out images without predictions (default: they count as empty, as in pycocotools)",
    )
    parser.add_argument(
        "--attribute-classes",
        metavar="ID,ID",
        type=_ids,
        help="categories that have attributes (default: those whose ground-truth masks have any)",
    )
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also write all numbers, with those per class")


def _ids(text: str) -> list[int]:
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be category ids, such as 0,1,2")
    return [int(number) for number in text.split(",")]


def run(args: argparse.Namespace) -> int:
    """Evaluate the results; print numbers to stdout, and omissions and notes to stderr."""
    from fashion_hydra.evaluation.attribute_ap import attribute_ap
    from fashion_hydra.evaluation.boundary import boundary_iou
    from fashion_hydra.evaluation.coco_ap import mask_ap
    from fashion_hydra.evaluation.coco_files import compare_files

    compared = compare_files(args.truth, args.results, predicted_only=args.predicted)
    labels = len(compared.category_ids)
    ap = mask_ap(compared.truth, compared.found, labels=labels, pixel_areas=compared.pixel_areas)
    overall, of_class = dict(ap.overall), dict(ap.of_class)
    if args.boundary:
        edges = mask_ap(compared.truth, compared.found, labels=labels, overlap=boundary_iou)
        overall["boundary_AP"], of_class["boundary_AP"] = edges.overall["AP"], edges.of_class["AP"]
    if compared.vocabulary:
        attributed = attribute_ap(
            compared.truth,
            compared.found,
            labels=labels,
            vocabulary=compared.vocabulary,
            carriers=_carriers(args, compared),
            pixel_areas=compared.pixel_areas,
        )
        overall |= attributed.overall
        of_class |= attributed.of_class
    _print_files(args, compared)
    for name, value in overall.items():
        print(f"{name:12}  {_number(value)}  {_MEANINGS[name]}".rstrip())
    if args.per_class:
        columns = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
        columns += [name for name in ("boundary_AP", "AP_F1") if name in of_class]
        width = max(len(name) for name in compared.category_names)
        print(f"\n{'class':{width}}  {'masks':>6}  {'  '.join(f'{name:>11}' for name in columns)}")
        for label, name in enumerate(compared.category_names):
            masks = sum(t.label == label and not t.crowd for objects in compared.truth.values() for t in objects)
            cells = "  ".join(f"{_number(float(of_class[column][label])):>11}" for column in columns)
            print(f"{name:{width}}  {masks:6}  {cells}")
    if args.out:
        _write(args.out, overall, of_class, compared)
        print(f"\nwritten      {args.out}")
    return 0


def _carriers(args: argparse.Namespace, compared: "Comparison") -> list[int] | None:
    """Return the labels of --attribute-classes; raise UserError for ids that TRUTH does not have."""
    from fashion_hydra.utils.errors import UserError

    if args.attribute_classes is None:
        return None
    ids = list(compared.category_ids)
    if unknown := [number for number in args.attribute_classes if number not in ids]:
        raise UserError(f"--attribute-classes: {args.truth} has no category {unknown[0]}")
    return [ids.index(number) for number in args.attribute_classes]


def _number(value: float) -> str:
    return "     –" if math.isnan(value) else f"{value:.4f}"


def _print_files(args: argparse.Namespace, compared: "Comparison") -> None:
    objects = [true for of_image in compared.truth.values() for true in of_image]
    crowds = sum(true.crowd for true in objects)
    regions = f", {crowds} crowd regions" if crowds else ""
    print(
        f"truth        {args.truth}: {len(compared.truth)} images, {len(objects) - crowds} masks of "
        f"{len(compared.category_ids)} classes{regions}"
    )
    masks = sum(map(len, compared.found.values()))
    where = "on the 512x512 grid of a submission" if compared.on_grid else "on the images' own frames"
    print(f"results      {args.results}: {masks} masks of {len(compared.found)} images, compared {where}")
    for kind, lines in (("left out", compared.left_out), ("note", compared.notes)):
        for line in lines[:_LISTED]:
            print(f"{kind}: {line}", file=sys.stderr)
        if len(lines) > _LISTED:
            print(f"{kind}: {len(lines) - _LISTED} more", file=sys.stderr)
    sys.stderr.flush()


def _write(
    path: Path, overall: Mapping[str, float], of_class: "Mapping[str, FloatArray]", compared: "Comparison"
) -> None:
    """Write all numbers as JSON; null for numbers without any object."""
    from fashion_hydra.utils.files import atomic_write

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    classes = [
        {"id": number, "name": name, **{key: known(float(values[label])) for key, values in of_class.items()}}
        for label, (number, name) in enumerate(zip(compared.category_ids, compared.category_names, strict=True))
    ]
    content = {**{name: known(value) for name, value in overall.items()}, "classes": classes}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=1)
