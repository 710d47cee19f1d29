"""Published tables: they have the printed values, and the components that reproduce them exist."""

import os
import re
from importlib import resources
from pathlib import Path

import pytest
from privbench.benchmark import papers, registry
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.papers.matrices import matrices
from privbench.benchmark.papers.table import load, parse, tables

TABLES = {table.name: table for table in tables()}
RESULTS = [table for table in tables() if table.kind == "results"]
SETTINGS = [table for table in tables() if table.kind == "settings"]
ROWS = [pytest.param(table, row, id=f"{table.name} {row.label}") for table in tables() for row in table.rows]

#: A second, independent transcription of rows of the papers.
SECOND = {
    "bido-table1": """
        No Def.       | 86.21 | 16.73 3.32 | 35.93 4.88 | 128.81
        MID (b)       | 68.39 | 12.40 3.63 | 27.93 4.04 | 133.04
        BiDO-COCO (a) | 53.39 | 7.40 2.01  | 19.80 4.21 | 148.68
        BiDO-HSIC (b) | 70.31 | 3.13 1.69  | 9.27 4.13  | 136.49
        BiDO-HSIC (c) | 80.35 | 6.47 2.57  | 16.07 2.91 | 134.63""",
    "bido-table2": """
        No Def.       | 86.21 | 75.93 3.65 | 93.80 2.51 | 213.43
        MID (a)       | 53.94 | 32.67 3.28 | 63.20 2.15 | 290.96
        BiDO-COCO (c) | 81.55 | 62.93 4.72 | 88.27 2.37 | 225.70
        BiDO-HSIC (c) | 80.35 | 46.53 3.67 | 73.00 4.01 | 250.88""",
    "bido-table3": """
        MNIST: No Def.      | 99.94 | 42.52 10.09 | 95.24 5.24  | 245.64 14.52
        MNIST: BiDO-COCO    | 99.51 | 7.76 8.47   | 84.40 12.95 | 305.34 19.44
        MNIST: BiDO-HSIC    | 99.61 | 4.36 5.70   | 76.96 12.10 | 322.00 16.96
        CIFAR-10: No Def.   | 96.17 | 72.16 17.7  | 99.56 2.20  | 167.85 5.44
        CIFAR-10: MID       | 89.04 | 61.40 13.88 | 99.72 1.44  | 176.84 20.36
        CIFAR-10: BiDO-HSIC | 93.79 | 58.24 18.63 | 99.08 3.99  | 171.60 12.45""",
    "bido-table4": """
        No Def.   | 69.27 | 36.90 22.70 | 61.50 21.24 | 0.9295
        MID       | 52.52 | 29.05 23.99 | 51.05 28.52 | 0.9854
        BiDO-HSIC | 61.14 | 30.25 23.46 | 53.35 27.65 | 0.9665""",
    "bido-table5": """
        (1) cross-entropy | 85.31 | 62.73 4.19 | 87.73 2.88 | 226.82
        (5) HSIC(X,Z)     | 0.83  | 0.67 0.37  | 3.00 1.23  | 720.35
        (7) HSIC, both    | 76.36 | 31.40 4.38 | 55.20 3.09 | 276.21""",
    "bido-table6": "MID (c) | 0.003\nBiDO-COCO (c) | 5 | 50\nBiDO-HSIC (a) | 0.05 | 2.5",
    "bido-table7": "MID | 0\nBiDO-COCO | 0.05 | 2.5\nBiDO-HSIC | 0.1 | 2",
    "bido-table8": "MNIST: MID | 0.2\nMNIST: BiDO-HSIC | 2 | 20\nCIFAR-10: BiDO-COCO | 0.1 | 5",
    "xiao-table1": """
        #1 none                   | .641 | .551 | .835 | .231 | 13.738
        #4 adv, GAN               | .612 | .513 | .574 | .277 | 13.803
        #5 none, more data for Dec | .641 | .594 | .864 | .250 | 14.132
        #6 adv, more data for Dec | .612 | .541 | .633 | .222 | 13.703
        #7 none, more data for both | .651 | .579 | .834 | .263 | 14.432
        #10 adv, GAN, Smiling     | .862 | .044 | .424 | .489 | .189 | 12.958""",
    "xiao-table2": """
        lambda_2 = 0  | .631 | .631 | .862 | .300 | 15.445
        lambda_2 = 1  | .582 | .575 | .710 | .299 | 15.371
        lambda_2 = 4  | .311 | .507 | .542 | .225 | 14.048
        lambda_2 = 10 | .000 | .294 | .374 | .158 | 12.899""",
    "xiao-table3": """
        Conv1, without adv     | .98 | .64 | 1468.77 | 2884.42 | 1.96
        Conv2, with adv        | .48 | .64 | 1523.31 | 597.48 | .39
        Conv4, without adv     | .64 | .65 | 2212.66 | 1199.69 | .54
        Avg Pool, with adv     | .50 | .61 | 2243.49 | 935.16 | .42
        FC Layer, without adv  | .54 | .64 | 2541.02 | 983.14 | 2.58
        FC Layer, with adv     | .51 | .61 | 1061.99 | 710.93 | 1.49""",
}
COUNTS = {
    "bido": {1: 10, 2: 10, 3: 8, 4: 4, 5: 7, 6: 9, 7: 3, 8: 6},
    "xiao": {1: 10, 2: 7, 3: 12},
}


