"""The report in headless Chromium: filters, sorting, toggles and dialog work; it fits the window, sends no requests."""

import shutil

import pytest

from fashion_hydra.cli.main import main
from fashion_hydra.formats.submission import read_masks

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser by playwright")
METHODS = "method,fitted,cross_fitted,low,high,simpler,gain,gain_low,gain_high,rule\nplain,0.1,0.1,0.05,0.15,,,,,rule\n"
GRID = "score_thr,iou_thr,mask_thr,min_area,max_per_image,drop,score\n" + "".join(
    f"{s},{i},{m},1,100,all,{s * m + i / 10}\n" for s in (0.3, 0.5) for i in (0.2, 0.4) for m in (0.4, 0.45, 0.5)
)
LADDER = (
    "rung,name,change,images,score,low,high,leaderboard,seconds\n1,a,b,9,0.1,0.05,0.15,0.2,3\n2,c,d,9,0.2,0.1,0.3,,\n"
)
METRICS = "step,train/loss,val/score\n9,2.5,\n9,,0.1\n19,1.5,\n19,,0.2\n"


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    """A report with every section."""
    other = tmp_path_factory.mktemp("more")
    for name, text in {"methods.csv": METHODS, "grid.csv": GRID, "ladder.csv": LADDER}.items():
        (other / name).write_text(text)
    (other / "csv" / "version_0").mkdir(parents=True)
    (other / "csv" / "version_0" / "metrics.csv").write_text(METRICS)
    worse = other / "worse"
    worse.mkdir()
    shutil.copy(made.folder / "truth.csv", worse / "truth.csv")
    shutil.copy(made.folder / "truth.csv", worse / "submission.csv")
    out = other / "page.html"
    assert main(["report", *map(str, (made.folder, worse, other)), "--out", str(out)]) == 0
    return out


@pytest.fixture
def open_page(open_file, file):
    return lambda *size, shown=file, **options: open_file(shown, *size, **options)


def names(page):
    return page.locator("#cards h3 button").all_text_contents()


def entries(page):
    return page.evaluate("JSON.parse(document.getElementById('index').textContent)")


def test_images_are_sorted_and_filtered(open_page, made):
    page = open_page()
    images, status = entries(page), page.locator("#shown")
    by = {image["id"]: image for image in images}
    assert status.get_attribute("role") == "status"
    assert [by[name]["score"] for name in names(page)] == sorted(image["score"] for image in images)
    page.select_option("#sort", "best")
    assert [by[name]["score"] for name in names(page)] == sorted((i["score"] for i in images), reverse=True)
    page.select_option("#sort", "errors")
    assert [by[name]["errors"] for name in names(page)] == sorted((i["errors"] for i in images), reverse=True)
    page.select_option("#sort", "name")
    assert names(page) == sorted(by)
    page.select_option("#kind", "missed")
    with_missed = [name for name in sorted(by) if by[name]["kinds"].get("missed")]
    assert names(page) == with_missed
    assert status.text_content() == f"{len(with_missed)} of {len(images)} images"
    assert 0 < len(with_missed) < len(images)
    page.select_option("#kind", "")
    truth, found = (read_masks(made.folder / name) for name in ("truth.csv", "submission.csv"))
    category, label = 23, made.classes.by_id()[23]
    page.select_option("#class", label=label)
    has = [n for n in sorted(by) if any(c.split("_")[0] == str(category) for c in (*truth[n], *found[n]))]
    assert names(page) == has != sorted(by)
    page.select_option("#kind", "poor mask")
    poor = page.evaluate("""() => [...document.querySelectorAll('script.image')].map((block, i) => [i, JSON.parse(
        block.textContent).masks.some((mask) => mask.classId === "23" && mask.kind === "poor mask")])""")
    assert names(page) == sorted(images[i]["id"] for i, has_it in poor if has_it)
    assert 0 < len(names(page)) < len(has)
    page.select_option("#kind", "")
    page.fill("#text", has[0][:9].upper())
    assert names(page) == [has[0]]
    page.fill("#text", "no such image")
    assert (names(page), status.text_content()) == ([], f"0 of {len(images)} images")


