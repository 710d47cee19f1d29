"""Tests of the HTML report: self-contained, escaped, complete, with stable links."""

import json
import re
import shlex
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import samples
from privbench import load_records
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.errors import StorageError
from privbench.benchmark.records.record import save
from privbench.benchmark.report.html import charts, output_folder, permalinks, tradeoff_svg
from privbench.benchmark.report.html.cell_pages import command_of
from privbench.benchmark.report.html.pages import render_folder, render_single_page
from privbench.benchmark.report.tradeoff import pareto

make_record, make_score = samples.make_record, samples.make_score

VOID = {"meta", "link", "br", "img", "input", "wbr"}
SHAPES = {"line", "rect", "circle", "polyline"}
CLOSE = "</script></style></svg></title><img src=x onerror=alert(1)>"


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
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def text(self) -> str:
        """Visible text; a position where a line may break adds no space."""
        return " ".join("".join(self.words).split())


def together(*records) -> Records:
    return Records(records, tuple(Path(f"{record.key}.json") for record in records))


def hostile(text: str = samples.HOSTILE) -> Records:
    score = make_score("attack_acc", 0.5, notes=[text + CLOSE], spreads={text: 0.1}, per_class=[0.5], chance=0.1)
    score["definition"] |= {"title": text, "formula": CLOSE, "range": text}
    record = make_record(
        scores={
            "attack_acc": score,
            "accuracy": make_score("accuracy", 0.9, notes=[samples.RIGHT_TO_LEFT]),
            "fid_judge": make_score("fid_judge", None, text + CLOSE + "x" * 100_000),
        },
        command=["privbench", text, CLOSE],
        not_run={text: {"code": "unavailable", "reason": CLOSE}},
        queries={text: 1},
        judge={text: {CLOSE: [text]}, "test_accuracy": text},
        curves={text: {CLOSE: {text: [[0, 1.0], [1, None], [2, 3.0]]}}},
        flags=[{"name": text, "message": CLOSE}],
        costs={text: {"seconds": 1.0}},
        changed={"defense": {"recipe": {"learning_rate": 0.1}}, "dataset": {text: text}},
    )
    return Records((record,), (Path("x.json"),), (f"{text} is no record",))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory) -> Records:
    folder = tmp_path_factory.mktemp("results")
    samples.save_matrix(folder, seeds=3, attacks=("gmi", "kedmi"))
    undefined = {"fid_judge": make_score("fid_judge", None, "fewer images than features")}
    save(make_record(protocol="mnist/v1", budget="smoke", scores=undefined), folder)
    return load_records(folder)


@pytest.fixture(scope="module")
def files(matrix) -> dict[str, bytes]:
    return dict(render_folder(matrix))


def pages(files: dict[str, bytes]) -> dict[str, Page]:
    return {name: Page(content.decode()) for name, content in files.items() if name.endswith(".html")}


def policy(page: Page) -> str:
    return next(attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes)


def test_nothing_is_fetched_from_elsewhere(files, matrix):
    for page in [*pages(files).values(), Page(render_single_page(matrix))]:
        loading = [
            attributes[name]
            for tag, attributes in page.elements
            for name in ("src", "srcset", "action", "data", "href")
            if name in attributes and tag != "a"
        ]
        assert loading
        assert not [address for address in loading if re.match(r"([a-z]+:)?//|[a-z]+:(?!image/png;base64,|,)", address)]
        assert policy(page).startswith("default-src 'none'")
        assert "unsafe" not in policy(page)
    for name in ("board.css", "board.js"):
        assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest", files[name].decode())


def test_links_resolve(files):
    found = pages(files)
    for name, page in found.items():
        for link in page.all("a"):
            address, _, anchor = link["href"].partition("#")
            if address.startswith("https://"):
                continue
            target = (Path(name).parent / address).as_posix() if address else name
            target = re.sub(r"^\w+/\.\./", "", target)
            assert target in files, f"{name} links to {address}"
            assert not anchor or anchor in found[target].ids, f"{name} links to {link['href']}"
        assert len(set(page.ids)) == len(page.ids)


