import numpy as np
import pytest
import torch
from PIL import Image

from fashion_hydra.data.augment import Augment, checked_scales
from fashion_hydra.data.class_set import ClassSpec
from fashion_hydra.data.dataset import TrainDataset
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.utils.errors import UserError


@pytest.mark.parametrize("scales", [[], [[64]], [[0, 0]], [[128, 64]], [[64, 128, 256]]])
def test_scales_are_pairs_of_edges(scales):
    with pytest.raises(UserError, match=r"tta\.scales="):
        checked_scales(scales)
    assert checked_scales([[64, 128]]) == ((64, 128),)


def painted(kaggle_folder, size=(60, 80)):
    """Write a data set with one black picture and two objects, each in a different colour."""
    height, width = size
    rows, pixels = [], np.zeros((height, width, 3), np.uint8)
    for colour, (class_id, (x0, y0, x1, y1)) in enumerate([("6", (10, 8, 40, 30)), ("31", (50, 35, 70, 55))]):
        runs = " ".join(f"{x * height + y0 + 1} {y1 - y0}" for x in range(x0, x1))
        rows.append({"ImageId": "a.png", "EncodedPixels": runs, "Height": height, "Width": width, "ClassId": class_id})
        pixels[y0:y1, x0:x1, colour] = 255
    root = kaggle_folder(rows, {"a.png": size})
    Image.fromarray(pixels).save(root / "train" / "a.png")
    return root


def sample(root, geometric, **options):
    annotations, _ = read_annotations(root)
    classes = ClassSpec("two", [6, 31]).resolve(annotations.names, [])
    augment = Augment(short_edge=[60, 60], long_edge=80, flip=0, geometric=geometric, **options)
    return TrainDataset(annotations, np.arange(1), classes, augment, seed=0)[0, 0]


@pytest.mark.parametrize(
    "transform",
    [
        {"name": "Affine", "rotate": [20, 40], "scale": [0.7, 0.9], "interpolation": 0, "p": 1},
        {"name": "Perspective", "scale": [0.1, 0.1], "interpolation": 0, "p": 1},
        {"name": "VerticalFlip", "p": 1},
        {"name": "Transpose", "p": 1},
    ],
)
def test_image_masks_and_boxes_move_together(kaggle_folder, transform):
    root = painted(kaggle_folder)
    plain, moved = sample(root, []), sample(root, [transform])
    assert not torch.equal(plain.image.sum(0), moved.image.sum(0)) or transform["name"] == "Transpose"
    assert moved.targets.labels.tolist() == [0, 1]
    for colour, mask in enumerate(moved.targets.masks.bitmaps().numpy()):
        assert mask.shape == moved.image.shape[1:]
        assert ((moved.image[colour].numpy() > 127) == mask).all()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert moved.targets.boxes[colour].tolist() == box
    assert torch.equal(moved.image, sample(root, [transform]).image)


def test_an_object_that_leaves_the_picture_is_left_out(kaggle_folder):
    away = {"name": "Affine", "translate_px": {"x": [-45, -45], "y": [0, 0]}, "p": 1}
    moved = sample(painted(kaggle_folder), [away])
    assert moved.targets.labels.tolist() == [1]
    assert len(moved.targets.masks) == len(moved.targets.boxes) == 1


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"name": "Blur"}, "'Blur' is not an albumentations transform that moves image and masks together"),
        ({"name": "Nothing"}, "'Nothing' is no"),
        ({"name": "Affine", "rotate": "far"}, "augment.geometric: Affine: "),
        ({"name": "RandomCrop", "height": 500, "width": 500, "p": 1}, "augment.geometric: "),
    ],
)
def test_what_cannot_move_them_is_refused(kaggle_folder, transform, message):
    with pytest.raises(UserError, match=message):
        sample(painted(kaggle_folder), [transform])
