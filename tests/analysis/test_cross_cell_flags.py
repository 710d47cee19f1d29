"""Flags that show only between cells: an attack with weaker access that reconstructs more."""

from pathlib import Path

from helpers import samples
from privbench.benchmark.analysis.aggregate import sections
from privbench.benchmark.analysis.cross_cell_flags import cross_cell_flags
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


def find_flags(*records: Record) -> dict[str, tuple[Flag, ...]]:
    (section,) = sections(records)
    return cross_cell_flags(section)


def test_an_attack_is_flagged_if_one_with_weaker_access_leaks_more() -> None:
    weak, strong = cell("brep", "labels", 0.8), cell("gmi", "white_box", 0.5)
    found = find_flags(weak, strong)
    (flag,) = found.pop(strong.key)
    assert found == {}
    assert flag.name == "weaker_access_wins"
    assert flag.message == (
        "brep with access labels leaks more by Attack Acc than gmi with access white_box: 0.8 against 0.5"
    )


def test_overlapping_intervals_are_not_flagged() -> None:
    strong = cell("gmi", "white_box", 0.5)
    assert find_flags(cell("brep", "labels", 0.6, 0.05), strong) == {}
    assert find_flags(cell("brep", "labels", 0.8, None), strong) == {}
    assert find_flags(cell("brep", "labels", 0.8), cell("gmi", "white_box", 0.5, None)) == {}
    assert find_flags(cell("brep", "labels", None), strong) == {}


def test_intervals_that_touch_are_not_flagged_in_either_direction() -> None:
    for better, weak, strong in (("lower", 0.75, 0.5), ("higher", 0.25, 0.5)):
        touching = (
            cell("brep", "labels", weak, 0.125, better=better),
            cell("gmi", "white_box", strong, 0.125, better=better),
        )
        assert find_flags(*touching) == {}
        apart = cell("brep", "labels", weak, 0.12, better=better), touching[1]
        assert set(find_flags(*apart)) == {touching[1].key}


def test_an_attack_must_beat_the_best_attack_with_stronger_access() -> None:
    weak, best, other = cell("brep", "labels", 0.8), cell("kedmi", "white_box", 0.9), cell("gmi", "white_box", 0.3)
    assert find_flags(weak, best, other) == {}
    middle = cell("mirror", "scores", 0.6)
    assert set(find_flags(weak, middle, other)) == {middle.key, other.key}
    assert find_flags(weak, middle, best) == {}
    assert "mirror with access scores" in find_flags(middle, other)[other.key][0].message


def test_direction_follows_the_definition_of_the_score() -> None:
    weak, strong = cell("brep", "labels", 0.2, better="higher"), cell("gmi", "white_box", 0.5, better="higher")
    assert set(find_flags(weak, strong)) == {strong.key}
    assert find_flags(cell("brep", "labels", 0.8, better="higher"), strong) == {}


def test_only_leakage_of_the_same_defense_by_the_same_evaluator_is_compared() -> None:
    strong = cell("gmi", "white_box", 0.5)
    assert find_flags(cell("brep", "labels", 0.8, defense="mid"), strong) == {}
    assert find_flags(cell("brep", "labels", 0.8, resamples=10), strong) == {}
    quality = {"score": "fid_judge", "measures": "quality"}
    assert find_flags(cell("brep", "labels", 0.8, **quality), cell("gmi", "white_box", 0.5, **quality)) == {}


def test_attacks_on_features_and_records_without_access_are_not_compared() -> None:
    strong = cell("gmi", "white_box", 0.5)
    assert find_flags(cell("decoder", "features", 0.9), strong) == {}
    assert find_flags(cell("brep", None, 0.9), strong) == {}
    assert find_flags(cell("brep", "labels", 0.9), cell("gmi", None, 0.5)) == {}
    assert find_flags(cell("brep", "labels", 0.9), cell("decoder", "features", 0.5)) == {}


def test_every_seed_of_the_row_is_flagged() -> None:
    weak = [cell("brep", "labels", 0.8 + seed / 100, seed=seed) for seed in range(3)]
    strong = [cell("gmi", "white_box", 0.4 + seed / 100, seed=seed) for seed in range(3)]
    assert set(find_flags(*weak, *strong)) == {record.key for record in strong}


def test_committed_records_without_access_are_not_flagged() -> None:
    records = load_records(ROOT / "results")
    for section in sections(records.items):
        if all(record.access is None for row in section.rows for record in row.records):
            assert cross_cell_flags(section) == {}
