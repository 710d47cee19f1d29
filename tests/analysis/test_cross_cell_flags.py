"""What only several cells show: an attack that sees less and reconstructs more."""

from pathlib import Path

from helpers import samples
from privbench.benchmark.analysis import flags
from privbench.benchmark.analysis.aggregate import sections
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.records.record import Flag, Record

ROOT = Path(__file__).resolve().parents[2]


def cell(
    attack: str,
    access: str | None,
    value: float | None,
    spread: float | None = 0.05,
    score: str = "attack_acc",
    defense: str = "none",
    seed: int = 0,
    better: str = "lower",
    measures: str = "leakage",
    resamples: int = 2000,
) -> Record:
    interval = None if value is None or spread is None else [value - spread, value + spread]
    found = samples.make_score(score, value, None if value is not None else "failed", interval=interval)
    found["definition"] |= {"better": better, "measures": measures}
    evaluators = [samples.choice("attack_acc", resamples=resamples), samples.choice("fid")]
    changes = {"cell": {"evaluators": evaluators}, "access": access, "scores": {score: found}}
    return samples.make_record(defense, attack, seed, **changes)


def between(*records: Record) -> dict[str, tuple[Flag, ...]]:
    (section,) = sections(records)
    return flags.cross_cell_flags(section)


def test_the_stronger_attack_is_flagged_where_a_weaker_one_leaks_more() -> None:
    weak, strong = cell("brep", "labels", 0.8), cell("gmi", "white_box", 0.5)
    found = between(weak, strong)
    (flag,) = found.pop(strong.key)
    assert found == {}
    assert flag.name == "weaker_access_wins"
    assert flag.message == (
        "brep, which sees labels only, leaks more by Attack Acc: 0.8 against 0.5 of gmi, which sees white_box"
    )


def test_intervals_that_touch_are_no_win() -> None:
    strong = cell("gmi", "white_box", 0.5)
    assert between(cell("brep", "labels", 0.6, 0.05), strong) == {}
    assert between(cell("brep", "labels", 0.8, None), strong) == {}
    assert between(cell("brep", "labels", 0.8), cell("gmi", "white_box", 0.5, None)) == {}
    assert between(cell("brep", "labels", None), strong) == {}


def test_it_must_beat_the_best_of_those_that_see_more() -> None:
    weak, best, other = cell("brep", "labels", 0.8), cell("kedmi", "white_box", 0.9), cell("gmi", "white_box", 0.3)
    assert between(weak, best, other) == {}
    middle = cell("mirror", "scores", 0.6)
    assert set(between(weak, middle, other)) == {middle.key, other.key}
    assert between(weak, middle, best) == {}
    assert "mirror, which sees scores only" in between(middle, other)[other.key][0].message


def test_direction_follows_what_a_defender_prefers() -> None:
    weak, strong = cell("brep", "labels", 0.2, better="higher"), cell("gmi", "white_box", 0.5, better="higher")
    assert set(between(weak, strong)) == {strong.key}
    assert between(cell("brep", "labels", 0.8, better="higher"), strong) == {}


def test_only_leakage_of_the_same_defense_by_the_same_evaluator_is_compared() -> None:
    strong = cell("gmi", "white_box", 0.5)
    assert between(cell("brep", "labels", 0.8, defense="mid"), strong) == {}
    assert between(cell("brep", "labels", 0.8, resamples=10), strong) == {}
    quality = {"score": "fid_judge", "measures": "quality"}
    assert between(cell("brep", "labels", 0.8, **quality), cell("gmi", "white_box", 0.5, **quality)) == {}


def test_attacks_on_features_and_records_that_do_not_say_are_not_compared() -> None:
    strong = cell("gmi", "white_box", 0.5)
    assert between(cell("decoder", "features", 0.9), strong) == {}
    assert between(cell("brep", None, 0.9), strong) == {}
    assert between(cell("brep", "labels", 0.9), cell("gmi", None, 0.5)) == {}
    assert between(cell("brep", "labels", 0.9), cell("decoder", "features", 0.5)) == {}


def test_every_seed_of_the_row_is_flagged() -> None:
    weak = [cell("brep", "labels", 0.8 + seed / 100, seed=seed) for seed in range(3)]
    strong = [cell("gmi", "white_box", 0.4 + seed / 100, seed=seed) for seed in range(3)]
    assert set(between(*weak, *strong)) == {record.key for record in strong}


def test_the_committed_records_do_not_say_what_their_attacks_saw() -> None:
    records = load_records(ROOT / "results")
    for section in sections(records.items):
        if all(record.access is None for row in section.rows for record in row.records):
            assert flags.cross_cell_flags(section) == {}
