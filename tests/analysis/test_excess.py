"""Excess over the placebo: values, pairing by label, coverage of its interval, and where there is none."""

import math

import numpy as np
import pytest
from helpers.samples import choice, make_record, make_score
from privbench.benchmark.analysis.aggregate import Section
from privbench.benchmark.analysis.cross_cell_flags import cross_cell_flags
from privbench.benchmark.analysis.excess import COLUMN, Controls, paired_interval, with_excess
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.records.record import Record


def attacked(
    defense: str, by_label: list[float | None], seed: int = 0, attack: str = "kedmi", **more: object
) -> Record:
    """A record with one leakage score that has these values by label."""
    known = [value for value in by_label if value is not None]
    score = make_score("attack_acc", sum(known) / len(known), per_class=by_label, chance=0.1, **more)
    return make_record(defense, attack, seed, scores={"attack_acc": score}, cell={"defense": choice(defense)})


def section(*records: Record) -> Section:
    (found,) = Records(tuple(records)).sections()
    return found


def excess_of(defense: str, *records: Record):
    found = section(*records)
    return Controls(found).of(next(row for row in found.rows if row.defense == defense), "attack_acc")


NONE, PLACEBO = attacked("none", [0.9, 0.7, 0.5]), attacked("placebo", [0.2, 0.1, 0.0])


def test_the_difference_is_paired_by_label() -> None:
    found = excess_of("none", NONE, PLACEBO)
    assert found is not None and found.value is not None
    assert found.value == pytest.approx(0.6)
    # Differences .7, .6, .5: s = .1, t(2) = 4.3027, half-width 4.3027 * .1 / sqrt(3) = .24842.
    assert found.interval == pytest.approx((0.6 - 0.24842, 0.6 + 0.24842), abs=1e-4)
    assert (found.n, found.covers) == (3, "3 labels; this training of the target; this training of the placebo")


def test_several_trainings_widen_the_interval() -> None:
    other = attacked("none", [0.7, 0.5, 0.3], 1)
    found = excess_of("none", NONE, other, PLACEBO)
    assert found is not None and found.value is not None
    assert found.value == pytest.approx(0.5)
    # Labels: .6, .5, .4 as above; trainings .7 and .5: t(1) = 12.7062, s / sqrt(2) = .1.
    half = math.hypot(0.24842, 1.27062)
    assert found.interval == pytest.approx((max(-1, 0.5 - half), min(1, 0.5 + half)), abs=1e-4)
    assert found.covers == "3 labels; 2 trainings of the target; this training of the placebo"


def test_trainings_of_the_placebo_widen_the_interval_and_weigh_by_their_own_number() -> None:
    others = [
        attacked("placebo", [rate + shift for rate in (0.2, 0.1, 0.0)], i) for i, shift in enumerate((0, 0.1, 0.2))
    ]
    found = excess_of("none", NONE, attacked("none", [0.7, 0.5, 0.3], 1), *others)
    assert found is not None
    assert found.value == pytest.approx(0.6 - 0.2)
    # Labels .5, .4, .3; trainings .7 and .5 as above; of the placebo .1, .2, .3: t(2) = 4.3027, s / sqrt(3) = .057735.
    half = math.hypot(0.24842, 1.27062, 0.24842)
    assert found.interval == pytest.approx((max(-1, 0.4 - half), min(1, 0.4 + half)), abs=1e-4)
    alone = excess_of("none", NONE, *others)
    assert alone is not None
    assert alone.interval == pytest.approx(
        (0.5 - math.hypot(0.24842, 0.24842), 0.5 + math.hypot(0.24842, 0.24842)), abs=1e-4
    )
    assert alone.covers == "3 labels; this training of the target; 3 trainings of the placebo"


