"""docs/demo in headless Chromium: its pixels, masks and files equal those of the package; it sends no data."""

import io
import zipfile

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.api.load import load
from fashion_hydra.cli.main import main
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.report.html import css_colour
from fashion_hydra.structures.detections import Candidates
from tests.demo.site import RUNTIME, add_photos, download_coco, make_site, mask_ious, serve
from tests.helpers import write_tiny_checkpoint

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser by playwright")
needs_runtime = pytest.mark.skipif(not RUNTIME.is_dir(), reason="onnxruntime-web is not there: run make page")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("demo") / "tiny.ckpt", seed=0)


@pytest.fixture(scope="module")
def modules(browser, tmp_path_factory):
    """A page of the site without a model, for importing the scripts."""
    with serve(make_site(tmp_path_factory.mktemp("modules") / "site")) as address:
        page = browser.new_page(bypass_csp=True)
        page.goto(f"{address}/demo.css")
        yield page
        page.close()


@pytest.fixture(scope="module")
def address(checkpoint, tmp_path_factory):
    """Address of the complete page with a tiny model that has the winner's thresholds."""
    folder = tmp_path_factory.mktemp("page")
    assert main(["export", str(checkpoint), str(folder / "tiny.onnx"), "--half", "--count", "1"]) == 0
    with serve(make_site(folder / "site", folder / "tiny.onnx")) as address:
        yield address


@pytest.fixture
def open_page(browser, address):
    """Open the page; fail at teardown if anything went wrong or the page requested a foreign address."""
    contexts, wrong = [], []

    def opened(width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
        page.on("request", lambda r: wrong.append(f"{r.method} {r.url}") if r.method != "GET" else None)
        page.goto(f"{address}/?device=wasm")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((97, 131), (60, 81)),
        ((64, 48), (32, 24)),
        ((300, 41), (299, 41)),
        ((40, 30), (95, 71)),
        ((200, 300), (133, 200)),
        ((33, 20), (33, 20)),
        ((1, 1), (7, 5)),
        ((5, 700), (2, 280)),
    ],
)
def test_photos_are_resized_as_opencv_does_it(modules, size, new):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    planes = modules.evaluate(
        """async ([bytes, size, into]) => {
          const { resize, rowsOf } = await import("/pixels.js");
          const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]), { colorSpaceConversion: "none" });
          return [...resize(rowsOf(bitmap), size, into)];
        }""",
        [list(stream.getvalue()), list(size), list(new)],
    )
    expected = cv2.resize(pixels, new[::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    assert np.array_equal(np.array(planes, np.uint8).reshape(expected.shape), expected)


def made_up(count, size, seed):
    """Make candidates with boxes all over an image, partly beyond its border, and smooth masks."""
    random = np.random.default_rng(seed)
    corners = random.uniform(-0.1, 0.9, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.02, 0.6, (count, 2))], 1) * [
        size[1],
        size[0],
        size[1],
        size[0],
    ]
    masks = np.stack([cv2.resize(random.random((4, 4)), (14, 14)) for _ in range(count)])
    scores = np.sort(random.random(count))[::-1]
    return Candidates(
        "made up",
        size,
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(scores.copy(), dtype=torch.float32),
        torch.tensor(random.integers(0, 3, count)),
        torch.tensor(masks, dtype=torch.float32),
    )


OWN = {"label_score_thr": {1: 0.2}, "dropped_labels": (2,)}
SHARED = ("score_thr", "iou_thr", "mask_thr", "max_per_image", "min_area", "suppress_overlaps")


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (Postprocess(score_thr=0.1, iou_thr=0.5, mask_thr=0.45, max_per_image=100), (120, 90)),
        (Postprocess(score_thr=0.3, iou_thr=0.2, mask_thr=0.6, max_per_image=4, min_area=50), (120, 90)),
        (Postprocess(score_thr=0.1, iou_thr=0.7, mask_thr=0.5, max_per_image=100, suppress_overlaps=False), (77, 201)),
        (Postprocess(score_thr=0.2, iou_thr=0.5, mask_thr=0.5, max_per_image=9, mask_certainty_power=2.0), (120, 90)),
        (
            Postprocess(
                score_thr=0.5,
                iou_thr=0.6,
                mask_thr=0.4,
                max_per_image=99,
                label_score_thr={1: 0.2},
                dropped_labels=(2,),
            ),
            (120, 90),
        ),
    ],
)
def test_masks_follow_the_rules_of_the_package(modules, rule, size):
    candidates = made_up(60, (120, 90), seed=3)
    expected = apply(candidates, rule, size=size)
    found = modules.evaluate(
        """async ([candidates, rule, size]) => {
          const { apply, encode } = await import("/postprocess.js");
          for (const key of ["boxes", "scores", "masks"]) candidates[key] = Float32Array.from(candidates[key]);
          rule.labelScoreThr = new Map(rule.labelScoreThr);
          rule.droppedLabels = new Set(rule.droppedLabels);
          return apply(candidates, rule, size)
            .map((mask) => ({ ...mask, pixels: null, segmentation: encode(mask, size) }));
        }""",
        [
            {
                "size": list(candidates.size),
                "boxes": candidates.boxes.flatten().tolist(),
                "scores": candidates.scores.tolist(),
                "labels": candidates.labels.tolist(),
                "masks": candidates.masks.flatten().tolist(),
                "cells": candidates.masks.shape[-1],
            },
            {
                **{
                    key: getattr(rule, key)
                    for key in ("score_thr", "iou_thr", "mask_thr", "max_per_image", "min_area", "mask_certainty_power")
                },
                "suppress_overlaps": rule.suppress_overlaps,
                "labelScoreThr": [list(pair) for pair in rule.label_score_thr.items()],
                "droppedLabels": list(rule.dropped_labels),
            },
            list(size),
        ],
    )
    assert len(expected) > 3
    assert [one["label"] for one in found] == list(expected.labels)
    assert [one["score"] for one in found] == pytest.approx(expected.scores)
    assert [one["area"] for one in found] == expected.areas
    assert [one["segmentation"]["counts"] for one in found] == [mask["counts"].decode() for mask in expected.masks]


