"""Every part of every key, changed alone, changes the keys that depend on it and no others; other things change none.

The cell is made of toys: in each stage that a component decides it has a field, a file and a network of its own. What a
key is made of is recorded where its digest is computed, so that a part that no change here touches fails, too.
"""

import dataclasses
import itertools
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import privbench
import pytest
import torch
from helpers.toy_cell import (
    FILES,
    KINDS,
    NETWORKS,
    USES,
    First,
    Second,
    ToyAttack,
    ToyData,
    ToyDefense,
    hashed,
    toy_cell,
)
from privbench.benchmark import api, registry
from privbench.benchmark.core.config import Protocol, Recipe, StageKind, decided_stages
from privbench.benchmark.core.ranking_rules import RankingRules
from privbench.benchmark.pipeline import cell as cells
from privbench.benchmark.pipeline import keys, stages
from privbench.benchmark.pipeline import plan as planning
from privbench.benchmark.pipeline.cell import Cell, Choice, Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.records.record import NotRun
from privbench.benchmark.runners import local
from privbench.benchmark.runners.outcome import Outcome
from privbench.benchmark.store.store import Store
from privbench.benchmark.testing.run_cell import choose, sample_choice
from privbench.benchmark.testing.samples import Sample

#: What each stage reads; the prior of an attack on a target reads that, too, and some attacks have no prior.
READS: dict[StageKind, tuple[StageKind, ...]] = {
    "judge": (),
    "second_judge": (),
    "target": (),
    "negatives": ("target",),
    "prior": (),
    "evidence": ("target", "prior"),
    "scores": ("target", "prior", "evidence", "judge", "second_judge", "negatives"),
}


@pytest.fixture(autouse=True)
def toy_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedders and perceptual networks are those of `NETWORKS`; networks of the protocol have files, too."""
    real = cells.load, cells.find

    def found(kind: Any, name: str, original: Any) -> Any:
        facts = NETWORKS.get(name)
        if facts is None:
            return original(kind, name)
        return SimpleNamespace(**facts, files=lambda: {f"weights of {name}": facts["file"]})

    monkeypatch.setattr(cells, "load", lambda kind, name: found(kind, name, real[0]))
    monkeypatch.setattr(cells, "find", lambda kind, name: found(kind, name, real[1]))
    monkeypatch.setattr(planning, "unsupported", lambda cell: None)


@dataclasses.dataclass(frozen=True)
class Made:
    """The key of each kind of stage of one cell, what the key was made of, and what the stage reads."""

    keys: dict[str, str]
    parts: dict[str, dict[str, Any]]
    reads: dict[str, dict[str, str]]


def made(cell: Cell, monkeypatch: pytest.MonkeyPatch, root: Path = Path()) -> Made:
    parts: dict[str, Any] = {}
    real = keys.digest

    def recorded(value: Any) -> str:
        parts[real(value)] = value
        return real(value)

    with monkeypatch.context() as patch:
        patch.setattr(keys, "digest", recorded)
        plan = build_plan([cell], root)
    found = {stage.kind: stage for stage in plan.stages.values()}
    assert len(found) == len(plan.stages)
    return Made(
        {kind: stage.key for kind, stage in found.items()},
        {kind: dict(leaves(parts[stage.key])) for kind, stage in found.items()},
        {kind: dict(stage.inputs) for kind, stage in found.items()},
    )


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in a key by their paths; a list of numbers is one value."""
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        items = list(enumerate(value))
    else:
        yield path, value
        return
    for name, inner in items:
        yield from leaves(inner, f"{path}.{name}" if path else str(name))


