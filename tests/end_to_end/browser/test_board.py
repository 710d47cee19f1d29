"""Tests of sorting, filtering, linking and comparing on the report."""

import json
import math
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from helpers.samples import make_record, make_score
from privbench import load_records
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.records.record import Record
from privbench.benchmark.report.html.cell_pages import command_of
from privbench.benchmark.report.html.pages import render_folder

COMMITTED = Path(__file__).resolve().parents[3] / "results"
TEXT_COLUMNS = {"group", "defense", "attack"}

#: The first text of each cell of the visible rows of a table, in order.
ROWS = """table => [...table.tBodies[0].rows].filter(row => row.getClientRects().length).map(row =>
  [...row.cells].map(cell => {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) if (walker.currentNode.data.trim()) return walker.currentNode.data.trim();
    return "";
  }))"""
#: The section with the most rows.
LARGEST = """() => [...document.querySelectorAll("section.board")].reduce((a, b) =>
  b.querySelectorAll("table.rows tbody tr").length > a.querySelectorAll("table.rows tbody tr").length ? b : a).id"""
#: Presses each header of a table twice. Returns its index and column and, after each press, the state of all headers,
#: whether no row was lost, and the values of the column.
CLICKS = """table => {
  const read = () => (ROWS)(table);
  const together = (rows) => rows.map((row) => row.join("|")).sort().join();
  const before = together(read());
  const headers = [...table.tHead.rows[0].cells];
  const press = (cell) => {
    cell.querySelector("button").click();
    const [states, rows] = [headers.map((each) => each.getAttribute("aria-sort")), read()];
    return [states, together(rows) === before, rows.map((row) => row[cell.cellIndex])];
  };
  return headers.filter((cell) => cell.querySelector("button")).map((cell) =>
    [cell.cellIndex, cell.dataset.column, [press(cell), press(cell)]]);
}"""
DIRECTIONS = (("ascending", 1), ("descending", -1))
#: Whether texts are in alphabetical order, or for -1 in the reverse order.
ORDERED = "([texts, sign]) => texts.every((text, i) => !i || sign * texts[i - 1].localeCompare(text) <= 0)"
#: The visible rows, leaderboards and plots, and the state of the controls.
VIEW = """() => {
  const seen = (element) => element.getClientRects().length > 0;
  return {
    rows: [...document.querySelectorAll("tbody tr")].filter(seen).map((row) => row.textContent),
    rankings: [...document.querySelectorAll(".ranking")].filter(seen).map((each) => each.id),
    panels: [...document.querySelectorAll(".panel")].filter(seen).map((each) => each.dataset.attack),
    sorted: [...document.querySelectorAll("th[aria-sort]:not([aria-sort=none])")].map((each) => each.textContent),
    chosen: [...document.querySelectorAll("#filter [name], [data-choose]")].map((each) => each.value),
  };
}"""


class Addresses(HTMLParser):
    """All links of a page, and all names that a link can end in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if (name in ("href", "src") or (tag, name) == ("option", "data-page")) and value:
                self.addresses.append(value)
            if name == "id" and value:
                assert value not in self.names
                self.names.add(value)


def number(text: str) -> float:
    """The first number in the text; infinite where there is none."""
    found = re.search(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", text)
    return float(found[0].replace(",", "")) if found else math.inf


def wait_until(page, condition: str) -> None:
    """Wait until an expression is true; the page's policy blocks `wait_for_function` of playwright."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"{condition} does not hold")


def rows_of(page, table: str) -> list[list[str]]:
    return page.eval_on_selector(f"#{table}", ROWS)


def filter_values(record: Record) -> dict[str, str]:
    """The values of a record that filters use."""
    cell = record.cell
    return {"defense": cell.defense.name, "attack": cell.attack.name, "budget": cell.budget}


def cells_of(board: Path) -> list[Path]:
    return sorted((board.parent / "cells").glob("*.html"))


def test_every_page_opens_from_a_file_and_from_a_server(visit, board, serve):
    names = ["index.html", "definitions.html", f"cells/{cells_of(board)[0].name}"]
    root = serve(board.parent)
    for name in names:
        from_file, from_server = visit(board.parent / name).page, visit(f"{root}/{name}").page
        assert from_file.title() == from_server.title() != ""
        assert from_file.inner_text("main") == from_server.inner_text("main") != ""
        assert from_file.evaluate("getComputedStyle(document.querySelector('h1, h2')).fontWeight") == "700"


