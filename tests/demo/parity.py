"""`python -m tests.demo.parity PHOTOS`: compare the page's predictions in Chromium with those of models/street.

Run `make page` first. The command fails if a mask has an IoU below 0.98 or an object is missing.
"""

import argparse
import re
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from fashion_hydra.api.load import load
from fashion_hydra.data.image_list import list_folder
from tests.conftest import CHROMIUM
from tests.demo.site import DEMO, add_photos, download_coco, make_site, mask_ious, serve

LEAST_IOU = 0.98
_EMULATED_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]


def main() -> int:
    """Compare photo by photo and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--device", choices=["wasm", "webgpu"], default="wasm")
    args = parser.parse_args()
    model, photos = load("street", device="cpu"), list_folder(args.photos)
    flags = ["--no-sandbox", *(_EMULATED_GPU if args.device == "webgpu" else [])]
    worst, seconds = [], []
    print(f"{'photo':20} {'native':>7} {'page':>7} {'least IoU':>10} {'score':>9} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        with serve(make_site(Path(folder) / "site", DEMO / "street.onnx")) as address:
            page = browser.new_page()
            page.goto(f"{address}/?device={args.device}")
            for i in range(min(args.count, len(photos))):
                path = photos.folder / photos.files[i]
                add_photos(page, [path], count=i + 1, timeout=300_000)
                page.wait_for_selector(f"#strip li:nth-child({i + 1}) [aria-pressed=true]")
                native, found = model(path).to_coco(), download_coco(page)
                ious = mask_ious(native, found)
                score = max((abs(a["score"] - b["score"]) for a, b in zip(native, found, strict=False)), default=0.0)
                took = re.search(r"([\d.]+) s for the photo", page.locator("#status").text_content())
                worst.append(min(ious, default=1.0))
                seconds.append(float(took.group(1)) if took else 0.0)
                numbers = f"{len(native):7d} {len(found):7d} {worst[-1]:10.4f} {score:9.1g} {seconds[-1]:8.2f}"
                print(f"{path.name:20} {numbers}", flush=True)
        browser.close()
    print(f"{len(worst)} photos: least IoU {min(worst):.4f}, median {statistics.median(seconds):.2f} s for a photo")
    return int(min(worst) < LEAST_IOU)


if __name__ == "__main__":
    sys.exit(main())
