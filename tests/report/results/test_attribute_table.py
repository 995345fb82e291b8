"""Compare the report's attribute tables with counts by hand."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from fashion_hydra.cli.main import main
from fashion_hydra.evaluation.attribute_scores import score_attributes
from fashion_hydra.evaluation.coco_ap import TrueMask
from fashion_hydra.formats.submission import write_truth
from fashion_hydra.report.results.analysis import _ap_of_attributes
from fashion_hydra.report.results.attribute_table import OTHER, attribute_table
from fashion_hydra.structures.detections import Detections
from fashion_hydra.structures.rle import runs_to_coco


def mask(start, length=4000):
    return runs_to_coco(np.array([[start, length]]), height=512, width=512)


# 1 to 3 are lengths, 11 and 12 are patterns, and 20 has no group.
GROUPS = {1: "length", 2: "length", 3: "length", 11: "pattern", 12: "pattern"}
NAMES = {1: "mini", 2: "knee", 3: "maxi", 11: "plain", 12: "dots"}
TRUTH = {
    "a": {"10_1_11": [mask(0)], "10_2_11": [mask(10_000)], "6_3": [mask(20_000)]},
    "b": {"10_1_12": [mask(0)], "6_20": [mask(20_000)], "6_1": [mask(40_000)]},
}
PREDICTED = {
    # mini as knee; correct; missed
    "a": {"10_2_11": [mask(0), mask(10_000)], "6": [mask(20_000)]},
    # mini as knee, dots as plain; plain instead of 20, which has no group; no overlap
    "b": {"10_2_11": [mask(0)], "6_11": [mask(20_000)], "6_1": [mask(60_000)]},
}


def test_groups_and_what_is_taken_for_what():
    scores = score_attributes(TRUTH, PREDICTED)
    table = attribute_table(SimpleNamespace(attributes=scores, attribute_ap={11: 0.25}), NAMES, GROUPS)
    counts = {row.name: (row.hits, row.swapped, row.misses, row.false_positives) for row in table.groups}
    assert counts == {"length": (1, 2, 3, 2), "pattern": (2, 1, 1, 2), OTHER: (0, 0, 1, 0)}
    assert [row.name for row in table.groups] == ["length", "pattern", OTHER]  # the most frequent first
    assert table.mixed == [("mini", "knee", 2), ("dots", "plain", 1)]
    of_attribute = {row.name: row for row in table.rows}
    assert (of_attribute["plain"].ap, of_attribute["plain"].group) == (0.25, "pattern")
    assert math.isnan(of_attribute["mini"].ap)
    assert of_attribute["attribute 20"].group == OTHER
    assert of_attribute["plain"].f1 == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert (table.pairs, table.with_some, table.right) == (5, 5, 1)


def test_without_known_groups_there_is_no_table_of_them():
    scores = score_attributes(TRUTH, PREDICTED)
    table = attribute_table(SimpleNamespace(attributes=scores, attribute_ap={}), {}, {})
    assert (table.groups, table.mixed) == ([], [])
    assert {row.group for row in table.rows} == {OTHER}


def test_an_attributes_masks_are_those_of_any_category():
    masks = [mask(start) for start in (0, 10_000, 20_000)]
    truth = {"a": [TrueMask(0, masks[0], 4000, attributes=(1, 2)), TrueMask(1, masks[1], 4000, attributes=(2,))]}
    # 1 is predicted on its mask; 2 first on a wrong mask, then on one of its two masks, ignoring the category
    found = {
        "a": Detections("a", [0, 1, 0], [0.9, 0.8, 0.7], [masks[2], masks[1], masks[0]], attributes=[(2,), (2,), (1,)])
    }
    ap = _ap_of_attributes(truth, found)
    assert ap == pytest.approx({1: 1.0, 2: 51 / 101 * 0.5})


def test_the_page_shows_them(tmp_path, capsys):
    folder = tmp_path / "predicted"
    folder.mkdir()
    write_truth(folder / "truth.csv", TRUTH)
    write_truth(folder / "submission.csv", PREDICTED)
    described = {
        "categories": [{"id": 6, "name": "pants"}, {"id": 10, "name": "dress"}],
        "attributes": [{"id": i, "name": NAMES[i], "supercategory": GROUPS[i]} for i in NAMES],
    }
    (tmp_path / "label_descriptions.json").write_text(json.dumps(described))
    write_truth(tmp_path / "t.csv", TRUTH)
    assert main(["report", str(folder), "--truth", str(tmp_path / "t.csv"), "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    page = (tmp_path / "page.html").read_text()
    section = page.partition('<section id="attributes"')[2].partition("</section>")[0]
    assert "mini as knee (2), dots as plain (1)." in re.sub(r"\s+", " ", section)
    groups = section.partition("Groups of attributes</caption>")[2].partition("</table>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', groups) == ["length", "pattern", OTHER]
    assert '<option value="attributes">most wrong attributes</option>' in page
    index = json.loads(re.search(r'<script type="application/json" id="index">(.*?)</script>', page, re.DOTALL)[1])
    assert {image["id"]: image["wrongAttributes"] for image in index} == {"a": 3, "b": 6}
