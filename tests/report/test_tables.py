"""Tests of console, Markdown, CSV and LaTeX tables: equal numbers, safe text, bounded width."""

import csv
import io
import itertools
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from helpers import samples
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.report.formatting import format_number, format_seeds, sanitize
from privbench.benchmark.report.html.pages import render_single_page
from privbench.benchmark.report.tables import latex, tables
from privbench.benchmark.report.tables.leaderboard import leaderboard_table
from privbench.benchmark.report.tables.rows import Footnotes
from rich.console import Console

make_record, make_score = samples.make_record, samples.make_score


def together(*records) -> Records:
    return Records(records, tuple(Path(f"{record.key}.json") for record in records))


def printed(records: Records, width: int = 100) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(tables.console(records))
    return file.getvalue()


@pytest.fixture
def matrix() -> Records:
    cells = itertools.product(("none", "bido_hsic"), ("gmi", "kedmi"), (0, 1, 2))
    records = [make_record(*cell) for cell in cells]
    undefined = make_score("fid_judge", None, "fewer reconstructions (40) than features (256)")
    alone = make_record("mid", "gmi", scores={"attack_acc": make_score("attack_acc", 0.5), "fid_judge": undefined})
    return together(*records, make_record(protocol="mnist/v1", budget="smoke"), alone)


