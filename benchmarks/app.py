"""Time how long `fashion-hydra app` takes to update the page after a slider is moved, for a photo with 100 objects.

`server` is the server's response time over HTTP. `page` is the time from the slider's event to the second frame after
the objects are redrawn, in headless Chromium; it is skipped if Chromium is not installed. The slider is the mask
threshold, which changes every mask.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from benchmarks.predict_memory import random_checkpoint
from benchmarks.submission_path import make_candidates
from fashion_hydra.api.load import load
from fashion_hydra.api.predictor import Look
from fashion_hydra.app.photos import Session
from fashion_hydra.app.server import make_app

MOVE = """async value => {
  const slider = document.getElementById("mask_thr"), begin = performance.now();
  const drawn = new Promise(resolve => {
    const observer = new MutationObserver(() => {
      observer.disconnect();
      requestAnimationFrame(() => requestAnimationFrame(resolve));
    });
    observer.observe(document.getElementById("found"), {childList: true, subtree: true, attributes: true});
  });
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  await drawn;
  return performance.now() - begin;
}"""


def session_of(count: int) -> Session:
    """Return a session whose model finds `count` objects in any image."""
    with tempfile.TemporaryDirectory() as folder:
        predictor = load(random_checkpoint(Path(folder) / "random.ckpt"), device="cpu")
    predictor.thresholds |= {"score_thr": 0.05, "iou_thr": 0.5, "min_area": 20}
    candidates = make_candidates(0, count)
    image = np.full((*candidates.size, 3), 200, np.uint8)
    look = Look(predictor, image, candidates, score_floor=0.05, iou_grid=(0.5,))
    predictor.look = lambda image, tta="single": look  # type: ignore[method-assign]
    return Session(predictor)


def serve(session: Session) -> tuple[uvicorn.Server, str]:
    """Start the session's server in a thread, and return it with its address."""
    server = uvicorn.Server(uvicorn.Config(make_app(session), port=0, log_level="error", lifespan="off"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def ask_server(address: str, thresholds: list[float]) -> list[float]:
    """Return the milliseconds of the server's response at each mask threshold."""
    taken = []
    for threshold in thresholds:
        begin = time.perf_counter()
        with urllib.request.urlopen(f"{address}/api/photos/1/objects?mask_thr={threshold}", timeout=60) as answer:
            answer.read()
        taken.append(1000 * (time.perf_counter() - begin))
    return taken


def move_sliders(address: str, chromium: str, picture: Path, thresholds: list[float]) -> list[float]:
    """Return the milliseconds until the page is redrawn at each mask threshold."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.set_input_files("#file", str(picture))
        page.wait_for_selector("#found path")
        taken = [float(page.evaluate(MOVE, str(threshold))) for threshold in thresholds]
        browser.close()
    return taken


def tell(name: str, taken: list[float]) -> None:
    """Print one row of percentiles."""
    p50, p95 = np.percentile(taken, [50, 95])
    print(f"  ours, {name:8} p50 {p50:7.1f} ms  p95 {p95:7.1f} ms  (max {max(taken):.1f}, {len(taken)} moves)")


def main() -> None:
    """Measure and print the latencies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100, help="objects in the photo (default: %(default)s)")
    parser.add_argument("--moves", type=int, default=100, help="number of slider moves (default: %(default)s)")
    args = parser.parse_args()
    session = session_of(args.objects)
    server, address = serve(session)
    thresholds = [0.3 + 0.01 * (move % 40) for move in range(args.moves)]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "photo.png"
        Image.new("RGB", (8, 8)).save(picture)
        urllib.request.urlopen(f"{address}/api/photos?name=photo.png", data=picture.read_bytes(), timeout=60).close()
        objects = len(session.objects(session.get(1), {})["found"])
        print(f"\na photo with {objects} objects  [{os.cpu_count()} cores]")
        tell("server", ask_server(address, thresholds))
        if chromium is not None:
            tell("page", move_sliders(address, chromium, picture, thresholds))
    server.should_exit = True


if __name__ == "__main__":
    main()
