"""Published tables: what they hold is what is printed, what reproduces them exists, and comparing is honest."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark import registry
from privbench.benchmark.errors import InvalidConfigurationError, UnknownComponentError
from privbench.benchmark.plan import make
from privbench.benchmark.publications import publication
from privbench.benchmark.publications.comparison import compare, verdict
from privbench.benchmark.publications.matrices import matrices
from privbench.benchmark.publications.publication import load, parse, tables
from privbench.benchmark.record import Record
from privbench.benchmark.records import Records
from privbench.benchmark.results import changes

TABLES = {table.name: table for table in tables()}
RESULTS = [table for table in tables() if table.kind == "results"]
SETTINGS = [table for table in tables() if table.kind == "settings"]
ROWS = [pytest.param(table, row, id=f"{table.name} {row.label}") for table in tables() for row in table.rows]

#: Typed a second time from the paper, in another form.
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


def test_every_table_of_the_papers_is_there_with_all_rows():
    for paper, counts in COUNTS.items():
        assert {table.number: len(table.rows) for table in tables() if table.paper == paper} == counts
    for table in tables():
        assert publication.load(table.name) is table
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
def test_what_reproduces_a_row_exists(table, row):
    assert row.cell.configuration("full") != row.cell.configuration("smoke")
    if table.kind == "settings":
        return
    scores = {s.name for name in table.evaluators for s in registry.load("evaluator", name).scores}
    assert scores >= {score for column in table.columns for score in (column.score, column.otherwise) if score}
    given = {row.needs: "photographs"} if row.needs else {}
    if row.not_runnable and not row.needs:
        assert row.label in ("#7 none, more data for both", "#8 adv, more data for both")
        return
    found = matrices(table, "full", labels=[row.label], settings=given)
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


@pytest.mark.parametrize("table", SETTINGS, ids=lambda table: table.name)
def test_printed_weights_are_the_presets_but_where_a_discrepancy_says_otherwise(table):
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


def test_the_documented_discrepancies_are_named():
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


def test_what_is_said_of_xiaos_numbers_follows_from_them():
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


def test_the_page_on_discrepancies_names_presets_that_exist():
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
def test_every_number_stands_in_the_text_on_the_line_of_its_label(table):
    part = section(paper_text("bido"), table.number).replace("87.73.20±", "87.73±")
    number = r"(\d+(?:\.\d+)?)()" if table.kind == "settings" else r"(\d+\.\d+)(?:±(\d+\.\d+))?"
    by_label = {}
    for row in table.rows:
        by_label.setdefault(row.printed or row.label, []).extend(numbers(row))
    for label, expected in by_label.items():
        assert printed_numbers(part, label, number)[: len(expected)] == expected


@pytest.mark.parametrize("name", ["xiao-table1", "xiao-table2"])
def test_every_number_of_a_line_of_xiaos_tables_is_there(name):
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
            assert (row.cell.defense == "none") == (defended == "=")
            assert row.cell.fields["decoder"]["mu_1"] == (0.0 if attacked == "=" else 1.0)
        else:
            assert row.cell.fields["defense"]["lambda_2"] == float(row.printed)


def test_every_number_of_xiaos_table_3_is_there():
    part = section(paper_text("xiao"), 3)
    lines = ["Face Sim. ↓", "Mean MCC ↑", "Within Var (Sw)", "Between Var (Sb)", "LDA Score ↓"]
    printed = []
    for label in lines:
        (line,) = re.findall(rf"^{re.escape(label)} (.*)$", part, re.MULTILINE)
        printed.append([float(number) for number in line.split()])
    rows = TABLES["xiao-table3"].rows
    assert [list(column) for column in zip(*printed, strict=True)] == [[v for v, _ in numbers(row)] for row in rows]


# Matrices


def test_a_matrix_for_each_data_set_and_attack():
    mnist, cifar = matrices(TABLES["bido-table3"], "full", [3, 4, 3])
    assert [m.datasets[0].name for m in (mnist, cifar)] == ["mnist", "cifar10"]
    assert [(d.name, d.preset) for d in cifar.defenses] == [
        ("none", "cifar10"),
        ("mid", "cifar10"),
        ("bido_coco", "cifar10"),
        ("bido_hsic", "cifar10"),
    ]
    assert (mnist.seeds, mnist.budget, mnist.attacks[0].name) == ((3, 4), "full", "kedmi")


def test_what_can_be_shared_is_shared(tmp_path):
    def stages(name):
        plan = make([cell for m in matrices(TABLES[name], "smoke", dataset="digits") for cell in m.cells()], tmp_path)
        kinds = [stage.kind for stage in plan.stages.values()]
        return {kind: kinds.count(kind) for kind in ("judge", "prior", "target", "scores")}

    assert stages("bido-table1") == {"judge": 1, "prior": 1, "target": 10, "scores": 10}
    assert stages("bido-table2") == {"judge": 1, "prior": 10, "target": 10, "scores": 10}


def test_rows_by_label_or_part_of_it():
    table = TABLES["bido-table1"]
    assert [row.label for row in table.select(["mid"])] == ["MID (a)", "MID (b)", "MID (c)"]
    assert [row.label for row in table.select(["bido-hsic (C)", "No Def."])] == ["No Def.", "BiDO-HSIC (c)"]
    assert [row.label for row in TABLES["bido-table4"].select(["MID"])] == ["MID"]
    assert len(table.select()) == 10
    for label in ("MDI (a)", "", " "):
        with pytest.raises(UnknownComponentError, match="row of bido-table1"):
            table.select([label])


def test_what_cannot_be_run_is_refused_in_one_sentence():
    with pytest.raises(InvalidConfigurationError, match=r"bido-table6, which holds hyper-parameters.*bido-table1"):
        matrices(TABLES["bido-table6"])
    with pytest.raises(
        InvalidConfigurationError, match="no chosen row of xiao-table1 can be run: The paper does not say"
    ):
        matrices(TABLES["xiao-table1"], labels=["for both"])
    with pytest.raises(InvalidConfigurationError, match=r"can be run: It needs .* give one with --set dataset\.extra="):
        matrices(TABLES["xiao-table1"], labels=["for Dec"])
    with pytest.raises(InvalidConfigurationError, match=r"fixes, got bido_hsic\.lambda_x"):
        matrices(TABLES["bido-table1"], settings={"bido_hsic.lambda_x": 1})
    with pytest.raises(UnknownComponentError, match="unknown table 'bido-table33': did you mean 'bido-table3'"):
        load("bido-table33")


def cells(table, budget="quick", **options):
    return [cell for matrix in matrices(TABLES[table], budget, **options) for cell in matrix.cells()]


def described(cell):
    attack = cell.attack.component
    return (
        cell.defense.name,
        cell.attack.name,
        getattr(attack, "mu_1", None),
        len(cell.dataset.component.attributes),
        cell.dataset.component.extra,
    )


def test_a_row_with_two_attacks_is_two_cells_and_equal_ones_are_run_once():
    found = [described(cell) for cell in cells("xiao-table1")]
    assert len(found) == len(set(found)) == 10
    for defense in ("none", "adversarial_reconstruction"):
        assert [each[1:] for each in found if each[0] == defense] == [
            ("decoder", 0.0, 40, None),
            ("feature_regression", None, 40, None),
            ("decoder", 1.0, 40, None),
            ("decoder", 1.0, 1, None),
            ("feature_regression", None, 1, None),
        ]
    layers = {
        (cell.defense.name, getattr(cell.defense.component, "layer", None), cell.attack.component.layer)
        for cell in cells("xiao-table3")
    }
    names = ("conv1", "conv2", "conv3", "conv4", "avgpool", "fc")
    assert layers == {pair for x in names for pair in (("none", None, x), ("adversarial_reconstruction", x, x))}
    weights = [cell.defense.component.lambda_2 for cell in cells("xiao-table2") if cell.attack.name == "decoder"]
    assert weights == [0, 1, 2, 3, 4, 5, 10]
    assert {(cell.defense.component.mu_2, cell.defense.component.lambda_1) for cell in cells("xiao-table2")} == {(1, 1)}


@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", ["xiao-table1", "xiao-table2", "xiao-table3"])
def test_targets_of_a_table_are_trained_alike(name, budget):
    found = [cell for each in (name, "xiao-table1") for cell in cells(each, budget=budget)]
    recipes = [cell.defense.component.recipe for cell in found]
    assert all(recipe == recipes[0] for recipe in recipes)


def test_what_a_row_needs_reaches_that_row_alone():
    found = [described(cell) for cell in cells("xiao-table1", settings={"dataset.extra": "photographs"})]
    assert len(found) == 14
    with_extra = [each[:4] for each in found if each[4] is not None]
    assert with_extra == [
        (defense, attack, weight, 40)
        for attack, weight in (("decoder", 0.0), ("feature_regression", None))
        for defense in ("none", "adversarial_reconstruction")
    ]


def test_settings_reach_the_attack_that_they_name():
    found = cells(
        "xiao-table1", settings={"decoder.max_steps": 3, "feature_regression.hidden": 7, "dataset.observed": 9}
    )
    for cell in found:
        attack = cell.attack.component
        assert attack.max_steps == (3 if cell.attack.name == "decoder" else 300)
        assert getattr(attack, "hidden", 7) == 7
        assert cell.dataset.component.observed == 9
    with pytest.raises(UnknownComponentError, match="scope of --set 'decodre'"):
        cells("xiao-table1", settings={"decodre.max_steps": 3})


@pytest.mark.parametrize(
    "path",
    [
        *("decoder.mu_1", "attack.mu_2", "defense.lambda_1", "adversarial_reconstruction.mu_2"),
        *("dataset.attributes", "celeba_attributes.attributes", "celeba_attributes.extra"),
    ],
)
def test_what_tells_rows_apart_cannot_be_set(path):
    with pytest.raises(
        InvalidConfigurationError, match=f"tells rows apart alone, which xiao-table1 fixes, got {path};"
    ):
        matrices(TABLES["xiao-table1"], settings={path: 1})


def test_rows_that_a_substitute_has_no_fields_for_are_left_out():
    found = cells("xiao-table1", dataset="digits")
    assert {(cell.dataset.name, cell.attack.name) for cell in found} == {
        ("digits", "decoder"),
        ("digits", "feature_regression"),
    }
    assert len(found) == 6
    smaller = cells("xiao-table1", dataset="celeba_attributes_subset")
    assert len(smaller) == 10
    assert {len(cell.dataset.component.attributes) for cell in smaller} == {40, 1}
    with pytest.raises(InvalidConfigurationError, match="can be run: Data set digits has no field attributes, which"):
        matrices(TABLES["xiao-table1"], labels=["Smiling"], dataset="digits")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number = 8", "number =", "cannot be read as TOML"),
        ("number = 8", "number = 0", "expected number of it.toml"),
        ("beta = 0.2", "gamma = 0.2", "values of MNIST: MID for columns"),
        ("beta = 0.2", 'beta = "a"', r"rows\.0\.values\.beta"),
        ("beta = 0.2", "beta = [0.2, -1]", r"rows\.0\.values\.beta"),
        ("beta = 0.2", "beta = true", r"rows\.0\.values\.beta"),
        ('preset = "mnist"', 'preset = "mnist", attack = "gmi"', "an attack for MNIST: MID"),
        ('preset = "mnist" }', 'preset = "mnist", fields = { gmi = { steps = 1 } } }', "not of gmi"),
        ("MNIST: BiDO-COCO", "MNIST: MID", "labels that differ"),
        ("mnist/v1", "mnist", "protocol"),
        ('kind = "settings"', 'kind = "figures"', "kind"),
        ('kind = "settings"', 'kind = "settings"\nextra = 1', "extra"),
    ],
)
def test_a_damaged_table_is_named(old, new, message):
    text = next(e for e in publication._sources() if e.name == "bido-table8.toml").read_text(encoding="utf-8")
    assert parse(text, "it.toml") == TABLES["bido-table8"]
    with pytest.raises(InvalidConfigurationError, match=message):
        parse(text.replace(old, new, 1), "it.toml")


# Comparison


SIMILARITIES = ("mcc", "face_similarity", "feature_similarity", "ssim")
UNITS = {
    **dict.fromkeys(("accuracy", "attack_acc", "attack_acc5"), "fraction"),
    **dict.fromkeys(SIMILARITIES, "similarity"),
    "psnr": "decibel",
    "lda": "ratio",
}
OWNER = {
    "lda_within": "lda",
    "lda_between": "lda",
    "accuracy": "accuracy",
    "attack_acc": "attack_acc",
    "attack_acc5": "attack_acc",
    "fid_judge": "fid",
}


def record(row, scores, *, attack=None, seed=0, budget="full", protocol=None, changed=None, defense=None, flags=()):
    """A record of a row's cell; `scores` are value or (value, interval) by name, `None` for an undefined one."""
    protocol, attack = protocol or row.cell.protocol, attack or row.cell.attacks[0]
    changed = changed or {}

    def choice(name, fields=None):
        return {"name": name, "distribution": "privbench", "version": 1, "fields": fields or {}}

    def score(name, given):
        value, interval = given if isinstance(given, tuple) else (given, None)
        definition = {"name": name, "title": name, "measures": "leakage", "better": "lower", "formula": "", "range": ""}
        return {
            "evaluator": OWNER.get(name, name),
            "definition": {**definition, "unit": UNITS.get(name, "distance")},
            "value": value,
            "interval": interval,
            "n": 10,
            "spreads": {"draws": 0.05 + seed / 100, "trials_as_released": 2.0, "classes": None},
            "reason": "it diverged" if value is None else None,
        }

    return Record.model_validate(
        {
            "key": f"{abs(hash((row.label, attack, seed, budget, protocol, str(changed), str(scores)))):064x}"[-64:],
            "protocol": protocol,
            "cell": {
                "dataset": choice(protocol.partition("/")[0], changed.get("dataset")),
                "defense": choice(row.cell.defense, defense or row.cell.configuration(budget)),
                "attack": choice(attack, changed.get("attack")),
                "evaluators": [choice(name) for name in sorted({OWNER.get(name, name) for name in scores})],
                "seed": seed,
                "budget": budget,
            },
            "changed": changed,
            "command": ["privbench"],
            "created": "2026-01-01T00:00:00+00:00",
            "scores": {name: score(name, given) for name, given in scores.items()},
            "environment": {
                **dict.fromkeys(("privbench", "python", "torch", "platform", "cpu", "device"), "x"),
                "cores": 1,
                "threads": 1,
            },
            "flags": [{"name": "f", "message": message} for message in flags],
        }
    )


