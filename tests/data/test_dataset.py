from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fashion_hydra.data.augment import SAMPLINGS, Augment, Photometric, draw_window, scaled_size, source_index
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.dataset import EvalDataset, Sample, TrainDataset, collate
from fashion_hydra.data.frame import Frame
from fashion_hydra.data.targets import crop_masks, make_targets
from fashion_hydra.structures.rle import runs_to_bitmap
from fashion_hydra.utils.errors import UserError

AUGMENT = Augment(
    short_edge=[60, 110], long_edge=160, flip=0.5, photometric=[{"name": "RandomBrightnessContrast", "p": 1}]
)


def bitmap(annotations, mask, size):
    return runs_to_bitmap(annotations.runs_of(mask), height=size[0], width=size[1])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("new", "window"),
    [
        ((90, 70), None),
        ((200, 131), None),
        ((128, 97), None),
        ((90, 70), (11, 20, 53, 90)),
        ((200, 131), (0, 7, 90, 140)),
    ],
)
def test_resized_crops_equal_the_resized_full_frame(annotations, new, window, flip):
    for image in range(3):
        old = tuple(annotations.sizes[image].tolist())
        masks = list(annotations.instances(image))
        resized = crop_masks(annotations, masks, Frame(old, new, window, flip)).bitmaps().numpy()
        # The source pixel under the centre of each target pixel, in exact fractions.
        rows = [(2 * i + 1) * old[0] // (2 * new[0]) for i in range(new[0])]
        columns = [(2 * j + 1) * old[1] // (2 * new[1]) for j in range(new[1])]
        expected = np.stack([bitmap(annotations, m, old)[rows][:, columns] for m in masks])
        if window is not None:
            expected = expected[:, window[1] : window[3], window[0] : window[2]]
        assert (resized == (expected[:, :, ::-1] if flip else expected)).all()


def test_flipping_twice_gives_the_same_targets(annotations, classes):
    size = tuple(annotations.sizes[0].tolist())
    plain = make_targets(annotations, annotations.instances(0), classes, Frame(size, size))
    flipped = make_targets(annotations, annotations.instances(0), classes, Frame(size, size, flip=True))
    assert torch.equal(flipped.masks.bitmaps().flip(2), plain.masks.bitmaps())
    mirrored = flipped.boxes.clone()
    mirrored[:, [0, 2]] = size[1] - flipped.boxes[:, [2, 0]]
    assert torch.equal(mirrored, plain.boxes)


@pytest.mark.parametrize("crop", [None, (48, 64)])
def test_boxes_labels_and_masks_stay_in_step(annotations, classes, crop):
    augment = replace(AUGMENT, crop=crop)
    dataset = TrainDataset(annotations, np.arange(len(annotations)), classes, augment, seed=3)
    for index in range(6):
        sample = dataset[1, index]
        height, width = sample.image.shape[1:]
        assert sample.targets.masks.size == (height, width)
        for box, plane in zip(sample.targets.boxes, sample.targets.masks.bitmaps(), strict=True):
            ys, xs = torch.nonzero(plane, as_tuple=True)
            drawn = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            # Nearest-neighbour sampling may miss the outermost row of a scaled box, by up to one pixel per side.
            assert (drawn - box).abs().max() <= 1.5


def test_a_window_keeps_objects_by_their_share_of_pixels(annotations, classes):
    """Compare share and box of each object with the bitmap of the whole image."""
    size = tuple(annotations.sizes[0].tolist())
    window = (size[1] // 2, size[0] // 2, size[1], size[0])
    frame = Frame(size, size, window)
    masks = list(annotations.instances(0))
    wholes = np.stack([bitmap(annotations, m, size) for m in masks]).astype(bool)
    parts = wholes[:, window[1] : window[3], window[0] : window[2]]
    shares = parts.sum((1, 2)) / wholes.sum((1, 2))
    assert (shares == 0).any()
    assert ((shares > 0) & (shares < 1)).any()
    for keeps in (0.0, 0.3, 0.8):
        targets = make_targets(annotations, annotations.instances(0), classes, frame, keeps=keeps)
        stays = (shares > 0) & (shares >= keeps)
        labels = [classes.label_of()[int(annotations.categories[m])] for m in np.array(masks)[stays]]
        assert targets.labels.tolist() == labels
        assert (targets.masks.bitmaps().numpy().astype(bool) == parts[stays]).all()
        for box, part in zip(targets.boxes.tolist(), parts[stays], strict=True):
            ys, xs = np.nonzero(part)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_windows_lie_as_the_image_does_and_reach_its_edges(annotations, classes):
    augment = replace(AUGMENT, short_edge=[100, 100], crop=(64, 96))
    rng = np.random.default_rng(0)
    for size in [(150, 100), (100, 150)]:
        windows = np.array([draw_window(size, augment.crop, rng) for _ in range(400)])
        widths, heights = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
        assert set(zip(heights.tolist(), widths.tolist(), strict=True)) == {(96, 64) if size[0] > size[1] else (64, 96)}
        assert windows.min() == 0
        assert windows[:, 2].max(), windows[:, 3].max() == (size[1], size[0])
    assert draw_window((50, 200), (64, 96), rng)[1::2] == (0, 50)  # the short edge is not cropped
    dataset = TrainDataset(annotations, np.arange(len(annotations)), classes, augment, seed=3)
    assert {tuple(sorted(dataset[0, i].image.shape[1:])) for i in range(6)} == {(64, 96)}


def test_instances_of_other_classes_and_vanished_ones_are_left_out_whole(annotations):
    classes = ClassSet((int(annotations.categories[0]),), ("first",))
    size = tuple(annotations.sizes[0].tolist())
    targets = make_targets(annotations, annotations.instances(0), classes, Frame(size, (8, 8)))
    assert set(targets.labels.tolist()) <= {0}
    assert all(crop.any() for crop in targets.masks.crops())
    assert len(make_targets(annotations, annotations.instances(0), ClassSet((), ()), Frame(size, (50, 50)))) == 0


def test_samples_depend_on_seed_epoch_and_image_alone(annotations, classes):
    def sample(seed, epoch):
        return TrainDataset(annotations, np.arange(6), classes, AUGMENT, seed=seed)[epoch, 2]

    first, again = sample(1, 0), sample(1, 0)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.targets.boxes, again.targets.boxes)
    others = [sample(1, 1), sample(2, 0)]
    assert all(o.image.shape != first.image.shape or not torch.equal(o.image, first.image) for o in others)


def test_sizes_cover_the_range_and_keep_the_bound(annotations, classes):
    dataset = TrainDataset(annotations, np.arange(len(annotations)), classes, AUGMENT, seed=1)
    shapes = [tuple(dataset[epoch, 0].image.shape[1:]) for epoch in range(40)]
    assert min(min(s) for s in shapes) < 70
    assert max(min(s) for s in shapes) > 100
    assert max(max(s) for s in shapes) <= 160


def test_a_clean_evaluation_sample_is_the_resized_photo(annotations, classes):
    size = annotations.sizes[1].tolist()
    dataset = EvalDataset(annotations, np.array([1]), classes, short_edge=min(size), long_edge=max(size))
    photo = np.asarray(Image.open(annotations.folder / annotations.files[1]))
    difference = np.abs(dataset[0].image.numpy().transpose(1, 2, 0).astype(int) - photo)
    assert difference.max() <= 2  # two decoders of one JPEG


def test_padding_is_at_the_right_and_below_and_divisible_by_32(annotations, classes):
    dataset = TrainDataset(annotations, np.arange(6), classes, AUGMENT, seed=1)
    samples: list[Sample] = [dataset[0, i] for i in range(3)]
    batch = collate(samples)
    assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
    for image, sample, (h, w) in zip(batch.images, samples, batch.sizes, strict=True):
        assert torch.equal(image[:, :h, :w], sample.image)
        assert image[:, h:].sum() == image[:, :, w:].sum() == 0


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [((1000, 500), 600, 1900, (1200, 600)), ((500, 1000), 600, 900, (450, 900)), ((333, 333), 600, 600, (600, 600))],
)
def test_scaled_size(size, short, long, expected):
    assert scaled_size(size, short_edge=short, long_edge=long) == expected


def test_source_index_is_nearest_to_the_centres():
    for old, new in [(10, 7), (7, 10), (5, 5), (1, 4), (100, 33)]:
        centres = (np.arange(new) + 0.5) * old / new
        assert np.abs(source_index(old, new) + 0.5 - centres).max() <= 0.5 + 1e-9


def test_masks_under_centres_lie_nearer_to_the_shares_of_area_than_under_corners():
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((900, 700)).astype(np.float32), (0, 0), 20) > 0.5
    wanted = cv2.resize(mask.astype(np.float32), (210, 270), interpolation=cv2.INTER_AREA) >= 0.5
    overlap = {}
    for sampling in SAMPLINGS:
        drawn = mask[np.ix_(source_index(900, 270, sampling), source_index(700, 210, sampling))]
        overlap[sampling] = (drawn & wanted).sum() / (drawn | wanted).sum()
    assert overlap["centre"] > 0.99 > overlap["corner"]


