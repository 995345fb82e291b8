"""Numbers that mmdet accepts, but that cause wrong results or a later error, are rejected."""

import pytest

from fashion_hydra.model.htc import build_htc
from fashion_hydra.training.schedule import Schedule
from fashion_hydra.utils.errors import UserError
from tests.helpers import SMALL_TRAIN, model_options

SMALL = [word for word in SMALL_TRAIN if word.startswith("model.")]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("fc_channels=0", "model.fc_channels=0: must be at least 1"),
        ("mask_convs=-1", "model.mask_convs=-1: must be at least 0"),
        ("rois_per_stage=0", "model.rois_per_stage=0: must be at least 1"),
        ("test_proposals=-1", "model.test_proposals=-1: must be at least 1"),
        ("roi_sampling_ratio=-1", "model.roi_sampling_ratio=-1: must be at least 0"),
        ("anchor_scale=0", "model.anchor_scale=0.0: must be above 0"),
        ("anchor_ratios=[]", r"model.anchor_ratios=\[\]: must be above 0"),
        ("anchor_ratios=[1,-1]", r"model.anchor_ratios=\[1.0,-1.0\]: must be above 0"),
        ("proposal_iou_thr=1", "model.proposal_iou_thr=1.0: must be between 0 and 1"),
        ("stage_ious=[0.5,0.6,1.5]", "model.stage_ious=.*: must be between 0 and 1"),
        ("stage_weights=[1,1,-1]", "model.stage_weights=.*: must be at least 0"),
        ("backbone.mean=[1,2]", r"model.backbone.mean=\[1,2\]: must be three numbers"),
        ("backbone.std=[1,2,0]", "model.backbone.std=.*: must be three numbers, above 0 for std"),
        ("backbone.channels=[1,2,3,4]", r"model.backbone.channels=\[1,2,3,4\]: the backbone has \["),
        ("backbone.strides=[1,1,2,2]", r"must return features at strides \[4,8,16,32\], returns \[4,4,8,16\]"),
    ],
)
def test_a_number_that_no_cascade_can_have_is_named(option, named):
    add = "+" if "strides" in option else ""
    with pytest.raises(UserError, match=named):
        build_htc(num_classes=3, **model_options("htc_tiny", *SMALL, f"{add}model.{option}"))


@pytest.mark.parametrize("wrong", [{"warmup_steps": -1}, {"warmup_ratio": -0.5}, {"gamma": 0.0}])
def test_a_schedule_of_other_numbers_is_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        Schedule(epochs=1, lr=0.1, **wrong)
