"""Load models by name, from checkpoints or from run folders."""

from collections.abc import Sequence
from pathlib import Path

import torch

from fashion_hydra.api.predictor import Predictor, predict_options
from fashion_hydra.config.build import rule_options
from fashion_hydra.model.checkpoint import load_member
from fashion_hydra.postprocess.rule_files import fill_in
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError
from fashion_hydra.workflows.prediction_plan import find_checkpoint, own_thresholds


def load(
    *sources: str | Path, device: str | None = None, trust: Sequence[str] = (), weights: Sequence[float] = ()
) -> Predictor:
    """Load a model, or an ensemble of several models.

    >>> model = load("street")
    >>> model("docs/photos/0883.jpg").names[0]
    'pants'

    Args:
        sources: for each model its name in models/, a checkpoint, or the folder of a training run, whose best
            checkpoint is loaded.
        device: PyTorch device, such as `cuda:1`; None: a GPU if there is one, else the CPU.
        trust: packages whose classes a checkpoint may use, for your own models.
        weights: weight of each model in an ensemble's averages; empty: all equal.

    Raises:
        UserError: a model is missing, the weights do not fit the models, or the device is not available.
    """
    if not sources:
        raise UserError('load: no model given. Give a name such as "street", a checkpoint, or the folder of a run')
    members = [load_member(_path(source), trust) for source in sources]
    options = predict_options()
    own = own_thresholds(members)
    thresholds = fill_in(rule_options(options.postprocess), (), Path(options.paths.tuned), own)
    return Predictor(members, thresholds, _device(device), weights)


def _path(source: str | Path) -> Path:
    if Path(source).is_dir():
        return RunFolder.find(Path(source)).best(1)[0]
    return find_checkpoint(str(source))


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name}: {error}") from error
    return device