def other(name: str, annotation: Any, value: Any) -> Any:
    """Another value of a field, by its type."""
    if name.endswith("_network"):
        return next(found for found in ("mcnn", "scnn", "lenet5", "resnet34") if found != value)
    if typing.get_origin(annotation) is typing.Literal:
        return next(found for found in get_args(annotation) if found != value)
    if isinstance(value, bool) or bool in get_args(annotation):
        return not value
    if isinstance(value, int) or annotation == int | None:
        return (value or 0) + 1
    if isinstance(value, float):
        return value / 2 + 0.1
    if isinstance(value, str):
        return f"{value}_other"
    if typing.get_origin(annotation) is tuple and Ellipsis in get_args(annotation):
        return (*value, "another" if str in get_args(annotation) else 7)
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1)
    if name == "face_box":
        return (1, 2, 3, 4)
    raise AssertionError(f"teach `other` a second value of {name}: {annotation}")


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of one part: the stages whose keys hold it, and how it is made."""

    kinds: tuple[StageKind, ...]
    apply: Callable[[pytest.MonkeyPatch, Cell], Cell]


def with_choice(cell: Cell, place: str, change: Callable[[Choice], Choice]) -> Cell:
    name, _, index = place.partition(".")
    if not index:
        return dataclasses.replace(cell, **{name: change(getattr(cell, name))})
    chosen = list(cell.evaluators)
    chosen[int(index)] = change(chosen[int(index)])
    return dataclasses.replace(cell, evaluators=tuple(chosen))


def of_choice(place: str, **values: Any) -> Callable[[pytest.MonkeyPatch, Cell], Cell]:
    return lambda patch, cell: with_choice(cell, place, lambda choice: dataclasses.replace(choice, **values))


def of_component(place: str, **values: Any) -> Callable[[pytest.MonkeyPatch, Cell], Cell]:
    def change(choice: Choice) -> Choice:
        return dataclasses.replace(choice, component=choice.component.model_copy(update=values))

    return lambda patch, cell: with_choice(cell, place, change)


def of_world(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch, Cell], Cell]:
    def apply(patch: pytest.MonkeyPatch, cell: Cell) -> Cell:
        (patch.setitem if isinstance(owner, dict) else patch.setattr)(owner, name, value)
        return cell

    return apply


def of_registry(name: str) -> Callable[[pytest.MonkeyPatch, Cell], Cell]:
    """Another package registers a network of the protocol."""
    real = registry.find
    return of_world(
        keys,
        "find",
        lambda kind, found: dataclasses.replace(real(kind, found), distribution="x") if found == name
        else real(kind, found),
    )  # fmt: skip


def changes() -> dict[str, Change]:
    """Every part of a key, with a change of it; those of fields come from the classes."""
    found = {
        "format": Change(KINDS, of_world(keys, "KEY_FORMAT", 99)),
        "data": Change(KINDS, of_world(ToyData, "copy_of_files", "copy 2")),
        "seed": Change(
            ("target", "prior", "evidence"), lambda patch, cell: dataclasses.replace(cell, seed=cell.seed + 1)
        ),
        "method": Change(("negatives",), of_world(planning, "NEGATIVES_VERSION", 99)),
        "probe": Change(("scores",), of_world(planning, "PROBE_VERSION", 99)),
    }
    for name, field in Protocol.model_fields.items():
        value = other(name, field.annotation, getattr(ToyData.given, name))
        protocol = Protocol(**{**ToyData.given.model_dump(), name: value})
        found[f"protocol.{name}"] = Change(decided_stages(field), of_world(ToyData, "given", protocol))
    for role in ("target", "judge", "second_judge"):
        name = getattr(ToyData.given, "target_network" if role == "target" else f"{role}_network")
        network = registry.load("network", name)
        version, files = network.version + 1, classmethod(lambda cls, *, pretrained: {"weights": "f" * 64})
        found |= {
            f"network.version ({role})": Change((role,), of_world(network, "version", version)),
            f"network.files.weights ({role})": Change((role,), of_world(network, "files", files)),
            f"network.distribution ({role})": Change((role,), of_registry(name)),
        }
    for place, component in {
        "dataset": ToyData(),
        "defense": ToyDefense(),
        "attack": ToyAttack(),
        "evaluators.0": First(),
        "evaluators.1": Second(),
    }.items():
        found |= of_toy(place, component)
    return found


#: Stages of the fields that declare some; all others decide every stage of their component.
DECLARED: dict[str, tuple[StageKind, ...]] = {
    "dataset.target": ("target",),
    "dataset.judge": ("judge",),
    "dataset.second_judge": ("second_judge",),
    "dataset.negatives": ("negatives",),
    "attack.steps": ("prior",),
    "attack.iterations": ("evidence",),
}


def of_toy(place: str, component: Any) -> dict[str, Change]:
    found = {
        f"{place}.name": Change(USES[place], of_choice(place, name="renamed")),
        f"{place}.distribution": Change(USES[place], of_choice(place, distribution="theirs")),
        f"{place}.version": Change(USES[place], of_world(type(component), "version", 99)),
    }
    for name, field in type(component).model_fields.items():
        kinds = DECLARED.get(f"{place}.{name}", USES[place])
        value = getattr(component, name)
        if not isinstance(value, Recipe):
            found[f"{place}.fields.{name}"] = Change(
                kinds, of_component(place, **{name: other(name, field.annotation, value)})
            )
            continue
        for inner, info in Recipe.model_fields.items():
            recipe = value.model_copy(update={inner: other(inner, info.annotation, getattr(value, inner))})
            found[f"{place}.fields.{name}.{inner}"] = Change(kinds, of_component(place, **{name: recipe}))
    for kind in USES[place]:
        file, network = f"file of {place} in {kind}", f"network of {place} in {kind}"
        facts = NETWORKS[network]
        found[f"{place}.files.{file}"] = Change((kind,), of_world(FILES, file, "e" * 64))
        found[f"{place}.files.weights of {network}"] = Change(
            (kind,), of_world(NETWORKS, network, facts | {"file": "e" * 64})
        )
        for part, value in {"version": 2, "distribution": "theirs", "kind": "perceptual"}.items():
            found[f"{place}.networks.{network}.{part}"] = Change(
                (kind,), of_world(NETWORKS, network, facts | {part: value})
            )
    return found


@pytest.fixture(autouse=True)
def files_of_networks(toy_networks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network of the protocol has a file, whatever its initial weights."""
    for name in ("mcnn", "scnn", "lenet5", "resnet34"):
        files = classmethod(lambda cls, *, pretrained, name=name: {"weights": hashed(name)})
        monkeypatch.setattr(registry.load("network", name), "files", files)