def test_requests_messages_and_errors_are_detected(visit, board):
    seen = visit(board)
    seen.page.evaluate("() => { fetch('https://example.org/x').catch(() => 0); console.log('hello'); }")
    seen.page.evaluate("() => { setTimeout(() => { throw new Error('broken'); }); setTimeout(() => alert(1), 10); }")
    seen.page.wait_for_timeout(300)
    noticed = " ".join(seen.problems)
    assert all(word in noticed for word in ("Content Security Policy", "console log: hello", "broken", "dialog 1"))
    seen.problems.clear()


def test_two_hundred_cells_take_at_most_two_megabytes(samples, tmp_path):
    samples.write_many(tmp_path, 200)
    name, content = next(render_folder(load_records(tmp_path)))
    assert name == "index.html"
    assert len(content) <= 2_000_000


def test_every_link_of_every_page_resolves(board):
    pages = {path: Addresses(path) for path in board.parent.rglob("*.html")}
    assert len(pages) >= len(cells_of(board)) + 4
    links = 0
    for path, page in pages.items():
        for address in page.addresses:
            if address.startswith(("https://", "data:")):
                continue
            file, anchor = urldefrag(address)
            target = (path.parent / unquote(file)).resolve() if file else path
            assert target.is_file(), f"{path.name} links to {address}"
            if anchor:
                assert anchor in pages[target].names, f"{path.name} links to {address}"
            links += 1
    assert links > 10 * len(pages)


def test_every_link_of_the_single_page_resolves(single):
    page = Addresses(single)
    inside = [address for address in page.addresses if not address.startswith(("https://", "data:"))]
    assert len(inside) > 100
    assert [address for address in inside if address[1:] not in page.names] == []


def test_records_can_be_reached_from_the_index(visit, board):
    page = visit(board).page
    found = page.eval_on_selector_all("table.rows a", "links => links.map(link => link.href)")
    keys = {record.key[:16] for record in load_records(COMMITTED)}
    assert {Path(unquote(address)).stem for address in found} == keys
    assert set(page.eval_on_selector_all("input[data-pick]", "boxes => boxes.map(box => box.dataset.pick)")) == keys
    for key in keys:
        assert (board.parent / "cells" / f"{key}.html").is_file()


def is_sorted(page, column: str, order: list[str], sign: int) -> bool:
    """Tell whether the values of a column are sorted, missing ones last, and texts alphabetically."""
    if column in TEXT_COLUMNS:
        known = [text for text in order if text != "–"]
        return order == known + ["–"] * (len(order) - len(known)) and page.evaluate(ORDERED, [known, sign])
    values = [number(text) for text in order]
    known = sorted((value for value in values if value < math.inf), reverse=sign < 0)
    return values == known + [math.inf] * (len(values) - len(known))


def test_every_header_sorts_in_both_directions_with_missing_values_last(visit, varied):
    page = visit(varied[0]).page
    section = page.evaluate(LARGEST)
    page.evaluate("id => document.querySelectorAll('section.board').forEach(s => s.id === id || s.remove())", section)
    wrong = []
    for table in (f"{section}-verified_acc-leaders", f"{section}-rows"):
        clicks = page.eval_on_selector(f"#{table}", CLICKS.replace("ROWS", ROWS))
        assert len(clicks) > 6
        for at, column, presses in clicks:
            for (states, complete, order), (direction, sign) in zip(presses, DIRECTIONS, strict=True):
                assert complete
                assert len(order) > 3
                assert states[at] == direction
                assert {state for i, state in enumerate(states) if i != at} <= {"none", None}
                if not is_sorted(page, column, order, sign):
                    wrong.append((table, column, direction, order[:14]))
    assert wrong == []


def test_ranks_are_sorted_by_rank_and_not_by_rank_set(visit, varied):
    page = visit(varied[0]).page
    table = f"#{page.evaluate(LARGEST)}-verified_acc-leaders"
    changed = "all => all.forEach((set, i) => { set.textContent = i % 2 ? '9–20' : '10–12'; })"
    page.eval_on_selector_all(f"{table} td.rank .sub", changed)
    page.eval_on_selector_all(f"{table} thead button", "all => [all[4], all[0]].forEach(button => button.click())")
    ranks = page.eval_on_selector_all(f"{table} td.rank b", "all => all.map(rank => Number(rank.textContent))")
    assert ranks == sorted(ranks)
    assert len(ranks) > 3


def test_a_header_is_pressed_with_the_mouse(visit, board):
    page = visit(board).page
    header = page.locator("table.rows th[data-column=accuracy]").first
    table = header.evaluate("cell => cell.closest('table').id")
    for direction, sign in DIRECTIONS:
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == direction
        at = header.evaluate("cell => cell.cellIndex")
        assert is_sorted(page, "accuracy", [row[at] for row in rows_of(page, table)], sign)