def test_links_of_the_single_page_resolve(matrix):
    page = Page(render_single_page(matrix))
    assert len(set(page.ids)) == len(page.ids)
    own = [link["href"] for link in page.all("a") if not link["href"].startswith("https://")]
    assert all(address.startswith("#") and address[1:] in page.ids for address in own)


@pytest.mark.parametrize("text", [samples.HOSTILE, samples.RIGHT_TO_LEFT, "\u2028</script>\u2029<!--<script>"])
def test_hostile_text_is_only_text(text):
    files = dict(render_folder(hostile(text)))
    single = render_single_page(hostile(text))
    found = [*pages(files).values(), Page(single)]
    for page in found:
        assert not [
            name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "style"
        ]
        assert all(
            image["src"].startswith(("../pictures/", "pictures/", "data:image/png")) for image in page.all("img")
        )
        assert len(page.all("script")) == (2 if page is found[-1] else 1)
    cell = next(page for name, page in zip(pages(files), found, strict=False) if name.startswith("cells/"))
    shown = "<script>alert(1)</script>" if text == samples.HOSTILE else "</script>"
    assert shown in cell.text
    for name, content in files.items():
        assert "\u202e" not in content.decode(errors="ignore") or name.endswith(".png")
        assert "x" * 500 not in content.decode(errors="ignore")
    assert "{{7*7}}" in Page(single).text or text != samples.HOSTILE


def test_data_for_comparing_cannot_end_its_script():
    files = dict(render_folder(hostile("\u2028</script>\u2029<!--")))
    content = next(content.decode() for name, content in files.items() if re.match(r"cells/.*\.js$", name))
    assert not re.search("[<>&\u2028\u2029]", content)
    call = re.fullmatch(r"privbenchCell\((.*)\);\n", content)
    values = json.loads(call.group(1))
    assert values["flags"][0]["message"] == CLOSE
    assert values["scores"][0]["text"] == "90.0"


def test_numbers_of_the_index_are_those_of_the_records(files, matrix):
    index = Page(files["index.html"].decode()).text
    for row in matrix.wide_rows():
        for name in ("accuracy", "attack_acc"):
            if row.get(name) is not None:
                assert f"{100 * row[name]:.1f}" in index
                assert f"[{100 * row[f'{name}.low']:.1f}, {100 * row[f'{name}.high']:.1f}]" in index
    for word in ("budget quick", "budget smoke", "chance 10.0", "fewer images than features", "n = 3"):
        assert word in index


def test_leaderboards_show_ranks_as_computed(matrix):
    from privbench.benchmark.analysis.ranking import rankings

    section = next(each for each in matrix.sections() if each.protocol == "digits/v1")
    text = Page(dict(render_folder(matrix))["index.html"].decode()).text
    found = rankings(section)[0].standings
    assert [standing.rank for standing in found] == [1, 2, 3, 4]
    for standing in found:
        low, high = standing.rank_interval
        ranks = f"{low}–{high}" if high > low else str(low)
        pattern = f"{standing.rank}{re.escape(ranks)} ?{re.escape(standing.group)} ?{re.escape(standing.defense)}"
        assert re.search(pattern, text), pattern


def test_a_defense_without_an_attack_is_not_ranked():
    cells = [make_record(defense, attack) for defense in ("none", "mid") for attack in ("gmi", "kedmi", "vmi")]
    control = make_record("placebo", "gmi")
    text = index_text(*cells, make_record("bido_hsic", "gmi"), control)
    assert "bido_hsicnot ranked: kedmi was not run" in text
    assert "midnot ranked: 1 seed; a rank needs 3" in text
    assert "placebo control" in text
    assert "vminot in the suite" in text


def index_text(*records) -> str:
    return Page(dict(render_folder(together(*records)))["index.html"].decode()).text


def test_the_leaderboard_shows_distance_best_known_attack_and_what_an_interval_covers(matrix):
    text = Page(dict(render_folder(matrix))["index.html"].decode()).text
    frame = matrix.leaderboard()
    for _, row in frame[(frame["protocol"] == "digits/v1") & (frame["score"] == "attack_acc")].iterrows():
        assert f"{100 * row['best_known']:.1f}{row['best_known_attack']}" in text
        distance = f"{abs(100 * row['utility_distance']):.1f} points below none"
        assert row["defense"] == "none" or distance in text
    assert "3 trainings x 5 identities" in text
    assert "over 2 attacks of suite 1" in text


