"""The HTML page: self-contained, escaped, complete, and working in a real browser where there is one."""

import html as html_text
import importlib.util
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from privbench import load_records
from privbench.benchmark.record import save
from privbench.benchmark.records import Records
from privbench.benchmark.report import charts
from privbench.benchmark.report.page import html

_spec = importlib.util.spec_from_file_location("samples", Path(__file__).with_name("samples.py"))
samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(samples)
make_record, make_score = samples.make_record, samples.make_score

VOID = {"meta", "link", "br", "img", "input"}
SHAPES = {"line", "rect", "circle", "polyline", "image", "use", "path"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Elements with their attributes; every element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in SHAPES
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def together(*records) -> Records:
    return Records(records, tuple(Path(f"{record.key}.json") for record in records))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory) -> Records:
    folder = tmp_path_factory.mktemp("results")
    samples.save_matrix(folder, seeds=2, attacks=("gmi", "kedmi"))
    undefined = {"fid_judge": make_score("fid_judge", None, "fewer images than features")}
    save(make_record(protocol="mnist/v1", budget="smoke", scores=undefined), folder)
    return load_records(folder)


def hostile() -> Records:
    attack, close = samples.HOSTILE, "</script></style></svg></title><img src=x onerror=alert(1)>"
    score = make_score("attack_acc", 0.5, notes=[attack + close], spreads={attack: 0.1}, per_class=[0.5], chance=0.1)
    score["definition"] |= {"title": attack, "formula": close, "range": attack}
    record = make_record(
        scores={
            "attack_acc": score,
            "accuracy": make_score("accuracy", 0.9, notes=[samples.RIGHT_TO_LEFT]),
            "fid_judge": make_score("fid_judge", None, attack + close + "x" * 100_000),
        },
        command=["privbench", attack, close],
        not_run={attack: close},
        queries={attack: 1},
        judge={attack: {close: [attack]}, "test_accuracy": attack},
        curves={attack: {close: {attack: [[0, 1.0], [1, None], [2, 3.0]]}}},
        flags=[{"name": attack, "message": close}],
        changed={"defense": {"recipe": {"learning_rate": 0.1}}},
    )
    return Records((record,), (Path("x.json"),), (f"{attack} is no record",))


def test_nothing_is_fetched(matrix):
    text = html(matrix)
    page = Page(text)
    addresses = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("src", "href", "srcset", "action", "data")
        if name in attributes
    ]
    assert addresses
    assert all(address.startswith(("#", "data:image/png;base64,", "data:,")) for address in addresses)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest", text)
    policy = next(attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_hostile_text_is_only_text():
    text = html(hostile())
    page = Page(text)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not page.all("img")
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "style"
    ]
    assert text.count("<script>") == 1
    assert samples.HOSTILE in page.text
    assert "{{7*7}}" in page.text
    assert "x" * 500 not in text
    assert "\u202e" not in text


def test_numbers_of_the_page_are_those_of_the_records(matrix):
    page = Page(html(matrix))
    for row in matrix.wide_rows():
        for name in ("accuracy", "attack_acc"):
            if row.get(name) is None:
                continue
            assert f"{100 * row[name]:.1f}" in page.text
            assert f"[{100 * row[f'{name}.low']:.1f}, {100 * row[f'{name}.high']:.1f}]" in page.text
            assert f"n {row[f'{name}.n']:,}" in page.text
    for word in ("budget quick", "budget smoke", "chance 10.0", "fewer images than features", "test_accuracy: 98.7 %"):
        assert word in page.text


def test_every_cell_can_be_linked_and_run_again(matrix):
    page = Page(html(matrix))
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] for attributes in page.all("a")]
    assert {f"#cell-{record.key}" for record in matrix} <= set(links)
    assert all(link[1:] in anchors for link in links)
    assert len(anchors) == sum("id" in attributes for _, attributes in page.elements)
    for record in matrix:
        assert " ".join(record.command) in page.text
        assert record.artifacts["target"].digest in page.text


def test_one_seed_has_no_spread_over_seeds():
    page = Page(html(together(make_record())))
    assert not re.search(r"n [0-9,]+, s ", page.text)
    assert re.search(r"n [0-9,]+, s ", Page(html(together(make_record(), make_record(seed=1)))).text)


def test_pictures_are_embedded_once_and_named(matrix):
    page = Page(html(matrix))
    images = page.all("image")
    assert len(images) == sum(record.picture is not None for record in matrix) == 16
    assert {attributes["href"] for attributes in page.all("use")} == {f"#{image['id']}" for image in images}
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in page.all("svg"))


def test_lost_picture_is_said(tmp_path):
    path = save(make_record(picture=True), tmp_path, samples.random_picture())
    path.with_suffix(".png").unlink()
    assert f"{path.stem}.png is not beside the record" in Page(html(load_records(tmp_path))).text


def test_equal_records_give_equal_pages(matrix):
    assert html(matrix) == html(matrix)


