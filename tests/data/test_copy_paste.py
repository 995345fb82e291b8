"""Copy-paste: which objects are pasted together, and the pixels, masks and boxes of the result."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from fashion_hydra.data.augment import Augment
from fashion_hydra.data.copy_paste import choose_objects, lowest_below, paste_objects
from fashion_hydra.data.dataset import TrainDataset
from fashion_hydra.data.targets import targets_of_bitmaps


def box_mask(size, x0, y0, x1, y1):
    mask = np.zeros(size, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def encode(masks):
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))


@pytest.fixture
def dressed():
    """Return a jacket, a pocket on it, a button on the pocket, shoes apart, and a belt half off the jacket."""
    boxes = [(2, 2, 22, 22), (6, 12, 12, 18), (8, 14, 10, 16), (2, 30, 8, 36), (16, 10, 30, 12)]
    return np.stack([box_mask((40, 32), *box) for box in boxes])


def test_an_object_goes_with_the_largest_one_that_it_lies_on(dressed):
    # 6 of the belt's 14 columns are on the jacket: less than half.
    assert lowest_below(encode(dressed)).tolist() == [0, 0, 0, 3, 4]
    assert lowest_below([]).tolist() == []
    assert lowest_below(encode(np.zeros((2, 4, 4), np.uint8))).tolist() == [0, 1], "empty masks lie on nothing"
    assert lowest_below(encode(dressed[[0, 0]])).tolist() == [0, 1], "of two equal masks, neither lies on the other"


def test_all_objects_of_a_group_are_chosen_or_none(dressed):
    drawn = np.array([choose_objects(dressed, np.random.default_rng(seed)) for seed in range(200)])
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 0] == drawn[:, 2]).all()
    share = drawn.mean(axis=0)
    assert (abs(share - 0.5) < 4 * 0.5 / np.sqrt(200)).all()
    assert len(np.unique(drawn, axis=0)) == 8, "groups are chosen independently"


@pytest.mark.parametrize("size", [(40, 32), (20, 50), (61, 20), (90, 90)])
def test_pasted_pixels_masks_and_boxes_agree(dressed, size):
    """Each pixel holds the label of its uppermost object, so the result's pixels say where its masks must be."""
    rng = np.random.default_rng(sum(size))
    below = np.stack([box_mask(size, 0, 0, size[1], size[0] // 2), box_mask(size, 3, 5, 15, 18)])
    image = np.zeros((*size, 3), np.uint8)
    image[below[0] > 0] = 1
    image[below[1] > 0] = 2  # the second lies on the first
    donor = np.full((*dressed.shape[1:], 3), 200, np.uint8)  # the donor's background must not appear
    for value, mask in enumerate(dressed, 10):
        donor[mask > 0] = value
    targets = targets_of_bitmaps(below, torch.tensor([1, 2]))
    donor_targets = targets_of_bitmaps(dressed, torch.arange(10, 15))
    on = {10: {10, 11, 12, 14}, 11: {11, 12}, 12: {12}, 13: {13}, 14: {14}, 1: {1, 2}, 2: {2}}  # what lies on each
    for _ in range(60):
        before = image.copy()
        chosen = choose_objects(dressed, rng)
        result, objects = paste_objects(image, targets, donor, donor_targets, chosen, rng, keeps=0.0)
        assert (image == before).all()
        assert not (result == 200).any()
        seen = dict(zip(objects.labels.tolist(), objects.masks.bitmaps().numpy(), strict=True))
        names = np.unique(result[..., 0]).tolist()
        assert set(names) - {0} <= set(seen)
        on = {10: {10, 11, 12, 14}, 11: {11, 12}, 12: {12}, 13: {13}, 14: {14}, 1: {1, 2}, 2: {2}}
        for (label, mask), box in zip(seen.items(), objects.boxes.tolist(), strict=True):
            visible = np.isin(result[..., 0], list(on[label]))
            assert (mask[result[..., 0] == label] == 1).all()
            assert (visible[mask > 0]).all()
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        hidden = result[..., 0] >= 10
        for label, mask in ((1, below[0]), (2, below[1])):
            left = (mask > 0) & ~hidden
            assert (label in seen) == left.any()
            if left.any():
                assert (seen[label] == left).all()


def test_objects_of_which_too_little_remains_are_dropped():
    size = (10, 10)
    image, donor = np.zeros((*size, 3), np.uint8), np.ones((*size, 3), np.uint8)
    targets = targets_of_bitmaps(np.stack([box_mask(size, 0, 0, 10, 1)]), torch.tensor([0]))
    cover = targets_of_bitmaps(np.stack([box_mask(size, 0, 0, 8, 1)]), torch.tensor([1]))
    rng = np.random.default_rng(0)
    for keeps, wanted in ((0.2, [0, 1]), (0.3, [1])):
        objects = paste_objects(image, targets, donor, cover, np.array([True]), rng, keeps=keeps)[1]
        assert objects.labels.tolist() == wanted


def test_samples_depend_on_seed_epoch_and_image_alone(annotations, classes):
    images = np.arange(len(annotations))

    def sample(share, key, seed=7):
        augment = Augment(short_edge=[60, 110], long_edge=160, crop=[50, 70], copy_paste=share)
        return TrainDataset(annotations, images, classes, augment, seed=seed)[key]

    plain, first, again = sample(0.0, (3, 1)), sample(1.0, (3, 1)), sample(1.0, (3, 1))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.targets.masks.pixels, again.targets.masks.pixels)
    assert first.image.shape == plain.image.shape
    changed = (first.image != plain.image).any(dim=0)
    assert 0 < changed.sum() < changed.numel(), "the frame of the image itself stays the same"
    others = [sample(1.0, key, seed) for key, seed in (((4, 1), 7), ((3, 2), 7), ((3, 1), 8))]
    assert all(first.image.shape != o.image.shape or not torch.equal(first.image, o.image) for o in others)
    assert sum(torch.equal(sample(0.5, (0, i)).image, sample(0.0, (0, i)).image) for i in range(12)) in range(1, 12)
