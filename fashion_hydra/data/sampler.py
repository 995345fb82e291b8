"""The order of training: batches of alike aspect, decided by (seed, epoch) alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class AspectBatchSampler:
    """Batches of (epoch, image) pairs in which all images are upright or all are lying.

    The epoch travels with the index, so that workers that outlive an epoch still augment anew. The global
    batches do not depend on the number of processes: each process takes its slice of every one.

    Args:
        lying: bool (I,), whether an image is wider than high.
        batch_size: images a process and step.
        seed: of the shuffling.
        rank: this process.
        world_size: number of processes.
        done: epoch, and how many of its batches are left out because they were done before.
    """

    lying: np.ndarray
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    done: tuple[int, int] = (0, 0)
    epoch: int = field(default=0, init=False)

    @property
    def sampler(self) -> "AspectBatchSampler":
        """Itself: Lightning looks here for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lying) / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._global_batches()[self.done[1] if self.epoch == self.done[0] else 0 :]:
            mine = batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
            yield [(self.epoch, int(image)) for image in mine]

    def _global_batches(self) -> list[np.ndarray]:
        """Every image once; what is left of the two kinds shares batches, and the last is filled from the first."""
        size = self.batch_size * self.world_size
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lying))
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
