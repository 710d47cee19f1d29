"""Tests of accessibility: axe rules, keyboard, widths, colour schemes, print, no scripts."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WIDTHS = (390, 820, 1280)
KINDS = ("index", "cell", "compare", "definitions", "published")
#: Whether the page is wider than the window.
WIDE = """() => document.documentElement.scrollWidth > innerWidth || document.body.scrollWidth > innerWidth"""
#: Rows of tables that are higher than half the window, which happens if a column is too narrow.
HIGH = """() => [...document.querySelectorAll("tr")].filter(row => row.getBoundingClientRect().height > innerHeight / 2)
  .map(row => row.textContent.slice(0, 40))"""
#: The focused element, whether it is in the window, and the width of its outline.
FOCUS = """() => {
  const element = document.activeElement, box = element.getBoundingClientRect(), style = getComputedStyle(element);
  return {
    name: element.id || element.className || element.tagName,
    header: Boolean(element.closest("th[aria-sort]")),
    inside: box.width > 8 && box.height > 8 && box.top >= -1 && box.bottom <= innerHeight + 1 && box.left >= -1,
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
  };
}"""


def address(board: Path, kind: str) -> str:
    """The URL of a page of a kind; for the comparison, of two cells."""
    cells = sorted((board.parent / "cells").glob("*.html"))
    if kind == "cell":
        return cells[0].as_uri()
    found = (board.parent / f"{kind}.html").as_uri()
    return f"{found}#{cells[0].stem},{cells[1].stem}" if kind == "compare" else found


def open_fully(visit, board: Path, kind: str):
    """Open a page without motion; wait until a comparison is drawn."""
    page = visit(address(board, kind), reduced_motion="reduce").page
    if kind == "compare":
        page.wait_for_selector("#compare-result table")
    return page


def is_drawn(png: bytes) -> bool:
    """Tell whether at least a tenth of the lines of a picture have contrast."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return bool(np.mean(np.ptp(pixels, axis=1) > 40) > 0.1)


def findings(page, *rules: str, rows: int | None = None) -> list[str]:
    """Serious and critical findings of axe-core with their elements; `rows` limits tables to their first rows."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": list(rules)} if rules else {})
    context = {"exclude": [[f"tbody tr:nth-child(n + {rows + 1})"]]} if rows else None
    found = Axe().run(page, context, options).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {[node['target'] for node in rule['nodes'][:5]]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_pages_pass_axe_in_light_and_their_colours_in_dark(visit, board, kind):
    page = open_fully(visit, board, kind)
    if kind == "index":
        page.evaluate("location.hash = 'attack=kedmi&budget=quick'")
    light = findings(page, rows=4)
    backgrounds = {page.evaluate("getComputedStyle(document.body).backgroundColor")}
    page.emulate_media(color_scheme="dark")
    dark = findings(page, "color-contrast", "link-in-text-block", rows=4)
    backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (light, dark) == ([], [])
    assert len(backgrounds) == 2


def test_axe_detects_violations(visit, board):
    page = visit(board.parent / "definitions.html").page
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')"
    )
    assert [found.split()[0] for found in findings(page, "image-alt", "button-name")] == ["button-name", "image-alt"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", (*KINDS, "single"))
def test_pages_pass_axe_at_every_width_in_light_and_dark(visit, board, single, kind, width, scheme):
    page = visit(single, reduced_motion="reduce").page if kind == "single" else open_fully(visit, board, kind)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert findings(page) == []


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_drawn_and_fit_at_every_width(visit, board, kind, tmp_path):
    page = open_fully(visit, board, kind)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert not page.evaluate(WIDE), f"{kind} is wider than {width}"
        assert page.evaluate(HIGH) == []
        assert is_drawn(page.screenshot(path=tmp_path / f"{kind}-{width}.png"))
    page.emulate_media(color_scheme="dark")
    assert is_drawn(page.screenshot(path=tmp_path / f"{kind}-dark.png"))
    page.evaluate("document.body.replaceChildren()")
    assert not is_drawn(page.screenshot())


def test_the_keyboard_reaches_and_sorts_tables(visit, board):
    page = visit(board).page
    page.keyboard.press("Tab")
    focus = page.evaluate(FOCUS)
    assert (focus["name"], focus["inside"]) == ("skip", True)
    assert focus["outline"] >= 2
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        assert focus["outline"] >= 2, focus
        assert focus["inside"], focus
        if focus["header"]:
            break
    state = "document.activeElement.closest('th').getAttribute('aria-sort')"
    assert page.evaluate(state) == "none"
    page.keyboard.press("Enter")
    assert page.evaluate(state) == "ascending"
    page.keyboard.press("Space")
    assert page.evaluate(state) == "descending"
    assert page.evaluate(FOCUS)["header"]


def test_the_keyboard_reaches_points_of_the_plot(visit, board):
    page = visit(board).page
    page.locator(".ranking.chosen .panel a").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement.querySelector('circle')).strokeWidth") != "0px"
    name = page.evaluate("document.activeElement.querySelector('title').textContent")
    assert any(letter.isdigit() for letter in name)
    page.keyboard.press("Enter")
    page.wait_for_url("**/cells/*.html")


def test_print_shows_all_details_and_no_controls(visit, single, board):
    page = visit(single).page
    assert page.locator("details.cell").count() == page.locator("details.cell:not([open])").count() > 10
    page.evaluate(
        "addEventListener('beforeprint', () => { window.closed_in_print = "
        "document.querySelectorAll('details.cell:not([open])').length; })"
    )
    assert len(page.pdf()) > 50_000
    assert page.evaluate("window.closed_in_print") == 0
    assert page.locator("details.cell[open]").count() == 0
    page = visit(board).page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not any(page.is_visible(control) for control in ("#filter", "#theme", ".skip", "header nav"))
    scrolled = "all => all.filter(each => each.scrollHeight > each.clientHeight + 2).map(each => each.ariaLabel)"
    assert page.eval_on_selector_all(".scroll", scrolled) == []
    assert page.locator("table.rows tbody tr:visible").count() == page.locator("table.rows tbody tr").count()


def test_everything_is_readable_without_scripts(visit, board, single):
    page = visit(board, java_script_enabled=False).page
    assert page.locator("table.rows tbody tr:visible").count() == page.locator("table.rows tbody tr").count() > 30
    assert page.locator(".ranking:visible").count() == page.locator(".ranking").count()
    assert not page.is_visible("#filter")
    page.locator("table.rows a").first.click()
    page.wait_for_url("**/cells/*.html")
    assert page.locator("table.scores tbody tr:visible").count() > 2
    assert page.is_visible(".command code")
    assert not page.is_visible(".tools")
    page = visit((board.parent / "compare.html"), java_script_enabled=False).page
    assert "JavaScript" in page.inner_text("main")
    page = visit(single, java_script_enabled=False).page
    cell = page.locator("details.cell").first
    cell.locator("summary").click()
    assert cell.locator("table.scores").is_visible()


def test_the_single_page_opens_the_cell_in_its_url(visit, single):
    page = visit(single).page
    cell = page.locator("details.cell").last.get_attribute("id")
    linked = visit(f"{single.as_uri()}#{cell}").page
    assert linked.locator(f"#{cell}[open] table.scores").is_visible()
    assert linked.locator("details.cell[open]").count() == 1
