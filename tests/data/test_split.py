import numpy as np
import pytest

from fashion_hydra.data.split import stratified_folds, write_split
from fashion_hydra.errors import UserError


def table(images=600, categories=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((images, categories)) < np.geomspace(0.5, 0.02, categories)).astype(np.uint8)


def worst_deviation(categories, held_out, share):
    """Largest relative difference between a category's share held out and the wanted share."""
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


def test_the_split_is_written_as_a_table(tmp_path):
    write_split(tmp_path / "split.csv", np.array(["a.jpg", "b.jpg"]), np.array([True, False]))
    assert (tmp_path / "split.csv").read_text().split() == ["ImageId,split", "a.jpg,val", "b.jpg,train"]
