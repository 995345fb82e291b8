import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as in the entry scripts, before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core per pytest-xdist process

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from fashion_hydra.config.compose import compose_config
from tests.helpers import write_tiny_checkpoint

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep cached annotations apart from the user's cache."""
    os.environ["FASHION_HYDRA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def wardrobe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small wardrobe data set."""
    from fashion_hydra.wardrobe import write_wardrobe

    folder = tmp_path_factory.mktemp("data") / "wardrobe"
    write_wardrobe(folder, train=20, test=2, size=128, seed=5)
    return folder


@pytest.fixture(scope="session")
def config() -> Callable[..., DictConfig]:
    """Return `tests.helpers.compose_config`."""
    return compose_config


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a checkpoint of a tiny model below `tmp_path` and returns its path."""

    def write(name: str = "tiny.ckpt", **options: Any) -> Path:
        return write_tiny_checkpoint(tmp_path / name, **options)

    return write


@pytest.fixture
def kaggle_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder in Kaggle's layout from rows and image sizes (height, width)."""

    def make(rows: list[dict[str, object]], images: dict[str, tuple[int, int]], categories: int = 46) -> Path:
        root = tmp_path / "root"
        (root / "train").mkdir(parents=True)
        for name, (height, width) in images.items():
            pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / name, quality=95)
        described = {"categories": [{"id": i, "name": f"category {i}"} for i in range(categories)]}
        (root / "label_descriptions.json").write_text(json.dumps(described))
        with (root / "train.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return root

    return make


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="pages are tested in a browser by playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium found to test pages in")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
