"""The plot of utility against leakage: front and its corners in every direction, axes, ticks, chance, seeds."""

import itertools

import pytest
from helpers.samples import make_record, make_score
from privbench.benchmark.analysis.aggregate import sections
from privbench.benchmark.records.record import Record
from privbench.benchmark.report.tradeoff import Tradeoff, pareto, tradeoff


def record(defense: str, leak: float | None, useful: float | None, seed: int = 0, **more: object) -> Record:
    directions, chance = more.pop("better", ("lower", "higher")), more.pop("chance", None)
    leakage = make_score("attack_acc", leak, None if leak is not None else "it failed", chance=chance, **more)
    utility = make_score("accuracy", useful, None if useful is not None else "it failed")
    for score, better in zip((leakage, utility), directions, strict=True):
        score["definition"] |= {"better": better}
    return make_record(defense, seed=seed, scores={"attack_acc": leakage, "accuracy": utility})


def plot(*records: Record) -> Tradeoff | None:
    (section,) = sections(records)
    columns = {column.name: column for column in section.columns}
    return tradeoff(section, columns["accuracy"], columns["attack_acc"])


def drawn(*records: Record) -> Tradeoff:
    found = plot(*records)
    assert found is not None
    return found


#: Leakage and utility of defenses; the corners of the front by the directions of leakage and utility.
POINTS = {"a": (0.2, 0.3), "b": (0.5, 0.7), "c": (0.8, 0.4)}
FRONTS = {
    ("lower", "higher"): ([(0.2, 0.3), (0.5, 0.3), (0.5, 0.7)], {"a", "b"}),
    ("higher", "higher"): ([(0.5, 0.7), (0.5, 0.4), (0.8, 0.4)], {"b", "c"}),
    ("lower", "lower"): ([(0.2, 0.3)], {"a"}),
    ("higher", "lower"): ([(0.2, 0.3), (0.2, 0.4), (0.8, 0.4)], {"a", "c"}),
}


@pytest.mark.parametrize("better", FRONTS)
def test_the_front_and_its_corners_follow_both_directions(better: tuple[str, str]) -> None:
    (panel,) = drawn(*(record(name, *point, better=better) for name, point in POINTS.items())).panels
    corners, members = FRONTS[better]
    assert {point.row.defense for point in panel.points if point.on_front} == members
    assert list(panel.front) == corners


def test_a_defense_that_is_equal_in_one_score_and_worse_in_the_other_is_dominated() -> None:
    assert pareto([(2, 1), (1, 1), (2, 0), (2, 1)]) == [True, False, False, True]
    assert pareto([]) == []
    for points in itertools.product([(a, b) for a in range(3) for b in range(3)], repeat=3):
        dominated = [any(a >= c and b >= d and (a, b) != (c, d) for a, b in points) for c, d in points]
        assert pareto(points) == [not each for each in dominated]


def test_leakage_is_across_and_utility_up() -> None:
    found = drawn(record("none", 0.7, 0.9), record("mid", 0.2, 0.8))
    assert (found.leakage.definition.name, found.utility.definition.name) == ("attack_acc", "accuracy")
    assert {(point.row.defense, point.x, point.y) for panel in found.panels for point in panel.points} == {
        ("none", 0.7, 0.9),
        ("mid", 0.2, 0.8),
    }


def test_controls_and_rows_without_both_scores_have_no_point() -> None:
    found = drawn(
        record("none", 0.7, 0.9), record("placebo", 0.1, 0.2), record("mid", None, 0.9), record("x", 0.1, None)
    )
    assert [point.row.defense for panel in found.panels for point in panel.points] == ["none"]
    assert plot(record("placebo", 0.1, 0.2)) is None


def test_axes_hold_values_and_intervals_with_some_room_and_fractions_stay_near_0_and_1() -> None:
    found = drawn(record("none", 0.5, 0.9, interval=[0.4, 0.6]), record("mid", 0.45, 0.9, interval=[0.3, 0.5]))
    assert (found.leakage.low, found.leakage.high) == pytest.approx((0.3 - 0.018, 0.6 + 0.018))
    wide = drawn(record("none", 0.5, 0.9, interval=[0.0, 1.0]))
    assert (wide.leakage.low, wide.leakage.high) == (-0.02, 1.02)
    assert wide.utility.low < 0.9 < wide.utility.high, "a single value has room too"


def test_ticks_are_round_values_within_the_axis() -> None:
    found = drawn(record("none", 0.5, 0.9, interval=[0.313, 0.678]))
    axis = found.leakage
    assert [tick.label for tick in axis.ticks] == ["30", "40", "50", "60"]
    assert [tick.value for tick in axis.ticks] == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert all(axis.low <= tick.value <= axis.high for tick in axis.ticks)
    narrow = drawn(record("none", 0.5, 0.9, interval=[0.45, 0.55])).leakage
    assert [tick.label for tick in narrow.ticks] == ["45.0", "47.5", "50.0", "52.5", "55.0"]


def test_chance_is_drawn_where_it_is_shared_and_on_the_axis() -> None:
    def chance(*records: Record) -> float | None:
        return drawn(*records).panels[0].chance

    spread = {"interval": [0.05, 0.9]}
    assert chance(record("none", 0.5, 0.9, chance=0.1, **spread), record("mid", 0.4, 0.9, chance=0.1)) == 0.1
    assert chance(record("none", 0.5, 0.9, chance=0.1, **spread), record("mid", 0.4, 0.9, chance=0.2)) is None
    assert chance(record("none", 0.5, 0.9, chance=0.1), record("mid", 0.4, 0.9, chance=0.1)) is None
    assert chance(record("none", 0.5, 0.9, chance=0.9), record("mid", 0.4, 0.9, chance=0.9)) is None


def test_seeds_are_pairs_of_those_that_have_both() -> None:
    records = [record("none", 0.1 * (seed + 1), 0.9 - 0.1 * seed, seed) for seed in range(3)]
    (point,) = drawn(*records, record("none", None, 0.5, 3)).panels[0].points
    assert point.seeds == [(pytest.approx(0.1), 0.9), (pytest.approx(0.2), 0.8), (pytest.approx(0.3), 0.7)]
    (alone,) = drawn(record("none", 0.1, 0.9), record("none", None, 0.5, 1)).panels[0].points
    assert alone.seeds == []