@pytest.fixture(scope="module")
def photos(wardrobe, tmp_path_factory):
    """A photo, the same photo rotated by EXIF, and a photo that is reduced exactly by half."""
    folder = tmp_path_factory.mktemp("photos")
    first, second = (Image.open(path) for path in sorted((wardrobe / "train").iterdir())[:2])
    first.save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    first.rotate(90, expand=True).save(folder / "turned.jpg", exif=exif, quality=97)
    second.resize((192, 288)).save(folder / "large.png")
    return [folder / name for name in ("plain.png", "turned.jpg", "large.png")]


@needs_runtime
def test_answers_are_the_native_ones(open_page, checkpoint, photos):
    model, page = load(checkpoint, device="cpu"), open_page()
    for i, photo in enumerate(photos):
        add_photos(page, [photo], count=i + 1)
        sync_api.expect(page.locator("#found-caption")).to_contain_text(photo.name)
        native, found = model(photo).to_coco(), download_coco(page)
        assert len(native) == len(found) > 0
        assert min(mask_ious(native, found)) >= 0.98
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in native], abs=2e-3)
    assert "s for the photo" in page.locator("#status").text_content()


@needs_runtime
def test_sliders_chips_and_downloads(open_page, checkpoint, photos):
    model, page = load(checkpoint, device="cpu"), open_page()
    sync_api.expect(page.locator("#model")).to_have_text("3 classes, WebAssembly")
    add_photos(page, photos[:1], count=1)
    page.focus("#score_thr")
    page.keyboard.press("Home")
    page.wait_for_timeout(300)
    assert page.locator("#score_thr-value").text_content() == "0.05"
    names = page.locator("#objects th").all_text_contents()
    assert names == model(photos[0], score_thr=0.05).names
    name = names[0]
    colour = page.locator("#objects .sw").first.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor")
    category = model.classes.ids[model.classes.names.index(name)]
    assert colour == "rgb({}, {}, {})".format(*bytes.fromhex(css_colour(category)[1:]))
    chip = page.locator("#chips button", has_text=name)
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    visible = [row for row in names if row != name]
    assert page.locator("#objects tr:visible").count() == len(visible)
    results = download_coco(page)
    assert category not in {one["category_id"] for one in results}
    with page.expect_download() as waiting:
        page.click("#masks")
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.testzip() is None
        files = archive.namelist()
        drawn = [np.array(Image.open(io.BytesIO(archive.read(file)))) for file in files]
    assert [file.split("/")[0] for file in files] == ["plain"] * len(results)
    assert all((a == coco_mask.decode(b["segmentation"])).all() for a, b in zip(drawn, results, strict=True))
    page.click("#reset")
    page.wait_for_timeout(300)
    assert page.locator("#score_thr-value").text_content() == str(model.rule().score_thr)


@needs_runtime
def test_what_is_no_photo_gets_a_message(open_page, photos, tmp_path):
    (tmp_path / "none.jpg").write_text("no photo")
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:200])
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")
    page = open_page()
    files = [tmp_path / "none.jpg", photos[0], tmp_path / "huge.png", tmp_path / "cut.png"]
    page.set_input_files("#file", [str(file) for file in files])
    page.wait_for_selector("#alert:visible", timeout=60_000)
    lines = page.locator("#alert").text_content().splitlines()
    assert [line.split(":")[0] for line in lines] == ["none.jpg", "huge.png", "cut.png"]
    assert all("not a picture that this browser can read" in line for line in (lines[0], lines[2]))
    assert lines[1] == "huge.png: 9000x8000 pixels: must be at most 64 million. Reduce the photo"
    assert page.locator("#strip button").count() == 1


@needs_runtime
def test_a_phone_and_the_rules_of_access(open_page, photos):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(360, 740, bypass_csp=True)
    add_photos(page, photos[:1], count=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert Axe().run(page).response["violations"] == []


def test_a_model_that_is_not_there(browser, tmp_path):
    with serve(make_site(tmp_path / "site")) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#alert:visible")
        assert page.locator("#alert").text_content() == "/street.onnx is not there (404): run make page"
        page.close()