HSIC = TABLES["bido-table3"].select(["MNIST: BiDO-HSIC"])[0]


def only(*records, table="bido-table3", label="MNIST: BiDO-HSIC", **options):
    (line,) = compare(TABLES[table], Records(records), labels=[label], **options).lines
    return line, {entry.column: entry for entry in line.entries}


def test_one_record_beside_a_row():
    scores = {"accuracy": (0.99, (0.98, 0.995)), "attack_acc": (0.08, (0.02, 0.12)), "fid_bido": 300.0}
    line, entries = only(record(HSIC, scores))
    assert (line.protocol, line.budget, line.seeds, line.deviations) == ("mnist/v1", "full", (0,), ())
    accuracy = entries["Accuracy"]
    assert (accuracy.ours, accuracy.published, accuracy.seeds) == (pytest.approx(99.0), 99.61, 1)
    assert accuracy.difference == pytest.approx(-0.61)
    assert accuracy.interval == pytest.approx((98.0, 99.5))
    assert (accuracy.in_published, accuracy.in_ours, accuracy.verdict) == (None, False, "outside")
    leak = entries["Attack Acc"]
    assert (leak.in_published, leak.in_ours, leak.verdict) == (True, True, "within both")
    assert leak.spread == pytest.approx(5.0)
    assert entries["Attack Acc5"].verdict == "no score"
    assert entries["Attack Acc5"].reason == "attack_acc5 was not recorded"
    fid = entries["FID"]
    assert (fid.ours, fid.in_published, fid.in_ours, fid.verdict) == (300.0, False, None, "outside")
    assert (fid.score, fid.spread) == ("fid_bido", 2.0)