def test_masks_are_toggled_by_class_and_side(open_page):
    page = open_page()
    page.locator("#gallery").scroll_into_view_if_needed()
    page.locator("#cards path").first.wait_for(state="attached")
    button = page.locator("button[data-class]").first
    place = button.get_attribute("data-class")
    page.select_option("#class", place)
    own = page.locator(f"#cards path[data-class='{place}']")
    own.first.wait_for(state="visible")
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert own.locator("visible=true").count() == 0
    assert page.locator("#cards path").locator("visible=true").count() > 0
    page.locator("#cards h3 button").first.click()  # hidden in the dialog too
    assert page.locator(f"dialog path[data-class='{place}']").count() > 0
    assert page.locator(f"dialog path[data-class='{place}']").locator("visible=true").count() == 0
    page.keyboard.press("Escape")
    page.get_by_role("button", name="none", exact=True).click()
    assert page.locator("#cards path").locator("visible=true").count() == 0
    page.get_by_role("button", name="all", exact=True).click()
    assert own.locator("visible=true").count() > 0
    page.get_by_role("button", name="truth", exact=True).click()
    assert page.locator("#cards .truth path").locator("visible=true").count() == 0
    assert page.locator("#cards .prediction path").locator("visible=true").count() > 0
    page.get_by_role("button", name="fill", exact=True).click()
    assert page.locator("#cards .prediction path").first.evaluate("e => getComputedStyle(e).fill") == "none"


def test_one_image_by_keyboard(open_page):
    page = open_page(reduced_motion="reduce")
    shown = names(page)
    page.locator("#cards h3 button").nth(1).focus()
    page.keyboard.press("Enter")
    dialog, heading = page.locator("dialog"), page.locator("#dialog-h")
    assert dialog.evaluate("e => e.open && e.matches(':modal')")
    assert heading.text_content() == shown[1]
    assert dialog.locator("figcaption").all_text_contents()[0] == "photo"
    assert dialog.locator("img").count() == 3
    image = next(i for i in entries(page) if i["id"] == shown[1])
    rows = page.locator("#dialog-masks tr")
    assert rows.count() == image["true"] + image["predicted"] == dialog.locator("path").count()
    told = [text.partition(" (")[0] for text in rows.locator("td:nth-child(3)").all_text_contents()]
    for kind in ("background", "missed"):
        assert told.count(kind) == image["kinds"].get(kind, 0)
    for key, place in (("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0), ("ArrowLeft", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        assert heading.text_content() == shown[place]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not dialog.evaluate("e => e.open")
    sync_api.expect(page.locator(":focus")).to_have_text(shown[2])  # the focus is on the last shown image
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_tables_are_sorted_and_lead_to_the_gallery(open_page):
    page = open_page()
    table = page.locator("#classes table.sortable")
    heading = table.locator("th", has_text="score").first
    scores = lambda: [float(text) for text in table.locator("tbody td:nth-child(2)").all_text_contents()]  # noqa: E731
    for order, reverse in (("descending", True), ("ascending", False)):
        heading.locator("button").press("Enter")
        assert heading.get_attribute("aria-sort") == order
        assert scores() == sorted(scores(), reverse=reverse)
    assert table.locator("[aria-sort=ascending], [aria-sort=descending]").count() == 1
    page.locator("#errors a[data-show-kind='wrong class']").click()
    wrong = [image["id"] for image in entries(page) if image["kinds"].get("wrong class")]
    assert sorted(names(page)) == sorted(wrong)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_the_rules_of_accessibility(open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(390, 844, color_scheme=scheme, is_mobile=True, has_touch=True)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == {
        "light": "rgb(246, 247, 249)",
        "dark": "rgb(16, 19, 23)",
    }.get(scheme)
    page.locator("#gallery").scroll_into_view_if_needed()
    page.locator("#cards path").first.wait_for(state="attached")
    assert page.evaluate(fits)
    found = axe.run(page).response["violations"]
    page.locator("#cards h3 button").first.tap()
    assert page.evaluate(fits)
    assert page.locator("dialog").evaluate("e => e.scrollWidth <= e.clientWidth")
    found += axe.run(page, context="dialog").response["violations"]
    bad = [
        (v["id"], [node["html"][:200] for node in v["nodes"][:3]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert bad == []


def test_names_are_shown_as_they_are(open_page, hostile, tmp_path):
    folder, images, photo, bad = hostile
    out = tmp_path / "page.html"
    assert main(["report", str(folder), "--images", str(images), "--title", bad, "--out", str(out)]) == 0
    page = open_page(shown=out)
    assert page.title() == f"{bad}: report"
    assert names(page) == [photo, bad]
    page.locator("#cards h3 button").first.click()
    assert page.locator("#dialog-h").text_content() == photo
    assert bad in page.locator("#dialog-masks td:nth-child(2)").first.text_content()


def test_the_policy_lets_no_other_script_run_and_nothing_out(browser, file):
    page = browser.new_page()
    page.goto(file.as_uri())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.ran=1>')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran=1'}))"
    )
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'went', error => error.name)")
    assert (refused, page.evaluate("window.ran")) == ("TypeError", None)
    page.close()
