"""Log only on rank 0 and hide irrelevant messages of libraries."""

import logging
import re
import sys
import warnings

from pytorch_lightning.utilities import rank_zero_only

_log = logging.getLogger("fashion_hydra")
log_rank_zero, warn_rank_zero = rank_zero_only(_log.info), rank_zero_only(_log.warning)
_NOISE = (
    ".*LeafSpec.*is deprecated",
    ".*does not have many workers",
    ".*Grad strides do not match bucket view strides",
    ".*The number of training batches .* is smaller than the logging interval",
    ".*Checkpoint directory .* exists and is not empty",
    ".*predict returned None",
    r".*module\(s\) in eval mode at the start of training",  # frozen stages and norms
    "TPU available",
    ".*litlogger",
    "Loading `train_dataloader` to estimate",
    "You're resuming from a checkpoint that ended before the epoch ended",  # the data module restores its position
    "generated new fontManager",
)


def log_to_stdout() -> None:
    """Print what the workflows log, in commands where Hydra does not configure logging."""
    if not _log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)


def silence_library_noise() -> None:
    """Hide messages of libraries that do not help users of fashion_hydra."""
    for pattern in _NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    noise = re.compile("|".join(_NOISE))
    for name in ("pytorch_lightning.utilities.rank_zero", "matplotlib.font_manager"):
        logging.getLogger(name).addFilter(lambda record: not noise.match(record.getMessage()))
