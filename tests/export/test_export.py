"""Compare exported models with native ones: boxes, scores, labels, masks and attributes for the same pixels."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto, load_from_string

from fashion_hydra.api.load import load
from fashion_hydra.cli.main import main
from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.export import parity
from fashion_hydra.export.onnx_file import Description, check_exportable, export_onnx, read_metadata
from fashion_hydra.export.parity import OnnxModel, compare_models, prepare
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.manifest import loosest_rules
from fashion_hydra.inference.merging import MASK_GRID, Merging
from fashion_hydra.model.detector import Detector
from fashion_hydra.model.htc import build_htc
from tests import PROJECT
from tests.helpers import TINY_BACKBONE, TINY_HEADS, model_options, write_tiny_checkpoint

CPU = torch.device("cpu")
GRID = (0.3, 0.5, 0.7)
CLASSES = ClassSet((6, 23, 31), ("pants", "shoe", "sleeve"))
ATTRIBUTES = AttributeSet((300, 301), ("striped", "long"), ((0, 1), (0,), (1,)), (((((0,), 2), ((), 1)),)) * 3)


def described(classes=CLASSES, *, scale=(96, 144), size=None, score_floor=0.05, thresholds=None, note=""):
    return Description(classes, scale, size, thresholds or {"mask_thr": 0.45}, score_floor, GRID, note)


def noise(height, width, seed=0):
    """Make an image, uint8 (H, W, 3), with structure at all scales."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]
    return pixels // 2 + random.integers(0, 127, pixels.shape, dtype=np.uint8)


def build(*overrides, classes=CLASSES, seed=0):
    """Return a tiny detector whose random heads prefer some classes."""
    options = model_options("htc_tiny", *TINY_HEADS, *TINY_BACKBONE, "model.test_proposals=30", *overrides)
    torch.manual_seed(seed)
    if classes.attributes:
        options["attribute_set"] = classes.attributes
    detector = build_htc(num_classes=len(classes), **options)
    for head in detector.net.roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight, std=1.0)
    for part in detector.modules():  # give norms nontrivial statistics
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
    return detector.eval()


def exported(detector, description, *, input_type="uint8", half=False):
    return OnnxModel(export_onnx(detector, description, input_type=input_type, half=half, name="tiny"), threads=1)


def assert_same(detector, model, scaled, description):
    """Compare candidates, and return their number."""
    rules = loosest_rules(description.score_floor, description.iou_grid)
    native = merge_sources([detector], scaled, rules, Merging(mask_grid=MASK_GRID), device=CPU)
    found = model.candidates(scaled)
    assert found.size == native.size
    assert found.labels.tolist() == native.labels.tolist()
    torch.testing.assert_close(found.scores, native.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.boxes, native.boxes, atol=2e-3, rtol=1e-4)
    if detector.refines_masks:  # rounding may choose another one of the least certain cells
        assert found.masks.isclose(native.masks, atol=1e-4, rtol=1e-3).float().mean() > 0.9999
    else:
        torch.testing.assert_close(found.masks, native.masks, atol=1e-4, rtol=1e-3)
    if native.attributes is None:
        assert found.attributes is None
    else:
        torch.testing.assert_close(found.attributes, native.attributes, atol=1e-3, rtol=0)
    return len(native)


@pytest.fixture(scope="module")
def tiny():
    return build()


@pytest.fixture(scope="module")
def content(tiny):
    return export_onnx(tiny, described(), input_type="uint8", half=False, name="tiny")


@pytest.fixture(scope="module")
def dynamic(content):
    return OnnxModel(content, threads=1)


@pytest.mark.parametrize("size", [(96, 144), (144, 96), (97, 131), (1, 1), (20, 300), (256, 64), (700, 500)])
def test_any_size_by_one_graph(tiny, dynamic, size):
    scaled = prepare("noise", noise(*size), described(scale=(min(size), max(size))))
    assert scaled.images[0].shape[1:] == size
    assert_same(tiny, dynamic, scaled, described())


def test_boxes_are_in_the_frame_of_the_file(tiny, dynamic):
    scaled = prepare("noise", noise(300, 411), described())
    assert scaled.images[0].shape[1:] != (300, 411)
    assert assert_same(tiny, dynamic, scaled, described()) > 5


