"""Write a model's weights in every layout, load them, and compare the outputs with the model's own."""

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.model.htc import build_htc
from fashion_hydra.model.weights.layouts import import_weights, write_weights
from fashion_hydra.model.weights.load import load_weights
from fashion_hydra.utils.errors import UserError
from tests.helpers import TINY_HEADS, model_options

SMALL = (*TINY_HEADS, "model.fc_channels=24", "model.mask_convs=1", "model.backbone.weights=null")
NAMES = [f"garment {i}" for i in range(46)]
EVERYTHING = ClassSet(tuple(range(46)), tuple(NAMES))
SOME = ClassSet((31, 23, 0, 45), (NAMES[31], NAMES[23], NAMES[0], NAMES[45]))


def detector_of(classes, seed, *overrides, model="htc_tiny"):
    """Build a small cascade in which every tensor differs clearly from zero and from all other tensors."""
    options = model_options(model, *SMALL, *overrides)
    torch.manual_seed(seed)
    detector = build_htc(num_classes=classes, **options).eval()
    for name, tensor in detector.net.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2)
        elif (tensor.ndim == 1 and tensor.is_floating_point()) or "fc_" in name or "conv_offset" in name:
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return detector


@pytest.fixture(scope="module")
def source():
    return detector_of(46, 1)


def state_of(detector):
    return {name: tensor.clone() for name, tensor in detector.net.state_dict().items()}


def outputs(detector, labels):
    """Return features, box scores and masks of two images at fixed boxes."""
    torch.manual_seed(5)
    images, sizes = torch.randint(0, 255, (2, 3, 96, 128), dtype=torch.uint8), [(96, 128), (90, 120)]
    boxes = [torch.tensor([[3.0, 5, 70, 80], [20, 20, 60, 44], [0, 0, 100, 90], [40, 8, 90, 60]])] * 2
    with torch.no_grad():
        features = detector.features(images, sizes)
        proposals = detector.propose(features, sizes)
        refined = detector.refine(features, boxes, sizes)
        masks = [found.masks for found in detector.segment(features, boxes, [torch.tensor(labels)] * 2)]
    return {
        "features": [*features, *(part for pair in proposals for part in pair)],
        "boxes": [one.boxes for one in refined],
        "scores": [one.probabilities for one in refined],
        "masks": masks,
    }


def same(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def as_of_2019(state):
    """Convert weights to the names and orders of mmdet 0.6."""
    made = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue  # does not exist in PyTorch 0.4
        old = re.sub(r"^roi_head\.(bbox_head|mask_head)\.", r"\1.", name)
        old = old.replace("conv2.conv_offset", "conv2_offset")
        if "fc_cls" in name:
            *classes, background = tensor
            made[old] = torch.stack([background, *classes])
        elif "conv_logits" in name:
            made[old] = torch.stack([torch.full_like(tensor[0], 7.0), *tensor])
        else:
            made[old] = tensor
    return made


def write_ours(path, state, more=()):
    classes = {"ids": list(EVERYTHING.ids), "names": list(EVERYTHING.names), **dict(more)}
    state = {f"detector.net.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": state, "classes": classes, "model": {"neck_channels": 16}, "epoch": 3}, path)


