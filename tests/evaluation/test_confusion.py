"""Compare confusions of classes with a case by hand."""

import numpy as np
from pycocotools import mask as coco_mask

from fashion_hydra.evaluation.confusion import confusions
from fashion_hydra.report.results.confusion_table import confusion_table


def box(x, y, w, h):
    bitmap = np.zeros((100, 100), np.uint8, order="F")
    bitmap[y : y + h, x : x + w] = 1
    return coco_mask.encode(bitmap)


def test_pairs_of_one_class_go_first():
    true = [("6", box(0, 0, 10, 10)), ("8", box(0, 0, 10, 9)), ("3_7", box(50, 50, 10, 10)), ("3", box(80, 80, 9, 9))]
    predicted = [
        ("8", box(0, 0, 10, 10)),  # equals the 6 exactly, but a mask of its own class overlaps enough
        ("7", box(0, 0, 10, 10)),  # matches the remaining 6
        ("3", box(50, 50, 10, 8)),  # attributes are ignored
        ("3", box(20, 20, 5, 5)),  # overlaps no true mask
    ]
    found = confusions(predicted, true)
    assert found == {(8, 8): 1, (6, 7): 1, (3, 3): 1, (None, 3): 1, (3, None): 1}
    table = confusion_table(found, {3: "shoe", 6: "pants"})
    assert table.names == ["shoe", "pants", "category 8", "category 7"]
    assert [row.name for row in table.rows] == [*table.names, "background"]
    assert table.rows[0].counts == [1, 0, 0, 0, 1]
    assert table.rows[1].counts == [0, 0, 0, 1, 0]
    assert table.rows[4].counts == [1, 0, 0, 0, 0]
    assert sum(row.total for row in table.rows) == 5
    assert table.most_frequent == [("pants", "category 7", 1)]


def test_images_without_masks():
    assert confusions([], []) == {}
    assert confusions([("1", box(0, 0, 5, 5))], []) == {(None, 1): 1}
    assert confusions([], [("1", box(0, 0, 5, 5))]) == {(1, None): 1}


def test_an_overlap_of_one_half_is_no_pair():
    found = confusions([("1", box(0, 0, 10, 10))], [("2", box(0, 0, 10, 5))])
    assert found == {(None, 1): 1, (2, None): 1}
