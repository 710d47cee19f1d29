"""The stages: judges, target, negatives, prior, evidence, scores. Each reads artifacts and writes one."""

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..access.open import open_view
from ..access.views import View, WhiteBoxView
from ..core import evidence as evidence_kinds
from ..core.canonical import canonical
from ..core.evidence import Encodings, Evidence, Negatives, Predictions, Request
from ..errors import PrivbenchError
from ..isolation.declared import description_of
from ..networks.classifiers.network import Network
from ..networks.judges import Judge, accuracy
from ..records.picture import picture_of
from ..records.record import ArtifactReference, Cost, Environment
from ..store.manifest import Artifact
from ..training.batches import Augmentation
from ..training.context import Context
from ..training.optimisation import cross_entropy
from . import gradient_masking, isolated_attack
from .cell import Cell
from .environment import environment, host_peak_memory, peak_memory, reset_peak_memory
from .facts import AttackFacts, Facts, JudgeFacts, NegativesFacts, RunFacts, ScoresFacts, TargetFacts, TrainedJudgeFacts
from .failures import is_out_of_memory
from .negatives import make_negatives
from .plan import JUDGES, Stage
from .scoring import score_with
from .session import Session
from .trained_models import judge_name, judge_network, load_judges, predict, state
from .victim_encodings import observe

#: Augmentation of each judge's images where the target's are augmented; digits have no mirror images.
_AUGMENTATIONS: Mapping[str, Augmentation] = {"judge": "flip", "second_judge": "crop_flip"}


@dataclass(frozen=True)
class StageOutput:
    """Result of a stage: facts, groups of named tensors, files by name."""

    facts: Facts
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def run(stage: Stage, session: Session) -> Artifact:
    """Compute a stage and store its artifact; the caller holds the stage's lock.

    An attack that runs out of memory resumes from its last checkpoint with half as many images at once, down to one.
    """
    session.batch_halvings = 0
    while (artifact := _try(stage, session)) is None:
        session.batch_halvings += 1
        gc.collect()
        if session.device.type == "cuda":
            torch.cuda.empty_cache()
    session.store.checkpoint(stage.kind, stage.key).clear()
    return artifact


def _try(stage: Stage, session: Session) -> Artifact | None:
    """Compute and store a stage; return `None` if memory ran out and fewer images at once may help."""
    reset_peak_memory(session.device)
    try:
        with _deterministic(session.device), session.threads:
            context = session.context(stage)
            return _write(stage, session, context, _STAGES[stage.kind](stage, session, context))
    except Exception as cause:
        if is_out_of_memory(cause) and session.can_halve():
            return None
        raise
    finally:
        session.forget()


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Ask PyTorch for the same bytes on the CPU; elsewhere some layers have no deterministic form.

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


def _write(stage: Stage, session: Session, context: Context, output: StageOutput) -> Artifact:
    session.threads.check()
    facts = RunFacts(
        title=stage.title,
        resource_class=stage.resource_class,
        seconds=round(context.seconds, 3),
        peak_memory_bytes=peak_memory(session.device),
        host_peak_memory_bytes=host_peak_memory(),
        device=str(session.device),
        threads=torch.get_num_threads(),
        images_at_once=context.images_at_once if session.batch_halvings else None,
        notes=context.notes,
        curves=context.curves,
    )
    info = facts.model_dump(mode="json") | output.facts.model_dump(mode="json")
    inputs = dict(stage.inputs)
    return session.store.write(
        stage.kind, stage.key, tensors=output.tensors, info=info, inputs=inputs, files=output.files
    )


