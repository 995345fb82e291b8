"""`fashion-hydra evaluate` against pycocotools on the same files."""

import contextlib
import csv
import io
import json
import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashion_hydra.cli.main import main
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.evaluation.coco_ap import NAMES

CASES = PROJECT_ROOT.parent / "shared" / "cases" / "e2e-coco"


def pycocotools(truth, results, image_ids=None):
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(truth))
        evaluation = COCOeval(dataset, dataset.loadRes(str(results)), "segm")
        if image_ids:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [np.nan if value == -1 else round(value, 4) for value in evaluation.stats]


def numbers(output):
    found = dict(re.findall(r"^(A[PR]\S*) +(\S+)", output, re.M))
    return [float("nan" if found[name] == "–" else found[name]) for name in NAMES]


def polygon(rng, size):
    x, y, w, h = rng.integers(0, size // 2), rng.integers(0, size // 2), *rng.integers(6, size // 2, 2)
    return [float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]


def made(folder, *, crowds=True, images=14, size=220):
    """Write a data set of polygons and results near them, with arbitrary ids."""
    rng = np.random.default_rng(3)
    entries = [{"id": 7 + 3 * i, "file_name": f"train/{i}.jpg", "height": size, "width": size} for i in range(images)]
    annotations, results = [], []
    for image in entries:
        for _ in range(rng.integers(1, 7)):
            corners, category = polygon(rng, size), int(rng.choice([3, 13, 40]))
            rles = coco_mask.frPyObjects([corners], size, size)
            annotations.append(
                {
                    "id": 100 + len(annotations),
                    "image_id": image["id"],
                    "category_id": category,
                    "segmentation": [corners],
                    "area": float(coco_mask.area(rles)[0]) + 0.5,
                    "bbox": coco_mask.toBbox(rles)[0].tolist(),
                    "iscrowd": int(crowds and rng.random() < 0.2),
                }
            )
            if rng.random() < 0.8 and image["id"] != 7:
                moved = np.clip(np.array(corners) + rng.integers(-4, 5, len(corners)), 0, size).tolist()
                mask = coco_mask.frPyObjects([moved], size, size)[0]
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": category if rng.random() < 0.8 else 13,
                        "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                        "score": round(float(rng.random()), 2),
                    }
                )
    categories = [{"id": number, "name": f"garment {number}"} for number in (3, 13, 40)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    return content, results


@pytest.mark.parametrize("crowds", [False, True])
def test_numbers_are_pycocotools(tmp_path, capsys, crowds):
    content, _ = made(tmp_path, crowds=crowds)
    truth, results, out = (str(tmp_path / name) for name in ("truth.json", "results.json", "new/out.json"))
    assert main(["evaluate", truth, results, "--per-class", "--boundary", "--out", out]) == 0
    printed, said = capsys.readouterr()
    assert numbers(printed) == pytest.approx(pycocotools(truth, results), abs=1.01e-4, nan_ok=True)
    assert ("crowd regions" in printed) == crowds
    assert "1 of 14 images have no result and count as empty" in said
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert [entry["id"] for entry in written["classes"]] == [3, 13, 40]
    assert written["AP"] == pytest.approx(np.mean([entry["AP"] for entry in written["classes"]]))
    assert 0 < written["boundary_AP"] < written["AP"]
    assert re.search(r"^garment 13 +\d+ +0\.\d{4}", printed, re.M)

    assert main(["evaluate", truth, results, "--predicted"]) == 0
    printed, said = capsys.readouterr()
    ids = [image["id"] for image in content["images"]][1:]
    assert numbers(printed) == pytest.approx(pycocotools(truth, results, ids), abs=1.01e-4, nan_ok=True)
    assert "left out (--predicted)" in said


def test_what_is_left_out_is_told(tmp_path, capsys):
    content, results = made(tmp_path)
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["category_id"] = 99
    content["annotations"][2]["id"] = 0
    results[0]["category_id"] = 99
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["evaluate", str(tmp_path / "truth.json"), str(tmp_path / "results.json")]) == 0
    said = capsys.readouterr().err
    assert "left out: " in said
    for part in (
        "annotations[0]: no polygon",
        "annotations[1]: image_id and category_id must",
        "annotations[2]: id 0: pycocotools counts",
    ):
        assert part in said
    assert "1 masks of categories that are not in the truth" in said