def numbers(row):
    """The row's numbers in the order of the columns."""
    return [(value.value, value.spread) for value in row.values.values()]


def test_every_table_of_the_papers_has_all_rows():
    for paper, counts in COUNTS.items():
        assert {table.number: len(table.rows) for table in tables() if table.paper == paper} == counts
    for table in tables():
        assert load(table.name) is table
        assert table.name == f"{table.paper}-table{table.number}"


@pytest.mark.parametrize("name", SECOND)
def test_a_second_transcription_agrees(name):
    for line in SECOND[name].strip().splitlines():
        label, *values = (part.strip() for part in line.split("|"))
        (row,) = TABLES[name].select([label])
        assert row.label == label
        parts = [[float(number) for number in value.split()] for value in values]
        assert numbers(row) == [(part[0], part[1] if len(part) == 2 else None) for part in parts]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_values_are_in_range_and_in_the_order_of_the_columns(table, row):
    assert list(row.values) == [column.name for column in table.columns if column.name in row.values]
    for name, value in row.values.items():
        column = table.column(name)
        assert 0 <= value.value <= {"per cent": 100, "similarity": 1}.get(column.unit, 3000)
        assert column.unit == "weight" or value.value == round(value.value, column.decimals)
        assert (value.spread is not None) == (column.spread is not None)
        assert (column.spread is None) == (column.spread_meaning == "")
        if value.spread is not None:
            assert 0 <= value.spread < 30
    if "attack_acc5" in row.values:
        assert row.values["attack_acc5"].value > row.values["attack_acc"].value


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_the_components_that_reproduce_a_row_exist(table, row):
    assert row.cell.configuration("full") != row.cell.configuration("smoke")
    if table.kind == "settings":
        return
    scores = {s.name for name in table.evaluators for s in registry.load("evaluator", name).scores}
    assert scores >= {score for column in table.columns for score in (column.score, column.otherwise) if score}
    given = {row.needs: "photographs"} if row.needs else {}
    found = matrices(table, "full", labels=[row.label], settings=given, controls=False)
    cells = [cell for matrix in found for cell in matrix.cells()]
    assert [cell.attack.name for cell in cells] == list(row.cell.attacks)
    for cell in cells:
        assert cell.dataset.component.protocol.id == row.cell.protocol
        fields, wanted = cell.defense.component.config(), row.cell.configuration("full")
        if row.cell.preset:
            assert fields == wanted
        assert {name: fields[name] for name in row.cell.fields.get("defense", {})} == row.cell.fields.get("defense", {})
        task = cell.dataset.component.protocol.task
        assert task in cell.defense.component.tasks & cell.attack.component.tasks


def available(attack):
    """Kinds of evidence behind the scores of an attack."""
    component = registry.load("attack", attack)
    return {"Predictions", component.yields} | ({"Encodings"} if component.access == "features" else set())


@pytest.mark.parametrize("table", RESULTS, ids=lambda table: table.name)
def test_the_attack_of_a_column_gives_its_score(table):
    owners = {
        score.name: registry.load("evaluator", name)
        for name in table.evaluators
        for score in registry.load("evaluator", name).scores
    }
    units = {score.name: score.unit for evaluator in owners.values() for score in evaluator.scores}
    for row in table.rows:
        given = [name for attack in row.cell.attacks for name in table.values(row, attack)]
        assert sorted(given) == sorted(row.values)
        for attack in row.cell.attacks:
            for name in table.values(row, attack):
                column = table.column(name)
                if column.score is None:
                    assert column.incomparable
                    continue
                assert units[column.score] == {"per cent": "fraction"}.get(column.unit, column.unit)
                kinds = owners[column.score].needs
                assert all(available(attack) & set(kind.split("|")) for kind in kinds), (attack, column.score)


@pytest.mark.parametrize("table", RESULTS, ids=lambda table: table.name)
def test_the_direction_of_a_column_is_that_of_its_score(table):
    directions = {
        score.name: score.better for name in table.evaluators for score in registry.load("evaluator", name).scores
    }
    for column in table.columns:
        for score in filter(None, (column.score, column.otherwise)):
            assert column.better in (None, directions[score]), (column.name, score)


