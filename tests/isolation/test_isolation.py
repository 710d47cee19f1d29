"""Attacks in a process of their own: the same bytes, nothing private in reach, and every failure in one sentence."""

import contextlib
import dataclasses
import io
import os
import pickle
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.installed import refresh_registry
from privbench.benchmark import api
from privbench.benchmark.access.wire import write_message
from privbench.benchmark.core.evidence import ClassReconstructions, Images, Request
from privbench.benchmark.datasets import digits
from privbench.benchmark.errors import BrokenComponentError, InvalidConfigurationError, PrivbenchError
from privbench.benchmark.isolation import process, sandbox
from privbench.benchmark.isolation.calls import AttackJob, Calls
from privbench.benchmark.isolation.declared import describe, description_of, make_attack
from privbench.benchmark.isolation.link import Link
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.resolve import resolve
from privbench.benchmark.store.store import Store
from privbench.benchmark.submissions.check_components import check_components
from privbench.benchmark.training.context import Context

SETTINGS = {"defense.recipe.max_steps": 2, "defense.recipe.batch_size": 16, "dataset.draws": 2, "dataset.trials": 1}
ATTACKS = {
    "plain_scores": "Plain",
    "plain_features": "PlainFeatures", "prying": "Prying", "picky": "Picky", "failing": "Failing", "broken": "Missing",
}  # fmt: skip


