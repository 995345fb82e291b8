"""The order of training images: batches of the same aspect, determined by (seed, epoch) alone."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class AspectBatchSampler:
    """Sampler of batches of keys (epoch, image), in which all images are portrait or all are landscape.

    Keys include the epoch, so that persistent workers draw new augmentations in every epoch. The global batches do
    not depend on the number of processes: each process takes its slice of every batch.

    Args:
        lying: bool (I,), whether an image is wider than high.
        batch_size: images per process and step.
        seed: seed of the shuffle.
        rank: rank of this process.
        world_size: number of processes.
        done: an epoch, and the number of its batches to skip because they were trained on before.
        repeats: float (I,), how often an epoch shows each image on average, see `repeat_factors`; None for once.
        is_fixed: whether every epoch repeats the first, to test whether a model can overfit a few batches.
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
        """This sampler, on which Lightning calls `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = 0 if self.is_fixed else epoch

    def __len__(self) -> int:
        shown = len(self.lying) if self.repeats is None else _total(self.repeats)
        return math.ceil(shown / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for batch in self._keys()[self.done[1] if self.epoch == self.done[0] else 0 :]:
            yield batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]

    def _keys(self) -> list[list[tuple[int, ...]]]:
        """Return the global batches as keys: (epoch, image), and (epoch, image, n) when an image is repeated."""
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
        """Return batches that show every image once, or as often as it is repeated.

        Leftover portrait and landscape images share batches. The first images in the order fill up the last batch.
        """
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
    """Return how often an epoch shows each image, more for rare classes (Gupta et al. 2019, LVIS, section 4).

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
    """Round factors up or down at random, with the factors as means and the same sum in every epoch."""
    more = np.concatenate([[0.0], (repeats - 1).cumsum()])
    if more[-1] > 0:
        more *= (_total(repeats) - len(repeats)) / more[-1]
    return 1 + np.diff(np.floor(more + rng.random()).astype(np.int64))