def test_seeds_are_averaged_and_the_interval_is_over_them():
    values = [0.02, 0.05, 0.08]
    line, entries = only(*(record(HSIC, {"attack_acc": v}, seed=s) for s, v in enumerate(values)))
    entry = entries["Attack Acc"]
    assert (line.seeds, entry.seeds, entry.ours) == ((0, 1, 2), 3, pytest.approx(5.0))
    # Student-t, two degrees of freedom: 4.30265 * 3 / sqrt(3) = 7.4524; bounded below by 0.
    assert entry.interval == pytest.approx((0.0, 12.4524), abs=1e-3)
    assert entry.spread == pytest.approx(6.0)
    assert entry.verdict == "within both"


def test_another_definition_is_shown_and_not_judged():
    _, entries = only(record(HSIC, {"fid_judge": (300.0, (250.0, 350.0))}))
    entry = entries["FID"]
    assert (entry.score, entry.ours, entry.difference, entry.verdict) == ("fid_judge", 300.0, None, "not compared")
    assert (entry.in_published, entry.in_ours, entry.spread) == (None, None, None)
    assert "another definition than fid_bido" in entry.reason
    _, both = only(record(HSIC, {"fid_judge": 300.0, "fid_bido": 310.0}))
    assert (both["FID"].score, both["FID"].ours) == ("fid_bido", 310.0)