CHANGES = changes()
#: What follows from other parts: the kind is fixed, and the protocol names the networks.
IMPLIED = {"stage", "network.name", "network.files.weights"}


def reads_of(prior: str) -> dict[StageKind, tuple[StageKind, ...]]:
    if prior == "target":
        return READS | {"prior": ("target",)}
    if prior == "none":
        return {kind: tuple(role for role in roles if role != "prior") for kind, roles in READS.items()
                if kind != "prior"}  # fmt: skip
    return READS


@pytest.mark.parametrize("prior", ["public", "target", "none"])
@pytest.mark.parametrize("part", CHANGES)
def test_a_part_changed_alone_changes_the_keys_that_depend_on_it_and_no_others(
    part: str, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyAttack, "prior", prior)
    before, change = made(toy_cell(), monkeypatch), CHANGES[part]
    after = made(change.apply(monkeypatch, toy_cell()), monkeypatch)
    reads = reads_of(prior)
    assert set(before.keys) == set(after.keys) == set(reads)
    path = part.partition(" (")[0]
    held = {
        kind: {
            name
            for name in before.parts[kind].keys() | after.parts[kind].keys()
            if before.parts[kind].get(name) != after.parts[kind].get(name)
            and not name.startswith("inputs")
            and (name not in IMPLIED or name == path)
        }
        for kind in reads
    }
    assert held == {kind: {path} if kind in change.kinds else set() for kind in reads}, "the part is where it belongs"
    expected = {kind for kind in reads if kind in change.kinds}
    while more := {kind for kind, roles in reads.items() if expected & set(roles)} - expected:
        expected |= more
    assert expected or (prior, change.kinds) == ("none", ("prior",))
    assert {kind for kind in reads if before.keys[kind] != after.keys[kind]} == expected


