"""Read the CSV files of training and tuning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion_hydra.formats.csv_files import parse_csv
from fashion_hydra.training.run_folder import saved_config
from fashion_hydra.tuning.grid import AXES
from fashion_hydra.utils.yaml_files import value_at

_MAPS = (("score_thr", "mask_thr"), ("score_thr", "iou_thr"))


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Args:
        folder: folder of the run.
        series: metric -> (step, value) pairs, by ascending step.
        facts: name -> value of the most important settings.
    """

    folder: Path
    series: Mapping[str, Sequence[tuple[int, float]]]
    facts: Mapping[str, str]


def read_training(folder: Path) -> TrainingRun:
    """Read losses and scores of the CSV logger; if files of a resumed run overlap, the later file wins."""
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
        "images per step": "schedule.batch",
        "images per device and step": "data.batch_size",
        "learning rate": "schedule.lr",
        "seed": "seed",
    }
    facts = {name: str(value) for name, key in wanted.items() if (value := value_at(config, key)) is not None}
    return TrainingRun(folder, {name: sorted(p.items()) for name, p in points.items() if p}, facts)


def points_of(file: Path) -> dict[str, dict[int, float]]:
    """Read one CSV file of the logger: metric -> step -> value."""

    def read(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[int, float]]:
        points: dict[str, dict[int, float]] = {}
        for row in rows:
            for name, text in row.items():
                if name not in ("step", "epoch") and text:
                    points.setdefault(name, {})[int(row["step"])] = float(text)
        return points

    return parse_csv(file, read)


@dataclass(frozen=True)
class HeatMap:
    """Scores over two thresholds, each maximized over all other thresholds.

    Args:
        rows: name of the threshold that varies between rows.
        columns: name of the threshold that varies between columns.
        row_values: values of the rows' threshold, ascending.
        column_values: values of the columns' threshold, ascending.
        scores: one list of scores per row.
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
    """The results of tune_thresholds.py.

    Args:
        folder: folder written by tune_thresholds.py.
        methods: rows of methods.csv, the simplest first.
        combinations: number of combinations in the grid.
        maps: heat maps of the grid.
    """

    folder: Path
    methods: Sequence[Mapping[str, str]]
    combinations: int
    maps: Sequence[HeatMap]

    @property
    def chosen(self) -> str:
        """Name of the method whose rule is in tuned.yaml."""
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

    methods = parse_csv(folder / "methods.csv", check)
    grid = parse_csv(folder / "grid.csv", _points) if (folder / "grid.csv").is_file() else []
    return Tuning(folder, methods, len(grid), list(_heat_maps(grid)))


def _points(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """Parse the rows of grid.csv, without the class-removal set, which is not a number."""
    columns = rows[0].keys() if rows else ()
    numbers = [name for name in (*AXES, "score") if name != "drop" and name in columns]
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
