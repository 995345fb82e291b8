"""Names with any content leave the elements, attributes and scripts of the pages unchanged."""

import csv
import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from fashion_hydra.cli.main import main
from fashion_hydra.inference.manifest import Manifest

NAMES = [
    "plain",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onload='alert(3)",
    "</script><svg>",
    "{{ 7*7 }}${7}&lt;",
]


class Structure(HTMLParser):
    """A parser that collects elements with the names of their attributes, and the content of scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.inside = dict(attributes).get("type", "code") if tag == "script" else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "code":
            self.scripts.append(data)
        elif self.inside:
            json.loads(data)


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def report(root, name):
    """Write a report with every section in which all names are `name`."""
    safe = name.replace("/", "\u2215")  # folder names cannot contain a slash
    folder, photos = root / safe, root / f"photos{safe}"
    photos.mkdir()
    Image.new("RGB", (40, 30)).save(photos / "a.png")
    (photos / "a.png").rename(photos / f"{safe}.png")
    for table in ("truth.csv", "submission.csv"):
        rows = [(f"{safe}.png", "1 900", "6"), (f"{name}2", "1 9", "6_28")]
        written(folder / table, [("ImageId", "EncodedPixels", "ClassId"), *rows])
    manifest = Manifest(((f"{name}.ckpt", name),), (6,), (name,), (), (), 0.7, 9, name, 0.05, (0.5,))
    (folder / "candidates").mkdir()
    (folder / "candidates" / "manifest.json").write_text(json.dumps({"version": 1, **manifest.plain()}))
    (folder / "postprocess.yaml").write_text(json.dumps({"score_thr": 0.1, "about": {"images": name, "members": []}}))
    (photos.parent / "label_descriptions.json").write_text(json.dumps({"categories": [{"id": 6, "name": name}]}))
    head = ["method", "fitted", "cross_fitted", "low", "high", "simpler", "gain", "gain_low", "gain_high", "rule"]
    written(folder / "methods.csv", [head, [name, *"1111", name, "0.1", "0.1", "0.1", name]])
    axes = ["score_thr", "iou_thr", "mask_thr", "min_area", "max_per_image", "drop", "score"]
    written(
        folder / "grid.csv",
        [axes, *([s, i, m, 1, 9, name, 0.5] for s in (0.1, 0.2) for i in (0.3, 0.4) for m in (0.5, 0.6))],
    )
    rung = ["rung", "name", "change", "images", "score", "low", "high", "leaderboard", "seconds"]
    written(
        folder / "ladder.csv",
        [rung, [name, name, name, 9, 0.1, 0.05, 0.2, 0.3, 1], ["2", name, name, 9, 0.1, 0.05, 0.2, "", ""]],
    )
    written(
        folder / "csv" / "version_0" / "metrics.csv",
        [["step", "train/loss", "val/score", name], [9, 2.5, 0.1, 3], [19, 2, 0.2, 3]],
    )
    out = folder / "page.html"
    assert main(["report", str(folder), "--images", str(photos), "--title", name, "--out", str(out)]) == 0
    return out.read_text()


def eda(root, name):
    """Write a data set page in which all names are `name`."""
    safe = name.replace("/", "\u2215")
    folder = root / safe
    (folder / "train").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (400, 300)).save(folder / "train" / "a.png")
        (folder / "train" / "a.png").rename(folder / "train" / f"{safe}{i}.png")
    described = {"categories": [{"id": 6, "name": name}], "attributes": [{"id": 28, "name": name}]}
    (folder / "label_descriptions.json").write_text(json.dumps(described))
    rows = [(f"{safe}{i}.png", "1 9", 300, 400, "6_28") for i in range(3)]
    bad = [(name, "1 9", 300, 400, name), (f"{safe}0.png", name, 300, 400, "6")]
    written(folder / "train.csv", [("ImageId", "EncodedPixels", "Height", "Width", "ClassId"), *rows, *bad])
    out = root / "eda.html"
    assert main(["eda", str(folder), "--out", str(out)]) == 0
    return out.read_text()


@pytest.mark.parametrize("page", [report, eda])
def test_names_change_nothing_of_a_page(tmp_path, page):
    plain, *others = (
        Structure(page(tmp_path / str(i), name)) for i, name in enumerate(NAMES) if not (tmp_path / str(i)).mkdir()
    )
    assert len(plain.elements) > 100
    for other in others:
        assert other.elements == plain.elements
        assert other.scripts == plain.scripts
