"""Read and write calibrations for expected scores as JSON, as produced by tune_thresholds.py."""

import json
from pathlib import Path

import numpy as np

from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.postprocess.expected_score import Calibration
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write, read_json
from fashion_hydra.utils.text import id_list


def write_calibration(path: Path, calibration: Calibration, classes: ClassSet) -> None:
    """Write a calibration as JSON."""
    content = {
        "class_ids": list(classes.ids),
        "scores": calibration.scores.tolist(),
        "hits": calibration.hits.tolist(),
        "missed": calibration.missed.tolist(),
        "others": calibration.others,
    }
    with atomic_write(path) as stream:
        json.dump(content, stream)


def read_calibration(path: Path, classes: ClassSet) -> Calibration:
    """Read a file that `write_calibration` wrote.

    Raises:
        UserError: the file is missing, damaged, or for other classes.
    """
    if not path.is_file():
        raise UserError(f"postprocess.calibration={path}: no such file. tune_thresholds.py writes one")
    try:
        content = read_json(path)
        scores, hits, missed = (np.array(content[name], np.float64) for name in ("scores", "hits", "missed"))
        ids, others = tuple(content["class_ids"]), float(content["others"])
        calibration = Calibration(scores, hits, missed, others)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: damaged calibration ({error}); run tune_thresholds.py again") from error
    if ids != classes.ids:
        raise UserError(
            f"{path}: calibrated for {len(ids)} classes {id_list(ids)}, the model has {id_list(classes.ids)}"
        )
    return calibration
