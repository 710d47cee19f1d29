"""A stage loads and verifies its target once, and keeps none of it where the attack may not see it."""

import gc
from pathlib import Path

import pytest
import torch
from helpers import by_hand
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.pipeline import session as sessions
from privbench.benchmark.pipeline import stages
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import Plan, build_plan
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.store.store import Store

SETTINGS = {"attack.max_steps": 2, "defense.recipe.max_steps": 2, "dataset.judge.max_steps": 2}
SETTINGS |= {"dataset.second_judge.max_steps": 2, "dataset.negatives": 2}


def planned(attack: str, settings: dict[str, object]) -> Plan:
    matrix = Matrix(
        (Selection("digits"),), (Selection("none"),), (Selection(attack),), None, (0,), "smoke", SETTINGS | settings
    )
    return build_plan(matrix.cells()[:1], Path("nowhere"))


@pytest.mark.parametrize(
    ("attack", "settings"), [("decoder", {}), ("gmi", {"attack.iterations": 2})], ids=["features", "white box"]
)
def test_every_stage_loads_its_target_at_most_once(
    attack: str, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(attack, settings)
    session = Session(Store(tmp_path), Path("nowhere"), torch.device("cpu"))
    loads: list[str] = []
    load = sessions.load_target

    def counted(*given: object) -> Network:
        loads.append(stage.kind)
        return load(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "load_target", counted)
    for stage in plan.stages.values():
        stages.run(stage, session)
    reading = [stage.kind for stage in plan.stages.values() if "target" in stage.inputs]
    assert sorted(loads) == sorted(reading)


def networks() -> set[int]:
    """Ids of all networks in this process; other tests may have left some."""
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), Network)}


def test_a_verified_target_that_an_attack_must_not_see_is_not_kept(tmp_path: Path) -> None:
    plan = planned("decoder", {})
    session = Session(Store(tmp_path), Path("nowhere"), torch.device("cpu"))
    target = next(stage for stage in plan.stages.values() if stage.kind == "target")
    artifact = stages.run(target, session)
    before = networks()
    session.target_source(artifact, target.cell)
    assert networks() <= before
    session.target(artifact, target.cell)
    assert len(networks() - before) == 1
    session.forget()
    assert networks() <= before


def test_every_stage_has_a_seed_and_images_of_its_own(tmp_path: Path) -> None:
    """The judges' seed is the same for all cells; validation images are given to targets alone."""
    matrix = Matrix((Selection("digits"),), (Selection("none"),), (Selection("gmi"),), None, (3,), "smoke", SETTINGS)
    session = Session(Store(tmp_path), Path("nowhere"), torch.device("cpu"))
    for stage in build_plan(matrix.cells()[:1], Path("nowhere")).stages.values():
        context, dataset = session.context(stage), stage.cell.dataset
        judge = stage.kind in ("judge", "second_judge")
        assert context.seed == by_hand.seed_of(0 if judge else 3, stage.key)
        assert context.protocol == dataset.component.protocol
        assert context.public is not None
        assert (context.validation is not None) == (stage.kind == "target")
        parts = [(context.public(), "public")] + ([(context.validation(), "private_val")] if context.validation else [])
        for found, part in parts:
            assert found is session.images(dataset, part)  # type: ignore[arg-type]
            assert torch.equal(found.pixels, dataset.component.part(part, Path("nowhere")).pixels)
    assert len(session.images(dataset, "private_train")) + 75 == 718