def test_every_cell_has_a_page_with_its_command(files, matrix):
    index = Page(files["index.html"].decode())
    links = {link["href"] for link in index.all("a")}
    for record in matrix:
        name = f"cells/{record.key[:16]}.html"
        assert name in links
        page = Page(files[name].decode())
        assert shlex.join(command_of(record)) in page.text
        assert record.key in page.text
        for artifact in record.artifacts.values():
            assert artifact.digest in page.text
        assert f"cells/{record.key[:16]}.js" in files
        for score in record.scores.values():
            assert score.value is None or f"{score.n:,}" in page.text


def test_one_seed_is_marked():
    index = Page(dict(render_folder(together(make_record())))["index.html"].decode()).text
    assert "n = 1" in index
    assert "n = 2" not in index


def test_pictures_are_files_that_load_lazily(files, matrix):
    pictured = [record for record in matrix if record.picture]
    assert {f"pictures/{record.key[:16]}.png" for record in pictured} == {
        name for name in files if name.startswith("pictures/")
    }
    for page in pages(files).values():
        for image in page.all("img"):
            assert image["loading"] == "lazy"
            assert int(image["width"]) > 0
            assert "alt" in image


def test_a_missing_picture_is_reported(tmp_path):
    path = save(make_record(picture=True), tmp_path, samples.random_picture())
    path.with_suffix(".png").unlink()
    assert (
        f"{path.stem}.png is missing from the folder of the record"
        in Page(render_single_page(load_records(tmp_path))).text
    )


def test_private_images_appear_only_on_request(matrix):
    plain = dict(render_folder(matrix))
    assert not [name for name in plain if name.startswith("private")]
    assert "private-warning" not in plain["index.html"].decode()
    first, second = matrix.items[:2]
    private = {first.key: samples.random_picture(), second.key: "the evidence is gone"}
    shown = dict(render_folder(matrix, private))
    assert [name for name in shown if name.startswith("private")] == [f"private/{first.key[:16]}.png"]
    assert all("private-warning" in page.ids for page in pages(shown).values())
    assert "No private images: the evidence is gone" in Page(shown[f"cells/{second.key[:16]}.html"].decode()).text


def test_equal_records_give_equal_bytes(matrix, files):
    assert dict(render_folder(matrix)) == files
    assert render_single_page(matrix) == render_single_page(matrix)


def test_records_without_scores_still_have_a_page():
    page = Page(render_single_page(together(make_record(scores={}))))
    assert "fid_inception did not run" in page.text
    assert "There is no ranking" in page.text


def test_definitions_are_those_of_the_records(files, matrix):
    text = Page(files["definitions.html"].decode()).text
    for definition in {score.definition for record in matrix for score in record.scores.values()}:
        assert definition.formula in text
        assert definition.range in text


def test_flags_are_explained_where_they_appear():
    from privbench.benchmark.analysis.flags import EXPLANATIONS

    flagged = make_record(flags=[{"name": "weak_judge", "message": "right on 50 %"}])
    files = dict(render_folder(together(flagged)))
    text = Page(files[f"cells/{flagged.key[:16]}.html"].decode()).text
    assert f"weak_judge: right on 50 % {EXPLANATIONS['weak_judge']}" in text
    definitions = Page(files["definitions.html"].decode()).text
    assert all(explanation in definitions for explanation in EXPLANATIONS.values())
    assert "1 flag" in Page(files["index.html"].decode()).text


def test_published_values_are_compared_with_matching_records_only(files):
    text = Page(files["published.html"].decode()).text
    assert "bido-table3" in text
    assert "privbench paper run xiao-table1" in text


def test_large_sections_have_a_page_for_every_further_score(monkeypatch, matrix):
    monkeypatch.setattr("privbench.benchmark.report.html.leaderboards.MAX_DEFENSES", 3)
    files = dict(render_folder(matrix))
    assert "boards/digits-v1-quick-attack_acc5.html" in files
    index = Page(files["index.html"].decode())
    assert "digits-v1-quick-attack_acc" in index.ids
    assert "digits-v1-quick-attack_acc5" not in index.ids
    test_links_resolve(files)


