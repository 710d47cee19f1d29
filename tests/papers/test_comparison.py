"""Comparison of records with published tables."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.papers.comparison import compare
from privbench.benchmark.papers.matrices import matrices
from privbench.benchmark.papers.orders import Measured, Order, pairs
from privbench.benchmark.papers.table import Published, tables
from privbench.benchmark.papers.verdict import tolerance, verdict
from privbench.benchmark.pipeline.write_record import changes
from privbench.benchmark.records.record import NotRun, Record

TABLES = {table.name: table for table in tables()}


def cells(table, budget="quick", **options):
    return [cell for matrix in matrices(TABLES[table], budget, controls=False, **options) for cell in matrix.cells()]


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


def test_three_seeds_at_full_give_a_verdict():
    scores = [{"accuracy": 0.99 + s / 1000, "attack_acc": 0.05 + s / 200, "fid_bido": 250.0 - s} for s in range(3)]
    line, entries = only(*(record(HSIC, each, seed=seed) for seed, each in enumerate(scores)))
    assert (line.protocol, line.budget, line.seeds, line.deviations) == ("mnist/v2", "full", (0, 1, 2), ())
    accuracy = entries["Accuracy"]
    assert (accuracy.ours, accuracy.published, accuracy.seeds) == (pytest.approx(99.1), 99.61, 3)
    assert accuracy.difference == pytest.approx(-0.51)
    assert (accuracy.tolerance, accuracy.verdict) == (3.0, "agrees")
    leak = entries["Attack Acc"]
    assert (leak.published, leak.tolerance, leak.verdict) == (4.36, 5.7, "agrees")
    assert entries["Attack Acc5"].verdict == "no score"
    assert entries["Attack Acc5"].reason == "attack_acc5 was not recorded"
    fid = entries["FID"]
    assert (fid.ours, fid.published, fid.verdict) == (249.0, 322.0, "differs")
    assert (fid.score, fid.spread) == ("fid_bido", 2.0)


@pytest.mark.parametrize(
    ("seeds", "budget", "reason"),
    [
        (3, "smoke", "smoke"),
        (3, "quick", "quick"),
        (1, "full", "1 seed"),
        (2, "full", "2 seeds"),
        (1, "smoke", "smoke"),
    ],
)
def test_less_effort_gives_no_verdict(seeds, budget, reason):
    value = {"attack_acc": (0.0436, (0.04, 0.05))}
    _, entries = only(*(record(HSIC, value, seed=seed, budget=budget) for seed in range(seeds)))
    entry = entries["Attack Acc"]
    assert (entry.verdict, entry.reason, entry.finding) == ("not comparable", reason, f"not comparable: {reason}")
    assert (entry.difference, entry.tolerance) == (None, None)
    assert entry.ours == pytest.approx(4.36)


def test_seeds_are_averaged_with_an_interval():
    values = [0.02, 0.05, 0.08]
    line, entries = only(*(record(HSIC, {"attack_acc": v}, seed=s) for s, v in enumerate(values)))
    entry = entries["Attack Acc"]
    assert (line.seeds, entry.seeds, entry.ours) == ((0, 1, 2), 3, pytest.approx(5.0))
    # Student-t, two degrees of freedom: 4.30265 * 3 / sqrt(3) = 7.4524; bounded below by 0.
    assert entry.interval == pytest.approx((0.0, 12.4524), abs=1e-3)
    assert entry.spread == pytest.approx(6.0)
    assert entry.verdict == "undecided"  # the mean is near the printed 4.36 +- 5.70, and the interval is not


@pytest.mark.parametrize(
    ("unit", "value", "wanted"), [("similarity", 0.5, 0.03), ("decibel", 20, 1), ("ratio", 3, 0.3)]
)
def test_the_tolerance_is_the_printed_spread_or_that_of_the_unit(unit, value, wanted):
    assert tolerance(unit, Published(value=value)) == pytest.approx(wanted)
    assert tolerance(unit, Published(value=value, spread=0)) == pytest.approx(wanted)
    assert tolerance(unit, Published(value=value, spread=7)) == 7


def test_the_order_of_rows_is_compared_at_any_effort():
    """Ours swap the two highest of the four printed attack accuracies of MNIST."""
    rows = TABLES["bido-table3"].select(["MNIST"])
    printed = [row.values["attack_acc"].value for row in rows]
    assert len(set(printed)) == 4
    ours = {row.label: 0.2 + 0.2 * sorted(printed).index(value) for row, value in zip(rows, printed, strict=True)}
    first, second = sorted(rows, key=lambda row: -row.values["attack_acc"].value)[:2]
    ours[first.label], ours[second.label] = ours[second.label], ours[first.label]
    intervals = {label: (value, (max(0.0, value - 0.15), value + 0.15)) for label, value in ours.items()}
    found = [record(row, {"attack_acc": intervals[row.label]}, budget="smoke") for row in rows]
    (order,) = compare(TABLES["bido-table3"], Records(tuple(found))).orders
    assert (order.column, order.budget, order.protocol) == ("Attack Acc", "smoke", HSIC.cell.protocol)
    assert len(order.pairs) == 6
    assert [pair.is_reproduced for pair in order.pairs].count(True) == 5
    # Means are multiples of 20 points, intervals +- 15: only neighbours overlap.
    assert [pair.is_separated for pair in order.pairs].count(True) == 3
    assert order.summary() == "5 of 6 published orders reproduced, 3 of them with separate intervals"
    (exception,) = order.exceptions()
    assert exception.startswith(f"{first.label} > {second.label} (ours ")


def test_equal_values_reproduce_no_order_and_touching_intervals_are_not_separate():
    def measured(label, printed, ours, interval):
        return Measured(label, printed, ours, interval)

    (equal,) = pairs([measured("a", 2, 0.5, (0.4, 0.6)), measured("b", 1, 0.5, (0.4, 0.6))])
    assert (equal.higher, equal.is_reproduced, equal.is_separated) == ("a", False, False)
    for one, two in (((0.25, 0.5), (0.5, 0.75)), ((0.5, 0.75), (0.25, 0.5)), ((0.25, 0.75), (0.4, 0.5))):
        (touching,) = pairs([measured("a", 2, sum(one) / 2, one), measured("b", 1, sum(two) / 2, two)])
        assert not touching.is_separated
    (apart,) = pairs([measured("a", 1, 0.1, (0.0, 0.2)), measured("b", 2, 0.3, (0.25, 0.4))])
    assert (apart.higher, apart.lower, apart.ours) == ("b", "a", (0.3, 0.1))
    assert apart.is_separated and apart.is_reproduced
    assert pairs([measured("a", 1, 0.1, None), measured("b", 1, 0.3, None)]) == (), "the table prints equal values"
    found = pairs(
        [
            measured(label, *rest)
            for label, *rest in (("a", 3, 0.5, (0.4, 0.6)), ("b", 2, 0.9, (0.8, 1.0)), ("c", 1, 0.45, (0.4, 0.5)))
        ]
    )
    order = Order("x", 1, "gmi", "mnist/v2", "full", found)
    assert order.summary() == (
        "2 of 3 published orders reproduced, 1 of them with separate intervals; 1 reversed with separate intervals"
    )
    assert order.exceptions() == ("a > b (ours 0.5 and 0.9, intervals separate)",)
    (unknown,) = pairs([measured("a", 2, 0.3, None), measured("b", 1, 0.1, (0.0, 0.2))])
    assert (unknown.is_reproduced, unknown.is_separated) == (True, False)


def test_orders_with_other_settings_are_apart():
    rows = TABLES["bido-table3"].select(["MNIST"])[:2]
    changed = {"attack": {"iterations": 5}}
    found = [
        record(row, {"attack_acc": value}, budget="smoke", changed=set_by_user)
        for row, value, set_by_user in ((rows[0], 0.5, {}), (rows[1], 0.1, changed))
    ]
    assert compare(TABLES["bido-table3"], Records(tuple(found))).orders == ()


def test_a_spread_is_that_of_the_record_of_a_seed_that_counts():
    old, new = (
        record(HSIC, {"attack_acc": value}).model_copy(update={"created": day})
        for value, day in ((0.05, "2026-01-01T00:00:00+00:00"), (0.06, "2026-02-01T00:00:00+00:00"))
    )
    spreads = {0.05: 1.0, 0.06: 3.0}
    for one in (old, new):
        one.scores["attack_acc"].__dict__["spreads"] = {"draws": spreads[one.scores["attack_acc"].value] / 100}
    for order, ours, spread in (((old, new), 5.0, 1.0), ((new, old), 6.0, 3.0)):  # the first, whenever it was made
        _, entries = only(*order)
        assert (entries["Attack Acc"].ours, entries["Attack Acc"].spread) == (
            pytest.approx(ours),
            pytest.approx(spread),
        )


def test_rows_of_published_tables_have_the_tolerance_of_their_size_with_any_sign():
    assert tolerance("ratio", Published(value=-2.0)) == pytest.approx(0.2)


def test_rows_of_other_data_sets_are_not_ordered_with_one_another():
    rows = TABLES["bido-table3"].rows
    mnist, cifar = rows[0], next(row for row in rows if row.cell.dataset != rows[0].cell.dataset)
    found = [record(row, {"attack_acc": value}) for row, value in ((mnist, 0.5), (cifar, 0.1))]
    assert compare(TABLES["bido-table3"], Records(tuple(found))).orders == ()


def test_another_definition_is_shown_and_not_compared():
    _, entries = only(record(HSIC, {"fid_judge": (300.0, (250.0, 350.0))}))
    entry = entries["FID"]
    assert (entry.score, entry.ours, entry.difference, entry.verdict) == ("fid_judge", 300.0, None, "not comparable")
    assert (entry.tolerance, entry.spread) == (None, None)
    assert "differs from that of fid_bido" in entry.reason
    _, both = only(record(HSIC, {"fid_judge": 300.0, "fid_bido": 310.0}))
    assert (both["FID"].score, both["FID"].ours) == ("fid_bido", 310.0)


def test_features_of_another_network_are_not_compared():
    row = TABLES["bido-table2"].rows[0]
    _, entries = only(record(row, {"fid_bido": 213.43, "attack_acc": 0.76}), table="bido-table2", label="No Def.")
    assert (entries["FID"].verdict, entries["FID"].difference) == ("not comparable", None)
    assert entries["Attack Acc"].finding == "not comparable: 1 seed"


def test_another_unit_is_not_compared(monkeypatch):
    monkeypatch.setitem(UNITS, "attack_acc", "ratio")
    _, entries = only(record(HSIC, {"attack_acc": 0.05}))
    assert entries["Attack Acc"].verdict == "not comparable"
    assert "ratio" in entries["Attack Acc"].reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"protocol": "mnist/v3"}, "mnist/v3 is not the published protocol, mnist/v2"),
        ({"changed": {"dataset": {"draws": 5}}}, "dataset.draws differs from the published settings"),
        ({"changed": {"attack": {"iterations": 5}}}, "attack.iterations differs from the published settings"),
    ],
)
def test_another_protocol_or_attack_is_shown_and_not_compared(options, reason):
    line, entries = only(record(HSIC, {"attack_acc": 0.0436, "accuracy": 0.9961}, **options))
    for title in ("Attack Acc", "Accuracy"):
        entry = entries[title]
        assert (entry.verdict, entry.difference, entry.tolerance) == ("not comparable", None, None)
        assert entry.reason == reason
        assert entry.ours is not None
    assert bool(line.deviations) == ("changed" in options)


def test_a_substitute_must_be_given_and_is_not_compared():
    found = record(HSIC, {"attack_acc": 0.0436}, protocol="digits/v1")
    assert compare(TABLES["bido-table3"], Records((found,))).lines == ()
    line, entries = only(found, dataset="digits")
    assert line.protocol == "digits/v1"
    assert entries["Attack Acc"].verdict == "not comparable"


def test_records_of_other_cells_are_ignored():
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


def test_budgets_are_separate():
    found = [record(HSIC, {"attack_acc": value}, budget=budget) for budget, value in (("quick", 0.2), ("full", 0.1))]
    lines = compare(TABLES["bido-table3"], Records(tuple(found)), labels=["MNIST: BiDO-HSIC"]).lines
    assert [(line.budget, line.entries[1].ours) for line in lines] == [("quick", 20.0), ("full", 10.0)]
    line, _ = only(*found, budget="quick")
    assert line.budget == "quick"


def test_undefined_scores_have_a_reason_and_flags_are_shown():
    line, entries = only(record(HSIC, {"fid_bido": None}, flags=["too good to be true"]))
    assert (entries["FID"].verdict, entries["FID"].ours) == ("undefined", None)
    assert "it diverged" in entries["FID"].reason
    assert line.flags == ("too good to be true",)


def test_tables_of_settings_are_not_compared():
    with pytest.raises(InvalidConfigurationError, match="hyperparameters"):
        compare(TABLES["bido-table8"], Records())


def recorded(cell, scores):
    """The record that a run of a cell would write."""
    made = record(
        TABLES["xiao-table1"].rows[0], scores, budget=cell.budget, protocol=cell.dataset.component.protocol.id
    )
    choices = {
        kind: made.cell.dataset.model_copy(update={"name": choice.name, "fields": choice.component.config()})
        for kind, choice in (("dataset", cell.dataset), ("defense", cell.defense), ("attack", cell.attack))
    }
    return made.model_copy(update={"cell": made.cell.model_copy(update=choices), "changed": changes(cell)})


def under(label, *, table="xiao-table1", budget="full", **options):
    """Records of a row under each of its attacks, with the printed values as scores."""
    (row,) = TABLES[table].select([label])
    found = []
    for cell in cells(table, budget, labels=[label], **options):
        values = TABLES[table].values(row, cell.attack.name)
        columns = {name: TABLES[table].column(name) for name in values}
        scores = {x.score: values[name].value for name, x in columns.items() if x.score and x.factor == 1}
        found.append(recorded(cell, scores))
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
            "Mean MCC": "not comparable",
            "Face Sim.": "not comparable",
            "SSIM": "not comparable",
            "PSNR": "not comparable",
        },
        "feature_regression": {"Feature Sim.": "not comparable"},
    }
    assert all(entry.difference in (None, 0) for line in comparison.lines for entry in line.entries)
    assert comparison.missing == ()
    for attack, missing in zip(("feature_regression", "decoder"), ("decoder", "feature_regression"), strict=True):
        some = Records(tuple(each for each in records if each.cell.attack.name == attack))
        assert compare(TABLES["xiao-table1"], some, labels=["#2 adv"]).missing == (f"#2 adv ({missing})",)


def test_other_fields_of_a_defense_can_be_set_and_are_then_not_compared():
    other = {"adversarial_reconstruction.perceptual": "efficientnet_lite0", "defense.recipe.max_steps": 5}
    table = TABLES["xiao-table2"]
    records = Records(tuple(under("lambda_2 = 3", table="xiao-table2", settings=other)))
    comparison = compare(table, records)
    assert row_and_attack(comparison) == [("lambda_2 = 3", "decoder"), ("lambda_2 = 3", "feature_regression")]
    for line in comparison.lines:
        assert line.deviations == ("defense.perceptual=efficientnet_lite0", "defense.recipe.max_steps=5")
        assert {entry.verdict for entry in line.entries} == {"not comparable"}


def test_a_score_that_was_not_run_has_a_reason():
    made = under("#2 adv")[0].model_copy(
        update={"not_run": {"ssim": NotRun(code="unavailable", reason="SSIM needs 11 pixels")}}
    )
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
        assert all(entry.ours == entry.published for entry in line.entries if entry.column != "MCC of 40")
        assert line.deviations == ()


def test_a_row_that_needs_images_matches_records_with_images():
    label, images = "#5 none, more data for Dec", {"dataset.extra": "photographs"}
    with_images = Records(tuple(under(label, settings=images)))
    comparison = compare(TABLES["xiao-table1"], with_images)
    assert row_and_attack(comparison) == [(label, "decoder"), (label, "feature_regression")]
    assert all(line.deviations == () for line in comparison.lines)
    assert comparison.lines[0].entries[-1].finding == "not comparable: 1 seed"
    without = Records(tuple(under("#1 none")))
    assert {label for label, _ in row_and_attack(compare(TABLES["xiao-table1"], without))} == {
        "#1 none",
        "#3 none, GAN",
    }


def test_a_row_that_is_approximated_is_shown_and_not_compared():
    for label in ("#7 none, more data for both", "#8 adv, more data for both"):
        found = Records(tuple(under(label, settings={"dataset.extra": "photographs"})))
        comparison = compare(TABLES["xiao-table1"], found)
        assert row_and_attack(comparison) == [(label, "decoder"), (label, "feature_regression")]
        entries = [entry for line in comparison.lines for entry in line.entries]
        assert {entry.verdict for entry in entries} == {"not comparable"}
        assert all(entry.ours is not None and "is approximated" in entry.reason for entry in entries)


def test_a_printed_reciprocal_is_not_compared():
    (found,) = under("FC Layer, with adv", table="xiao-table3")
    _, entries = only(found, table="xiao-table3", label="FC Layer, with adv")
    entry = entries["LDA Score (FC)"]
    assert (entry.published, entry.score, entry.verdict, entry.difference) == (1.49, "lda", "not comparable", None)
    assert "0.67" in entry.reason
    (found,) = under("Conv1, with adv", table="xiao-table3")
    _, entries = only(found, table="xiao-table3", label="Conv1, with adv")
    assert entries["LDA Score"].finding == "not comparable: 1 seed"
    assert {entries[name].verdict for name in ("Within Var (Sw)", "Face Sim.")} == {"not comparable"}


def test_the_mcc_of_40_attributes_counts_those_without_an_output_as_0():
    """0.851 / 40 = 0.0213; its interval is a fortieth too."""
    _, entries = only(under("#9 none, GAN, Smiling")[0], table="xiao-table1", label="#9 none, GAN, Smiling")
    smiling, mean = entries["Smiling MCC"], entries["MCC of 40"]
    assert (smiling.ours, smiling.finding) == (0.851, "not comparable: 1 seed")
    assert (mean.published, mean.verdict, mean.difference) == (0.001, "not comparable", None)
    assert mean.ours == pytest.approx(0.851 / 40)
    assert (mean.interval is None) == (smiling.interval is None)
    assert "other 39" in mean.reason


def test_a_printed_value_without_a_score_has_a_reason():
    column = TABLES["xiao-table1"].column("mcc_40").model_copy(update={"score": None})
    table = TABLES["xiao-table1"].model_copy(
        update={"columns": tuple(column if each.name == "mcc_40" else each for each in TABLES["xiao-table1"].columns)}
    )
    label = "#9 none, GAN, Smiling"
    (line,) = compare(table, Records((under(label)[0],)), labels=[label]).lines
    (entry,) = (entry for entry in line.entries if entry.column == "MCC of 40")
    assert (entry.published, entry.ours, entry.verdict) == (0.001, None, "no score")
    assert "other 39" in entry.reason


def test_smaller_images_are_not_compared():
    for budget in ("smoke", "quick"):
        line, entries = only(under("#1 none", budget=budget)[0], table="xiao-table1", label="#1 none")
        assert {entry.verdict for entry in entries.values()} == {"not comparable"}
        assert entries["PSNR"].reason == f"dataset.size is 64 with budget {budget}, the published one is 224"
        assert line.budget == budget
        large = under("#1 none", budget=budget, settings={"dataset.size": 224})[0]
        line, entries = only(large, table="xiao-table1", label="#1 none")
        assert line.deviations == ("dataset.size=224",)
        assert entries["PSNR"].finding == f"not comparable: {budget}"


def test_a_smaller_substitute_is_not_compared():
    smaller, label = "celeba_attributes_subset", "#10 adv, GAN, Smiling"
    large = {"dataset.size": 224}
    records = Records(tuple(under(label, dataset=smaller, settings=large)))
    assert compare(TABLES["xiao-table1"], records).lines == ()
    comparison = compare(TABLES["xiao-table1"], records, dataset=smaller)
    assert row_and_attack(comparison) == [(label, "decoder"), (label, "feature_regression")]
    scored = [entry for line in comparison.lines for entry in line.entries if entry.ours is not None]
    assert len(scored) == 6
    assert {(entry.verdict, entry.difference) for entry in scored} == {("not comparable", None)}
    assert {entry.reason for entry in scored} == {f"{smaller}/v2 is not the published protocol, celeba_attributes/v2"}


@pytest.mark.parametrize("dataset", [None, "digits"])
@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
def test_records_match_if_the_data_set_adds_to_the_recipe(budget, dataset):
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


@settings(max_examples=200, deadline=None)
@given(st.floats(-9, 9), st.floats(0, 9), st.floats(-9, 9), st.floats(-9, 9))
def test_the_verdict_follows_from_interval_and_tolerance(published, allowed, one, two):
    low, high = sorted((one, two))
    found = verdict(published, allowed, (low, high))
    inside = [published - allowed <= end <= published + allowed for end in (low, high)]
    assert (found == "agrees") == all(inside)
    assert (found == "differs") == (high < published - allowed or low > published + allowed)
    assert found in ("agrees", "differs", "undecided")
    assert verdict(published, allowed, None) == "undecided"
