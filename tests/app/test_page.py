"""The app's page in headless Chromium: photos, sliders, chips, downloads; no console output, no foreign requests."""

import json

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser by playwright")


@pytest.fixture
def open_page(browser, address):
    """Open the page; fail at teardown if anything went wrong, except server errors that the page reports."""
    contexts, wrong = [], []

    def opened(width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        told = "the server responded with a status of 4"
        page.on("console", lambda message: wrong.append(message.text) if told not in message.text else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((address, "data:")) else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def scores(page):
    return [float(text) for text in page.locator("#objects tr:visible td.n").all_text_contents()]


def upload(page, *files):
    page.set_input_files("#file", [str(file) for file in files])
    sync_api.expect(page.locator("#strip button")).to_have_count(len(files))
    page.wait_for_selector("#found path")


def slide(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }", str(value)
    )
    page.wait_for_timeout(400)


def test_photos_sliders_and_chips(open_page, session, photo):
    page = open_page()
    sync_api.expect(page.locator("#model")).to_have_text("tiny: 3 classes")
    upload(page, photo)
    found = session.predictor(photo)
    assert scores(page) == pytest.approx(found.scores.round(2))
    assert page.locator("#found path").count() == len(found)
    assert page.locator("#found-caption").text_content() == f"{photo.name}: {len(found)} objects found"
    strict = float(found.scores[1].round(2)) + 0.01
    slide(page, "score_thr", strict)
    assert scores(page) == pytest.approx(found[found.scores > strict].scores.round(2))
    assert page.locator("#score_thr-value").text_content() == f"{strict:.2f}".rstrip("0")
    page.click("#reset")
    page.wait_for_timeout(400)
    assert len(scores(page)) == len(found)
    name = found.names[0]
    chip = page.locator("#chips button", has_text=name)
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert len(scores(page)) == len(found) - found.names.count(name)
    assert page.locator("#found path").count() == len(scores(page))
    page.click("[data-all=false]")
    assert scores(page) == []
    page.click("[data-all=true]")
    assert len(scores(page)) == len(found)


def test_several_photos_and_one_that_is_none(open_page, wardrobe, tmp_path):
    (tmp_path / "none.jpg").write_text("no photo")
    files = sorted((wardrobe / "train").iterdir())[:2]
    page = open_page()
    page.set_input_files("#file", [str(files[0]), str(tmp_path / "none.jpg"), str(files[1])])
    page.wait_for_selector("#alert:visible")
    assert page.locator("#alert").text_content() == "none.jpg: unreadable-image: unknown format"
    assert page.locator("#strip button").count() == 2
    assert page.locator("#found-caption").text_content().startswith(files[1].name)
    page.locator("#strip button").first.focus()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#found-caption")).to_contain_text(files[0].name)
    assert page.locator("#strip button").first.get_attribute("aria-pressed") == "true"


def test_downloads(open_page, session, photo, wardrobe):
    other = sorted((wardrobe / "train").iterdir())[1]
    page = open_page()
    upload(page, photo, other)
    page.locator("#strip button").first.click()
    page.wait_for_timeout(400)
    with page.expect_download() as waiting:
        page.click("#coco")
    results = json.loads(waiting.value.path().read_text())
    assert waiting.value.suggested_filename == "coco_results.json"
    assert results == session.predictor(photo, min_area=4).to_coco(1)
    page.check("#every")
    with page.expect_download() as waiting:
        page.click("#csv")
    rows = waiting.value.path().read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {photo.name, other.name}
    with page.expect_download() as waiting:
        page.click("#masks")
    assert waiting.value.path().read_bytes()[:2] == b"PK"


def test_truth_beside_it(open_page, session):
    data = session.annotations
    index = next(i for i in range(len(data)) if len(data.instances(i)) > 2)
    page = open_page()
    page.fill("#data-name", str(data.image_ids[index]))
    page.keyboard.press("Tab")
    page.wait_for_selector("#truth path")
    assert page.locator("#truth path").count() == len(data.instances(index))
    page.fill("#data-name", "nonesuch")
    page.keyboard.press("Tab")
    page.wait_for_selector("#alert:visible")
    assert page.locator("#alert").text_content() == "the data set has no photo with this name"


def test_previous_and_next_photo(open_page, session):
    ids = [str(image_id) for image_id in session.annotations.image_ids]
    page = open_page()
    caption, strip = page.locator("#found-caption"), page.locator("#strip button")
    for button, index, photos in [
        ("next", 0, 1),
        ("next", 1, 2),
        ("previous", 0, 2),
        ("previous", -1, 3),
        ("next", 0, 3),
    ]:
        page.click(f"#{button}")
        sync_api.expect(caption).to_contain_text(ids[index])
        sync_api.expect(page.locator("#next")).to_be_enabled()
        assert page.locator("#data-name").input_value() == ids[index]
        assert strip.count() == photos
        assert page.locator("#strip button[aria-pressed=true] img").get_attribute("alt") == ids[index]


def test_a_phone_and_the_rules_of_access(open_page, photo):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(360, 740)
    upload(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert Axe().run(page).response["violations"] == []


def test_a_slider_by_keyboard(open_page, photo):
    page = open_page()
    upload(page, photo)
    before = scores(page)
    page.focus("#score_thr")
    page.keyboard.press("End")
    page.wait_for_timeout(400)
    assert scores(page) == []
    page.keyboard.press("Home")
    page.wait_for_timeout(400)
    assert len(scores(page)) >= len(before)
