"""`fashion-hydra import-checkpoint IN OUT.safetensors`: convert weights of any layout to current names."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.cli._out_argument import add_force_argument, check_out

HELP = "a checkpoint or a backbone: a file, an http(s) URL, or a torchvision: or mmdet: name (see docs/weights.md)"

if TYPE_CHECKING:
    from fashion_hydra.model.weights.layouts import FileClasses, Imported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="IN", help=HELP)
    parser.add_argument("out", metavar="OUT.safetensors", type=Path, help="file to write")
    parser.add_argument("--sha256", metavar="SUM", help="expected sha256 of IN")
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Convert the weights, write the file, and print a report."""
    from fashion_hydra.model.weights.catalogue import locate_weights
    from fashion_hydra.model.weights.layouts import import_weights, write_weights
    from fashion_hydra.utils.files import file_sha256

    check_out(args.out, ".safetensors", force=args.force)
    found = locate_weights(args.source, args.source, sha256=args.sha256)
    imported = import_weights(found.path)
    digest = found.sha256 or file_sha256(found.path)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_weights(args.out, imported, source=args.source, sha256=digest)
    print_report(imported, source=args.source, sha256=digest)
    print(f"written      {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")
    print(f"next         python train.py weights={args.out} model=... (the model that IN is for)")
    return 0


def print_report(imported: "Imported", *, source: str, sha256: str) -> None:
    """Print the source, its contents, and the converted and dropped tensors."""
    values = sum(tensor.numel() for tensor in imported.tensors.values())
    print(f"source       {source}")
    print(f"sha256       {sha256}")
    print(f"layout       {imported.layout}")
    print(f"classes      {_classes(imported.classes)}")
    if imported.inputs:
        print(f"inputs       {', '.join(f'{key} {value}' for key, value in imported.inputs.items())}")
    print(f"tensors      {len(imported.tensors)} taken ({values / 1e6:.1f} M numbers), {len(imported.dropped)} dropped")
    for done, count in imported.converted.items():
        print(f"converted    {count:4d}  {done}")
    for name, why in imported.dropped.items():
        print(f"dropped      {name}: {why}")


def _classes(classes: "FileClasses | None") -> str:
    if classes is None:
        return "none"
    first = ", ".join(name.split(",")[0] for name in (classes.names or ())[:4])
    named = f": {first}{', ...' if classes.count > 4 else ''}" if first else ""
    if classes.ids is None:
        return f"{classes.count}{named or ', the file does not say which'}"
    return f"{classes.count}, ids {min(classes.ids)} to {max(classes.ids)}{named}"
