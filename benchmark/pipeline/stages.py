"""The stages: judges, target, negatives, prior, evidence, scores. Each reads artifacts and writes one."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..access.open import open_view
from ..access.views import View
from ..core import evidence as evidence_kinds
from ..core.canonical import canonical
from ..core.evidence import Encodings, Evidence, Negatives, Predictions, Request
from ..errors import PrivbenchError
from ..networks.classifiers.network import Network
from ..networks.judges import Judge, Judges, accuracy
from ..store.manifest import Artifact
from ..training.context import Context
from ..training.optimisation import cross_entropy
from . import gradient_masking, negatives
from .cell import Cell
from .environment import environment, host_peak_memory, peak_memory, reset_peak_memory
from .failures import is_out_of_memory
from .plan import Stage
from .scoring import picture_of, score_with
from .session import _JUDGES, Session
from .trained_models import judge_name, judge_network, load_judge, load_target, predict, state, target_source
from .victim_encodings import observe

_COSTS = ("seconds", "peak_memory_bytes", "images_at_once")


def run(stage: Stage, session: Session) -> Artifact:
    """Compute a stage and store its artifact; the caller holds the stage's lock.

    An attack that runs out of memory goes on from its last checkpoint with half as many images at once, down to one.
    """
    session.batch_halvings = 0
    while (artifact := _tried(stage, session)) is None:
        session.batch_halvings += 1
        gc.collect()
        if session.device.type == "cuda":
            torch.cuda.empty_cache()
    session.store.checkpoint(stage.kind, stage.key).clear()
    return artifact


def _tried(stage: Stage, session: Session) -> Artifact | None:
    """The artifact of a stage; `None` if memory ran out and halving may help."""
    reset_peak_memory(session.device)
    try:
        with _deterministic(session.device), session.threads:
            return _STAGES[stage.kind](stage, session)
    except Exception as cause:
        if is_out_of_memory(cause) and session.can_halve():
            return None
        raise
    finally:
        session.forget()


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Same bytes on the CPU; elsewhere some layers have no deterministic form, and none is asked for.

    `torch.use_deterministic_algorithms` does the same after importing PyTorch's compiler, which takes seconds.
    """
    memory: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
    memory.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        memory.fill_uninitialized_memory = before[1]


def _write(
    stage: Stage,
    session: Session,
    context: Context,
    tensors: Mapping[str, Mapping[str, Tensor]],
    files: Mapping[str, bytes] | None = None,
    **facts: Any,
) -> Artifact:
    session.threads.check()
    info = {
        "title": stage.title,
        "resource_class": stage.resource_class,
        "seconds": round(context.seconds, 3),
        "peak_memory_bytes": peak_memory(session.device),
        "host_peak_memory_bytes": host_peak_memory(),
        "device": str(session.device),
        "threads": torch.get_num_threads(),
        **({"images_at_once": context.images_at_once} if session.batch_halvings else {}),
        "notes": context.notes,
        "curves": context.curves,
        **facts,
    }
    return session.store.write(
        stage.kind, stage.key, tensors=tensors, info=info, inputs=dict(stage.inputs), files=files or {}
    )


def _judge(stage: Stage, session: Session) -> Artifact:
    dataset, context = stage.cell.dataset, session.context(stage)
    protocol, second = context.protocol, stage.kind == "second"
    pretrained = protocol.pretrained if protocol.judge_pretrained is None else protocol.judge_pretrained
    with context.seeded("initialise"):
        network = judge_network(protocol, pretrained=pretrained, second=second)
    train = session.images(dataset, "judge_train")
    augmentation = "none" if protocol.augmentation == "none" else _JUDGES[stage.kind]
    recipe = dataset.component.second_judge if second else dataset.component.judge
    context.fit("judge", network, train, recipe, cross_entropy, sampler="shuffle", augmentation=augmentation)
    test = session.images(dataset, "judge_test")
    value = accuracy(Judge(network, session.device).logits(test.pixels), test.truth("classes"))
    name = judge_name(protocol, second=second)
    facts = {"network": name, "test_accuracy": value, "n": len(test), "recipe": recipe.model_dump()}
    return _write(stage, session, context, {"network": state(network)}, **facts, pretrained=pretrained)


def _target(stage: Stage, session: Session) -> Artifact:
    cell, context = stage.cell, session.context(stage)
    private = session.images(cell.dataset, "private_train")
    network: Network = cell.defense.component.train(private, context)
    test = session.images(cell.dataset, "private_test")
    truth = test.truth(context.protocol.task)
    logits = predict(network, test.pixels, session.device, context.seed)
    tensors = {"network": state(network), "predictions": {"logits": logits, "labels": truth}}
    return _write(
        stage,
        session,
        context,
        tensors,
        defense=cell.defense.identity(),
        protocol=context.protocol.model_dump(mode="json"),
        test_accuracy=accuracy(logits, truth),
        n=len(test),
        prediction_seed=context.seed,
    )


def _negatives(stage: Stage, session: Session) -> Artifact:
    cell, context = stage.cell, session.context(stage)
    target = session.artifact(stage, "target")
    network = load_target(target, cell, session.images(cell.dataset, "private_test"), session.device)
    found = negatives.make_negatives(
        network,
        session.images(cell.dataset, "public"),
        Predictions(**target.tensors("predictions")),
        tuple(range(context.protocol.attacked)),
        cell.dataset.component.negatives,
        context,
    )
    tensors = {"Negatives": {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}}
    return _write(stage, session, context, tensors, n=len(found.labels), fooled=int(found.fooled.sum()))


