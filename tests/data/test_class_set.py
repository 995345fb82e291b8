import pytest

from fashion_hydra.data.class_set import ClassSpec, find_category
from fashion_hydra.utils.errors import UserError

CATEGORIES = {0: "shirt, blouse", 6: "pants", 13: "glasses", 23: "shoe", 31: "sleeve"}


def test_all_keeps_every_category_in_order():
    classes = ClassSpec("all", "all", drop=[0, "shoe"]).resolve(CATEGORIES, present=[6])
    assert classes.ids == (0, 6, 13, 23, 31)
    assert classes.names[1] == "pants"
    assert classes.drop == (0, 23)
    assert classes.dropped_labels() == (0, 3)


def test_present_keeps_what_occurs():
    classes = ClassSpec("present", "present").resolve(CATEGORIES, present=[31, 6, 6])
    assert classes.ids == (6, 31)
    assert classes.label_of() == {6: 0, 31: 1}


def test_a_list_by_id_and_name_keeps_its_order():
    assert ClassSpec("mine", ["shoe", 6]).resolve(CATEGORIES, present=[]).ids == (23, 6)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("some", "give all, present, or a list"),
        ([99], "no category 99; ids are 0 to 31"),
        (["sleves"], "nearest: 'sleeve'"),
        ([6, "pants"], "each once"),
        ([], "one or more"),
    ],
)
def test_wrong_class_sets_are_refused(train, message):
    with pytest.raises(UserError, match=message):
        ClassSpec("mine", train).resolve(CATEGORIES, present=[6])


def test_a_name_without_a_near_one_gets_some_that_there_are():
    with pytest.raises(UserError, match=r"no category named 'xyzxyz'; there are '.*'$"):
        find_category("xyzxyz", CATEGORIES, "classes.drop")