#: The same, as a record states them.
SETTINGS_CHANGED = {
    "dataset": {"draws": 2},
    "defense": {"recipe.max_steps": 2, "recipe.batch_size": 16},
}


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory) -> Iterator[None]:
    """Install the attacks of `prying_attacks` for this process and for those that it starts."""
    folder = tmp_path_factory.mktemp("plugin")
    metadata = folder / "prying_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: prying-plugin\nVersion: 1.0\n")
    lines = [f"{name} = prying_attacks:{attribute}" for name, attribute in ATTACKS.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[privbench.attacks]", *lines]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.syspath_prepend(str(Path(__file__).parent))
        refresh_registry()
        yield
    refresh_registry()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder of a store that all tests share, so that targets are trained once."""
    return tmp_path_factory.mktemp("cells")


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable:
    """Run an attack on an undefended target and return the outcome, its evidence and the record."""

    def go(name: str, *, isolated: bool | None = None, results: str = "results", **fields):
        selection = Selection(name, fields=fields)
        matrix = Matrix(
            (Selection("digits"),), (Selection("none"),), (selection,), (Selection("accuracy"),), (0,), "smoke",
            SETTINGS, controls=False, sandbox=isolated,
        )  # fmt: skip
        cells, store = matrix.cells(), Store(folder / "store")
        stages = {stage.kind: stage for stage in build_plan(cells, folder).stages.values()}
        for kind in {"scores", "evidence", "prior"} & set(stages):
            store.discard(kind, stages[kind].key)
        _, outcome, records = api.execute(
            cells, data=folder / "data", store=folder / "store", results=tmp_path / results, device="cpu"
        )
        return outcome, store.find("evidence", stages["evidence"].key), records[0][0] if records else None

    return go


def test_an_attack_on_scores_gives_the_same_bytes_in_its_own_process(run) -> None:
    _, here, record_here = run("plain_scores", isolated=False, steps=2)
    _, there, record_there = run("plain_scores", results="isolated", steps=2)
    assert record_here.environment.isolation == "none"
    assert record_there.environment.isolation == sandbox.method()
    assert there.digest == here.digest
    assert record_there.queries == record_here.queries
    assert record_there.curves == record_here.curves
    assert record_there.key == record_here.key
    assert record_there.changed == record_here.changed == {"attack": {"steps": 2}, **SETTINGS_CHANGED}
    assert record_there.cell.attack.fields == {"steps": 2, "scale": 0.5}


def test_an_attack_on_features_gives_the_same_bytes_and_is_not_imported(run) -> None:
    sys.modules.pop("prying_attacks", None)
    outcome, there, record = run("plain_features", results="isolated")
    assert not outcome.failures
    assert record.access == "features"
    assert check_components(record).attack.component.model_dump() == record.cell.attack.fields
    assert "prying_attacks" not in sys.modules
    _, here, _ = run("plain_features", isolated=False)
    assert there.digest == here.digest


def test_a_built_in_attack_gives_the_same_bytes_in_its_own_process(run) -> None:
    fields = {"max_steps": 2, "batch_size": 8, "iterations": 2}
    _, here, record_here = run("kedmi", isolated=False, **fields)
    _, there, record_there = run("kedmi", isolated=True, results="isolated", **fields)
    assert there.digest == here.digest
    assert record_there.queries == record_here.queries
    assert record_there.key == record_here.key
    assert record_there.command == record_here.command


def test_wrong_fields_are_named(run) -> None:
    with pytest.raises(PrivbenchError, match=re.escape("did you mean 'attack.steps'?")):
        run("plain_scores", stepz=2)


def test_what_stands_for_an_attack_can_be_sent_to_a_worker() -> None:
    choice = resolve("attack", Selection("decoder"), "smoke", {})
    made = make_attack(describe(choice.name, choice.distribution, choice.component, choice.component))
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301
    assert description_of(copy) == description_of(made)
    for stage in (None, "prior", "evidence", "scores"):
        assert dataclasses.replace(choice, component=copy).identity(stage) == choice.identity(stage)


def test_images_that_an_attack_refuses_are_named_before_anything_runs(run) -> None:
    with pytest.raises(InvalidConfigurationError, match="images of 3 x 3 pixels for picky, got those of digits"):
        run("picky")


def test_an_attack_that_does_not_import_is_named(run) -> None:
    with pytest.raises(BrokenComponentError, match="broken"):
        run("broken")


def test_a_failure_is_one_sentence(run) -> None:
    outcome, evidence, _ = run("failing")
    assert any("ArithmeticError in prying_attacks.py: nothing works" in reason for reason in outcome.failures.values())
    assert evidence is None


def test_an_attack_sees_nothing_private(run, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET", "password")
    monkeypatch.setenv("PRIVBENCH_STORE", str(folder / "store"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome, evidence, record = run(
            "prying", folders=f"{folder / 'store'}", harness=os.getpid(), port=server.getsockname()[1]
        )
    assert not outcome.failures
    seen = set(evidence.info["notes"]["seen"].split())
    if sandbox.method() == "process":
        # A process of the same user reads files and reaches the network; root reads memory.
        seen -= {str(folder / "store"), "network"} | ({"memory"} if os.geteuid() == 0 else set())
    assert seen == set()
    # What it did to its own process changed no count.
    assert record.queries["forward"] == 3


class Pipes:
    """A process that has said everything already."""

    def __init__(self, said: bytes) -> None:
        self.stdin, self.stdout = io.BytesIO(), io.BytesIO(said)
        self.heard = self.stdin

    def wait(self, timeout: float = 0) -> int:
        return 3

    poll = wait


def message(header: dict, **tensors: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    write_message(stream, header, tensors)
    return stream.getvalue()


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 64,
        b"\x00\x00\x00\x02[]",
        message({"call": "steal"}),
        message({"call": ["query"]}),
        message({"call": "load", "name": 5}),
        message({"call": "save", "name": "a", "groups": ["a"], "info": {}}, **{"9/x": torch.zeros(1)}),
        message({"call": "query"}, x=torch.zeros(1)),
        message({"call": "begin"}),
        message({"call": "done"})[:-1],
        message({}, x=torch.zeros(1)).replace(b"[1]", b"[9999999999999999]"),
        b"",
    ],
)
def test_what_is_no_message_is_one_sentence(said: bytes) -> None:
    job = AttackJob("lying", None, Context(digits.Digits().protocol, torch.device("cpu"), 0), None, ())
    link = Link("lying", Pipes(said), io.BytesIO(b"last words"))
    with pytest.raises(PrivbenchError, match="attack lying"):
        link.run({"do": "run"}, {}, Calls(job).handlers)


@pytest.mark.parametrize(
    ("header", "tensors", "text"),
    [
        ({"yields": "PairedReconstructions"}, {"pixels", "items"}, "to return ClassReconstructions"),
        ({"yields": "PairedReconstructions"}, {"pixels", "labels"}, "to return ClassReconstructions"),
        ({"yields": "ClassReconstructions"}, {"pixels"}, "to return ClassReconstructions"),
        ({"unchanged": False}, {"pixels", "labels"}, "changed the target's weights"),
        ({"curves": 5}, {"pixels", "labels"}, "noted something that cannot be stored"),
        ({"queries": {"forward": -1, "backward": 0, "head": 0}}, {"pixels", "labels"}, "counted its queries as"),
    ],
)
def test_a_result_is_checked(monkeypatch, header, tensors, text) -> None:
    sound = {"call": "done", "yields": "ClassReconstructions", "unchanged": True, "curves": {}, "notes": {}}
    sound |= {"images_at_once": 1, "queries": {"forward": 1, "backward": 0, "head": 0}}
    said = message(sound | header, **{name: torch.zeros(1) for name in tensors})
    link = Link("lying", Pipes(said), io.BytesIO())
    monkeypatch.setattr(process, "started", lambda *_, **__: contextlib.nullcontext(link))
    protocol = digits.Digits().protocol
    images = Images(torch.zeros(1, *protocol.image, dtype=torch.uint8))
    context = Context(protocol, torch.device("cpu"), 0)
    attack = resolve("attack", Selection("kedmi"), "smoke", {}).component
    job = AttackJob("lying", attack, context, images, (), request=Request((0,), 1), rebuild=({}, {}))
    with pytest.raises(PrivbenchError, match=text):
        process.run(job, ClassReconstructions)