def write_mmdet3(path, state, classes=NAMES):
    log = HistoryBuffer([1.0, 2.0], [1, 1])
    log.update(0.5)
    content = {
        "meta": {"dataset_meta": {"classes": tuple(classes), "palette": [(1, 2, 3)]}, "cfg": "model = dict()"},
        "state_dict": state,
        "message_hub": {"log_scalars": {"train/loss": log}, "runtime_info": {"iter": np.int64(3), "lr": np.ones(2)}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(content, path)


def write_2019(path, state):
    state = {f"module.{name}": tensor for name, tensor in as_of_2019(state).items()}
    meta = {"mmdet_version": "0.6.0+unknown", "config": "model = dict(...)", "classes": None}
    torch.save({"meta": meta, "state_dict": state}, path, _use_new_zipfile_serialization=False)


def write_imported(path, state):
    write_2019(path.with_name("first.pth"), state)
    write_weights(path, import_weights(path.with_name("first.pth")), source="first.pth", sha256="0" * 64)


WRITERS = [write_ours, write_mmdet3, write_2019, write_imported]


@pytest.mark.parametrize("write", WRITERS)
def test_a_model_gives_the_same_outputs_from_every_layout(tmp_path, source, write):
    write(tmp_path / "weights", state_of(source))
    other = detector_of(46, 2)
    labels = [0, 45, 23, 7]
    before = outputs(source, labels)
    assert not same(outputs(other, labels)["scores"], before["scores"])
    message = load_weights(other, tmp_path / "weights", EVERYTHING)
    after = outputs(other, labels)
    assert all(same(after[part], before[part]) for part in before)
    assert "dropped" not in message


@pytest.mark.parametrize("write", WRITERS)
def test_a_subset_of_the_classes_takes_their_rows(tmp_path, source, write):
    """Masks and unnormalised scores equal those of the same categories; scores are compared by their ratios."""
    write(tmp_path / "weights", state_of(source))
    other = detector_of(len(SOME), 2)
    message = load_weights(other, tmp_path / "weights", SOME)
    wanted, found = outputs(source, list(SOME.ids)), outputs(other, [0, 1, 2, 3])
    for part in ("masks", "boxes"):  # rounding may depend on a convolution's number of outputs
        for mine, theirs in zip(found[part], wanted[part], strict=True):
            assert torch.allclose(mine, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))
    for mine, theirs in zip(found["scores"], wanted["scores"], strict=True):
        chosen = theirs[:, [*SOME.ids, -1]]
        assert torch.allclose(mine, chosen / chosen.sum(1, keepdim=True), atol=1e-6)
    assert "dropped" not in message


def test_cocos_heads_are_dropped_and_listed(tmp_path):
    coco = detector_of(80, 1)
    state = state_of(coco)
    state["roi_head.semantic_head.convs.0.conv.weight"] = torch.ones(2, 2, 3, 3)
    state["roi_head.semantic_head.conv_logits.bias"] = torch.ones(183)
    write_mmdet3(tmp_path / "coco.pth", state, classes=[f"thing {i}" for i in range(80)])
    other = detector_of(46, 2)
    fresh = state_of(other)
    message = load_weights(other, tmp_path / "coco.pth", EVERYTHING)
    after = state_of(other)
    heads = [n for n in after if ".fc_cls." in n or ".conv_logits." in n]
    assert len(heads) == 12
    for name, tensor in after.items():
        assert torch.equal(tensor, fresh[name] if name in heads else state[name]), name
    assert message == (
        f"{tmp_path / 'coco.pth'}: {len(after) - 12} tensors loaded, 14 dropped (46 classes instead of 80: "
        "roi_head.bbox_head.0.fc_cls.weight and 11 more; semantic branch, which this model does not have: "
        "roi_head.semantic_head.convs.0.conv.weight and 1 more)"
    )


def test_rows_are_found_by_name_however_categories_are_numbered(tmp_path):
    source, other = detector_of(4, 1), detector_of(3, 2)
    state, fresh = state_of(source), state_of(other)
    write_ours(tmp_path / "w.pth", state, {"ids": [7, 1, 3, 4], "names": ["hat", "shoe", "dress", "shoe"]})
    load_weights(other, tmp_path / "w.pth", ClassSet((1, 2, 30), ("dress", "shoe", "hat")))
    rows = state_of(other)["roi_head.bbox_head.0.fc_cls.weight"]
    theirs = state["roi_head.bbox_head.0.fc_cls.weight"]
    mine = fresh["roi_head.bbox_head.0.fc_cls.weight"]
    # dress, shoe (its name occurs twice in the file), hat, background
    assert torch.equal(rows, torch.stack([theirs[2], mine[1], theirs[0], theirs[4]]))


@pytest.mark.parametrize(
    ("option", "prefix", "output", "background"),
    [
        ("model.semantic_convs=2", "roi_head.semantic_", "conv_logits", [46]),
        ("model.mask_scoring=true", "roi_head.mask_iou_head", "fc_mask_iou", []),
        ("model.mask_refinements=1", "roi_head.mask_point_head", None, []),
    ],
)
def test_optional_parts_are_taken_where_the_model_has_them(tmp_path, option, prefix, output, background):
    source, other = detector_of(46, 1, option), detector_of(len(SOME), 2, option)
    plain = detector_of(46, 3)
    write_ours(tmp_path / "with", state_of(source))
    load_weights(other, tmp_path / "with", SOME)
    state, found = state_of(source), state_of(other)
    branch = [name for name in found if name.startswith(prefix)]
    of_classes = {name for name in branch if output and output in name}
    assert bool(of_classes) == bool(output)
    for name in branch:
        wanted = state[name][[*SOME.ids, *background]] if name in of_classes else state[name]
        assert torch.equal(found[name], wanted), name

    kept = load_weights(detector_of(46, 4), tmp_path / "with", EVERYTHING)
    assert f"{len(branch)} dropped (" in kept
    assert "which this model does not have" in kept
    write_ours(tmp_path / "without", state_of(plain))
    assert f"{len(branch)} not in the file" in load_weights(source, tmp_path / "without", EVERYTHING)


@pytest.mark.parametrize("losses", [("seesaw", "seesaw"), ("seesaw", "cross_entropy"), ("cross_entropy", "seesaw")])
def test_of_another_class_loss_the_rows_of_the_classes_are_taken(tmp_path, losses):
    source, other = (detector_of(46, i, f"model.class_loss={loss}") for i, loss in enumerate(losses))
    write_ours(tmp_path / "weights", state_of(source))
    fresh = state_of(other)
    told = load_weights(other, tmp_path / "weights", EVERYTHING)
    state, found = state_of(source), state_of(other)
    for name, value in found.items():
        if "cum_samples" in name:
            assert torch.equal(value, fresh[name]), name
        elif "fc_cls" in name:
            background = state[name][46:] if losses[0] == losses[1] else fresh[name][46:]
            assert torch.equal(value, torch.cat([state[name][:46], background])), name
        elif value.ndim:
            assert torch.equal(value, state[name]), name
    assert ("6 partly loaded (without the background, of another class loss" in told) == (losses[0] != losses[1])
    assert ("3 dropped (counts of another training" in told) == (losses[0] == "seesaw")


def attributes_of(ids):
    return AttributeSet(ids, ("",) * len(ids), ((0,), *((),) * 45), ((((0,), 1),), *((),) * 45))


def detector_with(ids, seed):
    torch.manual_seed(seed)
    options = {**model_options("htc_tiny", *SMALL), "attributes": True, "attribute_set": attributes_of(ids)}
    detector = build_htc(num_classes=46, **options)
    for name, tensor in detector.net.state_dict().items():
        if "fc_attribute" in name:
            tensor.normal_()
    return detector


def test_attributes_are_taken_by_their_ids(tmp_path):
    source, other, plain = detector_with((28, 30, 77), 1), detector_with((30, 55, 77, 90), 2), detector_of(46, 3)
    write_ours(tmp_path / "with", state_of(source), {"attributes": attributes_of((28, 30, 77)).plain()})
    fresh, theirs = state_of(other), state_of(source)
    told = load_weights(other, tmp_path / "with", replace(EVERYTHING, attributes=attributes_of((30, 55, 77, 90))))
    assert "6 partly loaded (2 of 4 attributes: roi_head.bbox_head.0.fc_attribute.weight and 5 more)" in told
    for name, tensor in state_of(other).items():
        if "fc_attribute" in name:
            assert torch.equal(tensor[[0, 2]], theirs[name][[1, 2]]), name
            assert torch.equal(tensor[[1, 3]], fresh[name][[1, 3]]), name
        elif tensor.ndim:
            assert torch.equal(tensor, theirs[name]), name
    told = load_weights(plain, tmp_path / "with", EVERYTHING)
    assert "6 dropped (attributes, which this model does not learn: roi_head.bbox_head.0.fc_attribute.weight" in told

    write_ours(tmp_path / "without", state_of(detector_of(46, 4)))
    assert "6 not in the file (roi_head.bbox_head.0.fc_attribute.bias and 5 more)" in load_weights(
        source, tmp_path / "without", replace(EVERYTHING, attributes=attributes_of((28, 30, 77)))
    )


def test_regression_class_by_class_is_dropped(tmp_path, source):
    state = as_of_2019(state_of(source))
    for stage in range(3):
        for part in ("weight", "bias"):
            name = f"bbox_head.{stage}.fc_reg.{part}"
            state[name] = torch.cat([state[name]] * 47)
    torch.save({"state_dict": state}, tmp_path / "old.pth")
    imported = import_weights(tmp_path / "old.pth")
    assert imported.tensors["roi_head.bbox_head.0.fc_reg.weight"].shape == (4 * 46, 24)
    assert imported.converted["cut fc_reg: the background's four rows"] == 6
    report = load_weights(detector_of(46, 2), tmp_path / "old.pth", EVERYTHING)
    assert "6 dropped (box regression per class, which this model does not have: roi_head.bbox_head.0.fc_" in report


def test_shared_categories_are_those_of_the_same_id_and_name(tmp_path, source):
    write_ours(tmp_path / "ours.ckpt", state_of(source))
    target = ClassSet((7, 100, 9), (NAMES[7], "hundred", "another nine"))
    other = detector_of(3, 2)
    fresh, theirs = state_of(other), state_of(source)
    message = load_weights(other, tmp_path / "ours.ckpt", target)
    after = state_of(other)
    for name in ("roi_head.bbox_head.2.fc_cls.weight", "roi_head.mask_head.1.conv_logits.weight"):
        assert torch.equal(after[name][0], theirs[name][7])
        assert torch.equal(after[name][1:3], fresh[name][1:3])
    assert torch.equal(after["roi_head.bbox_head.2.fc_cls.bias"][3], theirs["roi_head.bbox_head.2.fc_cls.bias"][46])
    assert "12 partly loaded (1 of 3 classes: roi_head.bbox_head.0.fc_cls.weight and 11 more)" in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.backbone.depth=34"],
            "in 80 tensors (80 in backbone), such as backbone.layer1.2.bn1.bias (32,), which",
        ),
        (["model.neck_channels=32", "model.mask_channels=32"], r" instead of (32"),
        (["model.norm=null"], "which the model does not have"),
        (["model.stage_ious=[0.5]", "model.stage_weights=[1]"], "which the model does not have"),
    ],
)
def test_another_model_is_refused_in_one_short_line(tmp_path, source, overrides, message):
    write_mmdet3(tmp_path / "weights.pth", state_of(source))
    other = detector_of(46, 2, *overrides)
    before = state_of(other)
    with pytest.raises(UserError) as raised:
        load_weights(other, tmp_path / "weights.pth", EVERYTHING)
    line = str(raised.value)
    assert message in line
    assert "weights.pth" in line
    assert "Choose the model and model/backbone that the file was made for" in line
    assert len(line) < 420 + len(str(tmp_path))
    assert "\n" not in line
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state_of(other).values(), strict=True))


