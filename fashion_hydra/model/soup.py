"""Model soups (Wortsman et al. 2022): one model with the mean of the weights of several checkpoints of a run."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fashion_hydra.model.checkpoint import member_of, read_checkpoint
from fashion_hydra.model.detector import Detector
from fashion_hydra.structures.batch import Batch
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write, file_lock, file_sha256

log = logging.getLogger(__name__)


def make_soup(
    paths: Sequence[Path],
    batches: Callable[[], Iterable[Batch]],
    *,
    count: int,
    seed: int,
    device: torch.device,
    trusted: Sequence[str] = (),
) -> Path:
    """Return the checkpoint with the mean of the weights, in the first checkpoint's folder; create it if missing.

    Averaging invalidates batch norms' running statistics, so they are re-estimated on training batches. Batch norms
    that were frozen in training are averaged like weights.

    Args:
        paths: checkpoints of one run.
        batches: returns training batches; called only if the model has batch norms to re-estimate.
        count: number of batches to use.
        seed: seed for sampling boxes in the batches.
        device: device to run the batches on.
        trusted: packages whose code the checkpoints may name.

    Raises:
        UserError: there are fewer than two checkpoints, or their models differ.
    """
    if len(paths) < 2:
        raise UserError(f"ensemble.members={[str(path) for path in paths]}: an average needs two checkpoints or more")
    recipe = f"{count} {seed} {' '.join(sorted(file_sha256(path) for path in paths))}"
    made = paths[0].with_name(f"soup-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.ckpt")
    with file_lock(made):
        if made.is_file():
            return made
        content = _mean(paths)
        detector = member_of(content, made, trusted).detector.to(device)
        _renew_norms(detector, batches, count=count, seed=seed)
        content["state_dict"] = {f"detector.{name}": value.cpu() for name, value in detector.state_dict().items()}
        with atomic_write(made, "wb") as stream:
            torch.save(content, stream)
    log.info("soup           %s: mean of %s", made, ", ".join(path.name for path in paths))
    return made


def _mean(paths: Sequence[Path]) -> dict[str, Any]:
    """Return a checkpoint with the mean of floating-point tensors and the first checkpoint's other tensors."""
    first, *others = [read_checkpoint(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        for key in ("model", "classes"):
            if other[key] != first[key]:
                raise UserError(f"ensemble=soup: the {key} of {path} and {paths[0]} differ. Use checkpoints of one run")
    state: dict[str, Tensor] = {}
    for name, value in first["state_dict"].items():
        state[name] = value
        if value.is_floating_point():
            same = [value, *(other["state_dict"][name] for other in others)]
            state[name] = torch.stack([one.double() for one in same]).mean(0).to(value.dtype)
    return {**{key: first[key] for key in ("classes", "model", "eval_scale")}, "state_dict": state}


@torch.no_grad()
def _renew_norms(detector: Detector, batches: Callable[[], Iterable[Batch]], *, count: int, seed: int) -> None:
    """Re-estimate batch norms' statistics as the plain mean over the batches."""
    detector.train()
    norms = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative mean
    device = next(detector.parameters()).device
    if norms:
        torch.manual_seed(seed)
        for batch in tqdm(islice(batches(), count), total=count, desc="batch norms", unit=" batches", disable=None):
            detector.loss(batch.to(device))