def test_a_graph_for_one_size_and_its_metadata(tiny):
    thresholds = {"score_thr": 0.4, "mask_thr": 0.5, "class_score_thr": {"shoe": 0.6}, "nms": "box"}
    description = described(size=(80, 112), thresholds=thresholds, note="Photos of Ä; CC-BY.")
    content = export_onnx(tiny, description, input_type="uint8", half=False, name="tiny")
    model = OnnxModel(content, threads=1)
    assert model.session.get_inputs()[0].shape == [1, 3, 80, 112]
    for size in ((80, 112), (300, 411), (40, 30)):
        assert assert_same(tiny, model, prepare("noise", noise(*size), description), description) > 0
    assert read_metadata(content) == {
        "classes": [{"id": 6, "name": "pants"}, {"id": 23, "name": "shoe"}, {"id": 31, "name": "sleeve"}],
        "attributes": [],
        "scale": [96, 144],
        "size": [80, 112],
        "thresholds": thresholds,
        "score_floor": 0.05,
        "iou_grid": list(GRID),
        "note": "Photos of Ä; CC-BY.",
    }


def test_nothing_found(tiny):
    description = described(score_floor=1.0)
    model = exported(tiny, description)
    assert assert_same(tiny, model, prepare("noise", noise(96, 96), description), description) == 0


@pytest.mark.parametrize(
    ("overrides", "classes", "input_type"),
    [
        (("model.semantic_convs=2",), CLASSES, "float"),  # 8x8 RoI features averaged to 7x7
        (("model.mask_roi_size=14", "model.semantic_convs=1", "model.roi_sampling_ratio=0"), CLASSES, "uint8"),
        (("model.mask_refinements=2", "model.class_loss=seesaw"), CLASSES, "uint8"),
        (
            ("model.attributes=true", "model.norm=GN", "model.roi_sampling_ratio=2", "model.stage_ious=[0.5,0.6]",
             "model.stage_weights=[1,1]", "model.backbone.channel_order=bgr", "model.anchor_ratios=[1.0]"),
            ClassSet(CLASSES.ids, CLASSES.names, attributes=ATTRIBUTES),
            "uint8",
        ),
    ],
)  # fmt: skip
def test_every_kind_of_head(overrides, classes, input_type):
    detector, description = build(*overrides, classes=classes), described(classes)
    model = exported(detector, description, input_type=input_type)
    for size in ((96, 144), (200, 160)):
        assert assert_same(detector, model, prepare("noise", noise(*size), description), description) > 0


def test_half_stores_float16_and_loses_nothing_that_float16_holds(content):
    detector = build()
    for parameter in detector.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()
    description = described()
    halved = export_onnx(detector, description, input_type="uint8", half=True, name="tiny")
    assert len(halved) < 0.75 * len(content)
    types = {one.data_type for one in load_from_string(halved).graph.initializer if np.prod(one.dims) > 1000}
    assert types == {TensorProto.FLOAT16}
    assert_same(detector, OnnxModel(halved, 1), prepare("noise", noise(96, 144), description), description)


def test_a_comparison_tells_what_differs(tiny, dynamic):
    description = described()
    scaled = [prepare(name, noise(96, 144, seed), description) for seed, name in enumerate(("one", "two"))]
    same = compare_models(tiny, dynamic, scaled, description)
    assert parity.describe_difference(same, parity.tolerance_of(half=False)) == ""
    assert all(row.native == row.onnx == row.matched > 0 for row in same)
    other = build(seed=1)
    rows = compare_models(other, dynamic, scaled, description)
    text = parity.describe_difference(rows, parity.tolerance_of(half=False))
    assert "of the candidates are found by both, must be at least 99.00%" in text
    assert parity.total(rows).native == sum(row.native for row in rows)