def test_features_of_another_network_do_not_compare():
    row = TABLES["bido-table2"].rows[0]
    _, entries = only(record(row, {"fid_bido": 213.43, "attack_acc": 0.76}), table="bido-table2", label="No Def.")
    assert (entries["FID"].verdict, entries["FID"].difference) == ("not compared", None)
    assert entries["Attack Acc"].verdict == "within published"


def test_a_unit_that_is_not_the_printed_one_does_not_compare(monkeypatch):
    monkeypatch.setitem(UNITS, "attack_acc", "ratio")
    _, entries = only(record(HSIC, {"attack_acc": 0.05}))
    assert entries["Attack Acc"].verdict == "not compared"
    assert "ratio" in entries["Attack Acc"].reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"protocol": "mnist/v2"}, "mnist/v2 is not the published protocol, mnist/v1"),
        ({"changed": {"dataset": {"draws": 5}}}, "dataset.draws was set otherwise than published"),
        ({"changed": {"attack": {"iterations": 5}}}, "attack.iterations was set otherwise than published"),
    ],
)
def test_another_protocol_or_attack_is_shown_and_never_compared(options, reason):
    line, entries = only(record(HSIC, {"attack_acc": 0.0436, "accuracy": 0.9961}, **options))
    for title in ("Attack Acc", "Accuracy"):
        entry = entries[title]
        assert (entry.verdict, entry.difference, entry.in_published) == ("not compared", None, None)
        assert entry.reason == reason
        assert entry.ours is not None
    assert bool(line.deviations) == ("changed" in options)