def test_filters_narrow_restore_and_are_in_the_url(visit, varied):
    index, records = varied
    page = visit(index).page
    everything = page.evaluate(VIEW)
    for choices in (
        {"defense": "bido_hsic"},
        {"attack": "kedmi"},
        {"budget": "full"},
        {"defense": "none", "attack": "gmi", "budget": "quick"},
    ):
        for name, value in choices.items():
            page.select_option(f"#filter [name={name}]", value)
        wait_until(page, "document.getElementById('filter-status').textContent !== ''")
        shown = page.evaluate(
            "[...document.querySelectorAll('table.rows tbody a:not(.flagged)')]"
            ".filter(link => link.getClientRects().length).map(link => link.href)"
        )
        kept = {record.key[:16] for record in records if choices.items() <= filter_values(record).items()}
        assert {Path(unquote(address)).stem for address in shown} == kept
        if len(choices) > 1:
            again = visit(page.url).page
            assert again.evaluate(VIEW) == page.evaluate(VIEW) != everything
        page.click("#filter [type=reset]")
        wait_until(page, "document.getElementById('filter-status').textContent === ''")
        assert page.evaluate(VIEW) == everything


def test_seeds_and_words_filter_too(visit, varied):
    index, records = varied
    page = visit(index).page
    page.select_option("#filter [name=seeds]", "3")
    wait_until(page, "document.getElementById('filter-status').textContent !== ''")
    seeds = [len(row.seeds) for section in records.sections() for row in section.rows]
    shown = page.evaluate(
        "[...document.querySelectorAll('table.rows tbody tr')].filter(r => r.getClientRects().length).length"
    )
    assert shown == sum(count >= 3 for count in seeds) > 0
    assert f"{shown} of {len(seeds)} rows" in page.inner_text("#filter-status")
    page.fill("#filter [name=q]", "kedmi MID")
    wait_until(page, "location.hash.includes('q=kedmi')")
    page.wait_for_timeout(50)
    rows = [row for row in page.evaluate(VIEW)["rows"] if "kedmi" in row]
    assert rows
    assert all(row.strip("–\n ").startswith("mid") for row in rows)
    assert visit(page.url).page.evaluate(VIEW) == page.evaluate(VIEW)


def test_the_url_has_score_order_and_filter(visit, board):
    page = visit(board).page
    section = page.get_attribute("section.board", "id")
    choice = page.locator(f"select[data-choose='{section}']")
    values = choice.evaluate("select => [...select.options].map(option => option.value)")
    assert len(values) > 1
    shown = f".ranking[data-of='{section}']"
    for value in values:
        choice.select_option(value)
        visible = page.eval_on_selector_all(
            shown, "all => all.filter(each => each.getClientRects().length).map(each => each.dataset.score)"
        )
        assert visible == [value]
    choice.select_option(values[1])
    page.click(f"#{section}-{values[1]}-leaders th[data-column=defense] button")
    page.click(f"#{section}-rows th[data-column=accuracy] button")
    page.click(f"#{section}-rows th[data-column=accuracy] button")
    page.select_option("#filter [name=attack]", "kedmi")
    page.wait_for_timeout(50)
    again = visit(page.url).page
    view = again.evaluate(VIEW)
    assert view == page.evaluate(VIEW)
    assert len(view["sorted"]) == 2
    assert values[1] in view["chosen"]
    assert again.get_attribute(f"#{section}-rows th[data-column=accuracy]", "aria-sort") == "descending"


def test_a_link_to_a_row_shows_it(visit, board):
    page = visit(board).page
    row = page.eval_on_selector_all("table.rows tbody tr[id]", "rows => rows.at(-1).id")
    linked = visit(f"{board.as_uri()}#{row}").page
    box = linked.locator(f"#{row}").bounding_box()
    assert 0 <= box["y"] <= 900


def test_a_point_of_the_plot_links_to_its_cell(visit, board):
    page = visit(board).page
    point = page.locator(".ranking.chosen .panel a").first
    title, address = point.locator("title").text_content(), point.get_attribute("href")
    point.locator("circle").hover()
    point.locator("circle").click()
    page.wait_for_url("**/cells/*.html")
    assert page.url.endswith(address)
    assert title.split(":")[0].split(",")[0] in page.inner_text("h1")
    key = Path(address).stem
    record = next(record for record in load_records(COMMITTED) if record.key.startswith(key))
    text = page.inner_text("main")
    assert record.key in text
    assert shlex.join(command_of(record)) in " ".join(text.split())
    page.click("nav.crumbs a")
    page.wait_for_url("**/index.html#*")