@pytest.mark.parametrize("width", [60, 100, 200])
def test_console_fits_the_width_and_keeps_all_columns(matrix, width):
    text = printed(matrix, width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("Accuracy", "Attack Acc5", "FID (judge)", "digits/v1, budget quick", "mnist/v1, budget smoke"):
        assert word in text
    assert "0-2" in text
    index = re.search(r"\((\d)\) fewer reconstructions \(40\) than features \(256\)", " ".join(text.split())).group(1)
    assert f"n/a ({index})" in text
    assert "chance 10.0" in text


def test_console_shows_interval_n_and_direction(matrix):
    text = printed(matrix)
    row = next(row for row in matrix.wide_rows() if row["defense"] == "bido_hsic")
    low, high = (f"{100 * row[f'attack_acc.{end}']:.1f}" for end in ("low", "high"))
    assert f"[{low}, {high}]" in text
    assert "n 1,500" in text
    assert "Attack Acc ↓ %" in text
    assert "FID (judge) ↑" in text


def test_a_score_without_interval_is_marked():
    text = printed(together(make_record(scores={"attack_acc": make_score("attack_acc", 0.5)})))
    assert "no interval" in text
    assert "±" not in text


def hostile() -> Records:
    score = make_score("attack_acc", 0.5)
    score["definition"]["title"] = "[red]Leak[/red]|\x1b[31m" + samples.HOSTILE
    bad = make_score("accuracy", None, "](http://evil) \x1b]0;owned\x07 " + samples.RIGHT_TO_LEFT + "x" * 5000)
    changed = {"defense": {"recipe": {"learning_rate": 0.1}}}
    return together(make_record(scores={"attack_acc": score, "accuracy": bad}, changed=changed))


@pytest.mark.parametrize("make", [printed, tables.markdown, latex.latex])
def test_hostile_text_is_only_text(make):
    text = make(hostile())
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "x" * 500 not in text
    assert make is not tables.markdown or ("<script>" not in text and "](http" not in text)


def test_console_markup_is_not_interpreted():
    assert "[red]Leak[/red]|" in printed(hostile(), 200)


def test_latex_escapes_special_characters():
    text = latex.latex(hostile())
    assert r"\textless{}script\textgreater{}" in text
    assert r"fid\_inception" in text
    assert "\u202e" not in text
    parsed = latex_tables(text)
    assert [(len(columns), {len(row) for row in rows}) for columns, rows in parsed] == [(8, {8}), (6, {6})]


def latex_tables(text: str) -> list[tuple[str, list[list[str]]]]:
    """Columns and cells of LaTeX tables; fails on invalid LaTeX."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    plain_text = re.sub(r"\\[\\&%$#_{}]", "", text)
    depth = 0
    for character in plain_text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain_text.count("$") % 2 == 0
    assert not set("#^~_%") & set(plain_text)
    assert set(re.findall(r"\\([a-zA-Z]+)", plain_text)) <= LATEX_COMMANDS
    found = re.findall(r"\\begin\{tabular\}\{([lrc]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert text.count("tabular}") == 2 * len(found)
    tables_found = []
    for columns, body in found:
        assert [body.count(f"\\{rule}rule\n") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
        rows = re.sub(r"\\(top|mid|bottom)rule\n", "", body).split("\\\\\n")
        assert rows.pop().strip() == ""
        tables_found.append((columns, [re.split(r"(?<!\\)&", row) for row in rows]))
    outside = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", text, flags=re.DOTALL)
    assert "&" not in outside.replace(r"\&", "")
    return tables_found


#: Commands that the tables may use.
LATEX_COMMANDS = {
    *("begin", "end", "toprule", "midrule", "bottomrule", "textbf", "scriptsize", "pm", "uparrow", "downarrow"),
    *("ldots", "textless", "textgreater", "textbackslash", "textasciitilde", "textasciicircum"),
}


@pytest.mark.parametrize(
    "broken",
    [
        "\\begin{tabular}{ll}\n\\toprule\na & b \\\\\n\\midrule\n\\bottomrule\n\\end{tabular}\n50 % off_",
        "\\begin{tabular}{ll}\n\\toprule\na & b} \\\\\n\\midrule\n\\bottomrule\n\\end{tabular}",
        "\\begin{tabular}{ll}\n\\toprule\na & \\input{x} \\\\\n\\midrule\n\\bottomrule\n\\end{tabular}",
    ],
)
def test_the_reader_refuses_invalid_latex(broken):
    with pytest.raises(AssertionError):
        latex_tables(broken)


def test_latex_has_a_leaderboard_and_a_table_for_each_section(matrix):
    parsed = latex_tables(latex.latex(matrix))
    assert [columns for columns, _ in parsed] == ["lllrrrll", "llllrrrr"] * 2
    assert all(len(row) == len(columns) for columns, rows in parsed for row in rows)


def test_latex_sets_the_best_comparable_value_in_bold():
    leaks = (("none", 0.8, 3), ("mid", 0.3, 3), ("young", 0.2, 1))
    cells = [
        (name, attack, seed, {"attack_acc": make_score("attack_acc", share * leak, per_class=[share * leak] * 2)})
        for name, leak, seeds in leaks
        for attack, share in (("gmi", 0.2), ("kedmi", 1))
        for seed in range(seeds)
    ]
    utility = {"accuracy": make_score("accuracy", 0.9)}
    made = [make_record(name, attack, seed, scores=scores | utility) for name, attack, seed, scores in cells]
    weak = make_record("mid", "vmi", scores={"attack_acc": make_score("attack_acc", 0.1)})
    (_, board), (_, rows) = latex_tables(latex.latex(together(*made, weak)))
    assert [r"\textbf{30.0}" in row[4] for row in board] == [False, True, False, False], "only ranked ones compete"
    assert [row[4].strip()[:4] for row in board] == ["Wors", r"\tex", "80.0", "20.0"]
    assert [row[1].strip() for row in rows if r"\textbf" in row[5]] == ["gmi", "kedmi"], "the only row is not bold"


def test_latex_shows_half_widths_only_where_both_sides_agree():
    def cell(interval: list[float]) -> str:
        score = make_score("attack_acc", 0.5, interval=interval)
        return latex_tables(latex.latex(together(make_record(scores={"attack_acc": score}))))[1][1][1][4].strip()

    assert cell([0.4, 0.6]) == r"50.0 {\scriptsize $\pm$ 10.0 n 500}"
    assert cell([0.4, 0.6004]) == r"50.0 {\scriptsize $\pm$ 10.0 n 500}"
    assert cell([0.35, 0.6]) == r"50.0 {\scriptsize [35.0, 60.0] n 500}"


def test_every_format_begins_with_the_leaderboard(matrix):
    frame = matrix.leaderboard()
    first = frame[frame["protocol"] == "digits/v1"].iloc[0]
    worst = f"{100 * first['worst']:.1f}"
    for make in (printed, tables.markdown, latex.latex):
        text = make(matrix)
        start = text.index("Leaderboard: Attack Acc, worst case over gmi, kedmi (suite 1)")
        assert text.index("bido", start) < text.index("none", start), "bido_hsic leaks less"
        assert worst in text[start:]
        assert "3 trainings x 5 identities" in " ".join(text.split())
        best = first["best_known"], first["best_known_attack"]
        assert f"{100 * best[0]:.1f} {best[1]}" in " ".join(text.split()) or make is printed
        assert "kedmi was not run" in text, "why mid is not ranked"
    assert "mid" in printed(matrix)


def test_tables_show_why_a_defense_is_not_ranked_and_how_far_its_utility_is():
    cells = itertools.product((("none", 0.97), ("near", 0.925), ("far", 0.8)), ("gmi", "kedmi", "vmi"), (0, 1, 2))
    made = [make_record(name, attack, seed, accuracy=value) for (name, value), attack, seed in cells]
    records = together(*made, *(make_record("placebo", attack, accuracy=0.2) for attack in ("gmi", "kedmi")))
    near, far = (f"{100 * row['utility_distance']:.1f}" for row in wanted(records, "near", "far"))
    for make in (printed, tables.markdown, latex.latex):
        text = " ".join(make(records).split())
        assert f"its utility is {far} points below none, more than 5 points" in text
        assert f"{near} points below none" in text
        assert re.search(
            r"near is [\d.]+ points below none: its interval \\?\[[^]]+\] spans the margin of 5 points", text
        )
        assert "attacks outside the suite, which change no rank: vmi" in text
        assert re.search(r"control \(\d\)", text)


def wanted(records: Records, *defenses: str) -> list:
    frame = records.leaderboard()
    return [frame[frame["defense"] == name].iloc[0] for name in defenses]


def test_flags_are_listed_below_the_leaderboard():
    flag = {"name": "weak_judge", "message": "it errs"}
    records = together(make_record(flags=[flag]), make_record("mid", flags=[flag]), make_record("bido_hsic"))
    for make in (printed, tables.markdown, latex.latex):
        text = make(records).replace("\\_", "_").replace("\n", " ")
        assert "flag weak_judge: none (kedmi); mid (kedmi)" in text


def test_every_table_with_images_in_minus_1_to_1_says_so():
    scaled = [
        make_record(name, cell={"defense": samples.choice(name, x_scale=2.0)}) for name in ("bido_coco", "bido_hsic")
    ]
    usual = make_record("bido_hsic", cell={"defense": samples.choice("bido_hsic", x_scale=1.0)})
    note = "bido_coco and bido_hsic: in the dependence on X, images are in [-1, 1]"
    for make in (printed, tables.markdown, latex.latex, render_single_page):
        shown, other = (" ".join(re.sub(r"[\\{}]", "", make(together(*each))).split()) for each in (scaled, [usual]))
        assert note.replace("_", "") in shown.replace("_", "")
        assert "[-1, 1]" not in other


def test_a_chance_is_in_the_heading_if_all_rows_share_it_and_else_beside_each_value():
    def chances(first: float, second: float) -> str:
        made = [
            make_record(name, scores={"attack_acc": make_score("attack_acc", 0.5, chance=chance)})
            for name, chance in (("none", first), ("mid", second))
        ]
        return tables.markdown(together(*made))

    assert "| Attack Acc ↓ %, chance 10.0 |" in chances(0.1, 0.1)
    different = chances(0.1, 0.2)
    assert "| Attack Acc ↓ % |" in different
    assert [len(re.findall(rf"n 500, chance {value} \|", different)) for value in ("10.0", "20.0")] == [1, 1]


def test_a_leaderboard_counts_seeds_and_attacks_that_were_run():
    made = [make_record("none", attack, seed) for attack in ("gmi", "kedmi") for seed in range(3)]
    made += [make_record("mid", "gmi", seed) for seed in range(2)]
    made += [make_record("x", "gmi", seed) for seed in range(3)] + [make_record("x", "kedmi")]
    rows = {row.defense: row for row in leaderboard_table(together(*made).sections()[0]).rows}
    assert {name: (row.attacks, row.seeds) for name, row in rows.items()} == {
        "none": ("2", "3"),
        "mid": ("1 of 2", "2"),
        "x": ("2", "1 to 3"),
    }
    assert rows["none"].rank == "1 (1)"


def test_a_rank_stands_before_the_ranks_that_cannot_be_ruled_out():
    cells = itertools.product((("none", 0.9), ("aa", 0.2), ("bb", 0.22)), ("gmi", "kedmi"), (0, 1, 2))
    made = [make_record(name, attack, seed, leak=leak, accuracy=0.95) for (name, leak), attack, seed in cells]
    table = leaderboard_table(together(*made).sections()[0])
    assert [(row.rank, row.group) for row in table.rows] == [("1 (1-2)", "a"), ("2 (1-2)", "a"), ("3 (3)", "b")]
    assert table.rows[2].defense == "none"


def test_footnotes_are_numbered_by_reason():
    notes = Footnotes()
    assert [notes.mark(reason) for reason in ("b", "a", "", "b")] == [" (1)", " (2)", "", " (1)"]
    assert list(notes.lines()) == ["(1) b", "(2) a"]


def test_a_distance_says_below_if_the_utility_is_worse_and_above_if_it_is_better():
    cells = itertools.product((("none", 0.9), ("worse", 0.88), ("better", 0.93)), ("gmi", "kedmi"), (0, 1, 2))
    made = [make_record(name, attack, seed, accuracy=value) for (name, value), attack, seed in cells]
    rows = {row.defense: row.utility.basis for row in leaderboard_table(together(*made).sections()[0]).rows}
    assert re.search(r"points below none$", rows["worse"])
    assert re.search(r"^3 trainings, [\d.]+ points above none$", rows["better"])
    assert rows["none"] == "3 trainings"


def test_markdown_tables_are_rectangular(matrix):
    lines = [line.replace("\\|", "") for line in tables.markdown(matrix).splitlines()]
    blocks = [list(block) for is_table, block in itertools.groupby(lines, lambda line: line[:1] == "|") if is_table]
    # Two leaderboards with three defenses and one, then the rows of five cells and one; each has a head of two lines.
    assert [len(block) for block in blocks] == [2 + 3, 2 + 5, 2 + 1, 2 + 1]
    assert [{line.count("|") for line in block} for block in blocks] == [{9}, {9}] * 2


def test_csv_parses_back_to_every_number(matrix):
    text = tables.csv(matrix)
    rows = list(csv.DictReader(io.StringIO(text)))
    expected = [(record.key, name, score) for record in matrix for name, score in sorted(record.scores.items())]
    found = [row for row in rows if row["score"]]
    assert [(row["key"], row["score"]) for row in found] == [(key, name) for key, name, _ in expected]
    for row, (_, _, score) in zip(found, expected, strict=True):
        assert (float(row["value"]) if row["value"] else None) == score.value
        assert (row["reason"] or None) == score.reason
        assert int(row["n"]) == score.n
        assert json.loads(row["spreads"]) == score.spreads
        assert not row["per_class"] or tuple(json.loads(row["per_class"])) == score.per_class
    assert len(rows) - len(found) == len(matrix)
    assert list(pd.read_csv(io.StringIO(text)).columns) == list(matrix.long().columns)


def test_csv_keeps_hostile_text_in_its_field():
    rows = list(csv.DictReader(io.StringIO(tables.csv(hostile()), newline="")))
    assert rows[0]["reason"].endswith("x" * 5000)
    assert len(rows) == 3
    assert not any(character in tables.csv(hostile()) for character in "\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", " =", "\t=", "\r=", "\x1b=", "＝"])
def test_csv_has_no_formulas(begin):
    records = together(make_record(scores={"accuracy": make_score("accuracy", None, f"{begin}HYPERLINK(A1)")}))
    row = next(csv.DictReader(io.StringIO(tables.csv(records))))
    assert row["reason"] == ("�=HYPERLINK(A1)" if begin == "\x1b=" else f"'{begin.strip()}HYPERLINK(A1)")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "fraction", "0.0"),
        (1.0, "fraction", "100.0"),
        (None, "fraction", "n/a"),
        (0.03124, "distance", "0.03124"),
        (12345.6, "distance", "12,346"),
        (1e30, "distance", "1.000e+30"),
        (-0.5, "similarity", "-0.500"),
        (31.4159, "decibel", "31.42"),
    ],
)
def test_numbers_have_the_digits_of_their_unit(value, unit, text):
    assert format_number(value, unit) == text


def test_seeds_and_texts_are_shortened():
    assert format_seeds([0, 1, 3, 4, 5, 9]) == "0, 1, 3-5, 9"
    assert sanitize("a\n\tb\u202ec\x00") == "a b�c�"
    assert sanitize("x" * 50, 10) == "x" * 9 + "…"


def test_the_placebo_is_a_control_and_scores_show_their_excess_over_it():
    none = [make_record(seed=seed, leak=0.7) for seed in (0, 1, 2)]
    placebo, features = make_record("placebo", leak=0.1, accuracy=0.2), make_record(attack="decoder", access="features")
    records = together(*none, placebo, features)
    for text in (printed(records, 200), tables.markdown(records)):
        assert "placebo (control)" in text and "Attack Acc over Placebo ↓ %" in text
        assert "control: the placebo, a target trained on permuted labels" in " ".join(text.split())
    wide = {row["defense"]: row for row in records.wide_rows() if row["attack"] == "kedmi"}
    difference = wide["none"]["attack_acc"] - wide["placebo"]["attack_acc"]
    assert f"{100 * difference:.1f}" in tables.markdown(records)
    excess = [row for row in records.long_rows() if row.get("score") == "attack_acc" and row["seed"] == 0]
    by_cell = {(row["defense"], row["attack"]): row for row in excess}
    assert by_cell["none", "kedmi"]["excess_low"] < by_cell["none", "kedmi"]["excess"]
    assert by_cell["placebo", "kedmi"]["excess"] is by_cell["none", "decoder"]["excess"] is None
    made = latex.latex(records)
    row = next(line for line in made.splitlines() if line.startswith("placebo (control) & kedmi"))
    assert "textbf" not in row
    assert "Placebo" not in printed(together(*none), 200)


def test_a_label_shows_only_what_the_optimiser_of_a_recipe_reads() -> None:
    """`none` under two recipes differs in momentum too, which Adam ignores."""
    adam = {"optimizer": "adam", "learning_rate": 0.001, "momentum": 0.9, "nesterov": False, "milestones": []}
    sgd = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.5, "nesterov": True, "milestones": []}
    records = [
        make_record("none", cell={"defense": samples.choice("none", recipe={**recipe, "gamma": gamma})})
        for recipe, gamma in ((adam, 0.1), (sgd, 0.2))
    ]
    labels = {row.defense for section in together(*records).sections() for row in section.rows}
    assert labels == {
        "none recipe.learning_rate=0.001 recipe.optimizer=adam",
        "none recipe.learning_rate=0.1 recipe.momentum=0.5 recipe.nesterov=true recipe.optimizer=sgd",
    }