@pytest.mark.parametrize("table", SETTINGS, ids=lambda table: table.name)
def test_printed_weights_are_those_of_the_presets_except_for_discrepancies(table):
    for row in table.rows:
        used = row.cell.configuration("full")
        different = [name for name, value in row.values.items() if used[name] != value.value]
        assert different == (["lambda_y"] if (table.number, row.label) == (6, "BiDO-COCO (c)") else [])
        if different:
            assert row.discrepancies
    for name in table.about:
        presets = {(row.label, row.cell.defense, row.cell.preset, row.cell.protocol) for row in TABLES[name].rows}
        assert {(row.label, row.cell.defense, row.cell.preset, row.cell.protocol) for row in table.rows} <= presets


def test_the_ablation_switches_terms_off():
    weights = {}
    for row in TABLES["bido-table5"].rows[1:]:
        fields = row.cell.configuration("full")
        weights[row.label[:3]] = (row.cell.defense, fields["lambda_x"], fields["lambda_y"])
    coco = [weights[label] for label in ("(2)", "(3)", "(4)")]
    hsic = [weights[label] for label in ("(5)", "(6)", "(7)")]
    assert coco == [("bido_coco", 10, 0), ("bido_coco", 0, 50), ("bido_coco", 10, 50)]
    assert hsic == [("bido_hsic", 0.1, 0), ("bido_hsic", 0, 1), ("bido_hsic", 0.1, 1)]


def test_the_documented_discrepancies_are_listed():
    def words(table, label=None):
        found = [note for row in TABLES[table].rows if row.label == label for note in row.discrepancies]
        return " ".join(note.what for note in (found if label else TABLES[table].discrepancies))

    assert "143.63" in words("bido-table1", "BiDO-HSIC (c)")
    assert "136.49" in words("bido-table1", "BiDO-HSIC (b)")
    assert "(5, 25)" in words("bido-table6", "BiDO-COCO (c)")
    assert "twice" in words("bido-table3")
    assert "below 260" in words("bido-table3")
    assert "SGD" in words("bido-table2")
    for number in ("0.851", "0.865", "0.551", "0.594"):
        assert number in words("xiao-table1")
    assert "0.631" in words("xiao-table2")
    assert "undefined" in words("xiao-table2", "lambda_2 = 10")
    assert "2541.02 / 983.14" in words("xiao-table3")
    for table in ("xiao-table1", "xiao-table2", "xiao-table3"):
        for word in ("Eq. 3", "X1", "No optimiser"):
            assert word in words(table)


def value(table, label, column):
    (row,) = TABLES[table].select([label])
    return row.values[column].value


def test_the_discrepancies_of_xiaos_numbers_follow_from_them():
    one, two, three = ("xiao-table1", "xiao-table2", "xiao-table3")
    labels = [row.label for row in TABLES[three].rows]
    for label in labels:
        within, between = value(three, label, "lda_within"), value(three, label, "lda_between")
        printed, ratio = ("lda_inverse", within / between) if label.startswith("FC") else ("lda", between / within)
        assert round(ratio, 2) == value(three, label, printed)
    without, with_ = (
        value(three, f"FC Layer, {x} adv", "lda_between") / value(three, f"FC Layer, {x} adv", "lda_within")
        for x in ("without", "with")
    )
    assert (round(without, 2), round(with_, 2)) == (0.39, 0.67)
    for column in ("mcc", "feature_similarity"):
        assert value(one, "#1 none", column) == value(one, "#3 none, GAN", column)
        assert value(one, "#2 adv", column) == value(one, "#4 adv, GAN", column)
    assert value(one, "#4 adv, GAN", "ssim") > value(one, "#3 none, GAN", "ssim")
    faces = {n: value(one, row.label, "face_similarity") for n, row in enumerate(TABLES[one].rows, 1)}
    assert faces[8] > faces[6]
    assert round(faces[7] - faces[8], 3) == 0.029 < round(faces[5] - faces[6], 3) == 0.053
    start = {column: value(two, "lambda_2 = 0", column) for column in ("mcc", "face_similarity", "feature_similarity")}
    assert start == {"mcc": 0.631, "face_similarity": 0.631, "feature_similarity": 0.862}
    assert start["feature_similarity"] > value(one, "#1 none", "feature_similarity") == 0.835
    assert [value(one, "#2 adv", column) for column in start] == [0.612, 0.515, 0.574]