def test_the_winners_backbone_names(tmp_path):
    """A thin ResNeXt-101 with deformable convolutions in c3-c5: only names and shapes matter."""
    thin = ("model.backbone.groups=2", "model.roi_sampling_ratio=1")
    winner = detector_of(46, 1, *thin, model="htc_x101")
    write_2019(tmp_path / "epoch_15.pth", state_of(winner))
    imported = import_weights(tmp_path / "epoch_15.pth")
    assert imported.converted["renamed *.conv2_offset -> *.conv2.conv_offset"] == 60
    assert imported.classes.ids == tuple(range(46))
    other = detector_of(46, 2, *thin, model="htc_x101")
    load_weights(other, tmp_path / "epoch_15.pth", EVERYTHING)
    for name, tensor in state_of(winner).items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, other.net.state_dict()[name]), name


@pytest.mark.parametrize("wrapped", [False, True])
def test_torchvisions_resnet_gives_the_same_features(tmp_path, wrapped):
    torch.manual_seed(3)
    theirs = torchvision.models.resnet50(weights=None).eval()
    state = theirs.state_dict()
    content = {
        "meta": {},
        "state_dict": {f"backbone.{k}".replace("backbone.fc", "head.fc"): v for k, v in state.items()},
    }
    torch.save(content if wrapped else state, tmp_path / "r50.pth", _use_new_zipfile_serialization=False)
    ours = detector_of(46, 2, "model.backbone.style=pytorch", model="htc_r50")
    before = state_of(ours)
    message = load_weights(ours, tmp_path / "r50.pth", EVERYTHING)
    assert f"2 dropped (ImageNet classifier: {'head.' if wrapped else ''}fc.weight and 1 more)" in message
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for stage, found in enumerate(ours.net.backbone(image), start=1):
            x = getattr(theirs, f"layer{stage}")(x)
            assert torch.allclose(found, x, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(t, before[n]) for n, t in state_of(ours).items() if not n.startswith("backbone."))


