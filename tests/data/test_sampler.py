import numpy as np
import pytest

from fashion_hydra.data.sampler import AspectBatchSampler

LYING = np.array([False] * 17 + [True] * 9)


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 30])
def test_every_image_is_seen_once_but_for_the_last_batchs_filling(batch_size):
    batches = epoch(AspectBatchSampler(LYING, batch_size, seed=1), 3)
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(batches) == len(AspectBatchSampler(LYING, batch_size, seed=1)) == -(-26 // batch_size)
    counts = np.bincount([image for batch in batches for _, image in batch], minlength=26)
    assert counts.min() == 1
    assert counts.sum() == len(batches) * batch_size
    assert {number for batch in batches for number, _ in batch} == {3}


def test_batches_hold_one_aspect_but_for_what_is_left():
    batches = epoch(AspectBatchSampler(LYING, 4, seed=1), 0)
    mixed = [batch for batch in batches if len({bool(LYING[image]) for _, image in batch}) > 1]
    assert len(mixed) <= 1


def test_the_order_depends_on_seed_and_epoch_alone():
    sampler = AspectBatchSampler(LYING, 4, seed=1)
    first = epoch(sampler, 0)
    second = epoch(sampler, 1)
    assert [[i for _, i in b] for b in first] != [[i for _, i in b] for b in second]
    assert epoch(sampler, 0) == first
    assert epoch(AspectBatchSampler(LYING, 4, seed=2), 0) != first


def test_two_processes_share_the_global_batches_of_one():
    single = epoch(AspectBatchSampler(LYING, 4, seed=1), 2)
    halves = [epoch(AspectBatchSampler(LYING, 2, seed=1, rank=r, world_size=2), 2) for r in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == single
