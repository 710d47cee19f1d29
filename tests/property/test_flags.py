"""Flags name what casts doubt on a record, and nothing else."""

from privbench.benchmark.results import flags

GOOD = {"test_accuracy": 0.99, "n": 100}
SOUND = {"accuracy": {"value": 0.9, "interval": [0.8, 0.95], "chance": 0.2}}


def names(judge: dict, scores: dict) -> list[str]:
    return [flag["name"] for flag in flags(judge, scores)]


def test_a_sound_record_has_none() -> None:
    assert names(GOOD, SOUND) == []
    assert names({}, {}) == []


def test_a_judge_at_chance_is_flagged() -> None:
    found = flags({"test_accuracy": 0.1019, "n": 10000}, SOUND)
    assert [flag["name"] for flag in found] == ["weak_judge"]
    assert "10.2% of 10000" in found[0]["message"]


def test_a_target_at_chance_is_flagged() -> None:
    assert names(GOOD, {"accuracy": {"value": 0.012, "interval": [0.006, 0.024], "chance": 0.01}}) == [
        "target_collapsed"
    ]


def test_an_undefined_accuracy_is_not_compared() -> None:
    assert names(GOOD, {"accuracy": {"value": None, "interval": None, "chance": None}}) == []
