"""Tests that untrusted texts are shown as text: no script runs, nothing is loaded, the layout is kept."""

import re
from pathlib import Path

import pytest
from privbench import load_records
from privbench.benchmark.report.formatting import sanitize

WIDE = "document.documentElement.scrollWidth > innerWidth || document.body.scrollWidth > innerWidth"
#: Elements and attributes that no page of a report may have, because they come from an injected text.
INJECTED = """() => [
  ...document.querySelectorAll("iframe, object, embed, base, form[action], [style], link[rel=preload], video, audio"),
  ...[...document.querySelectorAll("*")].filter((element) =>
    element.getAttributeNames().some((name) => name.startsWith("on"))),
  ...[...document.querySelectorAll("[href], [src]")].filter((element) =>
    /^\\s*(javascript|vbscript|data:text)/i.test(element.getAttribute("href") || element.getAttribute("src"))),
  ...[...document.querySelectorAll("script:not([src]):not([type='application/json'])")].slice(
    document.body.dataset.root === undefined ? 1 : 0),
].map((element) => element.outerHTML.slice(0, 80))"""

#: The texts of the parts of a cell's page.
TEXTS = """() => Object.fromEntries([".flag", "dl.facts", ".settings", "table.scores", "table.stages", ".command"].map(
  (selector) => [selector, document.querySelector(selector).textContent]))"""


@pytest.fixture(scope="module")
def records(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("read")
    samples.write_hostile(folder)
    return load_records(folder)


def is_harmless(page) -> bool:
    """Tell whether no injected script ran and the page has its usual structure."""
    page.wait_for_timeout(20)
    assert page.evaluate("window.pwned") is None
    assert page.evaluate(INJECTED) == []
    assert not page.evaluate(WIDE)
    return True


def words(text: str) -> str:
    """The text without spaces and quotes, because shell commands have additional quotes."""
    return re.sub(r"""[\s'"]""", "", text)


def test_these_tests_detect_injected_scripts(visit, tmp_path, samples):
    (tmp_path / "index.html").write_text(
        f"<!doctype html><title>x</title><p>{samples.HOSTILE['image']}</p>", encoding="utf-8"
    )
    seen = visit(tmp_path / "index.html")
    seen.page.wait_for_timeout(100)
    assert seen.page.evaluate("window.pwned") == 1
    assert seen.page.evaluate(INJECTED) != []
    assert any(problem == "dialog 1" for problem in seen.problems)
    seen.problems.clear()


@pytest.mark.parametrize("name", ["index", "definitions", "published"])
def test_pages_show_hostile_texts_as_texts(visit, hostile, samples, name):
    page = visit(hostile.parent / f"{name}.html").page
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert is_harmless(page)
    shown = words(page.evaluate("document.body.textContent"))
    if name == "index":
        assert words(sanitize(samples.HOSTILE["image"], 60)) in shown
        assert "tobearecord,gotanotherfile" in shown
    for text in samples.HOSTILE.values():
        # The definitions are those of the installed evaluators, and published values are ours.
        assert name != "index" or words(sanitize(text, 40)).rstrip("…")[:34] in shown, text[:40]
    page.locator("table").first.scroll_into_view_if_needed()
    assert page.locator("h1").bounding_box()["height"] < 200


def test_hostile_texts_can_be_sorted_and_searched_for(visit, hostile, samples):
    page = visit(hostile).page
    for text in (samples.HOSTILE["image"], samples.HOSTILE["long"], samples.HOSTILE["right to left"]):
        page.fill("#filter [name=q]", text)
        page.wait_for_timeout(200)
        assert is_harmless(page)
    page.click("#filter [type=reset]")
    page.locator("table.rows th button").first.click()
    page.locator("table.rows input[data-pick]").nth(3).check()
    page.locator("table.rows input[data-pick]").nth(7).check()
    assert is_harmless(page)
    page.click("#compare-go")
    page.wait_for_selector("#compare-result table")
    assert is_harmless(page)
    assert page.evaluate("document.querySelector('#compare-result').textContent.length") > 500


def test_every_cell_shows_its_hostile_texts(visit, hostile, records, samples):
    page = visit(hostile).page
    texts = {record.key[:16]: record.environment.cpu for record in records if record.cell.attack.name != "gmi"}
    assert len(texts) > len(samples.HOSTILE)
    for i, (key, text) in enumerate(texts.items()):
        page.set_viewport_size({"width": (390, 1280)[i % 2], "height": 900})
        page.goto((hostile.parent / "cells" / f"{key}.html").as_uri())
        assert is_harmless(page)
        if text not in samples.HOSTILE.values():
            continue
        for selector, shown in page.evaluate(TEXTS).items():
            limit = 30 if selector in ("table.scores", "table.stages") else 60
            assert words(sanitize(text, limit)).rstrip("…")[:limit] in words(shown), (selector, text[:40])
        assert len(page.evaluate("document.body.innerText")) < 150_000


def test_invisible_characters_are_made_visible(visit, hostile, records, samples):
    page = visit(hostile).page
    for name in ("right to left", "zero width", "control"):
        key = next(record.key[:16] for record in records if record.environment.cpu == samples.HOSTILE[name])
        page.goto((hostile.parent / "cells" / f"{key}.html").as_uri())
        text = page.evaluate("document.documentElement.outerHTML")
        assert not set(text) & set("\u202e\u2066\u2067\u200b\u2060\ufeff\x00\x07\x1b\x7f\x85")


def test_the_single_page_shows_hostile_texts_as_texts(visit, samples, make, tmp_path):
    samples.write_hostile(tmp_path / "results")
    page = visit(make(tmp_path / "results", tmp_path / "board.html", "--single", code=1)).page
    assert is_harmless(page)
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert is_harmless(page)
    ids = page.eval_on_selector_all("details.cell", "all => all.map(details => details.dataset.cell)")
    for left, right in zip(ids[::24], ids[1::24], strict=False):
        page.evaluate("text => { location.hash = text; }", f"compare={left},{right}")
        page.wait_for_selector("#compare-result table")
        assert is_harmless(page)


def test_urls_cannot_inject_code(visit, hostile, samples):
    for name in ("index", "compare"):
        page = visit(Path(hostile.parent / f"{name}.html")).page
        for text in list(samples.HOSTILE.values())[:8]:
            for prefix in ("", "q=", "pick=", "score.a="):
                page.evaluate("text => { location.hash = text; }", prefix + text[:500])
        page.wait_for_timeout(200)
        assert is_harmless(page)
