"""What the second judge and the negatives depend on, and who makes a cell have them; nothing is computed here."""

from pathlib import Path

import pytest
from privbench.benchmark import registry
from privbench.benchmark.contracts import Evaluator
from privbench.benchmark.core.config import Definition
from privbench.benchmark.datasets.digits import Digits
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import Plan, build_plan


def plan(evaluators: tuple[str, ...] = ("accuracy", "attack_acc", "verified_acc")) -> Plan:
    matrix = Matrix(
        (Selection("digits"),), (Selection("none"),), (Selection("kedmi"),), tuple(map(Selection, evaluators)),
        controls=False,
    )  # fmt: skip
    return build_plan(matrix.cells(), Path("nowhere"))


def test_negatives_read_the_target_alone_and_are_shared_by_attacks() -> None:
    stages = {stage.kind: stage for stage in plan().stages.values()}
    assert dict(stages["negatives"].inputs) == {"target": stages["target"].key}
    assert dict(stages["second_judge"].inputs) == {}
    assert set(stages["scores"].inputs) == {"target", "prior", "evidence", "judge", "second_judge", "negatives"}
    other = Matrix((Selection("digits"),), (Selection("none"),), (Selection("gmi"),), (Selection("verified_acc"),))
    again = {stage.kind: stage.key for stage in build_plan(other.cells()[:1], Path("nowhere")).stages.values()}
    same = {kind for kind in again if again[kind] == stages[kind].key}
    assert same == {"target", "judge", "second_judge", "negatives"}


def test_cells_that_do_not_ask_have_neither() -> None:
    kinds = {stage.kind for stage in plan(("accuracy", "attack_acc")).stages.values()}
    assert kinds == {"target", "prior", "evidence", "judge", "scores"}
    assert "judge" not in {stage.kind for stage in plan(("accuracy", "knn_distance")).stages.values()}


class Lonely(Digits):
    """A data set without a second judge."""

    @property
    def protocol(self):
        return super().protocol.model_copy(update={"second_judge_network": None})


class Curious(Evaluator):
    """A plugin's evaluator that asks for what the harness adds, and checks nothing itself."""

    needs = ("Negatives",)
    judges = ("second",)
    scores = (
        Definition(name="x", title="x", measures="quality", better="lower", unit="ratio", formula="x", range="[0, 1]"),
    )

    def score(self, evidence, judges):
        raise AssertionError


@pytest.mark.parametrize(
    ("dataset", "attack", "reason"),
    [
        ("lonely", "kedmi", "a second judge is asked and digits/v2 names no network for one"),
        (
            "celeba_attributes",
            "decoder",
            "calibrated negatives are pushed towards class labels and celeba_attributes/v2 has attributes",
        ),
        ("digits", "kedmi", None),
    ],
)
def test_what_a_data_set_cannot_have_is_a_reason(dataset: str, attack: str, reason: str | None, monkeypatch) -> None:
    found = {"lonely": Lonely, "curious": Curious}
    load, find = registry.load, registry.find
    monkeypatch.setattr(registry, "load", lambda kind, name: found.get(name) or load(kind, name))
    monkeypatch.setattr(
        registry,
        "find",
        lambda kind, name: find(kind, "digits" if name == "lonely" else "mcc" if name == "curious" else name),
    )
    selected = [(Selection(name),) for name in (dataset, "none", attack, "curious")]
    (cell,) = Matrix(*selected, controls=False).cells()
    assert cell.unavailable() == ((("curious", reason),) if reason else ())
    assert len(cell.evaluators) == (reason is None)


@pytest.mark.parametrize("name", registry.names("evaluator"))
def test_evaluators_ask_judges_that_there_are(name: str) -> None:
    assert set(registry.load("evaluator", name).judges) <= {"classifier", "second"}
