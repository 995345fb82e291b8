"""Serve the page of docs/demo, and act as a visitor."""

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tests import PROJECT

DEMO = PROJECT / "docs" / "demo"
RUNTIME = DEMO / "ort"
"""Folder of onnxruntime-web, which `make page` downloads."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder and yield its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)


def make_site(folder: Path, model: Path | None = None) -> Path:
    """Copy the page into a folder, with the shared stylesheets and script, a model, and the runtime if downloaded."""
    folder.mkdir(parents=True)
    for path in DEMO.iterdir():
        if path.suffix in (".html", ".js", ".css"):
            shutil.copy(path, folder)
    package = PROJECT / "fashion_hydra"
    shutil.copy(package / "report" / "page.css", folder / "base.css")
    shutil.copy(package / "app" / "page.css", folder / "app.css")
    shutil.copy(package / "app" / "controls.js", folder / "controls.js")
    if model is not None:
        shutil.copy(model, folder / "street.onnx")
    if RUNTIME.is_dir():
        (folder / "ort").symlink_to(RUNTIME)
    return folder


def add_photos(page: Any, files: Sequence[Path], *, count: int, timeout: int = 60_000) -> None:
    """Select files on the page, and wait until it shows `count` photos."""
    page.set_input_files("#file", [str(file) for file in files])
    page.wait_for_selector(f"#strip li:nth-child({count})", timeout=timeout)


def download_coco(page: Any) -> list[dict[str, Any]]:
    """Return the COCO results that the page exports for the displayed photo."""
    with page.expect_download() as waiting:
        page.click("#coco")
    results = json.loads(waiting.value.path().read_text())
    assert isinstance(results, list)
    return results


def mask_ious(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> list[float]:
    """Return the IoU of each result in `one` with the nearest result of its class in `other`; 0 if unmatched."""
    found, left = [], list(other)
    for result in one:
        same = [its for its in left if its["category_id"] == result["category_id"]]
        if not same:
            found.append(0.0)
            continue
        ious = coco_mask.iou([result["segmentation"]], [its["segmentation"] for its in same], [0] * len(same))[0]
        found.append(float(ious.max()))
        left.remove(same[int(np.argmax(ious))])
    return found + [0.0] * len(left)
