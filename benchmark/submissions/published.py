"""Numbers and texts that the verifier computed, which reports show of a verified record."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ..core.config import is_placebo
from ..pipeline.environment import environment
from ..pipeline.matrix import Matrix, applicable_evaluators
from ..pipeline.write_record import command, record_flags
from ..records.record import ArtifactReference, NotRun, Record
from ..records.verification import Published

if TYPE_CHECKING:
    from ..pipeline.session import Session
    from .check_components import Components
    from .recompute import VerifierJudges

#: Names of the loops whose curves flags read; they appear in messages.
_LOOP = re.compile(r"[A-Za-z0-9_.-]{1,30}( [0-9]{1,9}){0,2}")


def published_scores(
    record: Record,
    components: Components,
    scores: Mapping[str, Any],
    verifier: VerifierJudges,
    probe: Mapping[str, JsonValue],
    session: Session,
) -> Published:
    """Make what is shown of a record all of whose scores were recomputed.

    The flags rest on the scores and judges of the verifier, and on the curves and the probe of the target that the
    author states; of those only numbers are read.

    Args:
        record: the claim.
        components: of the record, all installed.
        scores: recomputed scores with their flags, as in `scores.json`.
        verifier: the judges.
        probe: result of probing the target, from the submission.
        session: where the scores were computed.
    """
    judges = {role: ArtifactReference(key=found.key, digest=found.digest) for role, found in verifier.artifacts.items()}
    stages = {role: reference for role, reference in record.artifacts.items() if role in verifier.roles}
    flags = record_flags(
        components.protocol,
        components.attack.component if components.attack else None,
        scores=scores,
        judge=verifier.facts(),
        curves=_numeric_curves(record),
        probe={name: value for name, value in probe.items() if isinstance(value, int | float)},
        control=is_placebo(record.cell.defense.name, record.cell.defense.distribution),
    )
    return Published.model_validate(
        {
            "scores": {name: {k: v for k, v in score.items() if k != "flags"} for name, score in scores.items()},
            "flags": flags,
            "judge": verifier.facts(),
            "artifacts": stages | judges,
            "environment": environment(session.device),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "changed": record.changed,
            "command": command(record.cell, record.changed),
            "not_run": reasons_not_run(record, components),
        }
    )


def _numeric_curves(record: Record) -> dict[str, Any]:
    """Return the curves of loops with plain names."""
    return {
        stage: {loop: series for loop, series in loops.items() if _LOOP.fullmatch(loop)}
        for stage, loops in record.curves.items()
    }


def reasons_not_run(record: Record, components: Components) -> dict[str, NotRun]:
    """Return why evaluators that the record names did not run, as this privbench says it."""
    if components.attack is None:
        return {}
    matrix = Matrix((), (), (), budget=record.cell.budget)
    _, reasons = applicable_evaluators(matrix, components.dataset, components.attack, {})
    used = {choice.name for choice in record.cell.evaluators}
    return {name: why for name, why in reasons if name in record.not_run and name not in used}