def _judge(stage: Stage, session: Session, context: Context) -> StageOutput:
    dataset, protocol, second = stage.cell.dataset, context.protocol, stage.kind == "second_judge"
    pretrained = protocol.starts_from_published("second_judge" if second else "judge")
    with context.seeded("initialise"):
        network = judge_network(protocol, pretrained=pretrained, second=second)
    train = session.images(dataset, "judge_train")
    augmentation = "none" if protocol.augmentation == "none" else _AUGMENTATIONS[stage.kind]
    recipe = dataset.component.second_judge if second else dataset.component.judge
    context.fit("judge", network, train, recipe, cross_entropy, sampler="shuffle", augmentation=augmentation)
    test = session.images(dataset, "judge_test")
    facts = TrainedJudgeFacts(
        network=judge_name(protocol, second=second),
        test_accuracy=accuracy(Judge(network, session.device).logits(test.pixels), test.truth("classes")),
        n=len(test),
        pretrained=pretrained,
        recipe=recipe.model_dump(mode="json"),
    )
    return StageOutput(facts, {"network": state(network)})


def _target(stage: Stage, session: Session, context: Context) -> StageOutput:
    cell = stage.cell
    private = session.images(cell.dataset, "private_train")
    network: Network = cell.defense.component.train(private, context)
    test = session.images(cell.dataset, "private_test")
    truth = test.truth(context.protocol.task)
    logits = predict(network, test.pixels, session.device, context.seed)
    facts = TargetFacts(
        test_accuracy=accuracy(logits, truth),
        n=len(test),
        prediction_seed=context.seed,
        selection=context.notes.get("selection", {}),
        defense=cell.defense.identity(),
        protocol=context.protocol.model_dump(mode="json"),
    )
    return StageOutput(facts, {"network": state(network), "predictions": {"logits": logits, "labels": truth}})


def _negatives(stage: Stage, session: Session, context: Context) -> StageOutput:
    cell, target = stage.cell, session.artifact(stage, "target")
    found = make_negatives(
        session.target(target, cell),
        session.images(cell.dataset, "public"),
        Predictions(**target.tensors("predictions")),
        tuple(range(context.protocol.attacked)),
        cell.dataset.component.negatives,
        context,
    )
    facts = NegativesFacts(n=len(found.labels), fooled=int(found.fooled.sum()))
    return StageOutput(facts, {"Negatives": _tensors(found)})


def _prior(stage: Stage, session: Session, context: Context) -> StageOutput:
    cell, attack = stage.cell, stage.cell.attack.component
    if description_of(attack) is not None:
        return StageOutput(*isolated_attack.learn(stage, session, context))
    public = session.images(cell.dataset, "public")
    if attack.prior == "public":
        return StageOutput(AttackFacts(), attack.learn(None, public, context))
    with _view(stage, session, context) as view:
        prior = attack.learn(view, public, context)
        return StageOutput(_attack_facts(view, cell), prior)


def _evidence(stage: Stage, session: Session, context: Context) -> StageOutput:
    cell, protocol, attack = stage.cell, context.protocol, stage.cell.attack.component
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
    if description_of(attack) is not None:
        return StageOutput(*isolated_attack.run(stage, session, context, prior, request))
    with _view(stage, session, context) as view:
        found = attack.run(view, prior, request, context)
        facts = _attack_facts(view, cell)
    if type(found).__name__ != attack.yields:
        raise PrivbenchError(
            f"expected attack {cell.attack.name} to return {attack.yields}, got {type(found).__name__}; "
            "its author must correct `yields` or `run`"
        )
    return StageOutput(facts, {attack.yields: _tensors(found)})


def _scores(stage: Stage, session: Session, context: Context) -> StageOutput:
    cell, protocol = stage.cell, context.protocol
    read = {role: session.artifact(stage, role) for role in stage.inputs}
    test = session.images(cell.dataset, "private_test")
    seed = TargetFacts.of(read["target"]).prediction_seed
    probe = gradient_masking.probe(session.target(read["target"], cell), test, protocol.task, session.device, seed)
    items = _items(stage, session, read)
    evidence = Evidence(
        protocol,
        items,
        lambda part: session.images(cell.dataset, part),  # type: ignore[arg-type]
        cell.attack.component.model_dump(mode="json"),
    )
    judges = load_judges(read, protocol, session.device)
    scores: dict[str, Any] = {}
    failed = False
    for choice in cell.evaluators:
        found, raised = score_with(choice, evidence, judges)
        failed |= raised
        scores |= found
    picture = picture_of(items)
    files = {"scores.json": canonical(scores).encode()} | ({"picture.png": picture} if picture else {})
    return StageOutput(_scores_facts(read, session.device, probe, failed=failed), files=files)


