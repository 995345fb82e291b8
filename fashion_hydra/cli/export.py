"""`fashion-hydra export CHECKPOINT OUT.onnx`: write a trained model as ONNX, and compare the outputs of both."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.cli._out_argument import add_force_argument, check_out
from fashion_hydra.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from fashion_hydra.api.predictor import Predictor
    from fashion_hydra.export.onnx_file import Description

_FIGURE_EDGE = 640  # pixels of the drawn figures' long edge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="name of a model in models/ (street), a checkpoint, or a training run's folder",
    )
    parser.add_argument("out", metavar="OUT.onnx", type=Path, help="file to write, with OUT.parity.csv next to it")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--dynamic", action="store_true", help="accept images of any height and width (the default)")
    sizes.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="accept images of this size only; photos are stretched to it",
    )
    parser.add_argument(
        "--input",
        choices=["uint8", "float"],
        default="uint8",
        help="pixel type of the input, RGB from 0 to 255 for both (default: %(default)s)",
    )
    parser.add_argument(
        "--half", action="store_true", help="store weights as float16, for half the file size; compute in float32"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="folder of images to compare the outputs on (default: drawn figures)",
    )
    parser.add_argument(
        "--count", type=int, default=20, help="number of images or figures to compare (default: %(default)s)"
    )
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Export the model, compare the outputs on images, and write the file if they agree."""
    _check(args)
    try:
        from fashion_hydra.export.onnx_file import check_exportable, export_onnx
        from fashion_hydra.export.parity import (
            OnnxModel,
            compare_models,
            describe_difference,
            prepare,
            table,
            tolerance_of,
            write_table,
        )
    except ImportError as error:
        raise UserError(f'export needs two more packages: pip install "fashion-hydra[onnx]" ({error})') from error
    import torch

    from fashion_hydra.api.load import load
    from fashion_hydra.model.checkpoint import load_member
    from fashion_hydra.training.console import silence_library_noise
    from fashion_hydra.utils.files import atomic_write

    silence_library_noise()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    model = load(args.checkpoint, device="cpu")
    [member] = model.members
    check_exportable(member.detector, member.path.name)
    description = _describe(model, args)
    images = list(_images(args))
    # Export a second copy, because the first has folded batch norms.
    content = export_onnx(
        load_member(member.path).detector,
        description,
        input_type=args.input,
        half=args.half,
        name=member.path.name,
    )
    exported = OnnxModel(content, threads=torch.get_num_threads())
    scaled = (prepare(name, pixels, description) for name, pixels in images)
    rows = compare_models(member.detector, exported, scaled, description)
    print(table(rows))
    beside = args.out.with_suffix(".parity.csv")
    write_table(beside, rows)
    if difference := describe_difference(rows, tolerance_of(half=args.half)):
        raise UserError(
            f"{args.out}: not written, its outputs differ from those of {member.path}: {difference}. See {beside}"
        )
    with atomic_write(args.out, "wb") as stream:
        stream.write(content)
    taken = "any size" if description.size is None else f"{description.size[0]}x{description.size[1]} pixels"
    print(f"written      {args.out}, {len(content) / 1e6:.1f} MB: {args.input} images of {taken}")
    print(f"written      {beside}")
    return 0


def _check(args: argparse.Namespace) -> None:
    check_out(args.out, ".onnx", force=args.force)
    if args.size is not None and not all(32 <= edge <= 4096 for edge in args.size):
        raise UserError(f"--size {args.size[0]} {args.size[1]}: height and width must be between 32 and 4096 pixels")
    if args.count < 1:
        raise UserError(f"--count {args.count}: must be at least 1")


def _describe(model: "Predictor", args: argparse.Namespace) -> "Description":
    from fashion_hydra.api.predictor import predict_options
    from fashion_hydra.export.onnx_file import Description
    from fashion_hydra.model.checkpoint import read_checkpoint

    [member] = model.members
    if args.size is None and min(member.scale) < 1:
        raise UserError(f"{member.path}: the checkpoint does not contain the scale of its images. Give --size H W")
    kept = predict_options().candidates
    return Description(
        classes=model.classes,
        scale=member.scale,
        size=None if args.size is None else (args.size[0], args.size[1]),
        thresholds={key: value for key, value in model.thresholds.items() if key != "calibration"},  # a local file
        score_floor=kept.score_floor,
        iou_grid=tuple(sorted({*kept.iou_grid, model.rule().iou_thr})),
        note=str(read_checkpoint(member.path).get("note", "")),
    )


def _images(args: argparse.Namespace) -> "Iterator[tuple[str, np.ndarray]]":
    """Yield name and pixels of each image to compare."""
    if args.images is not None:
        from fashion_hydra.data.image_list import list_folder

        listed = list_folder(args.images)
        for i in range(min(args.count, len(listed))):
            yield listed.image_ids[i], listed.read(i)
        return
    from fashion_hydra.wardrobe.writer import draw_image

    for i in range(args.count):
        yield f"figure {i}", draw_image(seed=0, split="test", index=i, size=_FIGURE_EDGE).rgb
