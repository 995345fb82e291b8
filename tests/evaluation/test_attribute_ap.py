"""Compare AP at IoU and F1 with the package `fashionpedia`, on its own sample and on random scenes."""

import contextlib
import io
import json
import sys
from types import ModuleType

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fashion_hydra.cli.main import main
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.evaluation.attribute_ap import NAMES, attribute_ap, attribute_f1
from fashion_hydra.evaluation.coco_ap import TrueMask
from fashion_hydra.structures.detections import Detections

SAMPLE = PROJECT_ROOT.parent / "shared" / "cases" / "fashionpedia-sample"
THEIRS = {
    "AP_F1": "AP",
    "AP50_F1": "AP_IOU50",
    "AP75_F1": "AP_IOU75",
    "AP_F1_50": "AP_F150",
    "AP_F1_75": "AP_F175",
    "AP50_F1_50": "AP_IOU50_F150",
    "AP50_F1_75": "AP_IOU50_F175",
    "AP75_F1_50": "AP_IOU75_F150",
    "AP75_F1_75": "AP_IOU75_F175",
    "AP_F1_small": "APs",
    "AP_F1_medium": "APm",
    "AP_F1_large": "APl",
}


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # the package still uses the old name
    for name in ("skimage", "skimage.io"):  # the package imports them to read pictures, which this test does not do
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    evaluation = pytest.importorskip("fashionpedia.fp_eval")
    return pytest.importorskip("fashionpedia.fp").Fashionpedia, evaluation.FPEval


def numbers_of(package, truth, results):
    dataset, evaluation = package
    with contextlib.redirect_stdout(io.StringIO()):
        true = dataset(str(truth))
        run = evaluation(true, true.loadRes(str(results)), "segm")
        run.run()
    return {name: np.nan if (value := run.results[theirs]) == -1 else value for name, theirs in THEIRS.items()}


def ours(truth, results, folder, *options):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["evaluate", str(truth), str(results), "--out", str(folder / "out.json"), *options]) == 0
    found = json.loads((folder / "out.json").read_text())
    return {name: np.nan if found[name] is None else found[name] for name in NAMES}


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample")
def test_the_packages_sample(package, tmp_path):
    files = SAMPLE / "sample.json", SAMPLE / "fake_results.json"
    carriers = "--attribute-classes=0,1,2,3,4,5,6,7,8,9,10,11,12,28,29,31,32,33"  # the authors'; few are in the sample
    assert ours(*files, tmp_path, carriers) == pytest.approx(numbers_of(package, *files), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("ids", "message"), [("0,99", "has no category 99"), ("0;1", "must be category ids, such as")])
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample")
def test_categories_that_there_are_not(ids, message, capsys):
    files = [str(SAMPLE / "sample.json"), str(SAMPLE / "fake_results.json")]
    with contextlib.suppress(SystemExit):
        assert main(["evaluate", *files, f"--attribute-classes={ids}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes(package, tmp_path, seed):
    rng = np.random.default_rng(seed)
    attributes, size = 12, 240
    images = [{"id": 3 * i + 1, "file_name": f"{i}.jpg", "height": size, "width": size} for i in range(8)]
    annotations, results = [], []

    def some():
        return sorted(rng.choice(attributes, rng.integers(0, 4), replace=False).tolist())

    for image in images:
        for _ in range(rng.integers(1, 8)):
            x, y, w, h = *rng.integers(0, size // 2, 2), *rng.integers(8, size // 2, 2)
            corners = [float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]
            category = int(rng.choice([0, 5, 10, 31, 23, 40]))
            own = some() if category not in (23, 40) else []  # the package fixes which categories carry attributes
            annotation = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category}
            annotation |= {"segmentation": [corners], "area": float(w * h), "attribute_ids": own}
            annotation |= {"bbox": [float(v) for v in (x, y, w, h)], "iscrowd": int(rng.random() < 0.1)}
            annotations.append(annotation)
            for _ in range(rng.integers(0, 3)):
                moved = np.clip(np.array(corners) + rng.integers(-6, 7, 8), 0, size).tolist()
                mask = coco_mask.frPyObjects([moved], size, size)[0]
                answered = own if rng.random() < 0.5 else some()
                result = {"image_id": image["id"], "score": round(float(rng.random()), 2), "attribute_ids": answered}
                result |= {"category_id": category if rng.random() < 0.8 else 10}
                results.append({**result, "segmentation": {**mask, "counts": mask["counts"].decode()}})
    content = {"images": images, "annotations": annotations, "info": {}}
    content["categories"] = [{"id": i, "name": f"garment {i}", "supercategory": "", "level": 1} for i in range(46)]
    content["attributes"] = [
        {"id": i, "name": f"attribute {i}", "supercategory": "", "level": 1} for i in range(attributes)
    ]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    files = tmp_path / "truth.json", tmp_path / "results.json"
    found = ours(*files, tmp_path)
    assert found == pytest.approx(numbers_of(package, *files), abs=1e-12, nan_ok=True)
    assert 0 < found["AP_F1"] < found["AP50_F1_50"] < 1


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ((), (), 1.0),
        ((1, 2), (1, 2), 1.0),
        ((), (3,), (0 + 2 * 9 / (2 * 9 + 1)) / 2),
        ((1, 2), (2, 3), (0.5 + 2 * 7 / (2 * 7 + 2)) / 2),
    ],
)
def test_f1_by_hand(mine, theirs, expected):
    assert attribute_f1(mine, theirs, vocabulary=10) == pytest.approx(expected)


def test_carriers_are_the_classes_whose_truth_has_attributes():
    masks = [coco_mask.frPyObjects([[x, 0.0, x + 20, 0.0, x + 20, 20.0, x, 20.0]], 100, 100)[0] for x in (0.0, 50.0)]
    truth = {"a": [TrueMask(0, masks[0], 400, attributes=(1,)), TrueMask(1, masks[1], 400)]}
    found = {"a": Detections("a", [0, 1], [0.9, 0.8], masks, attributes=[(2,), (1,)])}
    ap = attribute_ap(truth, found, labels=2, vocabulary=4)
    assert ap.of_class["AP_F1"].tolist() == [0.0, 1.0]  # F1 is (0 + 2 * 2 / (2 * 2 + 2)) / 2, below 0.5
    assert ap.overall["AP_F1"] == pytest.approx(1 / 11)
    assert np.isnan(attribute_ap({"a": []}, {}, labels=2, vocabulary=4).overall["AP_F1"])