def test_corners_are_opencvs_nearest_neighbour():
    mask = np.random.default_rng(1).integers(0, 2, (90, 70), dtype=np.uint8)
    for height, width in ((45, 35), (30, 14), (180, 140)):  # ratios that OpenCV computes without rounding
        wanted = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        assert (mask[np.ix_(source_index(90, height, "corner"), source_index(70, width, "corner"))] == wanted).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_edge": [200, 100], "long_edge": 300}, "must satisfy 16 <= low <= high <= long edge"),
        ({"short_edge": [100, 200], "long_edge": 150}, "must satisfy 16 <= low <= high <= long edge"),
        ({"short_edge": [100, 200], "long_edge": 300, "flip": 2}, "a probability"),
        ({"short_edge": [100, 200], "long_edge": 300, "photometric_on": "both"}, "give original or resized"),
        ({"short_edge": [100, 200], "long_edge": 300, "mask_sampling": "mid"}, "give centre or corner"),
    ],
)
def test_wrong_augmentation_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Augment(**options)


@pytest.mark.parametrize("name", ["HorizontalFlip", "RandomCrop", "NoSuchTransform", None])
def test_transforms_that_move_pixels_are_refused(name):
    with pytest.raises(UserError, match="that does not move pixels"):
        Photometric([{"name": name}])


def test_every_photometric_transform_of_the_winner_runs():
    recipe = [
        {
            "name": "CoarseDropout",
            "num_holes_range": [8, 8],
            "hole_height_range": [6, 6],
            "hole_width_range": [2, 2],
            "p": 1,
        },
        {"name": "RandomBrightnessContrast", "brightness_limit": 0.3, "contrast_limit": 0.3, "p": 1},
        {"name": "ImageCompression", "compression_type": "jpeg", "quality_range": [80, 99], "p": 1},
    ]
    image = np.full((40, 30, 3), 120, np.uint8)
    varied = Photometric(recipe)
    assert (varied(image, 1) == varied(image, 1)).all()
    assert (varied(image, 1) != varied(image, 2)).any()
    assert (varied(image, 1) != image).any()