def _prior(stage: Stage, session: Session) -> Artifact:
    cell, context = stage.cell, session.context(stage)
    public = session.images(cell.dataset, "public")
    attack = cell.attack.component
    if attack.prior == "public":
        prior, queries = attack.learn(None, public, context), {}
    else:
        with _view(stage, session, context) as view:
            prior = attack.learn(view, public, context)
            queries = _queries(view, cell)
    return _write(stage, session, context, prior, queries=queries)


def _evidence(stage: Stage, session: Session) -> Artifact:
    cell, context = stage.cell, session.context(stage)
    protocol, attack = context.protocol, cell.attack.component
    prior: dict[str, dict[str, Tensor]] = {}
    if "prior" in stage.inputs:
        stored = session.artifact(stage, "prior")
        prior = {group: stored.tensors(group) for group in stored.groups}
    observed = _encodings(stage, session, stage.key)
    request = Request(
        tuple(range(protocol.attacked)),
        protocol.draws,
        protocol.trials,
        protocol.group,
        observed.z if observed else None,
        observed.items if observed else None,
    )
    with _view(stage, session, context) as view:
        found = attack.run(view, prior, request, context)
        queries = _queries(view, cell)
    if type(found).__name__ != attack.yields:
        raise PrivbenchError(
            f"expected attack {cell.attack.name} to return {attack.yields}, got {type(found).__name__}; "
            "its author must correct `yields` or `run`"
        )
    tensors = {attack.yields: {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}}
    return _write(stage, session, context, tensors, queries=queries)


def _scores(stage: Stage, session: Session) -> Artifact:
    cell, context = stage.cell, session.context(stage)
    read = {role: session.artifact(stage, role) for role in stage.inputs}
    items: dict[str, Any] = {
        "Predictions": Predictions(**read["target"].tensors("predictions")),
        cell.attack.component.yields: _evidence_of(cell, read["evidence"]),
    }
    if any("Encodings" in choice.component.needs for choice in cell.evaluators):
        items["Encodings"] = _encodings(stage, session, stage.inputs["evidence"])
    if "negatives" in read:
        items["Negatives"] = Negatives(**read["negatives"].tensors("Negatives"))
    evidence = Evidence(
        context.protocol,
        items,
        lambda part: session.images(cell.dataset, part),  # type: ignore[arg-type]
        cell.attack.component.model_dump(mode="json"),
    )
    judges = Judges(
        lambda: load_judge(read["judge"], context.protocol, session.device),
        session.device,
        context.protocol,
        (lambda: load_judge(read["second"], context.protocol, session.device, second=True))
        if "second" in read
        else None,
    )
    scores: dict[str, Any] = {}
    failed = False
    for choice in cell.evaluators:
        found, broke = score_with(choice, evidence, judges)
        failed |= broke
        scores |= found
    facts = _facts(read)
    picture = picture_of(items)
    files = {"scores.json": canonical(scores).encode()} | ({"picture.png": picture} if picture else {})
    facts |= {"environment": environment(session.device), "failed": failed}
    facts["probe"] = gradient_masking.of_target(cell, session, read["target"])
    return _write(stage, session, context, {}, files, **facts)


def _encodings(stage: Stage, session: Session, evidence: str) -> Encodings | None:
    """What an attack on features has observed; `None` for other attacks.

    The same for all stages that name the same evidence.
    """
    attack = stage.cell.attack.component
    if attack.access != "features":
        return None
    target = session.artifact(stage, "target")
    return observe(stage.cell, session, target, evidence, attack.cut_layer)


@contextlib.contextmanager
def _view(stage: Stage, session: Session, context: Context) -> Iterator[View]:
    """The target as the stage's attack may see it, its queries counted across interruptions."""
    attack = stage.cell.attack.component
    with open_view(
        attack.access,
        target_source(session.artifact(stage, "target"), stage.cell, session),
        device=session.device,
        seed=context.seed,
        layer=attack.cut_layer,
    ) as view:
        context.view = view
        yield view


def _queries(view: View, cell: Cell) -> dict[str, int]:
    """What the attack asked of the target; refuses an attack that changed it."""
    if not view.unchanged():
        raise PrivbenchError(f"attack {cell.attack.name} changed the target's weights; its author must not train them")
    return dict(view.queries)


def _evidence_of(cell: Cell, artifact: Artifact) -> Any:
    kind = cell.attack.component.yields
    return getattr(evidence_kinds, kind)(**artifact.tensors(kind))


def _facts(read: Mapping[str, Artifact]) -> dict[str, Any]:
    """What a record says of the stages behind the scores."""
    queries: dict[str, int] = {}
    for role in ("prior", "evidence"):
        for name, count in (read[role].info.get("queries", {}) if role in read else {}).items():
            queries[name] = queries.get(name, 0) + count
    about = ("network", "test_accuracy", "n", "pretrained")
    judges = {role: {name: read[role].info[name] for name in about} for role in _JUDGES if role in read}
    return {
        "artifacts": {role: {"key": artifact.key, "digest": artifact.digest} for role, artifact in read.items()},
        "costs": {
            role: {name: artifact.info[name] for name in _COSTS if name in artifact.info}
            for role, artifact in read.items()
        },
        "stage_curves": {role: artifact.info["curves"] for role, artifact in read.items() if artifact.info["curves"]},
        "judge": judges.pop("judge", {}) | judges,
        "queries": queries,
    }


_STAGES = {
    "judge": _judge,
    "second": _judge,
    "target": _target,
    "negatives": _negatives,
    "prior": _prior,
    "evidence": _evidence,
    "scores": _scores,
}
