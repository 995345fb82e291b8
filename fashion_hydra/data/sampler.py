"""The order of training: batches of alike aspect, decided by (seed, epoch) alone."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class AspectBatchSampler:
    """Batches of keys, (epoch, image), in which all images are upright or all are lying.

    The epoch travels with the index, so that workers that outlive an epoch still augment anew. The global
    batches do not depend on the number of processes: each process takes its slice of every one.

    Args:
        lying: bool (I,), whether an image is wider than high.
        batch_size: images a process and step.
        seed: of the shuffling.
        rank: this process.
        world_size: number of processes.
        done: epoch, and how many of its batches are left out because they were done before.
        repeats: float (I,), how often an epoch shows each image on average, see `repeat_factors`; None: once.
        is_fixed: whether every epoch is the first one again, to see whether a model can learn a few batches by heart.
    """

    lying: np.ndarray
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    done: tuple[int, int] = (0, 0)
    repeats: np.ndarray | None = None
    is_fixed: bool = False
    epoch: int = field(default=0, init=False)

    @property
    def sampler(self) -> "AspectBatchSampler":
        """Itself: Lightning looks here for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = 0 if self.is_fixed else epoch

    def __len__(self) -> int:
        shown = len(self.lying) if self.repeats is None else _total(self.repeats)
        return math.ceil(shown / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for batch in self._keys()[self.done[1] if self.epoch == self.done[0] else 0 :]:
            yield batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]

    def _keys(self) -> list[list[tuple[int, ...]]]:
        """The global batches as keys: epoch and image, and from an image's second showing on its number."""
        shown: Counter[int] = Counter()
        batches: list[list[tuple[int, ...]]] = []
        for images in self._global_batches():
            batches.append([])
            for image in images.tolist():
                number = (shown[image],) if self.repeats is not None and shown[image] else ()
                batches[-1].append((self.epoch, image, *number))
                shown[image] += 1
        return batches

    def _global_batches(self) -> list[np.ndarray]:
        """Every image once, or as often as it is repeated; what is left of the two kinds shares batches, and the last
        is filled from the first."""
        size = self.batch_size * self.world_size
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lying))
        if self.repeats is not None:
            order = rng.permutation(np.repeat(order, _counts(self.repeats[order], rng)))
        batches: list[np.ndarray] = []
        left: list[np.ndarray] = []
        for kind in (False, True):
            images = order[self.lying[order] == kind]
            whole = len(images) // size * size
            batches += np.split(images[:whole], whole // size) if whole else []
            left.append(images[whole:])
        rest = np.concatenate(left)
        if len(rest):
            short = -len(rest) % size
            rest = np.concatenate([rest, np.resize(order, short)])
            batches += np.split(rest, len(rest) // size)
        return [batches[i] for i in rng.permutation(len(batches))]


def repeat_factors(has_class: np.ndarray, threshold: float) -> np.ndarray:
    """How often an epoch shows each image so that rare classes are seen more (Gupta et al. 2019, LVIS, section 4).

    Args:
        has_class: bool (I, C), whether an image has an object of a class.
        threshold: share of the images below which a class counts as rare.

    Returns:
        float (I,): at least 1; `sqrt(threshold / share)` of the rarest class in the image.
    """
    share = has_class.mean(0)
    of_class = np.sqrt(threshold / np.maximum(share, 1 / max(len(has_class), 1))).clip(min=1.0)
    return np.where(has_class, of_class, 1.0).max(1, initial=1.0)


def _total(repeats: np.ndarray) -> int:
    return int(repeats.sum() + 0.5)


def _counts(repeats: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers of the same sum in every epoch, each the factor rounded up or down, on average the factor."""
    more = np.concatenate([[0.0], (repeats - 1).cumsum()])
    if more[-1] > 0:
        more *= (_total(repeats) - len(repeats)) / more[-1]
    return 1 + np.diff(np.floor(more + rng.random()).astype(np.int64))
