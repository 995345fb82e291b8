"""The Python API returns the results of predict.py for files, pictures and arrays."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

import fashion_hydra
from fashion_hydra import ImageDetections, UserError, load
from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.structures.detections import Detections
from tests.helpers import CLASS_IDS, CLASS_NAMES, SMALL_PREDICT, write_tiny_checkpoint

LOW = {"score_thr": 0.3, "min_area": 1}
WORDS = (*SMALL_PREDICT, "output=coco", "postprocess.score_thr=0.3", "postprocess.min_area=1")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return [write_tiny_checkpoint(folder / f"{seed}.ckpt", seed=seed) for seed in range(2)]


@pytest.fixture(scope="module")
def photo(wardrobe):
    return sorted((wardrobe / "train").iterdir())[0]


@pytest.fixture(scope="module")
def model(checkpoints):
    return load(checkpoints[0], device="cpu")


@pytest.fixture(scope="module")
def found(model, photo):
    found = model(photo, **LOW)
    assert len(found) > 3
    return found


def predicted(tmp_path, photo, *words):
    from fashion_hydra.workflows.predict import predict

    out = tmp_path / "out"
    folder = [f"data.root={photo}", f"out={out}"]
    predict(compose_options("predict", *WORDS, *folder, *words), Command())
    return json.loads((out / "coco_results.json").read_text())


@pytest.mark.parametrize("tta", ["single", "flip", "multi"])
@pytest.mark.parametrize("count", [1, 2])
def test_it_finds_what_predict_finds(checkpoints, photo, tmp_path, tta, count):
    names = ",".join(map(str, checkpoints[:count]))
    expected = predicted(tmp_path, photo, f"ensemble.members=[{names}]", f"tta={tta}")
    found = load(*checkpoints[:count], device="cpu")(photo, tta=tta, **LOW)
    assert len(expected) > 2
    assert found.to_coco(1) == expected


def test_weights_of_models_are_those_of_predict(checkpoints, photo, tmp_path):
    names = ",".join(map(str, checkpoints[:2]))
    expected = predicted(tmp_path, photo, f"ensemble.members=[{names}]", "ensemble.weights=[3,1]")
    found = load(*checkpoints[:2], device="cpu", weights=[3, 1])(photo, **LOW)
    assert len(expected) > 2
    assert found.to_coco(1) == expected


def test_a_path_a_picture_and_an_array_are_the_same(model, photo, found):
    pixels = np.array(Image.open(photo).convert("RGB"))
    for given in (str(photo), Image.open(photo), pixels, pixels[:, ::-1][:, ::-1]):
        assert model(given, **LOW).to_coco() == found.to_coco()
    assert [one.to_coco() for one in model([photo, pixels], **LOW)] == [found.to_coco()] * 2
    assert (found.image_id, model(pixels, **LOW).image_id) == (photo.name, "image")


def test_a_picture_is_turned_as_its_exif_says(model, photo, tmp_path):
    picture = Image.open(photo)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "turned.png")).convert("RGB"))
    wanted = model(upright, **LOW)
    assert wanted.size == (picture.width, picture.height)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert model(given, **LOW).to_coco() == wanted.to_coco()


def test_numbers_lengths_and_kinds(found, photo):
    count, (height, width) = len(found), found.size
    assert found.boxes.shape == (count, 4)
    assert found.masks.shape == (count, height, width)
    assert found.masks.dtype == bool
    assert found.labels.tolist() == [CLASS_IDS.index(i) for i in found.category_ids]
    assert found.names == [CLASS_NAMES[label] for label in found.labels]
    assert (np.diff(found.scores) <= 0).all()
    assert found.attributes == [()] * count
    for mask, box, rle in zip(found.masks, found.boxes, found.rle, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (coco_mask.decode(rle) == mask).all()
    assert repr(found).startswith(f"{count} on {photo.name} ({width}x{height}): {found.names[0]} {found.scores[0]:.2f}")


def test_some_of_them(found):
    whole = found.to_coco()
    assert found[0].to_coco() == whole[:1]
    assert found[-1].to_coco() == whole[-1:]
    assert found[1:3].to_coco() == whole[1:3]
    assert found[[2, 0]].to_coco() == [whole[2], whole[0]]
    good = found.scores > found.scores[2]
    assert found[good].to_coco() == [one for one, is_good in zip(whole, good, strict=True) if is_good]
    name = found.names[0]
    assert found[name].names == [name] * found.names.count(name)
    assert [one.to_coco()[0] for one in found] == whole
    with pytest.raises(KeyError, match="'hat' is not a class of the model; it has pants, shoe, sleeve"):
        found["hat"]
    with pytest.raises(IndexError):
        found[len(found)]


def test_put_together(found):
    both = ImageDetections.cat([found[2:], found[:2]])
    assert both.to_coco() == found.to_coco()
    other = ImageDetections(found.image[:-1], Detections("other", [], [], []), found.classes)
    with pytest.raises(UserError, match=r"cat: .* and other of .*: must be detections of one image"):
        ImageDetections.cat([found, other])
    with pytest.raises(UserError, match="no detections given"):
        ImageDetections.cat([])


def test_nothing_found_is_something(model, photo):
    none = model(photo, score_thr=1.0)
    assert len(none) == 0
    assert none.boxes.shape == (0, 4)
    assert none.masks.shape == (0, *none.size)
    assert none.to_coco() == []
    assert repr(none) == f"0 on {photo.name} ({none.size[1]}x{none.size[0]})"
    none.plot()


def test_a_notebook_shows_a_picture(found):
    picture = found.plot()
    assert picture.size[0] > found.size[1]
    shown = found._repr_html_()
    assert shown.startswith('<img src="data:image/jpeg;base64,')
    assert "<b>" not in ImageDetections(found.image, Detections('"><b>', [], [], []), found.classes)._repr_html_()


def test_thresholds_need_no_model(model, photo, found, monkeypatch):
    seen = model.look(photo)
    monkeypatch.setattr("fashion_hydra.api.predictor.merge_sources", None)
    assert seen.detections(**LOW).to_coco() == found.to_coco()
    strict = seen.detections(**{**LOW, "score_thr": float(found.scores[1])})
    assert len(strict) <= len(found[found.scores > found.scores[1]]) + 1
    name = found.names[0]
    assert name not in seen.detections(**LOW, drop_classes=[name]).names
    assert name not in seen.detections(**LOW, class_score_thr={name: 1.0}).names
    with pytest.raises(UserError, match=r"score_thr=0\.01 is below what the candidates hold"):
        seen.detections(score_thr=0.01)
    with pytest.raises(UserError, match=r"iou_thr=0\.33 is not among the thresholds"):
        seen.detections(iou_thr=0.33)
    with pytest.raises(UserError, match=r"postprocess\.treshold: no such option; postprocess has score_thr"):
        seen.detections(treshold=0.5)


def test_views_that_there_are_not(model, photo):
    with pytest.raises(UserError, match="tta=none: give one of fixed_scale, flip, laptop, multi, single, winner"):
        model(photo, tta="none")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.jpg", r"nowhere\.jpg: no such file"),
        (np.zeros((4, 4), np.uint8), r"expected a uint8 .*\(height, width, 3\).*, got a uint8 array of shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), "float64 array of shape"),
        (np.zeros((3, 4, 4), np.uint8), r"array of shape \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"array of shape \(0, 4, 3\)"),
        (torch.zeros(4, 4, 3), "expected a path, a Pillow image or a NumPy array, got Tensor"),
        (Image.new("F", (4, 4)), "pixel mode F is not supported"),
    ],
)
def test_what_is_no_image_is_named(model, image, message):
    with pytest.raises(UserError, match=message):
        model(image)


def test_files_that_are_no_pictures(model, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jpg").write_text("text")
    for name, message in (("", "a folder; give the files in it"), ("a.txt", "not a picture by its name")):
        with pytest.raises(UserError, match=message):
            model(tmp_path / name)
    with pytest.raises(UserError, match=r"b\.jpg: unreadable-image: unknown format"):
        model(tmp_path / "b.jpg")


def test_where_models_are_looked_for(checkpoints, tmp_path, monkeypatch):
    assert repr(load(*checkpoints, device="cpu")) == "Predictor(0.ckpt, 1.ckpt; 3 classes; cpu)"
    kept = {"/elsewhere/best.ckpt": torch.tensor(0.4)}
    for name in ("best.ckpt", "last.ckpt"):
        write_tiny_checkpoint(tmp_path / "run" / "checkpoints" / name, seed=1, kept=kept)
    assert repr(load(tmp_path / "run", device="cpu")) == "Predictor(best.ckpt; 3 classes; cpu)"
    for given, message in (
        ((), "load: no model given"),
        (("nonesuch",), r"nonesuch: no such file, and no model of that name in models/ \(there: street\)"),
        ((tmp_path / "no.ckpt",), r"no\.ckpt: no such file"),
        ((tmp_path / "run" / "checkpoints",), "Give the folder of a training run"),
    ):
        with pytest.raises(UserError, match=message):
            load(*given)
    with pytest.raises(UserError, match="device=cuda:77"):
        load(checkpoints[0], device="cuda:77")


def test_the_released_model_has_thresholds_of_its_own():
    model = load("street", device="cpu")
    assert model.thresholds["score_thr"] == model.members[0].rule["score_thr"]


def test_public_names_are_there():
    assert set(fashion_hydra.__all__) <= set(dir(fashion_hydra)) | set(fashion_hydra._PLACES)
    for name in fashion_hydra.__all__:
        assert getattr(fashion_hydra, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        fashion_hydra.nonesuch  # noqa: B018
