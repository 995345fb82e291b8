"""Compare masks pasted into their boxes with mmdet's pasting and with pycocotools' encoding and IoU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fashion_hydra.structures.paste import MaskWindow, mask_iou, paste


def on_frame(mask, size):
    frame = np.zeros(size, np.uint8, order="F")
    frame[mask.y0 : mask.y0 + mask.pixels.shape[0], mask.x0 : mask.x0 + mask.pixels.shape[1]] = mask.pixels
    return frame


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mask_thr", [0.3, 0.5])
def test_pasting_is_mmdets(seed, mask_thr):
    import fashion_hydra.model  # noqa: F401, I001 - must be imported before mmdet
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    rng = np.random.default_rng(seed)
    size = (70, 90)
    for _ in range(12):
        mask = rng.random((28, 28), dtype=np.float32)
        x0, y0 = rng.uniform(-8, 70), rng.uniform(-8, 50)
        box = np.array([x0, y0, x0 + rng.uniform(0.5, 60), y0 + rng.uniform(0.5, 60)])
        reference, _ = _do_paste_mask(
            torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None].float(), *size, skip_empty=False
        )
        drawn = on_frame(paste(mask, box, size=size, mask_thr=mask_thr), size)
        sure = np.abs(reference[0].numpy() - mask_thr) > 1e-4
        assert (drawn == (reference[0].numpy() >= mask_thr))[sure].all()


def test_a_window_larger_than_a_block_is_drawn_as_bilinear_interpolation_says():
    """1200 x 900 pixels, more than one block, are compared with the formula pixel by pixel in float64."""
    rng = np.random.default_rng(0)
    mask, box = rng.random((5, 5), dtype=np.float32), np.array([3.3, 10.7, 890.1, 1190.2])
    drawn = paste(mask, box, size=(1200, 900), mask_thr=0.5)
    framed = np.pad(mask.astype(float), 1)
    x = (np.arange(900) + 0.5 - box[0]) / (box[2] - box[0]) * 5 + 0.5
    y = (np.arange(1200) + 0.5 - box[1]) / (box[3] - box[1]) * 5 + 0.5
    inside_x, inside_y = (x >= 0) & (x < 6), (y >= 0) & (y < 6)
    x, y = np.clip(x, 0, 5.999999), np.clip(y, 0, 5.999999)
    i, j, u, v = y.astype(int), x.astype(int), (y % 1)[:, None], x % 1
    rows = framed[i] * (1 - u) + framed[i + 1] * u
    values = (rows[:, j] * (1 - v) + rows[:, j + 1] * v) * inside_y[:, None] * inside_x
    sure = np.abs(values - 0.5) > 1e-5
    assert sure.mean() > 0.999
    assert (on_frame(drawn, (1200, 900)).astype(bool) == (values >= 0.5))[sure].all()


def test_a_box_outside_the_frame_draws_nothing():
    drawn = paste(np.ones((28, 28), np.float32), np.array([200.0, 10, 240, 30]), size=(70, 90), mask_thr=0.5)
    assert drawn.pixels.size == 0
    assert coco_mask.area(drawn.encoded((70, 90))) == 0


@st.composite
def masks_in_a_frame(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
    bottom, right = draw(st.integers(top, height)), draw(st.integers(left, width))
    seed, share = draw(st.integers(0, 2**16)), draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
    pixels = np.random.default_rng(seed).random((right - left, bottom - top)) < share
    return MaskWindow(pixels.T, left, top), (height, width)


@settings(max_examples=300, deadline=None)
@given(masks_in_a_frame())
def test_the_encoding_is_pycocotools(case):
    mask, size = case
    assert mask.encoded(size) == coco_mask.encode(on_frame(mask, size))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.2, 0.5]))
def test_iou_is_pycocotools_wherever_it_is_above_what_is_asked_for(seed, up_to):
    rng = np.random.default_rng(seed)
    size, pair = (20, 20), []
    for _ in range(2):
        x0, y0 = rng.integers(0, 12, 2)
        pair.append(MaskWindow(rng.random((rng.integers(0, 9), rng.integers(0, 9))).T < 0.8, int(x0), int(y0)))
    frames = [on_frame(mask, size) for mask in pair]
    [[expected]] = coco_mask.iou([coco_mask.encode(frames[0])], [coco_mask.encode(frames[1])], [0])
    found = mask_iou(*pair, *(int(frame.sum()) for frame in frames), up_to=up_to)
    assert found == (expected if found else 0.0)
    assert (found > up_to) == (expected > up_to)


def test_iou_of_a_mask_inside_another_is_the_ratio_of_their_areas():
    inner, outer = MaskWindow(np.ones((2, 2), bool), 3, 3), MaskWindow(np.ones((4, 5), bool), 2, 1)
    assert mask_iou(inner, outer, 4, 20, up_to=0.19) == 0.2
    assert mask_iou(inner, outer, 4, 20, up_to=0.2) == 0.0
