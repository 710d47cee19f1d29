"""Each score of each registered evaluator, with both directions: every rank, table, plot and flag follows `better`.

Defense `none` has the large values and `mid` the small ones, so which of them is the better one depends on the
direction alone. A new evaluator is covered without being named.
"""

import functools
import re
import statistics

import pytest
from helpers.samples import choice, make_record
from privbench.benchmark import registry
from privbench.benchmark.analysis.aggregate import Section
from privbench.benchmark.analysis.cross_cell_flags import cross_cell_flags
from privbench.benchmark.analysis.excess import COLUMN, has_excess, with_excess
from privbench.benchmark.analysis.ranking import rankings
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.analysis.standings import Ranking, Standing
from privbench.benchmark.analysis.suites import READS, RULES, suite_attacks
from privbench.benchmark.core.config import PLACEBO, Definition
from privbench.benchmark.records.record import Record
from privbench.benchmark.report.html.pages import render_single_page
from privbench.benchmark.report.tables import latex, tables
from privbench.benchmark.report.tradeoff import tradeoff

SCORES = {
    score.name: (entry.name, score)
    for entry in registry.entries("evaluator")
    for score in registry.load("evaluator", entry.name).scores
}
EITHER = ("higher", "lower")
#: Small and large value, and what separates neighbouring labels, by unit.
LEVELS = {"fraction": (0.3, 0.6), "similarity": (0.3, 0.6)}
LABELS = 8
UTILITY, LEAKAGE = SCORES["accuracy"][1], SCORES["attack_acc"][1]
LEAKING = [name for name, (_, score) in SCORES.items() if score.measures == "leakage"]


def values_of(score: Definition, name: str) -> list[float]:
    """The values of a defense by label."""
    small, large = LEVELS.get(score.unit, (3.0, 6.0))
    level, step = (large if name == "none" else small), (large - small) / 100
    return [level + step * (k - (LABELS - 1) / 2) for k in range(LABELS)]


def leakier(score: Definition, value: float, share: float) -> float:
    """A value that leaks more than another by a share of the distance between both defenses."""
    small, large = LEVELS.get(score.unit, (3.0, 6.0))
    return value + (share if score.better == "lower" else -share) * (large - small)


def scored(score: Definition, by_label: list[float], **more: object) -> dict[str, object]:
    value, unit = statistics.fmean(by_label), max(by_label) - min(by_label)
    found = {"evaluator": SCORES[score.name][0], "definition": score.model_dump(), "value": value, "n": 100}
    return found | {"reason": None, "per_class": by_label, "interval": [value - unit, value + unit]} | more


def record(
    score: Definition, by_label: list[float], defense: str, attack: str, seed: int = 0, **facts: object
) -> Record:
    """A record with one score, and beside it a leakage or a utility that are the same for all defenses."""
    access = facts.pop("access", None)
    others = {each.name: scored(each, [0.5 + 0.01 * k for k in range(LABELS)]) for each in (UTILITY, LEAKAGE)}
    names = dict.fromkeys(SCORES[each][0] for each in (*others, score.name))
    scores = {**(others if score.measures != "leakage" else {"accuracy": others["accuracy"]})}
    if score.measures == "utility":
        del scores["accuracy"]
    cell = {"evaluators": [choice(name) for name in names], "defense": choice(defense)}
    scores[score.name] = scored(score, by_label, **facts)
    return make_record(defense, attack, seed, scores=scores, cell=cell, not_run={}, access=access)


def attacks_of(score: Definition) -> tuple[str, ...]:
    read = score if score.name in READS else LEAKAGE
    return suite_attacks(RULES["digits"], read, ())


def scored_by(better: str, name: str) -> Definition:
    return SCORES[name][1].model_copy(update={"better": better})


@functools.cache
def board(score: Definition) -> Records:
    """Both defenses under a suite whose further attacks are weaker, and under a stronger attack outside of it."""
    made = []
    for defense in ("none", "mid"):
        own = values_of(score, defense)
        for i, attack in enumerate(attacks_of(score)):
            weak = [leakier(score, value, -0.2 * i) for value in own]
            made += [record(score, weak, defense, attack, seed) for seed in range(3)]
        made.append(record(score, [leakier(score, value, 0.3) for value in own], defense, "vmi", 7))
    return Records(tuple(made))


