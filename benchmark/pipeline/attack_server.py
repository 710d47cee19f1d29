"""The process that imports and runs an attack; `isolation` starts it as `python -m`.

The first message says what to do. Until it is done, this process asks the harness for answers of the target and for
checkpoints, and tells it the progress. Its last message is the result, or why there is none.
"""

import dataclasses
import os
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

from .. import registry
from ..access.open import TargetSource, rebuild_target
from ..access.settings import apply_settings
from ..access.views import FeaturesView, LabelsView, ScoresView, View, WhiteBoxView
from ..access.wire import read_message, take_streams, write_message
from ..contracts import Attack
from ..core.config import Protocol
from ..core.evidence import Images, Request
from ..files.tensors import flatten, unflatten
from ..isolation.calls import PUBLIC
from ..isolation.declared import describe
from ..training.context import Context
from ..training.state import Groups
from .cell import Choice, Selection
from .failures import raised_in
from .resolve import build, resolve

Tensors = dict[str, Tensor]


class Harness:
    """The other end: it answers questions and listens.

    Args:
        reader: from the harness.
        writer: to the harness.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer
        self._lock = threading.Lock()
        #: Of the running stage.
        self.context: Context | None = None

    def tell(self, call: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send a message that has no answer."""
        with self._lock:
            write_message(self._writer, {"call": call, **header}, tensors)

    def ask(
        self, call: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], Tensors]:
        """Send a message and wait for its answer."""
        with self._lock:
            write_message(self._writer, {"call": call, **header}, tensors)
            return read_message(self._reader)

    # Checkpoints of the attack's loops.

    def load(self, name: str) -> tuple[Groups, dict[str, Any]] | None:
        """Return the checkpoint of loop `name`, or `None`."""
        found, tensors = self.ask("load", {"name": name})
        return (unflatten(found["groups"], tensors), found["info"]) if found["found"] else None

    def save(self, name: str, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
        """Have the checkpoint of loop `name` replaced."""
        names, tensors = flatten(groups)
        self.ask("save", {"name": name, "groups": names, "info": dict(info)}, tensors)

    # Progress of the attack's loops.

    def begin(self, name: str, total: int, done: int) -> None:
        """Report that a loop starts."""
        self.tell("begin", {"name": name, "total": total, "done": done})

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """Report finished steps."""
        self.tell("advance", {"done": done, "losses": dict(losses)})

    def end(self) -> None:
        """Report the end of a loop."""
        self.tell("end", {})


class _Relay:
    """Stands for the target's process: the harness passes queries on and counts them."""

    def __init__(self, harness: Harness, empty_answer: Tensor) -> None:
        self._harness, self.empty_answer = harness, empty_answer

    def send(
        self, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], Tensors]:
        """Pass one message on; the harness resumes the count by itself when it hands out a checkpoint."""
        call = "query" if header["do"] == "query" else "count"
        return self._harness.ask(call, {}, tensors)

    def close(self) -> None:
        """Leave the end of the target to the harness."""


def _open_view(job: Mapping[str, Any], tensors: Mapping[str, Tensor], harness: Harness, device: torch.device) -> View:
    protocol = Protocol.model_validate(job["protocol"])
    access = job["access"]
    if access == "white_box":
        weights = {name.removeprefix("target/"): each for name, each in tensors.items() if name.startswith("target/")}
        source = TargetSource(job["rebuild"], lambda: weights, protocol)
        return WhiteBoxView(rebuild_target(source).to(device), protocol)
    relay: Any = _Relay(harness, tensors["empty_answer"])
    if access == "features":
        return FeaturesView(access, protocol, relay, job["layer"])
    return (ScoresView if access == "scores" else LabelsView)(access, protocol, relay)


def _attack(job: Mapping[str, Any]) -> Attack:
    found: Attack = build(registry.load("attack", job["name"]), job["fields"], "attack", job["name"])
    return found


def _describe(job: Mapping[str, Any]) -> dict[str, Any]:
    """Find the attack, give its fields their values and describe it."""
    name, budget = job["name"], job["budget"]
    dataset = None if job["dataset"] is None else _named_dataset(job["dataset"])
    usual = resolve("attack", Selection(name), budget, {}, dataset)
    if "fields" in job:
        choice = dataclasses.replace(usual, component=_attack(job))
    else:
        selection = Selection(name, job["preset"], job["changes"], job["where"])
        choice = resolve("attack", selection, budget, job["settings"], dataset)
    protocol = None if dataset is None else Protocol.model_validate(job["dataset"]["protocol"])
    found = describe(choice.name, choice.distribution, choice.component, usual.component, protocol)
    return found.model_dump(mode="json")


def _named_dataset(facts: Mapping[str, Any]) -> Choice:
    """Return what presets are chosen by: the name and the family of a data set."""
    return Choice("dataset", facts["name"], "", type("Named", (), {"family": facts["family"]})())


def _work(job: Mapping[str, Any], tensors: Mapping[str, Tensor], harness: Harness) -> tuple[dict[str, Any], Tensors]:
    """Learn or attack; return the facts and the tensors of the result."""
    apply_settings(job)
    device, attack = torch.device(job["device"]), _attack(job)
    public = Images(**{name: tensors[f"public/{name}"] for name in PUBLIC if f"public/{name}" in tensors})
    context = Context(
        Protocol.model_validate(job["protocol"]), device, job["seed"], harness, harness, lambda: public, job["halvings"]
    )
    harness.context = context
    view = None if job["access"] is None else _open_view(job, tensors, harness, device)
    context.view = view
    if job["do"] == "learn":
        names, result = flatten(attack.learn(view, public, context))
        facts: dict[str, Any] = {"groups": names}
    else:
        assert view is not None
        prior = unflatten(job["prior"], {n[6:]: each for n, each in tensors.items() if n.startswith("prior/")})
        asked = {**job["request"], "labels": tuple(job["request"]["labels"])}
        request = Request(**asked, encodings=tensors.get("encodings"), items=tensors.get("items"))
        found = attack.run(view, prior, request, context)
        result = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        facts = {"yields": type(found).__name__}
    facts |= {
        "notes": context.notes,
        "curves": context.curves,
        "images_at_once": context.images_at_once,
        "queries": view.queries if view else {},
        "unchanged": view.unchanged() if view else True,
    }
    return facts, result


def _serve(harness: Harness, job: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    failed: list[BaseException] = []
    threading.excepthook = lambda failure: failed.append(failure.exc_value or SystemExit())
    try:
        if job["do"] == "describe":
            harness.tell("done", {"description": _describe(job)})
            return
        facts, result = _work(job, tensors, harness)
        if real := [cause for cause in failed if not isinstance(cause, SystemExit)]:
            raise real[0]
        harness.tell("done", facts, result)
    except Exception as cause:
        count = harness.context.images_at_once if harness.context else 0
        kind = "thread " * any(cause is each for each in failed) + type(cause).__name__
        harness.tell("failed", {"kind": kind, "error": str(cause), "file": raised_in(cause), "images_at_once": count})


def _exit_with_parent() -> None:
    """End this process when the harness is gone, also while the attack computes."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Read a job, do it and end."""
    reader, writer = take_streams()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    job, tensors = read_message(reader)
    _serve(Harness(reader, writer), job, tensors)
    os._exit(0)


if __name__ == "__main__":
    main()