def test_the_index_of_two_hundred_cells_is_small(tmp_path):
    samples.save_matrix(tmp_path, seeds=17)
    records = load_records(tmp_path)
    start = time.process_time()
    files = dict(render_folder(records))
    assert len(records) == 204
    assert time.process_time() - start < 10
    assert len(files["index.html"]) < 500_000


def anchors(*records) -> dict[str, str]:
    sections = together(*records).sections()
    return {section.dataset: name for section, name in zip(sections, permalinks.section_anchors(sections), strict=True)}


def test_anchors_of_tables_do_not_depend_on_other_tables():
    plain = make_record()
    other = make_record(
        cell={"dataset": samples.choice("digits", judge={"epochs": 9})}, changed={"dataset": {"judge.epochs": 9}}
    )
    assert list(anchors(plain).values()) == ["digits-v1-quick"]
    (changed,) = anchors(other).values()
    assert re.fullmatch(r"digits-v1-quick-[0-9a-f]{6}", changed)
    assert sorted(anchors(plain, other).values()) == sorted(["digits-v1-quick", changed])


def test_the_oldest_configuration_keeps_the_short_anchor():
    earlier = make_record()
    newer = samples.choice("digits", 2, judge={"epochs": 5})
    later = make_record(cell={"dataset": newer}, created="2027-01-01T00:00:00+00:00")
    assert anchors(later) == {"digits": "digits-v1-quick"}
    both = anchors(earlier, later)
    assert both["digits v1"] == "digits-v1-quick"
    assert re.fullmatch(r"digits-v1-quick-[0-9a-f]{6}", both["digits v2"])


def test_anchors_of_rows_do_not_depend_on_seeds_and_other_rows():
    def rows(*records) -> dict[str, str]:
        section = together(*records).sections()[0]
        names = permalinks.row_anchors(section)
        return {f"{row.defense} {row.attack}": name for row, name in zip(section.rows, names, strict=True)}

    one = rows(make_record(seed=3))
    more = rows(make_record(seed=3), make_record(seed=1), make_record("mid"), make_record(attack="gmi"))
    assert more["none kedmi"] == one["none kedmi"]
    assert len(set(more.values())) == 3
    assert all(re.fullmatch("r[0-9a-f]{8}", name) for name in more.values())


def test_rows_that_differ_only_in_evaluators_have_distinct_anchors():
    first = make_record()
    evaluators = [samples.choice("accuracy"), samples.choice("attack_acc", resamples=9), samples.choice("fid")]
    second = make_record(cell={"evaluators": evaluators}, created="2027-01-01T00:00:00+00:00")
    alone = permalinks.row_anchors(together(first).sections()[0])
    both = permalinks.row_anchors(together(first, second).sections()[0])
    assert len(set(both)) == 2
    assert alone[0] in both


def test_keys_with_equal_prefixes_have_different_names():
    first = make_record()
    twin = first.model_copy(update={"key": first.key[:16] + "0" * 48})
    assert permalinks.cell_names([first, twin]) == {first.key: first.key[:16], twin.key: twin.key}


INDEX = f"<!doctype html>{output_folder.GENERATOR_TAG}".encode()


def test_a_report_replaces_a_report(tmp_path):
    folder = tmp_path / "report"
    output_folder.write_report(folder, [("index.html", INDEX), ("cells/old.html", b"old")])
    output_folder.write_report(folder, [("index.html", INDEX + b"2"), ("cells/new.html", b"new")])
    assert sorted(file.name for file in folder.rglob("*.html")) == ["index.html", "new.html"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_an_empty_folder_and_a_link_to_one_can_be_filled(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    output_folder.write_report(tmp_path / "link", [("index.html", INDEX)])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "index.html").read_bytes() == INDEX


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"index.html": b"my own page"}, "to be an earlier report, got another folder"),
        ({"thesis.tex": b"years of work"}, "to be an earlier report, got another folder"),
        ({"index.html": INDEX, "CNAME": b"example.org"}, "'CNAME', which is not part of a report"),
    ],
)
def test_other_folders_are_not_replaced(tmp_path, names, words):
    folder = tmp_path / "report"
    folder.mkdir()
    for name, content in names.items():
        (folder / name).write_bytes(content)
    with pytest.raises(StorageError, match=words):
        output_folder.write_report(folder, [("index.html", INDEX)])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == names
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_a_failure_keeps_the_earlier_report(tmp_path):
    folder = tmp_path / "report"
    output_folder.write_report(folder, [("index.html", INDEX)])

    def broken():
        yield "index.html", b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        output_folder.write_report(folder, broken())
    assert (folder / "index.html").read_bytes() == INDEX
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_the_front_has_the_points_that_no_other_dominates():
    gains = [(1.0, 1.0), (2.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 0.4)]
    assert pareto(gains) == [True, True, False, True, False]