def test_a_backbones_own_option_takes_torch_files_and_reports_the_rest(tmp_path, source):
    state = {k.removeprefix("backbone."): v for k, v in state_of(source).items() if k.startswith("backbone.")}
    torch.save({**state, "fc.weight": torch.ones(1000, 256), "fc.bias": torch.ones(1000)}, tmp_path / "r.pth")
    write_mmdet3(tmp_path / "whole.pth", state_of(source))
    for file, dropped in (
        ("r.pth", "2 dropped (ImageNet classifier: fc.weight"),
        ("whole.pth", "not part of the backbone"),
    ):
        options = model_options("htc_tiny", *SMALL, f"model.backbone.weights={tmp_path / file}")
        detector = build_htc(num_classes=3, **options)
        found = detector.net.backbone.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
        assert dropped in detector.origin


def test_offsets_that_a_backbone_lacks_stay_at_zero(tmp_path):
    dcn = "+model.backbone.dcn={type: DCN, deform_groups: 1, fallback_on_stride: false}"
    plain = detector_of(3, 1, "model.backbone.depth=50", "model.backbone.channels=[128,256,512,1024]")
    state = {k: v for k, v in state_of(plain).items() if k.startswith("backbone.")}
    save_file(state, tmp_path / "r50.safetensors")
    overrides = ("model.backbone.depth=50", "model.backbone.channels=[128,256,512,1024]", dcn)
    stages = "+model.backbone.stage_with_dcn=[false,false,false,true]"
    deformable = detector_of(3, 2, *overrides, stages)
    message = load_weights(deformable, tmp_path / "r50.safetensors", ClassSet((0, 1, 2), ("a", "b", "c")))
    assert "6 not in the file (backbone.layer4.0.conv2.conv_offset.bias and 5 more)" in message
    write_mmdet3(tmp_path / "whole.pth", state_of(plain), classes="abc")
    with pytest.raises(UserError, match=r"6 in backbone.*conv_offset.*which the file does not have"):
        load_weights(deformable, tmp_path / "whole.pth", ClassSet((0, 1, 2), ("a", "b", "c")))


