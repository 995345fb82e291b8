"""`fashion-hydra pack CHECKPOINT MODEL.safetensors`: write a trained model as one small file to share."""

import argparse
from pathlib import Path

from fashion_hydra.cli._out_argument import add_force_argument, check_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a checkpoint of train.py")
    parser.add_argument("out", metavar="MODEL.safetensors", type=Path, help="file to write")
    parser.add_argument(
        "--thresholds", metavar="tuned.yaml", type=Path, help="tune_thresholds.py's file; predictions use it by default"
    )
    parser.add_argument("--note", default="", help="description: training data, licence, scores")
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, and check that it loads."""
    from fashion_hydra.model.checkpoint import load_member, read_checkpoint
    from fashion_hydra.model.packed import write_packed
    from fashion_hydra.postprocess.rule_files import plain_rule, read_tuned
    from fashion_hydra.postprocess.rule_options import build_rule

    check_out(args.out, ".safetensors", force=args.force)
    member, rule = load_member(args.checkpoint), None
    if args.thresholds is not None:
        rule = plain_rule(read_tuned(args.thresholds), args.thresholds)
        build_rule(rule, member.classes)
    write_packed(args.out, read_checkpoint(args.checkpoint), rule=rule, note=args.note)
    load_member(args.out)
    print(f"written      {args.out}, {args.out.stat().st_size / 1e6:.1f} MB, {len(member.classes)} classes")
    print(f"thresholds   {args.thresholds or 'none: predictions use those of postprocess=winner'}")
    print(f"next         python predict.py checkpoint={args.out} data.root=PICTURES draw=true")
    return 0