def test_a_submission_against_coco(tmp_path, capsys):
    """AP is computed on the submission's grid; without scores the precision-recall curve of a class is one point."""
    content, results = made(tmp_path, crowds=False)
    name = {image["id"]: image["file_name"] for image in content["images"]}
    rows = []
    for result in results:
        grown = coco_mask.decode(result["segmentation"]).repeat(512 // 220 + 1, 0).repeat(512 // 220 + 1, 1)
        index = np.arange(512) * grown.shape[0] // 512
        pixels = np.flatnonzero(np.diff(np.concatenate([[0], grown[np.ix_(index, index)].ravel("F"), [0]])))
        starts, stops = pixels[::2], pixels[1::2]
        text = " ".join(f"{a + 1} {b - a}" for a, b in zip(starts, stops, strict=True))
        rows.append([name[result["image_id"]], text, result["category_id"]])
    with (tmp_path / "submission.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["ImageId", "EncodedPixels", "ClassId"], *rows])
    equal = [{**result, "score": 1.0} for result in results]
    (tmp_path / "equal.json").write_text(json.dumps(equal))
    assert main(["evaluate", str(tmp_path / "truth.json"), str(tmp_path / "submission.csv")]) == 0
    printed, said = capsys.readouterr()
    assert "a CSV has no scores" in said
    assert "on the 512x512 grid" in printed
    wanted = pycocotools(tmp_path / "truth.json", tmp_path / "equal.json")
    assert numbers(printed)[:2] == pytest.approx(wanted[:2], abs=0.02)  # the grid shifts outlines slightly


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {**r, "image_id": 8}, "result 0: image_id 8 is not in the truth"),
        (lambda r: {**r, "score": None}, "must have a category_id and a finite score"),
        (lambda r: {k: v for k, v in r.items() if k != "segmentation"}, "result 0: segmentation: neither polygons"),
        (lambda r: [r], "must be an object"),
    ],
)
def test_results_that_are_wrong(tmp_path, capsys, change, message):
    _, results = made(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps([change(results[0]), *results[1:]]))
    assert main(["evaluate", str(tmp_path / "truth.json"), str(tmp_path / "results.json")]) == 2
    assert message in capsys.readouterr().err


def test_results_without_a_list(tmp_path, capsys):
    made(tmp_path)
    assert main(["evaluate", str(tmp_path / "truth.json"), str(tmp_path / "truth.json")]) == 2
    assert "must be a list of results" in capsys.readouterr().err


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not at hand")
@pytest.mark.parametrize("name", ["poly", "poly_attributes", "poly_crowd", "poly_ids_from_1", "poly_nocrowd"])
def test_files_of_real_photos(tmp_path, capsys, name):
    """Results are derived from the truth: every third mask is missing, the others are shifted, some change class."""
    content = json.loads((CASES / f"{name}.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    categories = [category["id"] for category in content["categories"]]
    rng, results = np.random.default_rng(0), []
    for place, annotation in enumerate(content["annotations"]):
        if place % 3 == 2:
            continue
        drawn, size = annotation["segmentation"], sizes[annotation["image_id"]]
        encoded = coco_mask.frPyObjects(drawn, *size)
        bitmap = coco_mask.decode(coco_mask.merge(encoded) if isinstance(drawn, list) else encoded)
        moved = coco_mask.encode(np.asfortranarray(np.roll(bitmap, rng.integers(0, 3), 0)))
        other = rng.random() < 0.2
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": int(rng.choice(categories)) if other else annotation["category_id"],
                "segmentation": {"size": moved["size"], "counts": moved["counts"].decode()},
                "score": float(rng.random()),
            }
        )
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["evaluate", str(CASES / f"{name}.json"), str(tmp_path / "results.json")]) == 0
    wanted = pycocotools(CASES / f"{name}.json", tmp_path / "results.json")
    assert numbers(capsys.readouterr().out) == pytest.approx(wanted, abs=1.01e-4, nan_ok=True)
