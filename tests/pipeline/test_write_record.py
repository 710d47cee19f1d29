"""Records of cells: their key, the fields that were set, and the command that makes them again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Command
from privbench.benchmark.pipeline.cell import Cell, Selection
from privbench.benchmark.pipeline.keys import KEY_FORMAT
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import Plan, Stage, build_plan
from privbench.benchmark.pipeline.write_record import changes, command, make_record, write_record
from privbench.benchmark.records.record import NotRun
from privbench.benchmark.store.manifest import Artifact
from privbench.benchmark.store.store import Store

MACHINE = {"privbench": "0", "python": "3", "torch": "2", "platform": "p", "cpu": "c", "cores": 1}
MACHINE |= {"device": "cpu", "threads": 1}
SETTINGS = {
    "defense.estimator": "biased",
    "defense.recipe.max_steps": None,
    "defense.recipe.milestones": [1, 2],
    "defense.recipe.nesterov": True,
    "dataset.draws": 3,
    "vmi.kl_weight": 0.5,
    "knn_distance.k": 2,
}


def cell(seed: int = 3, budget: str = "smoke", **settings: Any) -> Cell:
    evaluators = (Selection("knn_distance"), Selection("accuracy"))
    chosen = (Selection("digits"),), (Selection("bido_hsic"),), (Selection("vmi"),)
    return Matrix(*chosen, evaluators, (seed,), budget, settings, controls=False).cells()[0]  # type: ignore[arg-type]


def planned(made: Cell) -> Plan:
    return build_plan([made], Path("nowhere"))


def stage_of(made: Cell) -> Stage:
    plan = planned(made)
    return plan.stages[next(iter(plan.cells))]


def scored(folder: Path, key: str, *, picture: bytes | None = None, **info: Any) -> Artifact:
    """A scores artifact without scores."""
    judge = {"network": "scnn", "test_accuracy": 0.9, "n": 9, "pretrained": False}
    facts = {"artifacts": {}, "costs": {}, "stage_curves": {}, "environment": MACHINE, "judge": judge} | info
    files = {"scores.json": b"{}"} | ({"picture.png": picture} if picture else {})
    return Store(folder).write("scores", key, tensors={}, info=facts, files=files)


@pytest.mark.parametrize("settings", [{}, SETTINGS])
@pytest.mark.parametrize("budget", ["smoke", "full"])
def test_the_command_plans_the_same_stages(privbench: Command, budget: str, settings: dict[str, Any]) -> None:
    made = cell(7, budget, **settings)
    words = command(made, changes(made))
    assert words[:2] == ["privbench", "run"]
    done = privbench("plan", *words[2:], "--json")
    assert done.code == 0, done.err
    assert {stage["key"] for stage in json.loads(done.out)["stages"]} == set(planned(made).stages)


def test_only_fields_that_the_user_set_are_changed() -> None:
    for budget in ("smoke", "quick", "full"):
        assert changes(cell(0, budget)) == {}
    assert changes(cell(**SETTINGS)) == {
        "dataset": {"draws": 3},
        "defense": {
            "estimator": "biased",
            "recipe.max_steps": None,
            "recipe.milestones": [1, 2],
            "recipe.nesterov": True,
        },
        "attack": {"kl_weight": 0.5},
        "knn_distance": {"k": 2},
    }


def test_the_key_of_a_record_is_of_all_that_the_cell_and_its_scores_are(tmp_path: Path) -> None:
    made = cell()
    artifact, stage = scored(tmp_path / "first", "a" * 64), stage_of(made)
    record = make_record(made, stage, artifact)
    assert record.key_format == KEY_FORMAT
    others = [
        dataclasses.replace(made, seed=4),
        dataclasses.replace(made, budget="full"),
        dataclasses.replace(made, evaluators=made.evaluators[:1]),
        cell(**{"knn_distance.k": 2}),
        cell(**{"dataset.second_judge.epochs": 9}),
        cell(**{"defense.lambda_x": 9}),
        cell(**{"attack.iterations": 9}),
    ]
    keys = [make_record(other, stage, artifact).key for other in others]
    keys.append(make_record(made, dataclasses.replace(stage, key="b" * 64), artifact).key)
    assert len({record.key, *keys}) == len(keys) + 1
    again = scored(tmp_path / "again", "a" * 64, queries={"forward": 3}, environment=MACHINE | {"cores": 99})
    not_run = (("fid", NotRun(code="unavailable", reason="no weights")),)
    assert make_record(dataclasses.replace(made, not_run=not_run), stage, again).key == record.key


def test_a_record_that_is_there_keeps_its_time_and_bytes(tmp_path: Path) -> None:
    made, png = cell(), b"\x89PNG\r\n"
    plan = planned(made)
    (key,) = plan.cells
    artifact = scored(tmp_path / "store", key, picture=png)
    record, path = write_record(plan, key, artifact, tmp_path)
    older = record.model_copy(update={"created": "2001-01-31T12:00:00+00:00"})
    path.write_text(older.text(), "utf-8")
    before = path.read_bytes()
    assert write_record(plan, key, artifact, tmp_path) == (older, path)
    path.with_suffix(".png").unlink()
    assert write_record(plan, key, artifact, tmp_path) == (older, path)
    assert path.with_suffix(".png").read_bytes() == png
    assert path.read_bytes() == before
    path.write_text(older.model_copy(update={"queries": {"forward": 1}}).text(), "utf-8")
    again, _ = write_record(plan, key, artifact, tmp_path)
    assert again.queries == record.queries, "a record of other numbers is written again"
