"""Objects shown alone: which are chosen, their frame, and the sample that results."""

import numpy as np
import pytest
import torch

from fashion_hydra.data.augment import Augment
from fashion_hydra.data.dataset import TrainDataset
from fashion_hydra.data.frame import Frame
from fashion_hydra.data.imaterialist import NUM_WITH_ATTRIBUTES, category_id
from fashion_hydra.data.isolate import choose_group, draw_background, enlarge
from fashion_hydra.structures.rle import runs_to_bitmap


def test_a_group_is_an_object_and_what_lies_on_it(annotations, classes):
    parts = {category_id(name) for name in ("collar", "lapel", "sleeve", "pocket", "neckline", "zipper", "buckle")}
    rng, with_parts = np.random.default_rng(0), 0
    for image in range(len(annotations)):
        size = [int(edge) for edge in annotations.sizes[image]]
        for _ in range(5):
            group = choose_group(annotations, image, classes, rng)
            if not group:
                continue
            masks = [runs_to_bitmap(annotations.runs_of(m), height=size[0], width=size[1]) > 0 for m in group]
            for mask in masks[1:]:
                assert (mask & masks[0]).sum() >= 0.5 * mask.sum() or any(
                    (mask & other).sum() >= 0.5 * mask.sum() for other in masks if other is not mask
                )
            if annotations.categories[group[0]] < NUM_WITH_ATTRIBUTES:
                with_parts += any(int(annotations.categories[m]) in parts for m in group[1:])
    assert with_parts > 10


def test_small_objects_are_not_shown_alone(annotations, classes):
    rng = np.random.default_rng(0)
    for image in range(len(annotations)):
        for _ in range(5):
            for mask in choose_group(annotations, image, classes, rng)[:1]:
                x0, y0, x1, y1 = annotations.boxes[mask]
                assert max(x1 - x0, y1 - y0) >= 48


@pytest.mark.parametrize(
    ("old", "box", "size"),
    [
        ((600, 400), (100, 50, 300, 550), (576, 384)),
        ((600, 400), (0, 0, 400, 600), (100, 300)),
        ((4000, 3000), (100, 50, 160, 120), (576, 384)),  # would have to be enlarged 9 times
    ],
)
def test_the_box_fills_half_the_frame_or_more_unless_it_is_tiny(old, box, size):
    whole = Frame(old, size)
    for seed in range(20):
        frame = enlarge(whole, np.array(box), np.random.default_rng(seed))
        assert max(frame.new) <= 3 * max(size) + 1
        x0, y0, x1, y1 = frame.boxes(np.array([box], np.float32))[0]
        height, width = frame.size
        assert (x0 <= 1) and (y0 <= 1) and (x1 >= width - 1) and (y1 >= height - 1)
        share = max(height / size[0], width / size[1])
        assert share <= 1.02
        assert share >= 0.49 or max(frame.new) >= 3 * max(size) - 1


def test_a_sample_shows_the_group_alone_and_depends_on_seed_epoch_and_image_alone(annotations, classes):
    images = np.arange(len(annotations))
    augment = Augment(short_edge=[90, 110], long_edge=160, crop=[80, 110], isolate=1.0)
    dataset = TrainDataset(annotations, images, classes, augment, seed=7)
    plain = TrainDataset(annotations, images, classes, Augment([90, 110], 160, crop=[80, 110]), seed=7)
    alone = 0
    for i in range(len(annotations)):
        sample, again = dataset[(2, i)], dataset[(2, i)]
        assert torch.equal(sample.image, again.image)
        assert torch.equal(sample.targets.boxes, again.targets.boxes)
        assert sample.image.shape == plain[(2, i)].image.shape
        masks = sample.targets.masks.bitmaps().bool()
        area = masks.flatten(1).sum(1)
        if len(masks) and (masks.any(0).sum() == area.max()):
            alone += 1
            outside = sample.image[:, ~masks.any(0)].float()
            assert outside.std(dim=1).max() < 60, "the background is plain"
    assert alone >= 0.6 * len(annotations)


def test_backgrounds_differ(annotations):
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_background((40, 30), rng) for _ in range(50)])
    assert drawn.shape == (50, 40, 30, 3)
    assert drawn.dtype == np.uint8
    colours = drawn.mean(axis=(1, 2))
    assert colours.std(axis=0).min() > 20
    assert np.median(np.ptp(colours, axis=1)) < 60, "most are greyish"