@pytest.mark.parametrize("prior", ["public", "target", "none"])
def test_every_part_of_a_key_has_a_change(prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyAttack, "prior", prior)
    found = made(toy_cell(), monkeypatch)
    parts = {name for each in found.parts.values() for name in each if not name.startswith("inputs")}
    tested = {part.partition(" (")[0] for part in CHANGES}
    assert parts - IMPLIED <= tested, "add a change of the part to `changes`"
    for kind, roles in reads_of(prior).items():
        assert found.reads[kind] == {role: found.keys[role] for role in roles}, kind


def test_the_kind_of_a_stage_is_in_its_key_under_the_name_that_it_had_at_first() -> None:
    """Other names would leave every second judge in every store without a use."""
    parts = {"dataset": {}, "protocol": {}, "data": "", "inputs": {"second_judge": "a" * 64}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "KEY_FORMAT", 2)
        found = {kind: keys.stage_key(kind, **parts) for kind in KINDS}
    assert len(set(found.values())) == len(KINDS)
    assert found["second_judge"] == "45bd74c98393823d495db9af96e7038944e2a5eb59fe2fd1d0703199ec788056"


def test_files_and_networks_of_one_name_are_all_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks may both call their file `weights`; an embedder and a perceptual network may both be `vgg16`."""
    hashes = {"own": "a" * 64, "embedder": "b" * 64, "perceptual": "c" * 64}
    versions = {"embedder": 1, "perceptual": 1}

    def network(kind: str, name: str) -> Any:
        files = {"weights": hashes[kind]}
        return SimpleNamespace(version=versions[kind], distribution="ours", files=lambda: files)

    monkeypatch.setattr(cells, "load", network)
    monkeypatch.setattr(cells, "find", network)
    monkeypatch.setattr(First, "files", lambda self, stage=None: {"weights": hashes["own"]})
    monkeypatch.setattr(First, "networks", lambda self, stage=None: (("embedder", "vgg16"), ("perceptual", "vgg16")))
    choice = toy_cell().evaluators[0]
    seen = [choice.identity("scores")]
    for values in (hashes, versions):
        for name in values:
            monkeypatch.setitem(values, name, "d" * 64 if values is hashes else 2)  # type: ignore[arg-type]
            seen.append(choice.identity("scores"))
    assert all(found not in seen[:place] for place, found in enumerate(seen))
    assert len(seen[0]["files"]) == 3
    assert len(seen[0]["networks"]) == 2


ROLES: tuple[Any, ...] = ("target", "judge", "second_judge")


@pytest.mark.parametrize(
    "flags", [*itertools.product((False, True), (None, False, True), (None, False, True))], ids=str
)
def test_the_weights_that_a_network_starts_from_are_in_the_keys_of_its_training(
    flags: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three are of one network, so that what is remembered of one must not serve another."""
    pretrained, judge, second = flags
    names = {"target_network": "mcnn", "judge_network": "mcnn", "second_judge_network": "mcnn"}
    names |= {"pretrained": pretrained, "judge_pretrained": judge, "second_judge_pretrained": second}
    monkeypatch.setattr(ToyData, "given", ToyData.given.model_copy(update=names))
    files = classmethod(lambda cls, *, pretrained: {"published": "a" * 64} if pretrained else {})
    monkeypatch.setattr(registry.load("network", "mcnn"), "files", files)
    found = made(toy_cell(), monkeypatch)
    judge = pretrained if judge is None else judge
    expected = {"target": pretrained, "judge": judge, "second_judge": judge if second is None else second}
    assert {role: "network.files.published" in found.parts[role] for role in ROLES} == expected
    assert {role: ToyData.given.starts_from_published(role) for role in ROLES} == expected


def grown(cls: type[Any], **values: Any) -> Callable[[pytest.MonkeyPatch, Cell], Cell]:
    def apply(patch: pytest.MonkeyPatch, cell: Cell) -> Cell:
        for name, value in values.items():
            patch.setattr(cls, name, value)
        return cell

    return apply