def test_a_substitute_is_asked_for_and_never_compared():
    found = record(HSIC, {"attack_acc": 0.0436}, protocol="digits/v1")
    assert compare(TABLES["bido-table3"], Records((found,))).lines == ()
    line, entries = only(found, dataset="digits")
    assert line.protocol == "digits/v1"
    assert entries["Attack Acc"].verdict == "not compared"


def test_records_of_other_cells_are_left_out():
    row = TABLES["bido-table3"].rows[1]
    weaker = {**HSIC.cell.configuration("full"), "lambda_x": 1.0}
    slower = {**HSIC.cell.configuration("full")}
    slower["recipe"] = {**slower["recipe"], "epochs": 3}
    others = [record(HSIC, {"attack_acc": 0.1}, defense=fields) for fields in (weaker, slower)]
    comparison = compare(TABLES["bido-table3"], Records((*others, record(row, {"attack_acc": 0.5}))))
    assert [line.label for line in comparison.lines] == ["MNIST: MID"]
    assert len(comparison.missing) == 7
    older = {k: v for k, v in HSIC.cell.configuration("full").items() if k != "estimator"}
    assert only(record(HSIC, {"attack_acc": 0.1}, defense=older))


def test_budgets_stay_apart():
    found = [record(HSIC, {"attack_acc": value}, budget=budget) for budget, value in (("quick", 0.2), ("full", 0.1))]
    lines = compare(TABLES["bido-table3"], Records(tuple(found)), labels=["MNIST: BiDO-HSIC"]).lines
    assert [(line.budget, line.entries[1].ours) for line in lines] == [("quick", 20.0), ("full", 10.0)]
    line, _ = only(*found, budget="quick")
    assert line.budget == "quick"


