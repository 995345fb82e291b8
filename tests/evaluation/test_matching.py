"""Compare matching by ClassId or category, and the highest score without attributes, with counts by hand."""

import re

import pytest

from fashion_hydra.cli.main import main
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.evaluation.competition_score import score_images
from fashion_hydra.evaluation.matching import by_category, choose_match, describe_match, masks_to_match, reach
from fashion_hydra.formats.submission import read_masks, write_truth
from fashion_hydra.utils.errors import UserError

SHARED = PROJECT_ROOT.parent / "shared"


def bare(class_id):
    return "_" not in class_id


def test_masks_of_a_category_lie_together_in_the_order_of_their_classes():
    masks = {"6_28": ["a"], "33": ["b"], "6": ["c", "d"], "6_28_77": ["e"]}
    assert by_category(masks) == {"6": ["a", "c", "d", "e"], "33": ["b"]}
    assert masks_to_match({"x": masks}, "class_id") == {"x": masks}
    with pytest.raises(UserError, match=r"score\.match=id: choose one of class_id, category"):
        masks_to_match({}, "id")


@pytest.mark.parametrize(
    ("pooling", "highest"),
    [("class", (0.5 + 0 + 1 + 1) / 4), ("image", (2 / 3 + 0 + 1 + 1) / 4)],
)
def test_the_highest_score_is_that_of_all_bare_masks_found(pooling, highest):
    images = [["6_28", "33", "33"], ["6_28", "6_28_77"], [], ["1"]]
    found = reach(images, bare, pooling=pooling)
    assert (found.masks, found.with_attributes) == (6, 3)
    assert found.highest == pytest.approx(highest, abs=1e-12)


@pytest.mark.parametrize(
    ("images", "asked", "match", "told"),
    [
        ([["6"]], None, "class_id", ""),
        ([["6"]], "category", "category", "by category"),
        ([["6_28"]], None, "category", "by category: 1 of 1 true masks .* at most 0.0000 .*score.match=class_id"),
        ([["6_28"]], "class_id", "class_id", "by ClassId: 1 of 1 .*score.match=category"),
        (
            [["6_28", "7"]],
            None,
            "class_id",
            "by ClassId: 1 of 2 .* at most 0.5000 can be reached .*score.match=category",
        ),
        ([["99"]], None, "class_id", ""),
    ],
)
def test_the_category_matches_where_nothing_else_could(images, asked, match, told):
    found = reach(images, lambda class_id: bare(class_id) and class_id != "99")
    assert choose_match(asked, found) == match
    assert re.fullmatch(told + r"(.* changes this\))?", describe_match(asked, found))


def test_what_is_no_match_is_refused():
    with pytest.raises(UserError, match=r"score\.match=all: must be null, or one of class_id, category"):
        choose_match("all", reach([["6"]], bare))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not at hand")
@pytest.mark.parametrize(
    ("file", "highest"), [("train.csv", 0.0), ("train_2019_schema.csv", None)], ids=["all-have-some", "some-have"]
)
def test_real_truth_scored_without_its_attributes(tmp_path, capsys, file, highest):
    """Perfect masks without attributes get the reported highest score by ClassId, and 1 by category."""
    path = SHARED / "data" / "imat2020_sample" / file
    truth = read_masks(path)
    answer = {image: {c: masks for c, masks in of_image.items() if bare(c)} for image, of_image in truth.items()}
    write_truth(tmp_path / "bare.csv", answer)
    write_truth(tmp_path / "all.csv", {image: by_category(masks) for image, masks in truth.items()})
    wanted = score_images(truth, answer).value
    assert highest is None or wanted == highest
    assert main(["score", str(path), str(tmp_path / "bare.csv")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"score {wanted:.6f}"
    assert f"at most {wanted:.4f} can be reached" in err
    assert main(["score", str(path), str(tmp_path / "all.csv"), "--match", "category"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[-1], err) == ("score 1.000000", "")
