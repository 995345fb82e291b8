"""The `fashion-hydra` console script: train, run and evaluate models that segment clothes."""

import argparse
import importlib
import os
import runpy
import sys
from collections.abc import Sequence

from fashion_hydra.config.places import PROJECT_ROOT, VERBS
from fashion_hydra.utils.error_messages import describe_error

# Name of the module in fashion_hydra.cli -> summary in --help. Only the chosen module is imported.
COMMANDS = {
    "train": "train a model, as train.py does: `fashion-hydra train --help` shows groups and options",
    "tune": "tune thresholds, as tune_thresholds.py does",
    "predict": "predict masks, as predict.py does",
    "wardrobe": "draw the embedded data set: dressed figures with masks, in Kaggle's layout",
    "check": "list every fault of a data set",
    "split": "write stratified folds for train.py, and print how even they are",
    "pseudo-label": "add photos with predicted masks to a training set, filtered by tags if available",
    "export-coco": "write a data set in COCO's format",
    "eda": "write a page about a data set: classes, sizes, samples with masks, augmented samples",
    "import-checkpoint": "convert weights of old or new mmdet, a backbone or train.py, and report their contents",
    "pack": "write a trained model as one small file: float16 weights, classes, scale and thresholds",
    "export": "write a model as an ONNX file, and compare its outputs with the model's on images",
    "app": "open a page in the browser to try a model on photos, with sliders for the thresholds",
    "benchmark": "time a model's predictions: images per second, latency, memory, parameters, FLOPs",
    "submit-check": "find every breach of the competition's rules in a submission",
    "ladder": "predict and score the winner's ladder, rung by rung, with a training run's checkpoints",
    "compare": "score tuned rules on predicted images with ground truth",
    "compare-runs": "compare two training configurations on the photos that their runs held out",
    "report": "write one page about runs, thresholds and predictions, with a gallery of errors",
    "evaluate": "print COCO's average precision of results, as pycocotools computes it, also per class",
    "score": "print the competition score of a submission",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2 for a user error, 1 for a bug, each reported in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if debug := "--debug" in arguments:
        arguments.remove("--debug")
    if arguments and arguments[0] in VERBS:
        return _run_script(VERBS[arguments[0]], arguments[1:])
    parser = argparse.ArgumentParser(prog="fashion-hydra", description=__doc__.splitlines()[0])
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    module = None
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == chosen:
            module = importlib.import_module(f"fashion_hydra.cli.{name.replace('-', '_')}")
            module.add_arguments(subparser)
    args = parser.parse_args(arguments)
    assert module is not None
    try:
        return module.run(args)
    except BrokenPipeError:  # the reader of the output has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        line, code = describe_error(error, args.command)
        print(f"fashion-hydra {args.command}: {line}", file=sys.stderr)
        return code


def _run_script(name: str, words: Sequence[str]) -> int:
    """Run a script as from the shell, so that the processes that it starts can run it too."""
    path = str(PROJECT_ROOT / name)
    sys.argv = [path, *words]
    runpy.run_path(path, run_name="__main__")
    return 0
