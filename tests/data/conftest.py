"""The drawn data set as its annotations and the classes that occur in it."""

import pytest

from fashion_hydra.data.class_set import ClassSpec
from fashion_hydra.data.kaggle import read_annotations


@pytest.fixture(scope="module")
def annotations(wardrobe):
    return read_annotations(wardrobe)[0]


@pytest.fixture(scope="module")
def classes(annotations):
    return ClassSpec("present", "present").resolve(annotations.names, annotations.categories.tolist())
