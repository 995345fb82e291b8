"""Fixtures that serve the app to a browser."""

import threading

import pytest
import uvicorn

from fashion_hydra.api.load import load
from fashion_hydra.app.photos import Session
from fashion_hydra.app.server import make_app
from fashion_hydra.data.kaggle import read_annotations
from tests.helpers import write_tiny_checkpoint


@pytest.fixture(scope="module")
def session(wardrobe, tmp_path_factory):
    """A session with a tiny model, low thresholds, and the data set of its photos."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("app") / "tiny.ckpt", seed=0)
    model = load(checkpoint, device="cpu")
    model.thresholds |= {"score_thr": 0.3, "min_area": 4}
    return Session(model, read_annotations(wardrobe)[0])


@pytest.fixture(scope="module")
def address(session):
    config = uvicorn.Config(make_app(session), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def photo(wardrobe):
    return sorted((wardrobe / "train").iterdir())[0]
