"""What the rungs of a ladder of recipes scored."""

from dataclasses import dataclass

from fashion_hydra.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Recipe:
    """A rung, as its file tells it.

    Args:
        name: of the file.
        title: what it changes against the rung before.
        leaderboard: the winner's score with it, on the competition's private test images; None beyond the winner's.
        sources: the choices of `ensemble` and `tta`: rungs that share them share candidates.
        tuned: whether it needs thresholds of its own.
    """

    name: str
    title: str
    leaderboard: float | None
    sources: tuple[str, str]
    tuned: bool


@dataclass(frozen=True)
class Rung:
    """What a recipe scored.

    Args:
        recipe: the recipe.
        score: mean over the images, with its interval.
        gain: over the rung before, image by image; None for the first.
        images: that were predicted.
        seconds: an image, of predicting its candidates; None where they were not predicted in one go.
    """

    recipe: Recipe
    score: Interval
    gain: Interval | None
    images: int
    seconds: float | None