class Payload:
    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, exec, open, getattr])
def test_nothing_that_a_file_asks_for_is_run(tmp_path, source, function, zipped):
    done = tmp_path / "done"
    arguments = {
        os.system: (f"touch {done}",),
        exec: (f"open({str(done)!r}, 'w')",),
        open: (str(done), "w"),
        getattr: (Payload(exec, f"open({str(done)!r}, 'w')"), "x"),  # getattr is allowed; the call is inert
    }[function]
    content = {"state_dict": state_of(source), "meta": Payload(function, *arguments)}
    torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"bad.pth: refused: .* it contains \S*(system|exec|open), which could"):
        import_weights(tmp_path / "bad.pth")
    assert not done.exists()
    if zipped and function is not getattr:  # prove that the payload works
        torch.load(tmp_path / "bad.pth", weights_only=False)
        assert done.exists()


def test_objects_of_other_programs_are_named(tmp_path, source):
    torch.save({"state_dict": state_of(source), "cfg": ConfigDict(lr=1)}, tmp_path / "cfg.pth")
    with pytest.raises(UserError, match=r"contains mmengine\.config\.config\.ConfigDict, which could run any code"):
        import_weights(tmp_path / "cfg.pth")


def damaged(tmp_path, kind, state):
    path = tmp_path / "damaged"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=kind != "half of an old torch file")
    if kind == "half of a safetensors file":
        save_file(state, path)
    if kind.startswith("half"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if kind == "a web page":
        path.write_text("<!DOCTYPE html><html>")
    if kind == "an empty file":
        path.write_text("")
    if kind == "a pickled list":
        path.write_bytes(pickle.dumps([1, 2], protocol=2))
    if kind == "a saved list":
        torch.save([1, 2], path)
    if kind == "no tensors":
        torch.save({"state_dict": {}, "epoch": 3}, path)
    if kind == "another detector":
        torch.save({"neck.conv.weight": torch.ones(1), "bbox_head.gfl_cls.bias": torch.ones(1)}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("half of a torch file", "neither a safetensors file nor a complete file of torch.save"),
        ("half of an old torch file", "damaged, or not a file of torch.save"),
        ("half of a safetensors file", "not a readable safetensors file"),
        ("a web page", "neither a safetensors file .*begins with b'<!DOCTYPE'"),
        ("an empty file", "neither a safetensors file"),
        ("a pickled list", "damaged, or not a file of torch.save"),
        ("a saved list", "contains a list, but must contain a dictionary of tensors"),
        ("no tensors", r"no tensors in it \(found: state_dict, epoch\)"),
        ("another detector", "neither a Hybrid Task Cascade nor a backbone: its 2 tensors are named like neck.conv"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path, source, kind, message):
    with pytest.raises(UserError, match=message):
        import_weights(damaged(tmp_path, kind, state_of(source)))


CAFFE = ["model.backbone.style=caffe", "model.backbone.channel_order=bgr", "model.backbone.std=[1.0,1.0,1.0]"]
TEXT_3 = """
        bgr_to_rgb=True,
        mean=[
            123.675,
            116.28,
            103.53,
        ],
        std=[58.395, 57.12, 57.375],
    backbone=dict(depth=18, style='pytorch'),
"""
TEXT_0 = """
    backbone=dict(type='ResNet', style='pytorch'),
    img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
"""


@pytest.mark.parametrize("key", ["cfg", "config", "ours"])
def test_weights_for_other_pixels_are_refused_and_the_remedy_named(tmp_path, source, key):
    outputs = {"meta": {key: TEXT_3 if key == "cfg" else TEXT_0}}
    backbone = {
        "style": "pytorch",
        "channel_order": "rgb",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
    }
    if key == "ours":
        outputs = {"model": {"backbone": backbone}, "classes": {"ids": list(range(46)), "names": NAMES}}
    torch.save({"state_dict": state_of(source), **outputs}, tmp_path / "w.pth")
    write_weights(tmp_path / "w.safetensors", import_weights(tmp_path / "w.pth"), source="w.pth", sha256="0")
    for file in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        assert import_weights(file).inputs == backbone
        load_weights(detector_of(46, 2), file, EVERYTHING)
        message = re.escape(
            "this model's style=caffe, channel_order=bgr, std=[1.0,1.0,1.0]. Set model.backbone.style=pytorch "
            "model.backbone.channel_order=rgb model.backbone.std=[58.395,57.12,57.375]"
        )
        with pytest.raises(UserError, match=message):
            load_weights(detector_of(46, 2, *CAFFE), file, EVERYTHING)
        with pytest.raises(UserError, match=message):
            detector_of(46, 2, *CAFFE, f"model.backbone.weights={file}")