def test_points_of_panels_are_at_their_values(matrix, files):
    section = matrix.sections()[0]
    panel = re.search(r'<figure class="panel" data-attack="gmi">.*?</figure>', files["index.html"].decode(), re.S)[0]
    found = re.findall(r'data-defense="(\w+)".*?cx="([\d.]+)" cy="([\d.]+)"', panel)
    points = {defense: (float(x), float(y)) for defense, x, y in found}
    scores = {row.defense.split()[0]: row.scores for row in section.rows if row.attack == "gmi"}
    assert points.keys() == scores.keys()
    assert all(0 <= x <= tradeoff_svg.WIDTH and 0 <= y <= tradeoff_svg.HEIGHT for x, y in points.values())
    for name, axis, anchor in (("attack_acc", 0, "middle"), ("accuracy", 1, "end")):
        ticks = re.findall(rf'<text x="([\d.]+)" y="([\d.]+)" text-anchor="{anchor}">([\d.]+)</text>', panel)
        (*first, low), (*last, high) = ticks[0], ticks[-1]
        start, end = float(first[axis]), float(last[axis])
        for defense, position in points.items():
            share = (100 * scores[defense][name].value - float(low)) / (float(high) - float(low))
            offset = 4 if name == "accuracy" else 0  # from the middle of a number to its baseline
            assert position[axis] == pytest.approx(start - offset + share * (end - start), abs=0.05)


def test_long_curves_keep_their_ends_and_peaks():
    points = tuple((step, 0.0 if step != 1234 else 9.0) for step in range(3000))
    drawn = charts.curve(points)
    positions = [tuple(map(int, position.split(","))) for position in drawn.line.split()]
    assert len(positions) < 300
    assert (positions[0][0], positions[-1][0]) == (1, charts.CURVE[0] - 1)
    assert min(y for _, y in positions) == 2
    assert (drawn.steps, drawn.low, drawn.high, drawn.last) == ((0, 2999), "0", "9", "0")


def test_bars_stand_on_the_line_and_missing_ones_are_flat():
    found = charts.bars((1.0, None, -0.5, 0.5), "fraction")
    bottom = charts.BARS[1] - 20
    assert [bar.height for bar in found] == [70.0, 0.0, 0.0, 35.0]
    assert all(bar.y + bar.height == bottom for bar in found)
    assert [bar.value for bar in found] == ["100.0", "n/a", "-50.0", "50.0"]


def test_the_placebo_is_marked_and_cells_show_their_excess_over_it():
    none, placebo = make_record(leak=0.7), make_record("placebo", leak=0.1, accuracy=0.2)
    records = Records((none, placebo), (Path("a.json"), Path("b.json")))
    pages = {name: content.decode() for name, content in render_folder(records) if name.endswith(".html")}
    index = " ".join(Page(pages["index.html"]).words)
    assert "control" in index and "Attack Acc over Placebo" in index
    cells = {name: " ".join(Page(text).words) for name, text in pages.items() if name.startswith("cells/")}
    own = next(text for text in cells.values() if "none" in text.split("under")[0])
    other = next(text for text in cells.values() if "placebo" in text.split("under")[0])
    covers = "Over placebo: the interval covers 5 labels; this training of the target; this training of the placebo."
    assert covers in own and covers not in other
    assert "control: the placebo" in other and "control: the placebo" not in own
    assert "no values by label" in own, "attack_acc5 of the samples has none"
