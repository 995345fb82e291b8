"""The data set page in headless Chromium: it sorts by keyboard, fits a phone, is accessible and sends no requests."""

import pytest

from fashion_hydra.cli.main import main


@pytest.fixture(scope="module")
def file(wardrobe, tmp_path_factory):
    out = tmp_path_factory.mktemp("eda") / "eda.html"
    assert main(["eda", str(wardrobe), "--out", str(out), "--augment", "small", "--samples", "2"]) == 0
    return out


def test_classes_are_sorted_by_keyboard(open_file, file):
    page = open_file(file)
    table = page.locator("#classes table")
    column = lambda number: table.locator(f"tbody tr > :nth-child({number})")  # noqa: E731
    masks = lambda: [int(cell.get_attribute("data-v")) for cell in column(3).all()]  # noqa: E731
    assert masks() == sorted(masks(), reverse=True)
    heading = table.locator("th", has_text="masks").first
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert masks() == sorted(masks())
    table.locator("th", has_text="category").locator("button").press("Space")
    names = column(2).all_text_contents()
    assert names == sorted(names)
    assert table.locator("[aria-sort=ascending], [aria-sort=descending]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_the_rules_of_accessibility(open_file, file, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_file(file, 390, 844, color_scheme=scheme, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == {
        "light": "rgb(246, 247, 249)",
        "dark": "rgb(16, 19, 23)",
    }.get(scheme)
    bad = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in axe.run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert bad == []


def test_the_policy_lets_no_other_script_or_style_in(browser, file):
    page = browser.new_page()
    page.goto(file.as_uri())
    for tag, text in (("script", "window.ran = 1"), ("style", "body { background: red }")):
        page.evaluate(
            f"document.body.append(Object.assign(document.createElement('{tag}'), {{textContent: '{text}'}}))"
        )
    assert page.evaluate("window.ran") is None
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
    page.close()