def test_the_placebo_of_the_same_recipe_counts_or_else_the_one_with_most_seeds() -> None:
    def of_recipe(rate: float, by_label: list[float], seed: int = 0, name: str = "placebo") -> Record:
        score = make_score("attack_acc", sum(by_label) / len(by_label), per_class=by_label)
        cell = {"defense": choice(name, recipe={"learning_rate": rate})}
        return make_record(name, seed=seed, scores={"attack_acc": score}, cell=cell)

    placebos = [of_recipe(0.1, [0.1, 0.2]), *(of_recipe(0.5, [0.3, 0.4], seed) for seed in range(2))]
    for rate, value in ((0.1, 0.65), (0.5, 0.45), (0.9, 0.45)):
        found = excess_of("none", of_recipe(rate, [0.9, 0.7], name="none"), *placebos)
        assert found is not None and found.value == pytest.approx(value)


def test_verified_accuracy_leads_the_excess_where_the_placebo_has_it() -> None:
    def both(name: str, verified: float | None) -> Record:
        scores = {"attack_acc": make_score("attack_acc", 0.5)}
        score = make_score("attack_acc", verified, None if verified is not None else "no second judge")
        scores["verified_acc"] = score | {"definition": score["definition"] | {"name": "verified_acc", "title": "V"}}
        return make_record(name, scores=scores)

    for verified, title in ((0.2, "V over Placebo"), (None, "Attack Acc over Placebo")):
        columns = with_excess(section(both("none", 0.4), both("placebo", verified))).columns
        assert [column.title for column in columns if column.name == COLUMN] == [title]


@pytest.mark.parametrize(
    ("own", "placebo", "reason"),
    [
        ([0.5], [0.1], "one label"),
        ([0.5, 0.4], [0.2, 0.1], "the same difference for every label"),
        ([1.0, 1.0, None], [0.0, 0.1, 0.2], ""),
        ([0.5, 0.4, 0.1], [0.2, 0.1], "no values by label"),
    ],
)
def test_without_an_interval_there_is_a_reason(own: list[float | None], placebo: list[float], reason: str) -> None:
    found = excess_of("none", attacked("none", own), attacked("placebo", placebo))
    assert found is not None and found.value is not None
    assert (found.interval is None) == bool(reason)
    assert found.reason.startswith(reason) and bool(found.reason) == bool(reason)


def test_there_is_nothing_to_compare_without_a_placebo_and_for_itself() -> None:
    assert excess_of("none", NONE) is None
    assert with_excess(section(NONE)) == section(NONE)
    assert excess_of("placebo", NONE, PLACEBO) is None
    other = excess_of("none", attacked("none", [0.5, 0.4], attack="gmi"), PLACEBO)
    assert other is not None
    assert (other.value, other.reason) == (None, "gmi was not run against a placebo, or not scored alike")


def test_a_defense_of_another_package_is_no_placebo() -> None:
    foreign = choice("placebo") | {"distribution": "other"}
    record = make_record("placebo", cell={"defense": foreign}, scores=PLACEBO.model_dump()["scores"])
    assert excess_of("none", NONE, record) is None


def test_attacks_on_features_have_no_excess() -> None:
    record = make_record("none", "decoder", scores=NONE.model_dump()["scores"], access="features")
    assert excess_of("none", record, PLACEBO, attacked("placebo", [0.2, 0.1], attack="decoder")) is None


def test_tables_have_one_column_beside_the_score() -> None:
    found = with_excess(section(NONE, PLACEBO))
    assert [column.name for column in found.columns] == ["attack_acc", COLUMN]
    none, placebo = found.rows
    assert (none.scores[COLUMN].value, placebo.scores[COLUMN].not_applicable) == (pytest.approx(0.6), True)
    assert placebo.is_control and not none.is_control


