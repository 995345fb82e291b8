"""Scores of a ladder, whose recipes change one thing each, and its table ladder.csv."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion_hydra.evaluation.bootstrap import Interval
from fashion_hydra.formats.csv_files import parse_csv
from fashion_hydra.utils.files import atomic_write

FILE_NAME = "ladder.csv"
_HEADER = ("rung", "name", "change", "images", "score", "low", "high", "gain", "gain_low", "gain_high",
           "leaderboard", "seconds")  # fmt: skip


@dataclass(frozen=True)
class Rung:
    """The score of one recipe.

    Args:
        number: position in the ladder, from 1.
        name: file name of the recipe without suffix.
        title: what the recipe changes compared with the previous rung.
        images: number of scored images.
        score: mean over the images, with its interval.
        gain: gain over the previous rung, paired by image; None for the first rung and in tables without gains.
        leaderboard: the winner's score on the competition's private test images; None if unknown.
        seconds: time to predict the candidates of an image, in seconds; None if unknown.
    """

    number: str
    name: str
    title: str
    images: int
    score: Interval
    gain: Interval | None
    leaderboard: float | None
    seconds: float | None


def write_ladder(path: Path, rungs: Sequence[Rung]) -> None:
    """Write rungs to a CSV file."""
    with atomic_write(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(_HEADER)
        for rung in rungs:
            gain = _ends(rung.gain) if rung.gain else [""] * 3
            seconds = "" if rung.seconds is None else f"{rung.seconds:.3f}"
            writer.writerow([rung.number, rung.name, rung.title, rung.images, *_ends(rung.score), *gain,
                             rung.leaderboard, seconds])  # fmt: skip


def read_ladder(path: Path) -> list[Rung]:
    """Read rungs from a CSV file, including older files without gains.

    Raises:
        UserError: the file is damaged or empty.
    """
    return parse_csv(path, _rungs)


def _ends(interval: Interval) -> list[str]:
    return [f"{value:.6f}" for value in (interval.value, interval.low, interval.high)]


def _rungs(rows: Sequence[Mapping[str, str]]) -> list[Rung]:
    if not rows:
        raise ValueError("no rows")
    return [_rung(row) for row in rows]


def _rung(row: Mapping[str, str]) -> Rung:
    return Rung(
        number=row["rung"],
        name=row["name"],
        title=row["change"],
        images=int(row["images"]),
        score=Interval(float(row["score"]), float(row["low"]), float(row["high"])),
        gain=Interval(*(float(row[key]) for key in ("gain", "gain_low", "gain_high"))) if row.get("gain") else None,
        leaderboard=float(row["leaderboard"]) if row["leaderboard"] else None,
        seconds=float(row["seconds"]) if row["seconds"] else None,
    )
