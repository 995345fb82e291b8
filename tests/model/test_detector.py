"""Compare the detector's steps with mmdet's own training and prediction on the same modules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fashion_hydra.inference.cascade import find_candidates
from fashion_hydra.model.detector import block_sizes
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.roi_align import PreciseRoIExtractor
from fashion_hydra.postprocess.apply import paste
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.utils.errors import UserError
from tests.helpers import model_options, training_batch

CLASSES = 7


def tiny(**changes):
    torch.manual_seed(0)
    return build_htc(num_classes=CLASSES, **{**model_options(), **changes})


def decided(detector):
    """Randomize the heads: new heads give every class the same score, which would hide errors."""
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=0.5)
        torch.nn.init.normal_(head.fc_reg.weight, std=0.05)
    return detector.eval()


@pytest.fixture(scope="module")
def batch(wardrobe):
    return training_batch(wardrobe, [31, 23, 10, 6, 1, 32, 4], images=3, flip=0.5)[1]


def painted(targets, size, frame):
    """Return the class of every pixel: smaller masks over larger ones, else background; padding is ignored."""
    classes = np.full(frame, 255)
    classes[: size[0], : size[1]] = CLASSES
    masks = targets.masks.bitmaps().numpy().astype(bool)
    for index in np.argsort(-masks.sum((1, 2)), kind="stable"):
        classes[: size[0], : size[1]][masks[index]] = targets.labels[index]
    return classes


def mmdet_samples(batch):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    shape = tuple(batch.images.shape[-2:])
    samples = []
    for size, targets in zip(batch.sizes, batch.targets, strict=True):
        meta = {"img_shape": size, "ori_shape": size, "pad_shape": shape, "batch_input_shape": shape}
        sample = DetDataSample(metainfo={**meta, "scale_factor": (1.0, 1.0)})
        masks = BitmapMasks(targets.masks.bitmaps().numpy(), *size)
        sample.gt_instances = InstanceData(bboxes=targets.boxes, labels=targets.labels, masks=masks)
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(painted(targets, size, shape)[None, 4::8, 4::8]))
        samples.append(sample)
    return samples


@pytest.mark.parametrize(("all_scores_equal", "semantic_convs"), [(False, 0), (True, 0), (False, 2)])
def test_losses_are_mmdets(batch, all_scores_equal, semantic_convs):
    detector = tiny(semantic_convs=semantic_convs).train()
    if all_scores_equal:  # nearly the case in a new network: the order of anchors decides which are selected
        torch.nn.init.zeros_(detector.net.rpn_head.rpn_cls.weight)
    torch.manual_seed(1)
    mine = detector.loss(batch)
    torch.manual_seed(1)
    theirs = detector.net.loss(detector.normalise(batch.images, batch.sizes), mmdet_samples(batch))
    theirs = {k: sum(t.sum() for t in (v if isinstance(v, list) else [v])) for k, v in theirs.items() if "loss" in k}
    assert mine.keys() == theirs.keys()
    assert len(mine) == 2 + 3 * 3 + bool(semantic_convs)
    for name, value in mine.items():
        assert value.item() == pytest.approx(theirs[name].item(), rel=1e-5), name


@pytest.mark.parametrize("semantic_convs", [0, 4])
def test_a_step_reaches_every_parameter(batch, semantic_convs):
    detector = tiny(semantic_convs=semantic_convs).train()
    torch.stack(list(detector.loss(batch).values())).sum().backward()
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []


def test_images_without_objects_train(batch, wardrobe):
    _, empty = training_batch(wardrobe, [20], images=2, short_edge=[100, 100])
    assert [len(t) for t in empty.targets] == [0, 0]
    detector = tiny().train()
    total = torch.stack(list(detector.loss(empty).values())).sum()
    total.backward()
    assert torch.isfinite(total)


@pytest.mark.parametrize("semantic_convs", [0, 2])
def test_candidates_are_mmdets_predictions(batch, semantic_convs):
    detector = decided(tiny(semantic_convs=semantic_convs))
    batch = replace(batch, original_sizes=batch.sizes)
    with torch.no_grad():
        theirs = detector.net.predict(detector.normalise(batch.images, batch.sizes), mmdet_samples(batch))
    mine = find_candidates(detector, batch, [COCO_RULE])
    for candidates, sample in zip(mine, theirs, strict=True):
        expected = sample.pred_instances
        assert len(candidates) == len(expected) > 10
        assert candidates.labels.tolist() == expected.labels.tolist()
        assert torch.allclose(candidates.scores, expected.scores, atol=1e-6)
        assert torch.allclose(candidates.boxes, expected.bboxes, atol=1e-4)


def test_proposals_are_mmdets_to_the_last_bit(batch):
    detector = decided(tiny(test_proposals=40))
    torch.nn.init.normal_(detector.net.rpn_head.rpn_reg.weight, std=0.3)
    torch.nn.init.normal_(detector.net.rpn_head.rpn_cls.weight, std=0.3)
    shape = tuple(batch.images.shape[-2:])
    with torch.no_grad():
        features = detector.features(batch.images, batch.sizes)
        found = detector.propose(features, batch.sizes)
        wanted = detector.net.rpn_head.predict(features, mmdet_samples(batch), rescale=False)
    for (boxes, scores), theirs in zip(found, wanted, strict=True):
        assert len(boxes) == 40
        assert torch.equal(scores, theirs.scores)
        assert torch.equal(boxes, theirs.bboxes)
        assert boxes[:, 2].max() <= shape[1]


@pytest.mark.parametrize(
    ("name", "semantic_convs"), [("htc_tiny", 0), ("htc_tiny", 2), ("htc_r50", 0), ("htc_x101", 0)]
)
def test_preparing_for_inference_keeps_the_outputs(name, semantic_convs):
    torch.manual_seed(0)
    options = model_options(name, "model.backbone.weights=null", f"model.semantic_convs={semantic_convs}")
    detector = build_htc(num_classes=CLASSES, **options).eval()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # make the norm differ from the identity
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    images, sizes = torch.randint(0, 255, (2, 3, 96, 128), dtype=torch.uint8), [(96, 128), (90, 120)]
    boxes, labels = [torch.tensor([[3.0, 5, 70, 80], [20, 20, 60, 44]])] * 2, [torch.tensor([1, 4])] * 2

    def outputs():
        with torch.no_grad():
            features = detector.features(images, sizes)
            if name != "htc_tiny":  # the other heads have no norms, and these weights' huge features saturate them
                return features
            refined = detector.refine(features, boxes, sizes)
            masks = [found.masks for found in detector.segment(features, boxes, labels)]
        return [*features, *(part for one in refined for part in one[:2]), *masks]

    before = outputs()
    detector.for_inference(torch.device("cpu"))
    norms = [n for n, m in detector.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == (30 if name == "htc_x101" else 0)  # one after each deformable convolution
    for was, now in zip(before, outputs(), strict=True):
        assert torch.allclose(was, now, rtol=1e-4, atol=1e-4 * float(was.abs().max()))


@pytest.mark.parametrize("semantic_convs", [0, 2])
def test_last_stage_masks_are_mmdets(batch, semantic_convs):
    detector = decided(tiny(semantic_convs=semantic_convs))
    normalised = detector.normalise(batch.images, batch.sizes)
    with torch.no_grad():
        theirs = detector.net.predict(normalised, mmdet_samples(batch))
        features = detector.features(batch.images, batch.sizes)
        found = [s.pred_instances for s in theirs]
        masks = detector.segment(features, [f.bboxes for f in found], [f.labels for f in found], last_stage_only=True)
    for size, instances, (probabilities, _) in zip(batch.sizes, found, masks, strict=True):
        assert probabilities.shape[1:] == (16, 16)
        for box, mask, expected in zip(instances.bboxes, probabilities, instances.masks, strict=True):
            crop, x, y, *_ = paste(mask.numpy(), box.double().numpy(), size=size, mask_thr=0.5)
            drawn = torch.zeros(size, dtype=torch.bool)
            drawn[y : y + crop.shape[0], x : x + crop.shape[1]] = torch.from_numpy(crop)
            # The two differ only by rounding, at pixels with a probability of one half.
            assert (drawn != expected).sum() <= max(2, 0.002 * drawn.numel())


@pytest.mark.parametrize("count", [*range(70), 127, 128, 400])
def test_mask_heads_take_few_different_numbers_of_rois(count):
    sizes = block_sizes(count)
    assert sum(sizes) == count
    assert set(sizes) <= {64, 32, 16, 8, 4, 2, 1} | ({0} if count == 0 else set())
    assert len(sizes) <= count // 64 + 6 or count == 0


def test_masks_do_not_depend_on_the_blocks_that_they_are_made_in(batch):
    detector = decided(tiny())
    boxes = [torch.cat([t.boxes] * 79)[:79] for t in batch.targets]
    labels = [torch.cat([t.labels] * 79)[:79] for t in batch.targets]
    with torch.no_grad():
        features = detector.features(batch.images, batch.sizes)
        together = detector.segment(features, boxes, labels)
        for i, ((own, _), of_image) in enumerate(zip(together, boxes, strict=True)):
            for k in (0, 63, 64, len(of_image) - 1):
                only = [box[k : k + 1] if j == i else box[:0] for j, box in enumerate(boxes)]
                its = [label[k : k + 1] if j == i else label[:0] for j, label in enumerate(labels)]
                assert torch.allclose(own[k], detector.segment(features, only, its)[i].masks[0], atol=1e-6)


def test_masks_are_averaged_over_the_stages(batch):
    detector = decided(tiny())
    boxes = [t.boxes for t in batch.targets]
    labels = [t.labels for t in batch.targets]
    with torch.no_grad():
        features = detector.features(batch.images, batch.sizes)
        merged, last = (
            torch.cat([found.masks for found in detector.segment(features, boxes, labels, last_stage_only=only)])
            for only in (False, True)
        )
    assert merged.shape == last.shape
    assert ((merged >= 0) & (merged <= 1)).all()
    assert not torch.allclose(merged, last)


def test_padding_does_not_reach_the_backbone(batch):
    detector = tiny()
    noisy = batch.images.clone()
    for image, (h, w) in zip(noisy, batch.sizes, strict=True):
        image[:, h:] = 200
        image[:, :, w:] = 200
    assert torch.equal(detector.normalise(noisy, batch.sizes), detector.normalise(batch.images, batch.sizes))


def test_channel_order_and_scale():
    options = model_options()
    backbone = {**options["backbone"], "mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 4.0], "channel_order": "bgr"}
    detector = build_htc(num_classes=2, **{**options, "backbone": backbone})
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    assert detector.normalise(image, [(1, 1)]).flatten().tolist() == [29, 9, 7 / 4]


def test_boxes_keep_their_precision_under_bf16():
    """1027.3 is not representable in bf16: the rounded box would cover another part of the image."""
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 2}
    extractor = PreciseRoIExtractor(layer, out_channels=4, featmap_strides=[4])
    feature = torch.randn(1, 4, 300, 300)
    rois = torch.tensor([[0, 1027.3, 900.6, 1083.9, 955.1]])
    exact = extractor([feature.bfloat16().float()], rois)
    half = extractor([feature.bfloat16()], rois)
    assert torch.allclose(half.float(), exact, atol=0.02)


def test_htc_x101_takes_a_training_step_and_predicts(batch):
    torch.manual_seed(0)
    detector = build_htc(num_classes=CLASSES, **model_options("htc_x101", "model.backbone.weights=null"))
    net = detector.net
    blocks = [
        sum("DeformConv2d" in type(m).__name__ for m in stage.modules())
        for stage in (net.backbone.layer1, net.backbone.layer2, net.backbone.layer3, net.backbone.layer4)
    ]
    assert blocks == [0, 4, 23, 3]
    offsets = [p for n, p in net.backbone.named_parameters() if "conv_offset" in n]
    assert len(offsets) == 60
    assert not any(p.any() for p in offsets)
    assert (net.backbone.groups, net.backbone.base_width, net.backbone.frozen_stages) == (64, 4, 1)
    small = replace(
        batch,
        images=batch.images[:1],
        sizes=batch.sizes[:1],
        original_sizes=batch.sizes[:1],
        image_ids=batch.image_ids[:1],
        targets=batch.targets[:1],
    )
    parameters = [p for p in detector.train().parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.03 / 16)
    total = torch.stack(list(detector.loss(small).values())).sum()
    total.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 35)
    optimizer.step()
    assert torch.isfinite(total)
    detector.eval()
    (found,) = find_candidates(detector, small, [COCO_RULE])
    assert len(found) > 0
    assert torch.isfinite(found.scores).all()


def test_backbone_weights_are_loaded_from_a_file(tmp_path):
    source = tiny()
    path = tmp_path / "backbone.safetensors"
    save_file({k: v + 1 for k, v in source.net.backbone.state_dict().items() if v.is_floating_point()}, path)
    loaded = tiny(backbone={**model_options()["backbone"], "weights": str(path)})
    assert torch.equal(loaded.net.backbone.conv1.weight, source.net.backbone.conv1.weight + 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"not tensors", "neither a safetensors file nor a complete file of torch.save"),
        ({"conv1.weight": torch.zeros(1, 2)}, r"conv1.weight \(1, 2\) instead of \(32, 3, 7, 7\)|missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, content, message):
    path = tmp_path / "weights.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        save_file(content, path)
    with pytest.raises(UserError, match=message):
        tiny(backbone={**model_options()["backbone"], "weights": str(path)})


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UserError, match=r"model\.backbone\.type=ResNeet: mmdet has no backbone of that name"):
        tiny(backbone={**model_options()["backbone"], "type": "ResNeet"})
