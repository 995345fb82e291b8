import numpy as np
import pytest

from fashion_hydra.data.split import (
    UNUSED,
    deviation,
    random_deviation,
    read_split,
    stratified_folds,
    unbalanced,
    write_split,
)
from fashion_hydra.utils.errors import UserError


def table(images=600, categories=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((images, categories)) < np.geomspace(0.5, 0.02, categories)).astype(np.uint8)


def worst_deviation(categories, held_out, share):
    """Return the largest relative difference between a category's held-out share and the requested share."""
    return np.abs(categories[held_out].sum(0) / categories.sum(0) / share - 1).max()


def test_every_fold_has_its_share_of_every_category_unlike_a_random_split():
    categories = table()
    fold_of = stratified_folds(categories, folds=10, seed=777)
    assert np.bincount(fold_of).min() >= 55
    stratified = [worst_deviation(categories, fold_of == fold, 0.1) for fold in range(10)]
    shuffled = np.random.default_rng(0).permutation(np.arange(600) % 10)
    random = [worst_deviation(categories, shuffled == fold, 0.1) for fold in range(10)]
    assert np.mean(stratified) < 0.5 * np.mean(random)


def test_the_same_seed_gives_the_same_folds():
    first, again, other = (stratified_folds(table(60), folds=5, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("folds", [1, 61])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(UserError, match=f"data.folds={folds}"):
        stratified_folds(table(60), folds=folds, seed=1)


def test_a_split_is_written_and_read_again(tmp_path):
    ids, fold_of = np.array(["a.jpg", "b.jpg", "c.jpg"]), np.array([1, 0, UNUSED])
    write_split(tmp_path / "split.csv", ids, fold_of)
    assert (tmp_path / "split.csv").read_text().split() == ["ImageId,fold", "a.jpg,1", "b.jpg,0", "c.jpg,"]
    assert (read_split(tmp_path / "split.csv", ids, left_out=frozenset()) == fold_of).all()


def test_an_edited_split_leaves_out_what_it_does_not_name(tmp_path):
    (tmp_path / "split.csv").write_text("ImageId,fold,note\nb.jpg,0,mine\na.jpg,,\nfaulty.jpg,1,\n")
    ids = np.array(["a.jpg", "b.jpg", "c.jpg"])
    fold_of = read_split(tmp_path / "split.csv", ids, left_out=frozenset({"faulty.jpg"}))
    assert fold_of.tolist() == [UNUSED, 0, UNUSED]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageId,part\na.jpg,0\n", "must have the columns ImageId and fold, got ImageId,part"),
        ("ImageId,fold\na.jpg,0\na.jpg,1\n", "row 3: duplicate image a.jpg"),
        ("ImageId,fold\nz.jpg,0\n", "row 2: the data has no image z.jpg"),
        ("ImageId,fold\na.jpg,val\n", "row 2: fold 'val': give a number from 0"),
    ],
)
def test_a_wrong_split_is_refused(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "split.csv", np.array(["a.jpg"]), left_out=frozenset())


def test_deviation_counts_images():
    categories = np.array([[1, 1], [1, 0], [1, 1], [0, 0]], np.uint8)
    found = deviation(categories, np.array([True, False, False, False]))
    # held out against the rest: 1 of 1 and 2 of 3 images have the first class, 1 of 1 and 1 of 3 the second
    assert found.worst == pytest.approx(2.0)
    assert found.worst_class == 1
    assert found.mean == pytest.approx((0.5 + 2.0) / 2)


def test_stratified_folds_deviate_less_than_random_ones():
    categories = table(2000)
    fold_of = stratified_folds(categories, folds=10, seed=777)
    for fold in range(10):
        found = deviation(categories, fold_of == fold)
        random = random_deviation(categories, fold_of == fold, seed=fold)
        assert found.mean < 0.7 * random.mean
        assert found.worst < random.worst


@pytest.mark.parametrize("row", ["x" * 10**6 + ",0", "a.jpg," + "9" * 10**6])
def test_a_long_value_makes_no_long_message(tmp_path, row):
    (tmp_path / "split.csv").write_text(f"ImageId,fold\n{row}\n")
    with pytest.raises(UserError, match="row 2: ") as caught:
        read_split(tmp_path / "split.csv", ["a.jpg"], left_out=frozenset())
    assert len(str(caught.value)) < 500


def test_a_single_category_is_shared_out():
    table = (np.arange(40) % 4 == 0).astype(np.int64)[:, None]
    fold_of = stratified_folds(table, folds=5, seed=1)
    assert [int(table[fold_of == fold].sum()) for fold in range(5)] == [2] * 5
    assert np.bincount(fold_of).tolist() == [8] * 5


@pytest.mark.parametrize("classes", [0, 1, 3])
@pytest.mark.parametrize("with_masks", [0, 1, 2])
def test_photos_nearly_all_without_masks_are_shared_out(classes, with_masks):
    categories = np.zeros((6, classes), np.uint8)
    categories[:with_masks, :1] = 1
    fold_of = stratified_folds(categories, folds=3, seed=1)
    assert np.bincount(fold_of).tolist() == [2, 2, 2]
    some = int(min(with_masks, categories.sum()))
    rare, empty = unbalanced(categories, fold_of)
    assert rare == ([0] if some else [])
    assert len(empty) == 3 - some
    for fold in range(3):
        validation = fold_of == fold
        found = deviation(categories, validation)
        assert (found is None) == (not categories[~validation].any())
        assert (random_deviation(categories, validation, seed=fold) is None) == (some == 0)


def test_unbalanced_classes_are_those_in_fewer_images_than_folds():
    categories = np.array([[1, 0, 1]] * 4 + [[1, 1, 0]] * 2, np.uint8)
    assert unbalanced(categories, np.array([0, 1, 2, 0, 1, 2])) == ([1], [])
    assert unbalanced(categories, np.array([0, 1, 0, 1, UNUSED, 0])) == ([1], [])