def test_records_without_scores_still_have_a_page():
    page = Page(html(together(make_record(scores={}))))
    assert "fid_inception did not run" in page.text


def test_definitions_are_those_of_the_records(matrix):
    page = Page(html(matrix))
    for definition in {score.definition for record in matrix for score in record.scores.values()}:
        assert definition.formula in page.text
        assert definition.range in page.text


def test_fifty_cells_take_less_than_two_seconds(tmp_path):
    samples.save_matrix(tmp_path, seeds=5)
    began = time.process_time()
    records = load_records(tmp_path)
    html(records)
    assert len(records) == 60
    assert time.process_time() - began < 2


def test_front_is_what_nothing_dominates():
    gains = [(1.0, 1.0), (2.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 0.4)]
    assert charts.pareto(gains) == [True, True, False, True, False]


def test_panels_place_points_where_their_values_are(matrix):
    section = matrix.sections()[0]
    utility, leakage = section.columns[:2]
    panel = charts.panels(section, utility, leakage)[0]
    assert panel.attack == "gmi"
    order = {row.defense: row.scores for row in section.rows if row.attack == "gmi"}
    points = {point.label: point for point in panel.points}
    assert set(points) == set(order)
    by_leak = sorted(order, key=lambda name: order[name][leakage.name].value)
    assert [points[name].x for name in by_leak] == sorted(point.x for point in panel.points)
    by_use = sorted(order, key=lambda name: -order[name][utility.name].value)
    assert [points[name].y for name in by_use] == sorted(point.y for point in panel.points)
    assert all(0 <= point.x <= charts.WIDTH and 0 <= point.y <= charts.HEIGHT for point in panel.points)
    ticks = panel.x_ticks
    assert len(ticks) >= 2
    first, last = ticks[0], ticks[-1]
    per_percent = (last.at - first.at) / (float(last.label) - float(first.label))
    value = 100 * order["none"][leakage.name].value
    assert points["none"].x == pytest.approx(first.at + (value - float(first.label)) * per_percent, abs=0.5)


def in_browser(text: str, path: Path, script: str = "", *flags: str) -> str:
    """The page's DOM after its scripts ran; `script` runs after them, with the policy taken out."""
    if script:
        text = re.sub(r"<meta http-equiv.*?>", "", text).replace("</body>", f"<script>{script}</script></body>")
    path.write_text(text, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", *flags]
    command += [f"--user-data-dir={path.parent / 'profile'}", "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    problems = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert problems == []
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_browser_runs_the_page_under_its_policy(matrix, tmp_path):
    dom = in_browser(html(matrix), tmp_path / "page.html")
    assert re.search(r'<button type="button" id="theme">(Dark|Light)</button>', dom)
    assert 'disabled=""' not in dom
    hostile_dom = in_browser(html(hostile()), tmp_path / "hostile.html")
    assert hostile_dom.count("<script>") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_browser_sorts_filters_and_opens(matrix, tmp_path):
    script = """
      const table = document.querySelector("table.board");
      const header = table.tHead.rows[0].cells[4];
      const column = () => [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[4].dataset.value);
      const found = {};
      header.querySelector("button").click(); found.up = column(); found.sort1 = header.getAttribute("aria-sort");
      header.querySelector("button").click(); found.down = column(); found.sort2 = header.getAttribute("aria-sort");
      const field = document.querySelector("input[data-filter]");
      field.value = "MID gmi"; field.dispatchEvent(new Event("input")); found.kept = column().length;
      found.status = document.querySelector("[data-count]").textContent;
      const select = document.querySelector("select[data-panels]");
      select.value = "1"; select.dispatchEvent(new Event("change"));
      found.panels = [...document.querySelectorAll('.panels[data-of="s0"]')].map((p) => p.hidden);
      location.hash = "#cell-KEY";
      dispatchEvent(new Event("hashchange"));
      found.open = document.querySelectorAll("details[open]").length;
      document.getElementById("theme").click(); found.theme = document.documentElement.dataset.theme;
      found.wide = document.documentElement.scrollWidth <= innerWidth;
      const out = document.createElement("pre"); out.id = "found"; out.textContent = JSON.stringify(found);
      document.body.append(out);
    """
    key = next(record.key for record in matrix if record.protocol == "digits/v1")
    dom = in_browser(html(matrix), tmp_path / "page.html", script.replace("KEY", key), "--window-size=500,900")
    found = json.loads(html_text.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom).group(1)))
    values = [float(value) for value in found["up"]]
    assert values == sorted(values)
    assert len(values) == 8
    assert [float(value) for value in found["down"]] == values[::-1]
    assert (found["sort1"], found["sort2"]) == ("ascending", "descending")
    assert (found["kept"], found["status"]) == (1, "1 of 8 rows")
    assert found["panels"] == [True, False]
    assert found["open"] == 1
    assert found["theme"] in ("dark", "light")
    assert found["wide"]