def test_undefined_and_doubtful_scores_say_so():
    line, entries = only(record(HSIC, {"fid_bido": None}, flags=["too good to be true"]))
    assert (entries["FID"].verdict, entries["FID"].ours) == ("undefined", None)
    assert "it diverged" in entries["FID"].reason
    assert line.flags == ("too good to be true",)


def test_tables_of_settings_are_not_compared():
    with pytest.raises(InvalidConfigurationError, match="hyper-parameters"):
        compare(TABLES["bido-table8"], Records())


def recorded(cell, scores):
    """The record that a run of a cell would leave."""
    made = record(
        TABLES["xiao-table1"].rows[0], scores, budget=cell.budget, protocol=cell.dataset.component.protocol.id
    )
    choices = {
        kind: made.cell.dataset.model_copy(update={"name": choice.name, "fields": choice.component.config()})
        for kind, choice in (("dataset", cell.dataset), ("defense", cell.defense), ("attack", cell.attack))
    }
    return made.model_copy(update={"cell": made.cell.model_copy(update=choices), "changed": changes(cell)})


def under(label, *, table="xiao-table1", budget="full", **options):
    """Records of a row under each of its attacks, with scores that are the printed ones."""
    (row,) = TABLES[table].select([label])
    found = []
    for cell in cells(table, budget, labels=[label], **options):
        values = TABLES[table].values(row, cell.attack.name)
        scores = {TABLES[table].column(name).score: value.value for name, value in values.items()}
        found.append(recorded(cell, {name: value for name, value in scores.items() if name}))
    return found


def test_a_value_belongs_to_a_row_and_an_attack():
    records = under("#2 adv")
    comparison = compare(TABLES["xiao-table1"], Records(tuple(records)), labels=["#2 adv"])
    assert [(line.attack, line.deviations) for line in comparison.lines] == [
        ("decoder", ()),
        ("feature_regression", ()),
    ]
    found = {line.attack: {entry.column: entry.verdict for entry in line.entries} for line in comparison.lines}
    assert found == {
        "decoder": {
            "Mean MCC": "no interval",
            "Face Sim.": "not compared",
            "SSIM": "no interval",
            "PSNR": "no interval",
        },
        "feature_regression": {"Feature Sim.": "not compared"},
    }
    assert all(entry.difference in (None, 0) for line in comparison.lines for entry in line.entries)
    assert comparison.missing == ()
    for attack, missing in zip(("feature_regression", "decoder"), ("decoder", "feature_regression"), strict=True):
        some = Records(tuple(each for each in records if each.cell.attack.name == attack))
        assert compare(TABLES["xiao-table1"], some, labels=["#2 adv"]).missing == (f"#2 adv ({missing})",)


