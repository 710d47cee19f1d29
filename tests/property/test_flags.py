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


def mcc(value: float | None, low: float | None, reason: str | None = None) -> dict:
    interval = None if low is None else [low, 1.0]
    return {"mcc": {"value": value, "interval": interval, "chance": 0.0, "reason": reason}}


def test_an_mcc_that_may_be_zero_is_flagged() -> None:
    (flag,) = flags(GOOD, SOUND | mcc(0.02, -0.01))
    assert flag["message"] == "the target's MCC of 0.020 is not above chance, so there is little to leak"
    assert names(GOOD, mcc(0.4, 0.3)) == []


def test_accuracy_at_chance_is_no_collapse_where_mcc_is_above_zero() -> None:
    rare = {"accuracy": {"value": 0.9, "interval": [0.88, 0.92], "chance": 0.9}}
    assert names(GOOD, rare) == ["target_collapsed"]
    assert names(GOOD, rare | mcc(0.3, 0.2)) == []


def test_a_target_that_always_says_the_same_is_flagged() -> None:
    same = "the MCC is undefined: the target says one class throughout"
    (flag,) = flags(GOOD, SOUND | mcc(None, None, same))
    assert flag["message"] == f"{same}, so nothing shows that the target has learned anything"
    nothing = {"accuracy": {"value": None, "interval": None, "chance": None}}
    assert names(GOOD, nothing | mcc(None, None, "there are no test images")) == []
    assert names(GOOD, SOUND | mcc(1.0, None)) == []


def test_an_mcc_that_failed_is_no_collapse() -> None:
    failed = {"mcc": {"value": None, "interval": None, "chance": None, "reason": "mcc failed: MemoryError"}}
    assert names(GOOD, SOUND | failed) == []
