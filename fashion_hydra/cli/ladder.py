"""`fashion-hydra ladder`: predict and score each rung of the winner's ladder with a training run's checkpoints."""

import argparse
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a training run's folder, or a folder of runs, whose newest is used"
    )
    parser.add_argument(
        "--images",
        choices=("test", "val", "test_fold"),
        default="test",
        help="which images, see data.images of predict.py (default: test, which needs --truth)",
    )
    parser.add_argument("--truth", metavar="TRUTH.csv", type=Path, help="ground-truth masks of the test images")
    parser.add_argument("--rungs", metavar="1,2", help="rungs of experiments/ladder, by name or number (default: all)")
    parser.add_argument("--title", help="title of the plot (default: the run's name)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="default: predictions/ladder-NAME-DATE")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option for predict.py and tune_thresholds.py, such as trainer.accelerator=cpu; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Predict and score each rung, then write ladder.csv and ladder.png."""
    from fashion_hydra.evaluation.ladder import FILE_NAME, write_ladder
    from fashion_hydra.plots.ladder import draw_ladder
    from fashion_hydra.training.console import log_to_stdout
    from fashion_hydra.training.run_folder import RunFolder
    from fashion_hydra.workflows.ladder import Walk, line, read_recipes, walk

    if args.images == "test" and args.truth is None:
        raise UserError("--truth: give the true masks of the test images, or choose --images val or test_fold")
    found = RunFolder.find(args.run).path.resolve()
    folder = args.out or Path("predictions") / f"ladder-{found.parent.name}-{found.name}"
    recipes = read_recipes()
    if args.rungs:
        known = {key: recipe for recipe in recipes for key in (recipe.name, recipe.name.split("_")[0])}
        if unknown := [name for name in args.rungs.split(",") if name not in known]:
            raise UserError(f"--rungs {unknown[0]}: no such recipe. Available: {', '.join(r.name for r in recipes)}")
        recipes = [known[name] for name in args.rungs.split(",")]
    log_to_stdout()
    plan = Walk(found, args.images, args.truth, folder.resolve(), tuple(args.set))
    rungs = walk(plan, recipes)
    write_ladder(folder / FILE_NAME, rungs)
    title = args.title or f"{found.parent.name}, {rungs[0].images} images"
    draw_ladder(folder / "ladder.png", rungs, title=title)
    print(f"\n{rungs[0].images} images; 95% intervals over images; gain over the previous rung, image by image")
    for rung in rungs:
        print(line(rung))
    print(f"table          {folder / FILE_NAME}\npicture        {folder / 'ladder.png'}")
    return 0
