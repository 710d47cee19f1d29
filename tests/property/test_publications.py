"""Published tables: what they hold is what is printed, what reproduces them exists, and comparing is honest."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark import registry
from privbench.benchmark.errors import InvalidConfigurationError, UnknownComponentError
from privbench.benchmark.plan import make
from privbench.benchmark.publications import publication
from privbench.benchmark.publications.comparison import compare, verdict
from privbench.benchmark.publications.publication import load, matrices, parse, tables
from privbench.benchmark.record import Record
from privbench.benchmark.records import Records
from privbench.benchmark.spec import resolve

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
}
COUNTS = {1: 10, 2: 10, 3: 8, 4: 4, 5: 7, 6: 9, 7: 3, 8: 6}


def numbers(row):
    """The row's numbers in the order of the columns."""
    return [(value.value, value.spread) for value in row.values.values()]


def test_every_table_of_the_paper_is_there_with_all_rows():
    assert {table.number: len(table.rows) for table in tables() if table.paper == "bido"} == COUNTS
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
        assert 0 <= value.value <= (100 if column.unit == "per cent" else 1000)
        assert (value.spread is not None) == (column.spread is not None)
        assert (column.spread is None) == (column.spread_meaning == "")
        if value.spread is not None:
            assert 0 <= value.spread < 30
    if "attack_acc5" in row.values:
        assert row.values["attack_acc5"].value > row.values["attack_acc"].value


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_what_reproduces_a_row_exists(table, row):
    assert row.cell.configuration("full") != row.cell.configuration("smoke")
    if table.kind == "results":
        attack = registry.load("attack", row.cell.attack)
        scores = {s.name for name in table.evaluators for s in registry.load("evaluator", name).scores}
        assert {"vmi": 4, "gmi": 1}.get(row.cell.attack, table.number) == table.number
        assert attack.yields == "ClassReconstructions"
        assert scores >= {score for column in table.columns for score in (column.score, column.otherwise) if score}
    if row.not_runnable:
        missing = row.cell.dataset not in registry.names("dataset")
        assert missing, f"{row.cell.dataset} exists now: {row.label} of {table.name} can be run"
    elif table.kind == "results":
        (matrix,) = matrices(table, "full", labels=[row.label])
        dataset = resolve("dataset", matrix.datasets[0], "full", {}).component
        assert dataset.protocol.id == row.cell.protocol
        (cell,) = matrix.cells()
        assert not cell.not_run
        assert cell.defense.component.config() == row.cell.configuration("full")


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


def paper_text():
    folder = os.environ.get("PRIVBENCH_PAPERS")
    if not folder:
        pytest.skip("PRIVBENCH_PAPERS names no folder with the texts of papers")
    for path in sorted(Path(folder).glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if "bilateral dependency optimization (BiDO) strategy" in text:
            return text
    pytest.skip("PRIVBENCH_PAPERS has no text of the BiDO paper")


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


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_every_number_stands_in_the_text_on_the_line_of_its_label(table):
    part = section(paper_text(), table.number).replace("87.73.20±", "87.73±")
    number = r"(\d+(?:\.\d+)?)()" if table.kind == "settings" else r"(\d+\.\d+)(?:±(\d+\.\d+))?"
    by_label = {}
    for row in table.rows:
        by_label.setdefault(row.printed or row.label, []).extend(numbers(row))
    for label, expected in by_label.items():
        assert printed_numbers(part, label, number)[: len(expected)] == expected


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
    rows = TABLES["bido-table4"].rows
    lacking = tuple(row.model_copy(update={"not_runnable": "privbench has no such data set."}) for row in rows[:2])
    table = TABLES["bido-table4"].model_copy(update={"rows": (*lacking, *rows[2:])})
    assert len(matrices(table)[0].defenses) == 2
    with pytest.raises(InvalidConfigurationError, match="no chosen row of bido-table4 can be run: privbench has no"):
        matrices(table, labels=["No Def.", "MID"])
    with pytest.raises(InvalidConfigurationError, match=r"fixes, got bido_hsic\.lambda_x"):
        matrices(TABLES["bido-table1"], settings={"bido_hsic.lambda_x": 1})
    with pytest.raises(UnknownComponentError, match="unknown table 'bido-table33': did you mean 'bido-table3'"):
        load("bido-table33")
    assert len(matrices(table, dataset="celeba_subset")[0].defenses) == 4


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


UNITS = {"accuracy": "fraction", "attack_acc": "fraction", "attack_acc5": "fraction"}
OWNER = {"accuracy": "accuracy", "attack_acc": "attack_acc", "attack_acc5": "attack_acc", "fid_judge": "fid"}


def record(row, scores, *, seed=0, budget="full", protocol=None, changed=None, defense=None, flags=()):
    """A record of a row's cell; `scores` are value or (value, interval) by name, `None` for an undefined one."""
    protocol = protocol or row.cell.protocol

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

    changed = changed or {}
    return Record.model_validate(
        {
            "key": f"{abs(hash((row.label, seed, budget, protocol, str(changed), str(scores)))):064x}"[-64:],
            "protocol": protocol,
            "cell": {
                "dataset": choice(protocol.partition("/")[0], changed.get("dataset")),
                "defense": choice(row.cell.defense, defense or row.cell.configuration(budget)),
                "attack": choice(row.cell.attack, changed.get("attack")),
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
