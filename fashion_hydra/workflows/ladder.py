"""Predict and score a run's checkpoints with each recipe in experiments/ladder, rung by rung."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.places import CONF, VERBS
from fashion_hydra.evaluation.bootstrap import bootstrap
from fashion_hydra.evaluation.ladder import Rung
from fashion_hydra.evaluation.score_submission import score_masks
from fashion_hydra.formats.submission import read_masks
from fashion_hydra.postprocess.rule_files import NAME as TUNED
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.yaml_files import read_mapping
from fashion_hydra.workflows.predict import predict
from fashion_hydra.workflows.tune import tune

RECIPES = CONF / "experiment" / "ladder"


@dataclass(frozen=True)
class Recipe:
    """A recipe in experiments/ladder.

    Args:
        name: file name without suffix.
        title: what the recipe changes compared with the previous one.
        leaderboard: the winner's score with the recipe on the competition's private test images; None if unknown.
        sources: the values of `ensemble`, `tta` and `inference.mask_grid`; recipes with equal values share candidates.
        tuned: whether the recipe needs tuned thresholds.
    """

    name: str
    title: str
    leaderboard: float | None
    sources: dict[str, str]
    tuned: bool


@dataclass(frozen=True)
class Walk:
    """Options of a walk up the ladder.

    Args:
        run: folder of the training run.
        images: `test`, `val` or `test_fold`, see `data.images` of predict.py.
        truth: CSV of the images' true masks; None to use the truth of the run's data.
        folder: output folder.
        overrides: options for predict.py and tune_thresholds.py.
    """

    run: Path
    images: str
    truth: Path | None
    folder: Path
    overrides: tuple[str, ...]


def read_recipes(folder: Path = RECIPES) -> list[Recipe]:
    """Read the recipes, sorted by file name.

    Raises:
        UserError: the folder has no recipes.
    """
    recipes = []
    for path in sorted(folder.glob("*.yaml")):
        content = read_mapping(path)
        chosen = {k.removeprefix("override /"): v for entry in content["defaults"] for k, v in entry.items()}
        grid = content["inference"]["mask_grid"]
        sources = {
            "ensemble": chosen["ensemble"],
            "tta": chosen["tta"],
            "inference.mask_grid": "null" if grid is None else str(grid),
        }
        rung, tuned = content["rung"], chosen["postprocess"] == "tuned"
        recipes.append(Recipe(path.stem, rung["title"], rung["leaderboard"], sources, tuned))
    if not recipes:
        raise UserError(f"{folder}: no recipes (*.yaml)")
    return recipes


def walk(plan: Walk, recipes: Sequence[Recipe]) -> list[Rung]:
    """Predict and score each rung; reuse existing predictions.

    Raises:
        UserError: a prediction failed, or the truth is missing.
    """
    rungs: list[Rung] = []
    before: np.ndarray | None = None
    for number, recipe in enumerate(recipes, 1):
        folder = plan.folder / recipe.name
        seconds = _predict(plan, recipe, folder)
        truth = read_masks(_existing(plan.truth or folder / "truth.csv"))
        score, missing = score_masks(truth, read_masks(folder / "submission.csv"))
        values = np.array([score.per_image[name] for name in sorted(score.per_image.keys() - set(missing))])
        gain = bootstrap(values - before, seed=0) if before is not None else None
        rungs.append(
            Rung(
                number=str(number),
                name=recipe.name,
                title=recipe.title,
                images=len(values),
                score=bootstrap(values, seed=0),
                gain=gain,
                leaderboard=recipe.leaderboard,
                seconds=seconds,
            )
        )
        print(line(rungs[-1]), flush=True)
        before = values
    return rungs


def line(rung: Rung) -> str:
    """Describe a rung in one line."""
    gain = f"{rung.gain.value:+.4f} [{rung.gain.low:+.4f}, {rung.gain.high:+.4f}]" if rung.gain else ""
    theirs = f"{rung.leaderboard:.5f}" if rung.leaderboard is not None else ""
    score = f"{rung.score.value:.4f} [{rung.score.low:.4f}, {rung.score.high:.4f}]"
    return f"rung {rung.number}  {rung.title:48} {score}  {gain:27}  winner's {theirs or '-'}"


def _existing(truth: Path) -> Path:
    if not truth.is_file():
        raise UserError(f"{truth}: no such file. Give --truth TRUTH.csv, or --images val or test_fold")
    return truth


def _predict(plan: Walk, recipe: Recipe, folder: Path) -> float | None:
    """Predict with a recipe, after tuning if needed; return the seconds per image, if known."""
    name = "-".join(value for value in recipe.sources.values() if value != "null")
    words = [f"experiment=ladder/{recipe.name}", f"data.images={plan.images}", f"out={folder}"]
    if recipe.tuned:
        tuned = plan.folder / "tuned" / name / TUNED
        if not tuned.is_file():
            sources = [f"{option}={value}" for option, value in recipe.sources.items()]
            _call(plan, "tune", *sources, f"out={tuned.parent}")
        words.append(f"postprocess.file={tuned}")
    candidates = plan.folder / "candidates" / name
    fresh = not candidates.exists()
    candidates.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "candidates").exists():
        (folder / "candidates").symlink_to(Path("..") / "candidates" / name)
    begin = time.monotonic()
    _call(plan, "predict", *words)
    noted = candidates / "seconds_an_image.txt"
    if fresh:
        predicted = len(list((candidates / "images").glob("*.npz")))
        noted.write_text(f"{(time.monotonic() - begin) / max(1, predicted):.3f}\n")
    return float(noted.read_text()) if noted.is_file() else None


def _call(plan: Walk, verb: str, *words: str) -> None:
    """Print the command that does the same as a script, and run its workflow in this process."""
    words = (*words, f"ensemble.run={plan.run}", *plan.overrides)
    print(f"\n$ python {shlex.join([VERBS[verb], *words])}", flush=True)
    workflow: Callable[[Any, Command], Any] = {"predict": predict, "tune": tune}[verb]
    workflow(compose_options(verb, *words), Command(words, shares_process=True))