definition = registry.load("evaluator", "accuracy").scores
#: What must not decide: how scores are shown and ranked, how a cell was asked for, which release computes.
UNDECIDED = {
    "definitions of scores": grown(First, scores=definition),
    "an evaluator that is optional": grown(First, optional=True),
    "rules of ranking": grown(ToyData, ranking=RankingRules(suite=7)),
    "presets and family": grown(ToyData, presets={"x": {}}, family="mnist"),
    "losses that must fall": grown(ToyAttack, decreasing_losses={"attack": "loss"}),
    "tasks": grown(ToyDefense, tasks=frozenset({"classes", "attributes"})),
    "docstrings": grown(ToyAttack, __doc__="Another."),
    "the release": grown(privbench, __version__="99"),
    "the budget": lambda patch, cell: dataclasses.replace(cell, budget="full"),
    "evaluators that do not run": lambda patch, cell: dataclasses.replace(
        cell, not_run=(("fid", NotRun(code="unavailable", reason="no weights")),)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_must_not_decide_changes_no_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(toy_cell(), monkeypatch)
    after = made(UNDECIDED[name](monkeypatch, toy_cell()), monkeypatch)
    assert after.keys == before.keys


def test_folders_and_ways_to_run_change_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "execute", lambda *args, **options: Outcome())
    monkeypatch.setattr(api, "require_supported", lambda cells: None)  # the toy's networks are not registered
    from privbench.benchmark.runners import ray

    monkeypatch.setattr(ray, "execute", lambda *args, **options: Outcome())

    def planned(name: str, **options: Any) -> set[str]:
        folders = {part: tmp_path / name / part for part in ("data", "store", "results")}
        return set(api.execute([toy_cell()], **folders, device="cpu", **options)[0].stages)

    first = planned("one")
    assert len(first) == len(KINDS)
    assert planned("two") == first
    assert planned("one", jobs=4, threads=1, stage_timeout=9.0) == first
    assert planned("one", runner="ray") == first


def test_a_cell_has_the_same_keys_whatever_is_planned_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyData, "fingerprint", lambda self, root: f"of width {self.width}")
    cell = toy_cell()
    beside = [
        CHANGES[part].apply(monkeypatch, cell)
        for part in ("dataset.fields.width", "defense.fields.weight", "attack.fields.steps", "seed")
    ]
    alone = [set(build_plan([each], Path()).stages) for each in (cell, *beside)]
    assert len(set(map(frozenset, alone))) == len(alone)
    for order in ([cell, *beside], [*reversed(beside), cell]):
        assert set(build_plan(order, Path()).stages) == set().union(*alone)


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_each_recipe_of_a_data_set_decides_its_stage(name: str) -> None:
    fields = registry.load("dataset", name).model_fields
    for stage in ("target", "judge", "second_judge", "negatives"):
        assert decided_stages(fields[stage]) == (stage,)


def test_more_draws_train_no_target_and_judges_decide_no_target() -> None:
    decided = {name: decided_stages(field) for name, field in Protocol.model_fields.items()}
    for name in ("attacked", "draws", "trials", "group", "observed", "judge_network", "judge_classes"):
        assert "target" not in decided[name], name
    assert all("scores" in found for found in decided.values()), "evaluators read the whole protocol"


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


@pytest.mark.usefixtures("local_targets")
@pytest.mark.parametrize("names", [("kedmi", "mid"), ("decoder", "none")])
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


@pytest.mark.parametrize("attack", ["gmi", "kedmi", "vmi"])
def test_more_steps_of_an_attack_do_not_train_its_gan_again(attack: str, tmp_path: Path) -> None:
    def keys(steps: int) -> dict[str, str]:
        selected = ((Selection("digits"),), (Selection("none"),), (Selection(attack),))
        matrix = Matrix(*selected, (), budget="smoke", settings={"attack.iterations": steps}, controls=False)
        return {stage.kind: stage.key for stage in build_plan(matrix.cells(), tmp_path).stages.values()}

    one, two = keys(1), keys(2)
    assert {kind for kind in one if one[kind] != two[kind]} == {"evidence", "scores"}