def test_fields_of_a_defense_that_tell_no_rows_apart_can_be_set_and_are_then_not_compared():
    other = {"adversarial_reconstruction.perceptual": "efficientnet_lite0", "defense.recipe.max_steps": 5}
    table = TABLES["xiao-table2"]
    records = Records(tuple(under("lambda_2 = 3", table="xiao-table2", settings=other)))
    comparison = compare(table, records)
    assert row_and_attack(comparison) == [("lambda_2 = 3", "decoder"), ("lambda_2 = 3", "feature_regression")]
    for line in comparison.lines:
        assert line.deviations == ("defense.perceptual=efficientnet_lite0", "defense.recipe.max_steps=5")
        assert {entry.verdict for entry in line.entries} == {"not compared"}


def test_a_score_that_was_not_run_says_why():
    made = under("#2 adv")[0].model_copy(update={"not_run": {"ssim": "SSIM needs 11 pixels"}})
    scores = {name: score for name, score in made.scores.items() if name != "ssim"}
    _, entries = only(made.model_copy(update={"scores": scores}), table="xiao-table1", label="#2 adv")
    assert (entries["SSIM"].verdict, entries["SSIM"].reason) == ("no score", "SSIM needs 11 pixels")


def row_and_attack(comparison):
    return [(line.label, line.attack) for line in comparison.lines]


@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", ["xiao-table1", "xiao-table2", "xiao-table3"])
def test_records_belong_to_the_row_that_they_were_run_for(name, budget):
    table = TABLES[name]
    rows = [row for row in table.rows if not row.not_runnable]
    for dataset in (None, "celeba_attributes_subset"):
        for row in rows:
            records = Records(tuple(under(row.label, table=name, budget=budget, dataset=dataset)))
            assert row_and_attack(compare(table, records, labels=[row.label], dataset=dataset)) == [
                (row.label, attack) for attack in row.cell.attacks
            ]
            others = {label for label, attack in row_and_attack(compare(table, records, dataset=dataset))} - {row.label}
            # Rows 1 and 3, and 2 and 4, of Table 1 share their regressions.
            shared = {"#1 none": "#3 none, GAN", "#2 adv": "#4 adv, GAN"}
            assert others <= {*(shared.get(row.label, ""),), *(old for old, new in shared.items() if new == row.label)}
    records = Records(tuple(record for row in rows for record in under(row.label, table=name, budget=budget)))
    for line in compare(table, records).lines:
        assert all(entry.ours == entry.published for entry in line.entries if entry.score)
        assert line.deviations == ()


def test_a_row_that_needs_images_takes_records_with_images():
    label, images = "#5 none, more data for Dec", {"dataset.extra": "photographs"}
    with_images = Records(tuple(under(label, settings=images)))
    comparison = compare(TABLES["xiao-table1"], with_images)
    assert row_and_attack(comparison) == [(label, "decoder"), (label, "feature_regression")]
    assert all(line.deviations == () for line in comparison.lines)
    assert comparison.lines[0].entries[-1].difference == 0
    without = Records(tuple(under("#1 none")))
    assert {label for label, _ in row_and_attack(compare(TABLES["xiao-table1"], without))} == {
        "#1 none",
        "#3 none, GAN",
    }


def test_what_is_printed_upside_down_is_not_compared():
    (found,) = under("FC Layer, with adv", table="xiao-table3")
    _, entries = only(found, table="xiao-table3", label="FC Layer, with adv")
    entry = entries["LDA Score (FC)"]
    assert (entry.published, entry.score, entry.verdict, entry.difference) == (1.49, "lda", "not compared", None)
    assert "0.67" in entry.reason
    (found,) = under("Conv1, with adv", table="xiao-table3")
    _, entries = only(found, table="xiao-table3", label="Conv1, with adv")
    assert entries["LDA Score"].difference == 0
    assert {entries[name].verdict for name in ("Within Var (Sw)", "Face Sim.")} == {"not compared"}


