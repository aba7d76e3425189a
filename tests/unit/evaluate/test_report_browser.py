"""The report in a browser: nothing fetched, nothing cut off, and what is pressed does what it says."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from case_factory import empty_report, full_report
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from roiseg.evaluate.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

WIDTHS = (1280, 400)

OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth, found = [];
  for (const item of document.body.querySelectorAll("*")) {
    const box = item.getBoundingClientRect(), style = getComputedStyle(item), name = item.tagName + "." + item.className;
    if (item.closest("svg") && item.tagName !== "svg" && item.tagName !== "text") continue;
    if (item.tagName === "text") {
      const room = item.closest("svg").getBoundingClientRect();
      const across = box.left >= room.left - 1 && box.right <= room.right + 1;
      const inside = across && box.top >= room.top - 1 && box.bottom <= room.bottom + 1;
      if (!inside) found.push(`${item.textContent} is cut off`);
      continue;
    }
    if (item.tagName === "IMG" && Math.abs(box.width / box.height / (item.naturalWidth / item.naturalHeight) - 1) > 0.02) {
      found.push(`${item.alt} is ${box.width} by ${box.height}`);
    }
    if (box.right > width + 1 && !item.closest(".scroll")) found.push(`${name} ends at ${box.right}`);
    const holds = style.display !== "inline" && style.overflowX === "visible" && !item.closest("svg");
    if (holds && item.clientWidth && item.scrollWidth > item.clientWidth + 1 && !item.closest(".scroll")) {
      found.push(`${name}: ${item.scrollWidth} in ${item.clientWidth}`);
    }
  }
  const whole = document.documentElement;
  if (whole.scrollWidth > whole.clientWidth) found.push(`the page: ${whole.scrollWidth} in ${whole.clientWidth}`);
  return found;
}"""

SMALLEST_TEXT = """() => Math.min(...[...document.querySelectorAll("svg text")].map((item) => {
  const scale = item.closest("svg").getBoundingClientRect().width / item.closest("svg").viewBox.baseVal.width;
  return parseFloat(getComputedStyle(item).fontSize) * scale;
}))"""

CONTRASTS = """() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((value) => {
      const level = value / 255;
      return level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = (item) => {
    for (let at = item; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("p, th, td, a, figcaption, dt, dd, h1, h2, select, label, svg.chart")].map((item) => {
    const pair = [light(getComputedStyle(item).color), light(ground(item))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
}"""
"""Contrast of text with what is behind it, as defined by WCAG 2.2, success criterion 1.4.3."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "default.html"
    write_report(path, full_report())
    return path


@pytest.fixture
def page(browser: Browser, full: Path) -> Iterator[Page]:
    """The whole report, 1280 wide."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(full.as_uri())
    yield opened
    opened.close()


def shown(page: Page) -> list[str]:
    """Ids of the cards that can be seen, in their order."""
    found: list[str] = page.eval_on_selector_all("article", "cards => cards.filter(card => card.offsetParent).map(card => card.id)")
    return found


def listen(page: Page) -> tuple[list[str], list[str]]:
    """What a page asks for, and what it says on the console, from now on."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return asked, said


def chosen(page: Page, label: str) -> Locator:
    """One of the filters."""
    return page.locator("#filters").get_by_label(label)


def ids(*numbers: int) -> list[str]:
    return [f"annotation-{1000 + number}" for number in numbers]


@pytest.mark.parametrize(("which", "scheme"), [("full", "light"), ("full", "dark"), ("empty", "light")])
def test_page_fetches_nothing_and_nothing_is_cut_off(browser: Browser, full: Path, tmp_path: Path, which: str, scheme: str) -> None:
    path = full
    if which == "empty":
        path = tmp_path / "empty.html"
        write_report(path, empty_report())
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light")
        asked, said = listen(page)
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert said == []
        sizes = page.eval_on_selector_all("img", "pictures => pictures.map(picture => picture.complete && picture.naturalWidth)")
        assert len(sizes) == (25 if which == "full" else 0)
        assert all(sizes)
        assert page.evaluate(OVERFLOWING) == []
        assert min(page.evaluate(CONTRASTS)) >= 4.5
        if which == "full":
            assert page.locator("svg.chart").count() == 8
            assert page.evaluate(SMALLEST_TEXT) >= 8
        page.close()


def test_filters_show_the_right_cards(page: Page) -> None:
    assert shown(page) == ids(*reversed(range(24)))
    assert page.locator("output").inner_text() == "24 of 24 shown"
    chosen(page, "size").select_option("small")
    assert shown(page) == ids(21, 18, 15, 12, 9, 6, 3, 0)
    chosen(page, "truncation").select_option("truncated")
    assert shown(page) == ids(12, 0)
    chosen(page, "order").select_option("down")
    assert shown(page) == ids(0, 12)
    assert page.locator("output").inner_text() == "2 of 24 shown"
    chosen(page, "crowdedness").select_option("over_30")
    assert shown(page) == []
    assert page.locator("#none-left").is_visible()
    page.get_by_role("button", name="Show all").click()
    # Not `wait_for_function`: the page forbids itself to evaluate texts, and so that one can't wait.
    expect(page.locator("output")).to_have_text("24 of 24 shown")
    assert shown(page) == ids(*reversed(range(24)))
    assert not page.locator("#none-left").is_visible()


def test_picture_leads_to_its_annotation(page: Page) -> None:
    page.locator("#annotation-1003 img").click()
    assert page.url.endswith("#annotation-1003")
    assert page.locator("article:target").get_attribute("id") == "annotation-1003"
    assert "1003.jpg" in page.locator("article:target").inner_text()


def test_link_to_an_annotation_shows_it_whatever_is_filtered(page: Page, full: Path) -> None:
    page.goto(f"{full.as_uri()}#annotation-1003")
    assert page.locator("#annotation-1003").is_visible()
    assert page.evaluate("document.activeElement.id") == "annotation-1003"
    chosen(page, "size").select_option("medium")
    assert not page.locator("#annotation-1000").is_visible()
    page.evaluate("location.hash = '#annotation-1000'")
    page.locator("#annotation-1000").wait_for(state="visible")
    top = page.evaluate("document.getElementById('annotation-1000').getBoundingClientRect().top")
    assert -1 <= top < 900, "it is in sight"
    page.wait_for_timeout(50)
    assert page.evaluate("document.activeElement.id") == "annotation-1000", "what the reset does later takes no focus away"


def test_filters_work_by_keyboard(page: Page) -> None:
    page.get_by_role("link", name="ROIs", exact=True).focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "size":
            break
    assert page.evaluate("document.activeElement.name") == "size"
    assert re.match(r"[1-9]", page.evaluate("getComputedStyle(document.activeElement).outlineWidth"))
    page.keyboard.press("ArrowDown")
    assert shown(page) == ids(21, 18, 15, 12, 9, 6, 3, 0)


def test_page_is_whole_without_scripts(browser: Browser, full: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(full.as_uri())
    assert page.locator("article").count() == 24
    assert page.locator("#annotation-1000").is_visible()
    assert page.locator("#annotation-1023 img").is_visible()
    assert not page.locator("#filters").is_visible()
    context.close()