@pytest.fixture(params=["folder", "server", "single"])
def index_url(request, board: Path, single: Path, serve: Callable[[Path], str]) -> str:
    """The URL of the index as a file, from a server, and of the single page."""
    if request.param == "single":
        return single.as_uri()
    return board.as_uri() if request.param == "folder" else f"{serve(board.parent)}/index.html"


def verdict_on(left, right):
    if not left.interval or not right.interval:
        return "no intervals to compare"
    if left.interval[0] <= right.interval[1] and right.interval[0] <= left.interval[1]:
        return "intervals overlap"
    best = (max if left.definition.better == "higher" else min)((left, right), key=lambda score: score.value)
    side = "left" if best is left else "right"
    return f"intervals do not overlap; {side} is better for the defender"


def test_two_cells_are_compared(visit, index_url):
    records = {record.key[:16]: record for record in load_records(COMMITTED)}
    page = visit(index_url).page
    assert not page.is_visible("#compare-bar")
    mnist = [
        key for key, record in records.items() if (record.protocol, record.cell.attack.name) == ("mnist/v1", "kedmi")
    ]
    left, right = mnist[0], mnist[-1]
    for key in (left, right):
        page.check(f"table.rows input[data-pick='{key}']")
    page.click("#compare-go")
    page.wait_for_selector("#compare-result table")
    sides = page.eval_on_selector_all(".side h3", "all => all.map(side => side.textContent)")
    for side, key in zip(sides, (left, right), strict=True):
        cell = records[key].cell
        assert all(word in side for word in (cell.defense.name, cell.attack.name, f"seed {cell.seed}"))
    assert (
        page.evaluate(
            "Promise.all([...document.querySelectorAll('.side img')].map(i => i.decode())).then(all => all.length)"
        )
        == 2
    )
    rows = rows_of(page, "compare-result table")
    assert len(rows) == len(records[left].scores.keys() | records[right].scores.keys()) > 3
    for title, _, _, shown, verdict in rows:
        a, b = (
            next(s for s in records[k].scores.values() if title.startswith(f"{s.definition.title} "))
            for k in (left, right)
        )
        if a.value is None or b.value is None:
            assert (shown, verdict) == ("–", "cannot be compared")
            continue
        unit = a.definition.unit
        digits = {"fraction": 1, "similarity": 3, "decibel": 2}.get(unit)
        difference = (b.value - a.value) * (100 if unit == "fraction" else 1)
        error = 0.5 * 10**-digits if digits else 5e-4 * abs(difference)
        assert float(shown.replace("−", "-").replace(",", "")) == pytest.approx(difference, abs=error * 1.0001)
        assert verdict == verdict_on(a, b)
    again = visit(page.url).page
    again.wait_for_selector("#compare-result table")
    assert again.inner_text("#compare-result") == page.inner_text("#compare-result")