def test_a_printed_value_without_a_score_says_why():
    _, entries = only(under("#9 none, GAN, Smiling")[0], table="xiao-table1", label="#9 none, GAN, Smiling")
    assert (entries["Smiling MCC"].ours, entries["Smiling MCC"].difference) == (0.851, 0)
    assert (entries["MCC of 40"].published, entries["MCC of 40"].ours, entries["MCC of 40"].verdict) == (
        0.001,
        None,
        "no score",
    )
    assert "other 39" in entries["MCC of 40"].reason


def test_smaller_images_are_not_compared():
    for budget in ("smoke", "quick"):
        line, entries = only(under("#1 none", budget=budget)[0], table="xiao-table1", label="#1 none")
        assert {entry.verdict for entry in entries.values()} == {"not compared"}
        assert entries["PSNR"].reason == f"dataset.size is 64 with budget {budget}, published is 224"
        assert line.budget == budget
        large = under("#1 none", budget=budget, settings={"dataset.size": 224})[0]
        line, entries = only(large, table="xiao-table1", label="#1 none")
        assert line.deviations == ("dataset.size=224",)
        assert entries["PSNR"].difference == 0


def test_a_smaller_copy_stands_in_and_is_never_compared():
    smaller, label = "celeba_attributes_subset", "#10 adv, GAN, Smiling"
    large = {"dataset.size": 224}
    records = Records(tuple(under(label, dataset=smaller, settings=large)))
    assert compare(TABLES["xiao-table1"], records).lines == ()
    comparison = compare(TABLES["xiao-table1"], records, dataset=smaller)
    assert row_and_attack(comparison) == [(label, "decoder"), (label, "feature_regression")]
    scored = [entry for line in comparison.lines for entry in line.entries if entry.ours is not None]
    assert len(scored) == 5
    assert {(entry.verdict, entry.difference) for entry in scored} == {("not compared", None)}
    assert {entry.reason for entry in scored} == {f"{smaller}/v1 is not the published protocol, celeba_attributes/v1"}


@pytest.mark.parametrize("dataset", [None, "digits"])
@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
def test_records_are_found_whatever_the_data_set_adds_to_the_recipe(budget, dataset):
    for name in ("bido-table1", "bido-table3"):
        row = TABLES[name].rows[0]
        for cell in cells(name, budget, labels=[row.label], dataset=dataset):
            line, _ = only(recorded(cell, {"accuracy": 0.5}), table=name, label=row.label, dataset=dataset)
            assert line.budget == budget
        shorter = cell.defense.component.model_copy(
            update={"recipe": cell.defense.component.recipe.model_copy(update={"max_steps": 3})}
        )
        changed = replace(cell, defense=replace(cell.defense, component=shorter))
        assert compare(TABLES[name], Records((recorded(changed, {"accuracy": 0.5}),)), dataset=dataset).lines == ()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_verdict_follows_from_the_two_intervals(value, low, high):
    low, high = sorted((low, high))
    _, entries = only(record(HSIC, {"attack_acc": (value, (low, high))}))
    entry = entries["Attack Acc"]
    assert entry.in_ours == (100 * low <= 4.36 <= 100 * high)
    assert entry.in_published == (abs(100 * value - 4.36) <= 5.70)
    assert entry.difference == pytest.approx(100 * value - 4.36)
    assert (entry.verdict == "within both") == (entry.in_ours and entry.in_published)
    assert (entry.verdict == "outside") == (not entry.in_ours and not entry.in_published)


def test_words_for_all_answers():
    answers = (True, False, None)
    words = {(a, b): verdict(a, b) for a in answers for b in answers}
    assert [pair for pair, word in words.items() if word == "within both"] == [(True, True)]
    assert [pair for pair, word in words.items() if word == "no interval"] == [(None, None)]
    assert {word for (a, b), word in words.items() if True not in (a, b) and False in (a, b)} == {"outside"}
