"""Arguments for a model, shared by the commands."""

import argparse


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the models and their views."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        default=["street"],
        help="name of a model in models/ (street), a checkpoint, or a training run's folder; several form an ensemble",
    )
    parser.add_argument("--tta", default="single", help="views: single, flip or multi (default: %(default)s)")
