"""A key holds everything that decides a stage: every field of the protocol, every file, every network."""

import dataclasses
import typing
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import torch
from privbench.benchmark import registry
from privbench.benchmark.contracts import Dataset
from privbench.benchmark.core.config import Protocol, StageKind, decided_stages
from privbench.benchmark.networks.classifiers.mcnn import MCNN
from privbench.benchmark.networks.embedders.hog import HOG
from privbench.benchmark.pipeline import plan as planning
from privbench.benchmark.pipeline import stages
from privbench.benchmark.pipeline.cell import Cell, Choice
from privbench.benchmark.pipeline.plan import Plan, build_plan
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.runners import local
from privbench.benchmark.store.store import Store
from privbench.benchmark.testing.run_cell import choose, sample_choice
from privbench.benchmark.testing.samples import Sample

PROTOCOL = Sample().protocol
KINDS = get_args(StageKind)


class Described(Dataset):
    """A data set with the protocol that a test gives it."""

    given: ClassVar[Protocol] = PROTOCOL

    @property
    def protocol(self) -> Protocol:
        return self.given

    def load(self, part, root):
        raise NotImplementedError


def cell(attack: str = "gmi", evaluators: tuple[str, ...] = ("accuracy", "verified_acc"), **changes: Any) -> Cell:
    dataset = Choice("dataset", "described", "tests", Described())
    made = Cell(dataset, choose("defense", "none"), choose("attack", attack), (), 0, "smoke")
    chosen = tuple(choose("evaluator", name) for name in evaluators)
    return dataclasses.replace(made, evaluators=chosen, **changes)


def plan(made: Cell) -> dict[str, planning.Stage]:
    """The stages of a cell by kind."""
    found: Plan = build_plan([made], Path())
    return {stage.kind: stage for stage in found.stages.values()}


def other(name: str, annotation: Any, value: Any) -> Any:
    """Another value of a field of the protocol, by its type."""
    if name.endswith("_network"):
        return next(found for found in ("mcnn", "scnn", "resnet34") if found != value)
    if typing.get_origin(annotation) is typing.Literal:
        return next(found for found in get_args(annotation) if found != value)
    if isinstance(value, bool) or bool in get_args(annotation):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return f"{value}_other"
    if typing.get_origin(annotation) is tuple and Ellipsis in get_args(annotation):
        return (*value, "another")
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1)
    if name == "face_box":
        return (1, 2, 3, 4)
    raise AssertionError(f"teach `other` a second value of {name}: {annotation}")


@pytest.mark.parametrize("attack", ["gmi", "kedmi"])  # their priors are of the public images, and of a target
@pytest.mark.parametrize("name", Protocol.model_fields)
def test_every_field_of_the_protocol_changes_the_keys_of_the_stages_that_it_decides(
    name: str, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "unsupported", lambda cell: None)
    before = plan(cell(attack))
    field = Protocol.model_fields[name]
    value = other(name, field.annotation, getattr(PROTOCOL, name))
    monkeypatch.setattr(Described, "given", Protocol(**{**PROTOCOL.model_dump(), name: value}))
    after = plan(cell(attack))
    assert set(before) == set(after) == set(KINDS)
    declared, changed = decided_stages(field), set()
    for kind, stage in before.items():  # every stage follows its inputs
        if kind in declared or changed & set(stage.inputs):
            changed.add(kind)
    assert declared
    assert {kind for kind in KINDS if after[kind].key != before[kind].key} == changed


def test_more_draws_train_no_target_and_judges_decide_no_target() -> None:
    decided = {name: decided_stages(field) for name, field in Protocol.model_fields.items()}
    for name in ("attacked", "draws", "trials", "group", "observed", "judge_network", "judge_classes"):
        assert "target" not in decided[name], name
    assert all("scores" in found for found in decided.values()), "evaluators read the whole protocol"


@pytest.mark.parametrize("names", [("gmi", "none"), ("kedmi", "mid"), ("decoder", "none")])
def test_stages_read_only_the_fields_that_are_in_their_keys(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[StageKind] = []
    read: dict[str, set[str]] = {kind: set() for kind in KINDS}
    usual = Protocol.__getattribute__

    def watch(self: Protocol, name: str) -> Any:
        if running and name in Protocol.model_fields:
            read[running[-1]].add(name)
        return usual(self, name)

    def watched(kind: StageKind, function: Any) -> Any:
        def run(*args: Any) -> Any:
            running.append(kind)
            try:
                return function(*args)
            finally:
                running.pop()

        return run

    monkeypatch.setattr(Protocol, "__getattribute__", watch)
    monkeypatch.setattr(stages, "_STAGES", {kind: watched(kind, each) for kind, each in stages._STAGES.items()})
    attack = choose("attack", names[0])
    scored = "verified_acc" if attack.component.yields == "ClassReconstructions" else "ssim"
    evaluators = tuple(choose("evaluator", name) for name in ("accuracy", "attack_acc", scored))
    made = Cell(sample_choice(Sample()), choose("defense", names[1]), attack, evaluators, 0, "smoke")
    if scored == "ssim":
        made = dataclasses.replace(made, evaluators=(evaluators[0], evaluators[2]))
    outcome = local.execute(build_plan([made], tmp_path), Session(Store(tmp_path / "s"), tmp_path, torch.device("cpu")))
    assert not outcome.failures
    assert read["target"]
    assert "draws" in read["evidence"]
    decided = {name: decided_stages(field) for name, field in Protocol.model_fields.items()}
    rebuilt = {"pretrained"}  # a trained target is rebuilt with another value, False, before its weights are loaded
    for kind, found in read.items():
        assert not {name for name in found - rebuilt if kind not in decided[name]}, kind


def test_the_files_of_networks_change_the_keys_of_what_is_trained_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan(cell())
    monkeypatch.setattr(MCNN, "files", classmethod(lambda cls, *, pretrained: {"weights": "0" * 64}))
    after = plan(cell())
    assert {kind for kind in KINDS if after[kind].key != before[kind].key} == {
        *("target", "negatives", "evidence", "scores"),
    }


@pytest.mark.parametrize("change", ["version", "files"])
def test_an_embedder_changes_the_key_of_the_scores_that_it_decides(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(cell(evaluators=("accuracy", "knn_distance")))
    value = HOG.version + 1 if change == "version" else classmethod(lambda cls: {"weights": "0" * 64})
    monkeypatch.setattr(HOG, change, value)
    after = plan(cell(evaluators=("accuracy", "knn_distance")))
    assert {kind for kind in after if after[kind].key != before[kind].key} == {"scores"}


def test_components_name_the_networks_that_they_use() -> None:
    """A field whose value is a registered embedder or perceptual network is named by `networks`."""
    seen = 0
    for kind in ("attack", "defense", "evaluator"):
        for name in registry.names(kind):
            cls = registry.load(kind, name)
            for field in cls.model_fields:
                if field in ("embedder", "perceptual"):
                    weights = {other: 1.0 for other in ("mu_2", "lambda_2") if other in cls.model_fields}
                    component = cls(**weights)
                    assert (field, getattr(component, field)) in component.networks(), name
                    seen += 1
    assert seen >= 5
