"""The arguments that name a model in memory, the same for every command."""

import argparse


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the models and the views that they look at."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        default=["street"],
        help="name of a model in models/ (street), a checkpoint, or a training run's folder; several answer together",
    )
    parser.add_argument("--tta", default="single", help="views: single, flip or multi (default: %(default)s)")