def test_the_command(tmp_path, tiny_checkpoint, wardrobe, capsys):
    checkpoint, out = tiny_checkpoint(), tmp_path / "new" / "tiny.onnx"
    words = ["export", str(checkpoint), str(out), "--images", str(wardrobe / "train"), "--half", "--count", "2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"written      {out}, {out.stat().st_size / 1e6:.1f} MB: uint8 images of any size" in printed
    rows = (out.parent / "tiny.parity.csv").read_text().splitlines()
    names = sorted(path.name for path in (wardrobe / "train").iterdir())[:2]
    assert [row.split(",")[0] for row in rows] == ["image", *names, "all 2"]
    entries, predictor = read_metadata(out.read_bytes()), load(checkpoint)
    thresholds = json.loads(json.dumps(predictor.thresholds))
    assert entries["thresholds"] == {key: value for key, value in thresholds.items() if key != "calibration"}
    assert entries["scale"] == list(predictor.members[0].scale)
    assert [one["id"] for one in entries["classes"]] == list(predictor.classes.ids)
    assert main(words) == 2
    assert f"{out} exists already" in capsys.readouterr().err
    assert main([*words, "--force", "--size", "64", "96", "--input", "float"]) == 0
    assert "float images of 64x96 pixels" in capsys.readouterr().out


def test_the_example_finds_what_the_package_finds(tmp_path, monkeypatch, capsys):
    page = (PROJECT / "docs" / "export.md").read_text()
    [code] = re.findall(r"```python\n# with_onnxruntime.py\n(.*?)```", page, re.S)
    assert main(["export", "street", str(tmp_path / "street.onnx"), "--half", "--count", "1"]) == 0
    (tmp_path / "docs").symlink_to(PROJECT / "docs")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(code, {})
    found = load("street", device="cpu")(PROJECT / "docs" / "photos" / "0883.jpg")
    for line, one in zip(capsys.readouterr().out.splitlines(), found, strict=True):
        name, score, *_ = re.split(r" (?=[\d(])", line)
        assert (name, float(score)) == (one.names[0], pytest.approx(one.scores[0], abs=0.006))
        assert int(line.split()[-2]) == pytest.approx(int(one.masks[0].sum()), rel=0.05)


def test_a_command_whose_answers_differ_writes_no_model(tmp_path, tiny_checkpoint, capsys, monkeypatch):
    strict = parity.Tolerance(matched=0.99, score=-1.0, box=0.1, mask_iou=0.9)
    monkeypatch.setattr(parity, "tolerance_of", lambda half: strict)
    out = tmp_path / "tiny.onnx"
    assert main(["export", str(tiny_checkpoint()), str(out), "--count", "1"]) == 2
    line = capsys.readouterr().err
    assert "tiny.onnx: not written, its outputs differ from those of" in line
    assert "scores differ by" in line
    assert not out.exists()
    assert (tmp_path / "tiny.parity.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["OUT.pt"], "OUT.pt: must be a name that ends in .onnx"),
        (["OUT.onnx", "--size", "8", "96"], "--size 8 96: height and width must be between 32 and 4096 pixels"),
        (["OUT.onnx", "--count", "0"], "--count 0: must be at least 1"),
        (["OUT.onnx", "--images", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistakes(words, message, tiny_checkpoint, capsys):
    assert main(["export", str(tiny_checkpoint()), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_a_scale(tmp_path, tiny_checkpoint, capsys):
    content = torch.load(tiny_checkpoint(), weights_only=True)
    del content["eval_scale"]
    torch.save(content, tmp_path / "old.ckpt")
    assert main(["export", str(tmp_path / "old.ckpt"), str(tmp_path / "old.onnx")]) == 2
    assert "old.ckpt: the checkpoint does not contain the scale of its images. Give --size" in capsys.readouterr().err


def test_models_without_a_graph_are_refused_by_name(tmp_path):
    options = model_options("htc_tiny", *TINY_HEADS, *TINY_BACKBONE)
    options["backbone"] |= {"depth": 50, "channels": [32, 64, 128, 256]}
    options["backbone"] |= {"dcn": {"type": "DCNv2", "deform_groups": 1}, "stage_with_dcn": [False, False, False, True]}
    deformable = build_htc(num_classes=3, **options)
    with pytest.raises(Exception, match=r"a\.ckpt: cannot be exported, it has 3 deformable convolutions"):
        check_exportable(deformable, "a.ckpt")

    class Own(Detector):
        pass

    own = build()
    own.__class__ = Own
    with pytest.raises(Exception, match=r"b\.ckpt: cannot be exported, its model is a custom Own"):
        check_exportable(own, "b.ckpt")


def test_a_backbone_that_cannot_be_traced(capfd):
    detector = build()

    def forward(images):
        raise RuntimeError("no graph of this")

    detector.net.backbone.forward = forward
    with pytest.raises(Exception, match=r"tiny: cannot be exported, ResNet cannot be traced \(no graph of this\)"):
        exported(detector, described())
    assert capfd.readouterr().out == ""


def test_without_the_packages(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("fashion_hydra.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    assert main(["export", str(checkpoint), str(tmp_path / "tiny.onnx")]) == 2
    assert 'export needs two more packages: pip install "fashion-hydra[onnx]"' in capsys.readouterr().err