def test_a_placebo_above_chance_flags_the_rows_of_its_attack() -> None:
    high = attacked("placebo", [0.5, 0.4, 0.3], interval=[0.3, 0.5])
    flags = cross_cell_flags(section(NONE, high))
    assert [flag.name for flag in flags[NONE.key]] == ["placebo_above_chance"]
    assert "kedmi reaches a Attack Acc of 40.0 [30.0, 50.0] %" in flags[NONE.key][0].message
    assert high.key not in flags
    assert cross_cell_flags(section(NONE, replace_interval(high, (0.05, 0.5)))) == {}


def test_a_placebo_above_chance_is_told_in_the_unit_of_its_score() -> None:
    score = make_score("attack_acc", 0.4, per_class=[0.5, 0.3], chance=0.1, interval=[0.3, 0.5])
    score["definition"] |= {"unit": "similarity", "title": "Likeness"}
    of = {name: make_record(name, scores={"attack_acc": score}) for name in ("none", "placebo")}
    (flag,) = cross_cell_flags(section(*of.values()))[of["none"].key]
    expected = (
        "kedmi reaches a Likeness of 0.400 [0.300, 0.500] on a target that knows no labels, where chance is 0.100"
    )
    assert flag.message == expected


def test_a_placebo_says_nothing_about_an_attack_on_features() -> None:
    on_features = [
        record.model_copy(update={"access": "features"})
        for record in (NONE, attacked("placebo", [0.5, 0.4, 0.3], interval=[0.3, 0.5]))
    ]
    assert cross_cell_flags(section(*on_features)) == {}


def replace_interval(record: Record, interval: tuple[float, float]) -> Record:
    score = record.scores["attack_acc"].model_copy(update={"interval": interval})
    return record.model_copy(update={"scores": {"attack_acc": score}})


def test_every_score_of_a_record_has_its_excess_in_the_long_table() -> None:
    rows = Records((NONE, PLACEBO)).long_rows()
    assert [row["excess"] for row in rows if "score" in row] == [pytest.approx(0.6), None]


def coverage(labels: int, draws: int, trainings: int, own: tuple[float, float], runs: int = 300) -> float:
    """How often the interval contains the excess, for rates by label of a target (beta distributed, with noise of
    trainings) and of a placebo, which are counted in draws.
    """
    generator = np.random.default_rng([labels, draws, trainings])

    def trained(rates: np.ndarray, shared: np.ndarray) -> np.ndarray:
        noise = shared[:, None] + 0.5 * generator.standard_normal((len(shared), rates.shape[-1]))
        return 1 / (1 + np.exp(-np.log(rates / (1 - rates)) - noise))

    def draw_rates(shape: tuple[float, float], count: int) -> np.ndarray:
        return np.clip(generator.beta(*shape, size=count), 1e-6, 1 - 1e-6)

    spread = 0.3 if trainings > 1 else 0.0
    many = 100_000
    population = draw_rates(own, many)
    noise = generator.standard_normal(many) * math.hypot(0.5, spread)
    truth = (1 / (1 + np.exp(-np.log(population / (1 - population)) - noise))).mean() - 1 / 10
    hits = []
    for _ in range(runs):
        rates = trained(draw_rates(own, labels), spread * generator.standard_normal(trainings))
        scores = generator.binomial(draws, rates) / draws
        placebo = generator.binomial(draws, draw_rates((1, 9), labels)) / draws
        differences = scores.mean(0) - placebo
        limits = (-1.0, 1.0)
        found = paired_interval(differences.mean(), differences, scores.mean(1).tolist(), [placebo.mean()], limits)
        if found is not None:
            hits.append(found[0] <= truth <= found[1])
    return float(np.mean(hits))


@pytest.mark.parametrize("labels", [5, 60])
@pytest.mark.parametrize(("draws", "trainings"), [(5, 1), (100, 1), (20, 3)])
@pytest.mark.parametrize("own", [(2, 1.5), (1, 6)])
def test_the_interval_covers(labels: int, draws: int, trainings: int, own: tuple[float, float]) -> None:
    assert coverage(labels, draws, trainings, own) > 0.95 - 0.05  # four standard errors of 300 runs