def _items(stage: Stage, session: Session, read: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return what evaluators read, by kind of evidence."""
    cell = stage.cell
    kind = cell.attack.component.yields
    items: dict[str, Any] = {
        "Predictions": Predictions(**read["target"].tensors("predictions")),
        kind: getattr(evidence_kinds, kind)(**read["evidence"].tensors(kind)),
    }
    if any("Encodings" in choice.component.needs for choice in cell.evaluators):
        items["Encodings"] = _encodings(stage, session, stage.inputs["evidence"])
    if "negatives" in read:
        items["Negatives"] = Negatives(**read["negatives"].tensors("Negatives"))
    return items


def _encodings(stage: Stage, session: Session, evidence: str) -> Encodings | None:
    """Return the encodings that an attack on features observes, the same for the same evidence; `None` for others."""
    attack = stage.cell.attack.component
    if attack.access != "features":
        return None
    return observe(stage.cell, session, session.artifact(stage, "target"), evidence, attack.cut_layer)


@contextlib.contextmanager
def _view(stage: Stage, session: Session, context: Context) -> Iterator[View]:
    """Open the target with the access of the stage's attack; queries are counted across interruptions."""
    cell, attack, target = stage.cell, stage.cell.attack.component, session.artifact(stage, "target")
    if attack.access == "white_box":
        context.view = WhiteBoxView(session.target(target, cell).requires_grad_(False), context.protocol)
        yield context.view
        return
    with open_view(
        attack.access,
        session.target_source(target, cell),
        device=session.device,
        seed=context.seed,
        layer=attack.cut_layer,
    ) as view:
        context.view = view
        yield view


def _attack_facts(view: View, cell: Cell) -> AttackFacts:
    """Return the attack's queries.

    Raises:
        PrivbenchError: the attack changed the target.
    """
    if not view.unchanged():
        raise PrivbenchError(f"attack {cell.attack.name} changed the target's weights; its author must not train them")
    return AttackFacts(queries=view.queries)


def _tensors(evidence: Any) -> dict[str, Tensor]:
    return {part.name: getattr(evidence, part.name) for part in dataclasses.fields(evidence)}


def _scores_facts(
    read: Mapping[str, Artifact], device: torch.device, probe: Mapping[str, Any], *, failed: bool
) -> ScoresFacts:
    """Collect what a record says of the stages behind the scores."""
    queries: dict[str, int] = {}
    for role in ("prior", "evidence"):
        for name, count in (AttackFacts.of(read[role]).queries if role in read else {}).items():
            queries[name] = queries.get(name, 0) + count
    runs = {role: RunFacts.of(artifact) for role, artifact in read.items()}
    judges = {role: JudgeFacts.of(read[role]).model_dump(mode="json") for role in JUDGES if role in read}
    return ScoresFacts(
        failed=failed,
        artifacts={role: ArtifactReference(key=found.key, digest=found.digest) for role, found in read.items()},
        costs={
            role: Cost(seconds=run.seconds, peak_memory_bytes=run.peak_memory_bytes, images_at_once=run.images_at_once)
            for role, run in runs.items()
        },
        stage_curves={role: run.curves for role, run in runs.items() if run.curves},
        target=TargetFacts.of(read["target"]).selection,
        judge=judges.pop("judge", {}) | judges,
        queries=queries,
        environment=Environment(**environment(device), isolation=AttackFacts.of(read["evidence"]).isolation),
        probe=dict(probe),
    )


_STAGES: Mapping[str, Callable[[Stage, Session, Context], StageOutput]] = {
    "judge": _judge,
    "second_judge": _judge,
    "target": _target,
    "negatives": _negatives,
    "prior": _prior,
    "evidence": _evidence,
    "scores": _scores,
}