def section_of(score: Definition) -> Section:
    (found,) = board(score).sections()
    return found


def ranked_by(score: Definition) -> tuple[Ranking, dict[str, Standing]]:
    found = next(each for each in rankings(section_of(score)) if each.score.name == score.name)
    return found, {standing.defense: standing for standing in found.standings}


def best_and_worst(score: Definition) -> tuple[str, str]:
    return ("none", "mid") if score.better == "higher" else ("mid", "none")


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", LEAKING)
def test_a_leakage_score_is_ranked_in_its_direction(name: str, better: str) -> None:
    score = scored_by(better, name)
    first, last = best_and_worst(score)
    found, standings = ranked_by(score)
    assert [standing.defense for standing in found.standings] == [first, last]
    assert [standings[each].rank for each in (first, last)] == [1, 2]
    assert [standings[each].rank_interval for each in (first, last)] == [(1, 1), (2, 2)]
    for defense, standing in standings.items():
        own = statistics.fmean(values_of(score, defense))
        assert standing.worst.value == pytest.approx(own), "the strongest attack of the suite is the worst case"
        assert standing.worst.interval is not None and standing.best is not None
        assert standing.worst.interval[0] < own < standing.worst.interval[1]
        assert standing.best.value == pytest.approx(leakier(score, own, 0.3))
        assert standing.best.attack == "vmi"
    rows = [row for row in board(score).leaderboard_rows() if row["score"] == name]
    assert [(row["defense"], row["rank"], row["better"]) for row in rows] == [(first, 1, better), (last, 2, better)]
    assert all(row["low"] < row["worst"] < row["high"] for row in rows)


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", LEAKING)
def test_without_values_by_identity_the_direction_is_the_same(name: str, better: str) -> None:
    score = scored_by(better, name)
    (attack, *_) = attacks_of(score)
    made = []
    for defense in ("none", "mid"):
        for seed in range(3):
            own = [leakier(score, value, 0.01 * seed) for value in values_of(score, defense)]
            made.append(record(score, own, defense, attack, seed, per_class=None))
    (section,) = Records(tuple(made)).sections()
    with pytest.MonkeyPatch.context() as patch:
        alone = RULES["digits"].model_copy(update={"attacks": dict.fromkeys(RULES["digits"].attacks, (attack,))})
        patch.setitem(RULES, "digits", alone)  # type: ignore[arg-type]
        found = next(each for each in rankings(section) if each.score.name == name)
    assert [(each.defense, each.rank) for each in found.standings] == [*zip(best_and_worst(score), (1, 2), strict=True)]
    assert {each.worst.basis for each in found.standings} == {"score"}
    assert all(each.worst.value == each.rows[0].scores[name].value for each in found.standings)


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", SCORES)
def test_tables_point_and_print_in_the_direction_of_a_score(name: str, better: str) -> None:
    score = scored_by(better, name)
    records, (first, last) = board(score), best_and_worst(score)
    arrow, other = ("↑", "↓") if better == "higher" else ("↓", "↑")
    text = tables.markdown(records)
    heading = re.escape(score.title)
    assert re.search(rf"\| {heading} {arrow}", text) and not re.search(rf"{heading} {other}", text)
    lines = latex.latex(records).splitlines()
    bold = {line.split(" & ")[0] for line in lines if r"\textbf" in line and line.startswith(("none &", "mid &"))}
    assert bold == {first}
    ranked = [line for line in lines if re.match(r"\d \(\d\) &", line)]
    if score.measures == "leakage":
        assert [line.split(" & ")[2] for line in ranked] == [first, last]
        assert [r"\textbf" in line for line in ranked] == [True, False]
        printed = [line.split(" | ")[2] for line in text.splitlines() if re.match(r"\| \d \(\d\)", line)]
        assert printed == [first, last]


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", [name for name in SCORES if SCORES[name][1].measures != "quality"])
def test_the_front_of_the_plot_has_the_better_defense(name: str, better: str) -> None:
    score = scored_by(better, name)
    axes = (UTILITY, score) if score.measures == "leakage" else (score, LEAKAGE)
    found = tradeoff(section_of(score), *axes)
    assert found is not None
    for panel in found.panels:
        assert [point.row.defense for point in panel.points if point.on_front] == [best_and_worst(score)[0]]
    assert f"({better} is better)" in (found.leakage if score.measures == "leakage" else found.utility).title


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", [name for name in SCORES if SCORES[name][1].measures == "utility"])
def test_a_defense_loses_utility_in_the_direction_of_the_score(name: str, better: str) -> None:
    score = scored_by(better, name)
    standings = {standing.defense: standing for standing in rankings(section_of(score))[0].standings}
    small, large = LEVELS[score.unit]
    distance = standings["mid"].match.distance
    assert distance == pytest.approx((large - small) * (1 if better == "higher" else -1))
    assert (standings["mid"].rank is None) == (better == "higher"), "only a better one keeps its rank"
    assert standings["none"].rank is not None


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", LEAKING)
def test_an_attack_with_weaker_access_wins_in_the_direction_of_the_score(name: str, better: str) -> None:
    score = scored_by(better, name)
    leakiest, safest = (values_of(score, each) for each in reversed(best_and_worst(score)))
    middle = [(one + other) / 2 for one, other in zip(leakiest, safest, strict=True)]

    def flagged(*attacks: tuple[str, str, list[float]]) -> dict[str, str]:
        made = {attack: record(score, own, "none", attack, access=access) for attack, access, own in attacks}
        (section,) = Records(tuple(made.values())).sections()
        found = cross_cell_flags(section)
        return {attack: found[each.key][0].message for attack, each in made.items() if each.key in found}

    assert set(flagged(("brep", "labels", leakiest), ("gmi", "white_box", safest))) == {"gmi"}
    assert flagged(("brep", "labels", safest), ("gmi", "white_box", leakiest)) == {}
    inside = ("gmi", "white_box", safest), ("kedmi", "white_box", leakiest)
    assert flagged(("brep", "labels", middle), *inside) == {}, "it does not beat the best attack with stronger access"
    outside = ("brep", "labels", leakiest), ("other", "labels", middle)
    for order in (outside, outside[::-1]):
        found = flagged(*order, inside[0])
        assert set(found) == {"gmi"} and found["gmi"].startswith("brep with access labels"), "the strongest is named"


