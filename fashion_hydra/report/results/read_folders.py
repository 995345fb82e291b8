"""The CSV files of training runs, of tuning and of ladders, read to plain values."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fashion_hydra.training.run_folder import saved_config
from fashion_hydra.tuning.grid import AXES
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.yaml_files import value_at

T = TypeVar("T")
_MAPS = (("score_thr", "mask_thr"), ("score_thr", "iou_thr"))


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Args:
        folder: of it.
        series: metric -> points of step and value, by step.
        facts: what the config says that a reader wants first.
    """

    folder: Path
    series: Mapping[str, Sequence[tuple[int, float]]]
    facts: Mapping[str, str]


def read_training(folder: Path) -> TrainingRun:
    """Read the losses and scores that the CSV logger wrote; a resumed run has several files, the later ones hold."""
    files = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.rpartition("_")[2]))
    points: dict[str, dict[int, float]] = {}
    for file in files:
        steps = points_of(file)
        first = min((step for of_metric in steps.values() for step in of_metric), default=0)
        points = {name: {s: v for s, v in of_metric.items() if s < first} for name, of_metric in points.items()}
        for name, of_metric in steps.items():
            points.setdefault(name, {}).update(of_metric)
    config = saved_config(folder)
    wanted = {
        "data": "data.root",
        "epochs": "schedule.epochs",
        "images a step": "data.batch_size",
        "learning rate": "schedule.lr",
        "seed": "seed",
    }
    facts = {name: str(value) for name, key in wanted.items() if (value := value_at(config, key)) is not None}
    return TrainingRun(folder, {name: sorted(p.items()) for name, p in points.items() if p}, facts)


def points_of(file: Path) -> dict[str, dict[int, float]]:
    """Metric -> step -> value, of one CSV of the logger."""

    def read(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[int, float]]:
        points: dict[str, dict[int, float]] = {}
        for row in rows:
            for name, text in row.items():
                if name not in ("step", "epoch") and text:
                    points.setdefault(name, {})[int(row["step"])] = float(text)
        return points

    return _read_table(file, read)


@dataclass(frozen=True)
class HeatMap:
    """Scores over two thresholds, the best that all others allow.

    Args:
        rows: name of the threshold that varies from row to row.
        columns: and from column to column.
        row_values: ascending.
        column_values: ascending.
        scores: one list a row.
    """

    rows: str
    columns: str
    row_values: Sequence[float]
    column_values: Sequence[float]
    scores: Sequence[Sequence[float]]

    @property
    def best(self) -> float:
        """The highest score."""
        return max(map(max, self.scores))

    @property
    def worst(self) -> float:
        """The lowest score."""
        return min(map(min, self.scores))


@dataclass(frozen=True)
class Tuning:
    """What tune_thresholds.py found.

    Args:
        folder: of it.
        methods: rows of methods.csv, the simplest first.
        combinations: how many the grid has.
        maps: of the grid.
    """

    folder: Path
    methods: Sequence[Mapping[str, str]]
    combinations: int
    maps: Sequence[HeatMap]

    @property
    def chosen(self) -> str:
        """The method whose rule is tuned.yaml."""
        return max(self.methods, key=lambda row: float(row["cross_fitted"]))["method"]


def read_tuning(folder: Path) -> Tuning:
    """Read the tables of a tuning folder."""
    columns = ("fitted", "cross_fitted", "low", "high")

    def check(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
        if not rows:
            raise ValueError("no rows")
        for row in rows:
            _ = row["method"], row["gain"], row["rule"], [float(row[column]) for column in columns]
        return list(rows)

    methods = _read_table(folder / "methods.csv", check)
    grid = _read_table(folder / "grid.csv", _points) if (folder / "grid.csv").is_file() else []
    return Tuning(folder, methods, len(grid), list(_heat_maps(grid)))


def _points(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """Rows of grid.csv; the class-removal set is no number and is left out."""
    numbers = [name for name in (*AXES, "score") if name != "drop"]
    return [{name: float(row[name]) for name in numbers} for row in rows]


def _heat_maps(grid: Sequence[Mapping[str, float]]) -> Iterator[HeatMap]:
    for rows, columns in _MAPS:
        best: dict[tuple[float, float], float] = {}
        for point in grid:
            cell = point[rows], point[columns]
            best[cell] = max(point["score"], best.get(cell, 0.0))
        row_values, column_values = (sorted({cell[i] for cell in best}) for i in (0, 1))
        if len(row_values) > 1 and len(column_values) > 1:
            scores = [[best[row, column] for column in column_values] for row in row_values]
            yield HeatMap(rows, columns, row_values, column_values, scores)


@dataclass(frozen=True)
class Rung:
    """One row of a ladder.

    Args:
        number: of the rung.
        name: short.
        change: against the rung below.
        images: how many were scored.
        score: of them.
        low: lower end of the interval.
        high: upper end.
        gain: over the rung below with the ends of its interval, where the table has them.
        leaderboard: what the winner's score was there, where it is known.
        seconds: that it took, where they are known.
    """

    number: str
    name: str
    change: str
    images: int
    score: float
    low: float
    high: float
    gain: tuple[float, float, float] | None
    leaderboard: float | None
    seconds: float | None


@dataclass(frozen=True)
class Ladder:
    """Scores from rung to rung."""

    folder: Path
    rungs: Sequence[Rung]


def read_ladder(folder: Path) -> Ladder:
    """Read ladder.csv."""

    def optional(text: str) -> float | None:
        return float(text) if text else None

    def gain(row: Mapping[str, str]) -> tuple[float, float, float] | None:
        if not row.get("gain"):
            return None
        return float(row["gain"]), float(row["gain_low"]), float(row["gain_high"])

    def read(rows: Sequence[Mapping[str, str]]) -> list[Rung]:
        if not rows:
            raise ValueError("no rows")
        return [
            Rung(
                number=row["rung"],
                name=row["name"],
                change=row["change"],
                images=int(row["images"]),
                score=float(row["score"]),
                low=float(row["low"]),
                high=float(row["high"]),
                gain=gain(row),
                leaderboard=optional(row["leaderboard"]),
                seconds=optional(row["seconds"]),
            )
            for row in rows
        ]

    return Ladder(folder, _read_table(folder / "ladder.csv", read))


def _read_table(path: Path, read: Callable[[Sequence[Mapping[str, str]]], T]) -> T:
    """Rows of a CSV through `read`; what does not fit becomes one line for the user."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return read(list(csv.DictReader(stream)))
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not as this software writes it ({error!r}). Write it again, or remove it") from error