def test_the_page_on_papers_names_existing_presets():
    page = (Path(__file__).resolve().parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+):([\w.-]+)`", page)
    assert len(named) >= 8
    for component, preset in named:
        kind = "attack" if component in registry.names("attack") else "defense"
        assert preset in registry.load(kind, component).presets
    for command in re.findall(r"`privbench paper \w+ ([\w-]+)`", page):
        assert command in TABLES


# The text of the paper


SAYS = {
    "bido": "bilateral dependency optimization (BiDO) strategy",
    "xiao": "framework that prevents the latent representations",
}


def paper_text(paper):
    folder = os.environ.get("PRIVBENCH_PAPERS")
    if not folder:
        pytest.skip("PRIVBENCH_PAPERS names no folder with the texts of papers")
    for path in sorted(Path(folder).glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if SAYS[paper] in text:
            return text
    pytest.skip(f"PRIVBENCH_PAPERS has no text of {paper}")


def section(text, number):
    """From a table's caption to the next table's."""
    start = re.search(rf"^ ?Table {number}: ", text, re.MULTILINE).start()
    following = re.search(rf"^ ?Table {number + 1}: ", text[start:], re.MULTILINE)
    return text[start:][: following.start() if following else None]


def printed_numbers(part, label, pattern):
    """Numbers after a label at the beginning of a line, up to the end of the line (ablation: of the paragraph)."""
    found = re.search(rf"^{re.escape(label)}(.*(?:\n(?!\().*){{0,6}})", part, re.MULTILINE)
    assert found, label
    return [(float(value), float(spread) if spread else None) for value, spread in re.findall(pattern, found.group(1))]


@pytest.mark.parametrize("table", [t for t in tables() if t.paper == "bido"], ids=lambda table: table.name)
def test_every_number_is_in_the_text_on_the_line_of_its_label(table):
    part = section(paper_text("bido"), table.number).replace("87.73.20±", "87.73±")
    number = r"(\d+(?:\.\d+)?)()" if table.kind == "settings" else r"(\d+\.\d+)(?:±(\d+\.\d+))?"
    by_label = {}
    for row in table.rows:
        by_label.setdefault(row.printed or row.label, []).extend(numbers(row))
    for label, expected in by_label.items():
        assert printed_numbers(part, label, number)[: len(expected)] == expected


@pytest.mark.parametrize("name", ["xiao-table1", "xiao-table2"])
def test_every_number_of_a_line_of_xiaos_tables_is_in_the_text(name):
    table = TABLES[name]
    part = section(paper_text("xiao"), table.number)
    for row in table.rows:
        (line,) = re.findall(rf"^{row.printed} ((?:λ1|\d).*)$", part, re.MULTILINE)
        found = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        if "mcc_40" in row.values:
            found[:2] = found[1::-1]
        assert numbers(row) == [(number, None) for number in found]
        if table.number == 1:
            defended, attacked = re.fullmatch(r"λ1 (.) 0[†‡]? µ1 (.) 0 .*", line).groups()
            assert (row.cell.fields.get("defense", {}).get("lambda_1", 0) == 0) == (defended == "=")
            assert row.cell.fields["decoder"]["mu_1"] == (0.0 if attacked == "=" else 1.0)
        else:
            assert row.cell.fields["defense"]["lambda_2"] == float(row.printed)


def test_every_number_of_xiaos_table_3_is_in_the_text():
    part = section(paper_text("xiao"), 3)
    lines = ["Face Sim. ↓", "Mean MCC ↑", "Within Var (Sw)", "Between Var (Sb)", "LDA Score ↓"]
    printed = []
    for label in lines:
        (line,) = re.findall(rf"^{re.escape(label)} (.*)$", part, re.MULTILINE)
        printed.append([float(number) for number in line.split()])
    rows = TABLES["xiao-table3"].rows
    assert [list(column) for column in zip(*printed, strict=True)] == [[v for v, _ in numbers(row)] for row in rows]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number = 8", "number =", "cannot be read as TOML"),
        ("number = 8", "number = 0", "expected number of it.toml"),
        ("beta = 0.2", "gamma = 0.2", "values of MNIST: MID for columns"),
        ("beta = 0.2", 'beta = "a"', r"rows\.0\.values\.beta"),
        ("beta = 0.2", "beta = [0.2, -1]", r"rows\.0\.values\.beta"),
        ("beta = 0.2", "beta = true", r"rows\.0\.values\.beta"),
        ('preset = "mnist-published"', 'preset = "mnist", attack = "gmi"', "an attack for MNIST: MID"),
        ('preset = "mnist-published" }', 'preset = "mnist", fields = { gmi = { steps = 1 } } }', "not of gmi"),
        ("MNIST: BiDO-COCO", "MNIST: MID", "unique labels"),
        ("mnist/v2", "mnist", "protocol"),
        ('kind = "settings"', 'kind = "figures"', "kind"),
        ('kind = "settings"', 'kind = "settings"\nextra = 1', "extra"),
    ],
)
def test_the_message_names_the_invalid_entry_of_a_table(old, new, message):
    text = (resources.files(papers) / "bido-table8.toml").read_text(encoding="utf-8")
    assert parse(text, "it.toml") == TABLES["bido-table8"]
    with pytest.raises(InvalidConfigurationError, match=message):
        parse(text.replace(old, new, 1), "it.toml")
