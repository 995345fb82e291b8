"""Compare the guided filter with least squares in each window, and test that masks find the edges of an image."""

import numpy as np
import pytest
import torch

from fashion_hydra.inference.cascade import find_candidates, merge_sources
from fashion_hydra.inference.guided_filter import filter_masks, guided_filter
from fashion_hydra.inference.merging import MASK_GRID, Merging
from fashion_hydra.structures.batch import Batch
from fashion_hydra.structures.paste import paste
from tests.inference.test_cascade import BOTH, CPU, RULE, image, model

SIZE = (120, 100)
BOX = (20.0, 30.0, 76.0, 86.0)


def by_least_squares(values, guide, radius, epsilon):
    """Filter a map (H, W) as He, Sun and Tang define it: the mean of the linear fits of all windows with a cell."""
    windows = {
        (y, x): (slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1))
        for y, x in np.ndindex(values.shape)
    }
    fits = np.empty((*values.shape, 4))
    for cell, window in windows.items():
        colours = guide[:, *window].reshape(3, -1).T
        penalty = np.hstack([np.sqrt(len(colours) * epsilon) * np.eye(3), np.zeros((3, 1))])
        left = np.vstack([np.hstack([colours, np.ones((len(colours), 1))]), penalty])
        right = np.concatenate([values[window].ravel(), np.zeros(3)])
        fits[cell] = np.linalg.lstsq(left, right, rcond=None)[0]
    means = {cell: fits[window].reshape(-1, 4).mean(0) for cell, window in windows.items()}
    return np.array([[means[y, x] @ [*guide[:, y, x], 1] for x in range(len(values[0]))] for y in range(len(values))])


@pytest.mark.parametrize(("radius", "epsilon"), [(1, 1e-3), (3, 1e-3), (2, 0.1)])
def test_it_is_the_mean_of_the_windows_least_squares(radius, epsilon):
    rng = np.random.default_rng(0)
    guide, values = rng.random((2, 3, 9, 12)), rng.random((2, 1, 9, 12))
    filtered = guided_filter(torch.tensor(values).float(), torch.tensor(guide).float(), radius, epsilon)
    wanted = [by_least_squares(v[0], g, radius, epsilon) for v, g in zip(values, guide, strict=True)]
    np.testing.assert_allclose(filtered[:, 0].numpy(), wanted, atol=2e-4)


def halves(column, *, scale=1):
    """Make an image of `SIZE` times `scale` that is red left of a column and blue right of it."""
    pixels = torch.zeros((3, SIZE[0] * scale, SIZE[1] * scale), dtype=torch.uint8)
    pixels[0, :, : column * scale], pixels[2, :, column * scale :] = 200, 200
    return pixels


def soft_half(cells=28, share=0.5):
    """Make a mask of the left of its grid, with an edge as soft as a model's."""
    return torch.sigmoid((share * cells - torch.arange(cells) - 0.5) / 1.5).expand(1, cells, cells).contiguous()


def edge_of(masks, *, size=SIZE, box=BOX):
    """Draw a mask at the threshold 0.5, and return the mean column of its right edge."""
    window = paste(masks[0].numpy(), np.array(box), size=size, mask_thr=0.5)
    return window.x0 + window.pixels[10:-10].sum(1).mean()


@pytest.mark.parametrize(("column", "edge"), [(46, 47), (47, 47), (48, 48), (49, 49), (50, 49)])
@pytest.mark.parametrize("scale", [1, 3])
def test_an_edge_moves_towards_the_edge_between_two_colours(column, edge, scale):
    masks = soft_half()
    assert edge_of(masks) == pytest.approx(48, abs=0.1)
    filtered = filter_masks(masks, torch.tensor([BOX]), halves(column, scale=scale), SIZE, grid=56)
    assert filtered.shape == (1, 56, 56)
    assert edge_of(filtered) == pytest.approx(edge, abs=0.1)


def test_without_an_edge_in_the_image_an_edge_stays():
    flat = torch.full((3, *SIZE), 90, dtype=torch.uint8)
    assert edge_of(filter_masks(soft_half(), torch.tensor([BOX]), flat, SIZE, grid=56)) == pytest.approx(48, abs=0.5)


def test_a_finer_mask_keeps_its_grid():
    boxes = torch.tensor([BOX])
    assert filter_masks(soft_half(112), boxes, halves(50), SIZE, grid=56).shape == (1, 112, 112)
    assert filter_masks(soft_half(14), boxes, halves(50), SIZE, grid=56).shape == (1, 56, 56)


def test_a_mirrored_image_has_the_mirrored_masks():
    masks = torch.rand((2, 28, 28), generator=torch.manual_seed(0))
    pixels = torch.randint(0, 256, (3, *SIZE), generator=torch.manual_seed(1), dtype=torch.uint8)
    boxes = torch.tensor([BOX, (-5.0, 40.0, 60.0, 130.0)])  # one leaves the image
    mirrored = torch.stack([SIZE[1] - boxes[:, 2], boxes[:, 1], SIZE[1] - boxes[:, 0], boxes[:, 3]], dim=1)
    filtered = filter_masks(masks, boxes, pixels, SIZE, grid=56)
    assert filtered.min() >= 0 and filtered.max() <= 1
    there = filter_masks(masks.flip(-1), mirrored, pixels.flip(-1), SIZE, grid=56)
    torch.testing.assert_close(there.flip(-1), filtered, atol=1e-4, rtol=0)


@pytest.mark.parametrize("flips", [(False,), (True,), BOTH])
def test_candidates_have_filtered_masks_and_nothing_else_changes(flips):
    detectors, scaled = [model(0)], image()
    raw, filtered = (
        merge_sources(detectors, scaled, [RULE], Merging(flips=flips, mask_grid=grid), device=CPU)
        for grid in (None, 32)
    )
    assert torch.equal(raw.boxes, filtered.boxes) and torch.equal(raw.scores, filtered.scores) and len(raw) > 2
    wanted = filter_masks(raw.masks, raw.boxes, scaled.images[-1], scaled.size, grid=32)
    torch.testing.assert_close(filtered.masks, wanted, atol=1e-5, rtol=0)


def test_validation_filters_like_prediction():
    detector, scaled = model(0), image(short_edges=(96,))
    padded = torch.nn.functional.pad(scaled.images[0], (0, 0, 0, 16), value=77)
    batch = Batch(padded[None], ((144, 96),), (scaled.size,), ("one",), ((),))  # validation uses no targets
    (found,) = find_candidates(detector, batch, [RULE], mask_grid=24)
    there = merge_sources([detector], scaled, [RULE], Merging(mask_grid=24), device=CPU)
    torch.testing.assert_close(found.masks, there.masks, atol=1e-4, rtol=0)


def test_validation_and_prediction_have_one_default(config):
    assert config("predict", "out=x").inference.mask_grid == MASK_GRID
