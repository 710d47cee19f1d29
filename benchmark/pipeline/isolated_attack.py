"""Stages of attacks that run in a process of their own: what that process is given, and what it may not see."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..access.open import open_view
from ..access.views import RemoteView
from ..core import evidence as evidence_kinds
from ..core.evidence import Request
from ..errors import PrivbenchError
from ..isolation import process, sandbox
from ..isolation.calls import AttackJob, AttackResult
from ..training.context import Context
from .facts import AttackFacts
from .plan import Stage
from .session import Session


def learn(stage: Stage, session: Session, context: Context) -> tuple[AttackFacts, dict[str, dict[str, Tensor]]]:
    """Let an attack learn its prior; return facts and groups of tensors.

    Raises:
        PrivbenchError: it failed, or did something that it may not.
    """
    with _job(stage, session, context) as job:
        return _facts(result := process.learn(job)), result.groups


def run(
    stage: Stage, session: Session, context: Context, prior: Mapping[str, Mapping[str, Tensor]], request: Request
) -> tuple[AttackFacts, dict[str, dict[str, Tensor]]]:
    """Let an attack run; return facts and the tensors of the evidence.

    Raises:
        PrivbenchError: it failed, or did something that it may not.
    """
    attack = stage.cell.attack
    kind = getattr(evidence_kinds, attack.component.yields, None)
    if not isinstance(kind, type):
        raise PrivbenchError(
            f"expected attack {attack.name} to yield a kind of evidence, got {attack.component.yields!r}; its author "
            "must correct `yields`"
        )
    with _job(stage, session, context, prior=prior, request=request) as job:
        return _facts(result := process.run(job, kind)), result.groups


def _facts(result: AttackResult) -> AttackFacts:
    return AttackFacts(queries=result.queries, isolation=sandbox.method())


@contextlib.contextmanager
def _job(stage: Stage, session: Session, context: Context, **given: Any) -> Iterator[AttackJob]:
    """Make the job of a stage, with the attack's access to the target if the stage reads one."""
    cell, attack = stage.cell, stage.cell.attack.component
    hidden = (session.store.root, session.data_root)
    public = session.images(cell.dataset, "public")
    if "target" not in stage.inputs:
        yield AttackJob(cell.attack.name, attack, context, public, hidden, **given)
        return
    artifact = session.artifact(stage, "target")
    source = session.target_source(artifact, cell)
    if attack.access == "white_box":
        weights = (source.rebuild, source.state())
        yield AttackJob(cell.attack.name, attack, context, public, hidden, rebuild=weights, **given)
        return
    layer = attack.cut_layer
    with open_view(attack.access, source, device=session.device, seed=context.seed, layer=layer) as view:
        assert isinstance(view, RemoteView)
        yield AttackJob(cell.attack.name, attack, context, public, hidden, view=view, **given)