@pytest.mark.parametrize("better", EITHER)
@pytest.mark.parametrize("name", [name for name in LEAKING if has_excess(SCORES[name][1])])
def test_the_excess_and_the_flag_of_a_placebo_follow_the_direction(name: str, better: str) -> None:
    score = scored_by(better, name)
    small, large = LEVELS[score.unit]
    (attack, *_) = attacks_of(score)
    own = record(score, values_of(score, "none"), "none", attack)
    placebo = values_of(score, "mid")
    for chance, is_beyond in ((small - 0.1, better == "lower"), (small + 0.1, better == "higher"), (small, False)):
        control = record(score, placebo, PLACEBO, attack, chance=chance)
        (section,) = Records((own, control)).sections()
        flags = cross_cell_flags(section)
        assert set(flags) == ({own.key} if is_beyond else set())
        column = with_excess(section)
        assert [each.better for each in column.columns if each.name == COLUMN] == [better]
        (row,) = (each for each in column.rows if each.defense == "none")
        assert row.scores[COLUMN].value == pytest.approx(large - small), "the score minus the placebo's"


@pytest.mark.parametrize("name", ["attack_acc", "knn_distance"])
def test_the_page_lists_and_names_the_direction(name: str) -> None:
    score = SCORES[name][1]
    text = re.sub(r"<[^>]+>", " ", render_single_page(board(score)))
    first, last = best_and_worst(score)
    assert re.search(rf"{re.escape(score.title)}.{{0,80}}?{score.better} is better for the defender", text, re.DOTALL)
    ranks = re.search(rf"\b1\s+1\s+a?\s*{first}\b.*?\b2\s+2\s+b?\s*{last}\b", text, re.DOTALL)
    assert ranks, "the better defense is listed first"
