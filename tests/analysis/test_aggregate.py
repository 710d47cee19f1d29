"""Aggregation over seeds: which record counts, means, intervals, reasons, and the order of rows and columns."""

import pytest
from helpers.samples import choice, make_record, make_score
from privbench.benchmark.analysis.aggregate import Section, Summary, counted, sections
from privbench.benchmark.core.statistics import student
from privbench.benchmark.records.bounds import bounds
from privbench.benchmark.records.record import Record


def section(*records: Record) -> Section:
    (found,) = sections(records)
    return found


def scored(seed: int = 0, value: float | None = 0.5, reason: str | None = None, **more: object) -> Record:
    changes = {name: more.pop(name) for name in ("created", "key", "cell") if name in more}
    score = make_score("attack_acc", value, reason, **more)
    return make_record(seed=seed, scores={"attack_acc": score}, not_run={}, **changes)


def summary(*records: Record) -> Summary:
    (row,) = section(*records).rows
    return row.scores["attack_acc"]


def test_of_one_seed_the_first_record_that_has_the_score_counts_whatever_its_time() -> None:
    first, late = scored(value=0.1, key="0" * 64), scored(value=0.3, created="9999-12-31T00:00:00+00:00", key="1" * 64)
    without = scored(key="2" * 64).model_copy(update={"scores": {}})
    for order in ((first, late, without), (without, first, late), (first, without, late)):
        assert counted(order, "attack_acc") == {0: first}
    assert counted((late, first), "attack_acc") == {0: late}
    assert counted((without, late), "attack_acc") == {0: late}
    assert counted((without,), "attack_acc") == {0: without}
    assert summary(first, late).value == 0.1
    newer = late.model_copy(update={"key_format": 2})
    assert summary(first, newer).value == 0.3, "keys of the newer format count first"


def test_a_row_is_the_mean_over_seeds_with_a_value() -> None:
    values = (0.2, 0.4, 0.9)
    found = summary(*(scored(seed, value, n=100 + seed) for seed, value in enumerate(values)))
    assert found.value == pytest.approx(0.5)
    assert (found.seeds, found.n, found.covers) == (3, 303, "3 trainings")
    assert found.std == pytest.approx(0.36055513)
    assert found.interval == pytest.approx(student(values, (0, 1)))
    two = summary(scored(0, 0.2, n=7), scored(1, 0.4, n=8), scored(2, None, "it diverged", n=90))
    assert (two.value, two.seeds, two.n, two.reason) == (pytest.approx(0.3), 2, 15, "seed 2: it diverged")
    assert two.interval == pytest.approx(student([0.2, 0.4], (0, 1)))
    one = summary(scored(0, 0.2, interval=[0.1, 0.4]), scored(1, None, "it diverged"))
    assert (one.value, one.std, one.interval, one.covers) == (0.2, None, (0.1, 0.4), "1 training")
    assert summary(scored(0, 0.2), scored(1, 0.2)).std == 0.0


def test_intervals_stay_in_the_range_of_the_unit() -> None:
    assert [bounds(unit) for unit in ("fraction", "similarity", "distance", "ratio")] == [
        (0, 1),
        (-1, 1),
        (0, float("inf")),
        (0, float("inf")),
    ]
    assert bounds("decibel") == (float("-inf"), float("inf"))
    low, high = summary(scored(0, 0.1), scored(1, 0.9)).interval or (None, None)
    assert (low, high) == (0, 1)


def test_a_chance_is_that_of_all_seeds() -> None:
    assert summary(scored(0, chance=0.1), scored(1, chance=0.1)).chance == 0.1
    assert summary(scored(0, chance=0.1), scored(1, chance=0.2)).chance is None
    assert summary(scored(0, chance=0.1), scored(1, None, "it failed", chance=0.2)).chance == 0.1, (
        "of those with a value"
    )
    assert summary(scored(0, None, "it failed", chance=0.2)).chance == 0.2


def test_reasons_are_joined_and_one_reason_of_all_seeds_stands_alone() -> None:
    same = summary(*(scored(seed, None, "no images") for seed in range(3)))
    assert (same.value, same.reason, same.n, same.covers) == (None, "no images", 0, "")
    found = summary(scored(0, None, "a"), scored(1, None, "b"), scored(2, None, "a"))
    assert found.reason == "seed 0, 2: a; seed 1: b"


def test_a_score_is_not_applicable_if_it_is_to_no_seed() -> None:
    never = {"not_applicable": True}
    assert summary(scored(0, None, "trivial", **never), scored(1, None, "trivial", **never)).not_applicable
    assert not summary(scored(0, None, "trivial", **never), scored(1, 0.5)).not_applicable
    assert not summary(scored(0, None, "trivial", **never), scored(1, None, "it failed")).not_applicable
    needs = {"attack_acc": {"code": "not_applicable", "reason": "it needs images"}}
    other = make_record(attack="decoder", scores={"accuracy": make_score("accuracy", 0.9)}, not_run=needs)
    rows = {row.attack: row.scores["attack_acc"] for row in section(scored(), other).rows}
    assert (rows["decoder"].not_applicable, rows["decoder"].reason) == (True, "it needs images")
    unavailable = {"attack_acc": {"code": "unavailable", "reason": "no weights"}}
    other = other.model_copy(update={"not_run": make_record(not_run=unavailable).not_run})
    rows = {row.attack: row.scores["attack_acc"] for row in section(scored(), other).rows}
    assert (rows["decoder"].not_applicable, rows["decoder"].reason) == (False, "no weights")


def test_columns_are_utility_leakage_quality_by_name() -> None:
    assert [column.name for column in section(make_record()).columns] == [
        "accuracy",
        "attack_acc",
        "attack_acc5",
        "fid_judge",
    ]


def test_the_newest_version_of_an_evaluator_defines_a_column() -> None:
    def of_version(version: int) -> Record:
        score = make_score("attack_acc", 0.5)
        score["definition"] |= {"title": f"Version {version}", "better": "higher" if version == 2 else "lower"}
        return make_record(scores={"attack_acc": score}, cell={"evaluators": [choice("attack_acc", version)]})

    for records in ((of_version(1), of_version(2)), (of_version(2), of_version(1))):
        found = section(*records)
        assert [(column.title, column.better) for column in found.columns] == [("Version 2", "higher")]
        assert len(found.rows) == 2, "scores of two versions have no mean"
        assert {row.evaluators for row in found.rows} == {"attack_acc v1", "attack_acc v2"}


def test_rows_are_by_attack_the_undefended_target_first_and_the_placebo_last() -> None:
    records = [
        make_record(defense, attack) for attack in ("kedmi", "gmi") for defense in ("placebo", "zero", "aa", "none")
    ]
    found = [(row.attack, row.defense) for row in section(*records).rows]
    assert found == [(attack, defense) for attack in ("gmi", "kedmi") for defense in ("none", "aa", "zero", "placebo")]
    assert section(make_record(seed=3), make_record(seed=1)).rows[0].seeds == [1, 3]


def test_sections_are_by_protocol_and_budget_from_least_to_most_effort() -> None:
    records = [
        make_record(protocol=name, budget=budget)
        for name in ("mnist/v1", "digits/v1")
        for budget in ("full", "smoke", "quick")
    ]
    assert [(each.protocol, each.budget) for each in sections(records)] == [
        (name, budget) for name in ("digits/v1", "mnist/v1") for budget in ("smoke", "quick", "full")
    ]