@pytest.mark.parametrize(("better", "side"), [("higher", "left"), ("lower", "right")])
def test_the_better_of_two_cells_follows_the_direction_of_the_score(visit, tmp_path, better, side):
    records = []
    for defense, value in (("none", 0.8), ("mid", 0.2)):
        score = make_score("attack_acc", value, interval=[value - 0.05, value + 0.05])
        score["definition"]["better"] = better
        records.append(make_record(defense, scores={"attack_acc": score}))
    for name, content in render_folder(Records(tuple(records), (Path("a.json"), Path("b.json")))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    left, right = (record.key[:16] for record in records)
    page = visit(f"{(tmp_path / 'compare.html').as_uri()}#{left},{right}").page
    page.wait_for_selector("#compare-result table")
    ((*_, verdict),) = rows_of(page, "compare-result table")
    assert verdict == f"intervals do not overlap; {side} is better for the defender"


def test_cells_that_are_not_comparable_are_marked(visit, board):
    records = load_records(COMMITTED)
    digits, mnist = (next(r.key[:16] for r in records if r.protocol == name) for name in ("digits/v1", "mnist/v1"))
    page = visit(f"{(board.parent / 'compare.html').as_uri()}#{digits},{mnist}").page
    page.wait_for_selector("#compare-result table")
    assert "not comparable" in page.inner_text("#compare-result .flag")
    for strange in ("0123456789abcdef,fedcba9876543210", "x,y", "../../x,../y", "<img>,,"):
        seen = visit(board.parent / "compare.html")
        seen.page.evaluate("text => { location.hash = text; }", strange)
        seen.page.wait_for_timeout(100)
        assert seen.page.locator("#compare-result > *").count() == 0
        if strange.startswith("0"):
            assert "no cell" in seen.page.inner_text("#compare-status")
            assert all("ERR_FILE_NOT_FOUND" in problem or "failed request" in problem for problem in seen.problems)
            seen.problems.clear()


def test_a_cell_is_selected_on_its_own_page(visit, board):
    page = visit(cells_of(board)[0]).page
    page.click("a.find-other")
    page.wait_for_url("**/index.html**")
    page.wait_for_selector("#compare-bar")
    assert page.is_checked(f"input[data-pick='{cells_of(board)[0].stem}']")
    page.click("#compare-bar .drop")
    assert not page.is_visible("#compare-bar")


def test_pictures_load_when_they_come_into_view(visit, board):
    page = visit(board).page
    pictures = page.locator(".gallery img")
    assert pictures.count() > 4
    assert set(pictures.evaluate_all("all => all.map(image => image.loading)")) == {"lazy"}
    last = pictures.last
    last.scroll_into_view_if_needed()
    wait_until(page, "[...document.querySelectorAll('.gallery img')].at(-1).naturalWidth > 0")
    ratio = last.evaluate("image => image.width / image.height - image.naturalWidth / image.naturalHeight")
    assert abs(ratio) < 0.1


def test_definitions_are_those_of_the_records(visit, board):
    text = " ".join(visit(board.parent / "definitions.html").page.inner_text("main").split())
    definitions = {score.definition for record in load_records(COMMITTED) for score in record.scores.values()}
    for definition in definitions:
        for part in (definition.title, definition.range, " ".join(definition.formula.split())):
            assert part in text


def test_published_values_are_beside_ours(visit, board):
    page = visit(board.parent / "published.html").page
    assert page.locator("table.published").count() > 0
    heads = page.eval_on_selector_all("table.published thead", "all => all.map(head => head.innerText)")
    assert all("Published" in head and "Ours" in head for head in heads)
    rows = page.eval_on_selector_all("table.published tbody tr", "all => all.map(row => row.innerText)")
    assert all(re.search(r"\d", row) for row in rows)
    for address in page.eval_on_selector_all("main a[href^=http]", "all => all.map(link => link.href)"):
        assert address.startswith("https://")


def test_the_theme_is_kept(visit, board, serve):
    root = serve(board.parent)
    page = visit(f"{root}/index.html", color_scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("#theme")
    dark = page.evaluate(background)
    assert dark != light
    page.goto(f"{root}/definitions.html")
    assert page.evaluate(background) == dark
    page.click("#theme")
    assert page.evaluate(background) == light


def test_a_command_can_be_copied(visit, board):
    seen = visit(cells_of(board)[0])
    seen.page.click(".copy")
    wait_until(seen.page, "document.querySelector('.copy').textContent !== 'Copy'")
    command = seen.page.text_content(".command code")
    assert command.startswith("privbench run ")


@pytest.mark.parametrize("strange", ["%E0%A4%A&sort.x=y.up&score.x=<b>&pick=../x", "sort.constructor=a.up&&==&a=b=c"])
def test_an_invalid_url_changes_nothing(visit, board, strange):
    page = visit(f"{board.as_uri()}#{strange}").page
    assert page.locator("table.rows tbody tr:visible").count() > 0
    for part in (*strange.split("&"), "%", "&", "=", "q=%00", "sort.digits-v1-quick-rows=__proto__.up", "compare=a,b"):
        page.evaluate("text => { location.hash = text; }", part)
        page.wait_for_timeout(20)
    page.evaluate("location.hash = ''")
    wait_until(page, "[...document.querySelectorAll('table.rows tbody tr')].every(row => row.getClientRects().length)")


def test_cells_show_the_numbers_of_their_records(visit, board):
    record = next(record for record in load_records(COMMITTED) if "attack_acc" in record.scores)
    seen = visit(board.parent / "cells" / f"{record.key[:16]}.html")
    rows = seen.page.eval_on_selector("table.scores", ROWS)
    shown = {row[0].split(" ↑")[0].split(" ↓")[0]: row for row in rows}
    for score in record.scores.values():
        row = shown[score.definition.title]
        unit = 100 if score.definition.unit == "fraction" else 1
        assert number(row[3]) == score.n
        if score.value is None:
            assert row[1] == "n/a"
        else:
            assert number(row[1]) == pytest.approx(unit * score.value, rel=1e-3, abs=0.051)
    data = (board.parent / "cells" / f"{record.key[:16]}.js").read_text(encoding="utf-8")
    assert json.loads(data[data.index("(") + 1 : data.rindex(")")])["id"] == record.key[:16]
