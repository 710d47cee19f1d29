"""Numbers that the unit of a score excludes are refused where records are read and where scores are made."""

import json
import re
from types import SimpleNamespace

import pytest
from helpers.samples import make_record
from privbench.benchmark.core.config import Definition
from privbench.benchmark.core.evidence import Score
from privbench.benchmark.errors import IncompatibleRecordError
from privbench.benchmark.pipeline.scoring import score_with
from privbench.benchmark.records.bounds import MAX_COUNT, MAX_VALUE, fault
from privbench.benchmark.records.record import read


def test_a_score_within_its_bounds_has_no_fault() -> None:
    pair = (0.25, 1.0)
    assert not fault("fraction", 0.5, n=5, interval=pair, intervals={"a": None}, chance=0.2, per_class=[0.0, None])
    assert not fault("similarity", -1.0, interval=(-1.0, -0.5))
    assert not fault("decibel", -3.0)
    assert not fault("distance", None, chance=None)
    assert not fault("fraction", 0.3, interval=(0.3 + 1e-8, 0.4)), "rounding"


@pytest.mark.parametrize(
    ("unit", "value", "more", "message"),
    [
        ("fraction", -5.0, {}, "expected value of unit fraction to be from 0 to 1, got -5"),
        ("fraction", 1.1, {}, "got 1.1"),
        ("similarity", -1.1, {}, "from -1 to 1"),
        ("distance", -0.1, {}, "from 0 to"),
        ("decibel", 1e308, {}, "got 1e"),
        ("ratio", 2 * MAX_VALUE, {}, "got 2e"),
        ("fraction", 0.0, {"interval": (0.19, 0.21)}, "to contain the value 0, got 0.19 to 0.21"),
        ("fraction", 0.3, {"interval": (0.1, 0.2)}, "to contain the value 0.3"),
        ("fraction", 0.2, {"interval": (0.3, 0.1)}, "to be a low and a high end"),
        ("fraction", 0.2, {"interval": (-0.1, 0.3)}, "expected interval of unit fraction"),
        ("fraction", 0.2, {"intervals": {"draws": (0.1, 1.2)}}, "expected intervals.draws of unit fraction"),
        ("fraction", 0.2, {"chance": 2.0}, "expected chance"),
        ("fraction", 0.2, {"per_class": [0.1, 1.5]}, r"per_class\[1\]"),
        ("fraction", 0.2, {"spreads": {"draws": -1.0}}, "expected spreads.draws to be from 0"),
        ("fraction", 0.2, {"n": MAX_COUNT + 1}, "expected n to be from 0"),
    ],
)
def test_a_number_outside_its_bounds(unit: str, value: float, more: dict, message: str) -> None:
    assert re.search(message, fault(unit, value, **more))


@pytest.mark.parametrize(
    "change",
    [{"value": -5}, {"value": 0.0, "interval": [0.19, 0.21]}, {"n": int("9" * 400)}, {"per_class": [0.5] * 10_000}],
)
def test_a_record_with_such_a_number_is_not_read(tmp_path, change: dict) -> None:
    facts = json.loads(make_record().text())
    facts["scores"]["attack_acc"] |= change
    path = tmp_path / "record.json"
    path.write_text(json.dumps(facts))
    with pytest.raises(IncompatibleRecordError, match="attack_acc"):
        read(path)


def test_an_evaluator_with_such_a_number_fails_alone() -> None:
    definition = Definition(
        name="mine", title="Mine", measures="leakage", better="lower", unit="fraction", formula="", range="[0, 1]"
    )
    evaluator = SimpleNamespace(scores=(definition,), score=lambda evidence, judges: {"mine": Score(1.5, n=3)})
    found, failed = score_with(SimpleNamespace(component=evaluator, name="mine"), None, None)
    assert failed
    assert "mine: expected value of unit fraction to be from 0 to 1, got 1.5" in found["mine"]["reason"]
