"""Draw learning curves as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_PANELS = (
    ("training loss", ("train/loss",)),
    ("validation", ("val/score", "val/AP50", "val/AP")),
    ("learning rate", ("lr",)),
)


def draw_curves(path: Path, history: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw loss, validation scores and learning rate over training steps.

    Args:
        path: PNG file to write.
        history: metric name -> (step, value) points.
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for name in names:
            if points := history.get(name):
                steps, values = zip(*points, strict=True)
                marker = "o" if name.startswith("val/") else ""
                axes.plot(steps, values, marker=marker, markersize=3, label=f"{name} ({values[-1]:.4g})")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
        axes.set_ylim(bottom=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
