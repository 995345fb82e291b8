"""Find the photos of a prediction from the files that predict.py wrote to its folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fashion_hydra.postprocess.rule_files import IN_FORCE
from fashion_hydra.report.results.photos import Photos
from fashion_hydra.training.run_folder import saved_config
from fashion_hydra.utils.yaml_files import read_mapping, value_at

_TEST = ("test", "", "train", "images")
_TRAIN = ("train", "images", "", "test")


def photos_of(folder: Path) -> Photos:
    """Return the existing folders that may contain the photos, the most likely first; possibly none.

    The rule file names the photos' folder. In older folders without this entry, the saved config names a data set, or
    a training run whose config names one.

    Args:
        folder: folder written by predict.py.
    """
    config = saved_config(folder)
    below = _TEST if value_at(config, "data.images") == "test" else _TRAIN
    places = [Path(root) / name for root in _roots(config) for name in below]
    if named := value_at(read_mapping(folder / IN_FORCE), "about.images"):
        places.insert(0, Path(named))
    bases = (Path(), *_started_in(folder))
    return Photos(list(dict.fromkeys(path for place in places for base in bases if (path := base / place).is_dir())))


def _roots(config: Any) -> Iterator[str]:
    """Yield `data.root` of the prediction, then of the training runs named in its config."""
    if root := value_at(config, "data.root"):
        yield str(root)
    for key in ("ensemble.run", "checkpoint", "ensemble.members"):
        value = value_at(config, key)
        named = value[:1] if isinstance(value, list) else [value] if value else []
        for text in named:
            path = Path(str(text))
            run = path.parent.parent if path.suffix == ".ckpt" else path
            if root := value_at(saved_config(run), "data.root"):
                yield str(root)


def _started_in(folder: Path) -> list[Path]:
    """Return predict.py's working directory, the base of the config's relative paths; empty if unknown."""
    started = value_at(read_mapping(folder / ".hydra" / "hydra.yaml"), "hydra.runtime.cwd")
    return [Path(started)] if started else []
