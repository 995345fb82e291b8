"""Every kind of image is either read correctly, trained on and predicted, or rejected by name."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.dataset import PredictDataset, TrainDataset, collate, read_image
from fashion_hydra.data.image_list import list_folder
from fashion_hydra.data.kaggle import read_annotations
from tests.faults.kinds import write_kinds
from tests.helpers import TINY_BACKBONE, TINY_HEADS, model_options

CLASSES = ClassSet((0, 1), ("a", "b"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds") / "root"
    return root, {kind.file: kind for kind in write_kinds(root)}


@pytest.fixture(scope="module")
def detector():
    import fashion_hydra.model  # noqa: F401
    from fashion_hydra.model.htc import build_htc

    options = model_options("htc_tiny", *TINY_HEADS, *TINY_BACKBONE, "model.test_proposals=30")
    torch.manual_seed(0)
    return build_htc(num_classes=2, **options)


def test_pixels_are_those_that_were_meant(folder):
    root, kinds = folder
    annotations, _ = read_annotations(root)
    wanted = {file: kind for file, kind in kinds.items() if kind.pixels is not None}
    assert annotations.files.tolist() == list(wanted)
    for image, (file, kind) in enumerate(wanted.items()):
        found = read_image(annotations, image).astype(float)
        assert found.shape == kind.pixels.shape, file
        assert np.abs(found - kind.pixels).mean() <= kind.tolerance, file


def test_what_cannot_be_read_is_refused_by_name(folder):
    root, kinds = folder
    refused = [file for file, kind in kinds.items() if kind.pixels is None]
    faults = read_annotations(root)[1]
    assert [(fault.kind, fault.image_id) for fault in faults] == [("unreadable-image", file) for file in refused]
    assert all("save it with 8 or 16 bits" in fault.value for fault in faults)


@pytest.mark.parametrize("recipe", ["winner", "small"])
def test_each_trains(folder, detector, recipe):
    """Train with a recipe's transforms at a small scale."""
    annotations, _ = read_annotations(folder[0])
    options = OmegaConf.to_container(OmegaConf.load(PROJECT_ROOT / "conf" / "augment" / f"{recipe}.yaml"))
    augment = Augment(**{**options, "short_edge": (64, 96), "long_edge": 128})
    data = TrainDataset(annotations, np.arange(len(annotations)), CLASSES, augment, seed=0)
    masks = 0
    detector.train()
    for start in range(0, len(data), 6):
        samples = [data[0, image] for image in range(start, min(start + 6, len(data)))]
        masks += sum(len(sample.targets) for sample in samples)
        losses = detector.loss(collate(samples))
        assert all(torch.isfinite(value) for value in losses.values()), [sample.image_id for sample in samples]
        detector.zero_grad()
        sum(losses.values()).backward()
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients), [s.image_id for s in samples]
    assert masks > 100


def test_each_is_predicted(folder, detector):
    from fashion_hydra.inference.cascade import merge_sources
    from fashion_hydra.inference.merging import Merging
    from fashion_hydra.postprocess.apply import apply
    from fashion_hydra.postprocess.rule import Postprocess

    root, kinds = folder
    image_list = list_folder(root / "train")
    data = PredictDataset(image_list, [(64, 96), (96, 128)])
    rule = Postprocess(score_thr=0.0, iou_thr=0.5, mask_thr=0.3, max_per_image=5)
    detector.eval()
    for image, file in enumerate(image_list.files):
        scaled = data[image]
        kind = kinds[file]
        if kind.pixels is None:
            assert "save it with 8 or 16 bits" in scaled.fault
            continue
        assert scaled.size == kind.pixels.shape[:2], file
        found = merge_sources([detector], scaled, [rule], Merging(flips=(False, True)), device=torch.device("cpu"))
        height, width = scaled.size
        assert bool(torch.isfinite(found.boxes).all()), file
        for mask in apply(found, rule, size=scaled.size).masks:
            assert list(mask["size"]) == [height, width]
