"""Recomputation of the scores of a submitted record with the verifier's judges."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ..contracts import Evaluator
from ..core.canonical import digest
from ..core.evidence import Evidence
from ..errors import CorruptArtifactError, MissingDataError, UnsupportedCellError
from ..files.untrusted import shown
from ..networks.judges import Judges
from ..pipeline import stages
from ..pipeline.facts import JudgeFacts
from ..pipeline.keys import KEY_FORMAT
from ..pipeline.plan import JUDGES, Plan, Stage, build_plan
from ..pipeline.record_artifacts import name_of
from ..pipeline.scoring import score_with
from ..records.record import Record
from ..records.verification import CheckedScore
from .check_components import Components
from .rejection import reject
from .shared_judges import SharedJudges

if TYPE_CHECKING:
    from ..pipeline.session import Session
    from ..store.manifest import Artifact

#: Relative tolerance between two computations from the same evidence and judges. float32 sums round to about 1e-6 on
#: another processor or number of threads, and distances between means and covariances lose two more digits. One image
#: more or less in a share of N images makes a far larger difference.
RELATIVE = 1e-4
#: Absolute tolerance, for values near zero.
ABSOLUTE = 1e-6
#: Parts of a score that are compared.
PARTS = ("value", "n", "interval", "intervals", "spreads", "chance", "per_class")
#: Parts that other copies of the judges do not change.
_WITHOUT_JUDGES = ("n", "chance")


@dataclass(frozen=True)
class VerifierJudges:
    """Judges of the verifier for one record.

    Args:
        judges: the judges.
        artifacts: of the judges, by role.
        roles: the stages of the record's cell, whose keys are those of the record.
        missing: why there are no judges here and no keys were compared; empty if there are.
    """

    judges: Judges
    artifacts: Mapping[str, Artifact]
    roles: frozenset[str] = frozenset()
    missing: str = ""

    def facts(self) -> dict[str, JsonValue]:
        """Return what a record says about its judges."""
        facts: dict[str, JsonValue] = {
            role: JudgeFacts.of(found).model_dump(mode="json") for role, found in self.artifacts.items()
        }
        first = facts.pop("judge", {})
        return (first if isinstance(first, dict) else {}) | facts


def prepare_judges(record: Record, components: Components, session: Session, shared: SharedJudges) -> VerifierJudges:
    """Load the judges from the verifier's store; train those that are missing.

    Raises:
        CorruptArtifactError: the record's keys or judges do not match its components and data.
        UnsupportedCellError: the components do not fit one another.
    """
    artifacts: dict[str, Artifact] = {}
    roles: frozenset[str] = frozenset()
    missing = ""
    with contextlib.ExitStack() as held:
        if not components.missing or any(choice.component.judges for choice in components.evaluators):
            try:
                plan = build_plan([components.cell(record)], session.data_root)
                for skipped in plan.skipped:
                    raise UnsupportedCellError(f"{name_of(record)} cannot be run: {skipped.reason}")
                if record.key_format == KEY_FORMAT:
                    roles = _require_keys(record, components, plan)
                judges = [stage for stage in plan.stages.values() if stage.kind in JUDGES]
                held.enter_context(session.store.lease([stage.key for stage in judges], shared=False))
                artifacts |= {stage.kind: _judge_artifact(stage, session) for stage in judges}
            except MissingDataError as cause:
                artifacts, missing = {}, str(cause)
        _require_judges(record, artifacts)
        return VerifierJudges(shared.get(artifacts, components.protocol), artifacts, roles, missing)


def _judge_artifact(stage: Stage, session: Session) -> Artifact:
    with session.store.lock(stage.kind, stage.key):
        return session.store.find(stage.kind, stage.key) or stages.run(stage, session)


def _require_keys(record: Record, components: Components, plan: Plan) -> frozenset[str]:
    """Reject a record whose artifacts are not those of its cell, for the installed components; return their roles."""
    (scores,) = plan.cells
    expected = dict(plan.stages[scores].inputs)
    if components.missing:
        expected = {role: key for role, key in expected.items() if role in JUDGES}
    elif not components.missing_evaluators:
        expected["scores"] = scores
    for role, key in expected.items():
        given = record.artifacts[role].key if role in record.artifacts else "none"
        if given != key:
            raise CorruptArtifactError(
                f"expected the {role} of {name_of(record)} to have the key {key[:12]} of its components, fields, seed "
                f"and data, got {given[:12]}; run its cell again with this privbench and the same copy of the data"
            )
    if "scores" in expected and digest({"cell": components.cell(record).identity(), "scores": scores}) != record.key:
        reject(record, "have the key of its cell", "another")
    return frozenset(expected)


def _require_judges(record: Record, artifacts: Mapping[str, Artifact]) -> None:
    """Reject a record with other judges; their accuracies and digests are replaced by the verifier's."""
    for role, artifact in artifacts.items():
        facts: JsonValue = record.judge if role == "judge" else record.judge.get(role)
        given = facts if isinstance(facts, dict) else {}
        for name in ("network", "n", "pretrained"):
            if given.get(name) != artifact.info[name]:
                reject(record, f"be {artifact.info[name]!r}", shown(repr(given.get(name))), f"{name} of the {role}")


@dataclass(frozen=True)
class RecomputedScores:
    """Recomputed scores of a record.

    Args:
        checked: results of the comparison with the record, by score.
        found: recomputed scores by name, as in `scores.json`.
        missing: why evaluators did not recompute their scores, by evaluator.
    """

    checked: dict[str, CheckedScore]
    found: dict[str, Any]
    missing: dict[str, str]


def recompute_scores(
    record: Record, components: Components, evidence: Evidence, verifier: VerifierJudges
) -> RecomputedScores:
    """Recompute every possible score and compare it with the record.

    Raises:
        CorruptArtifactError: a score does not follow from the evidence.
    """
    checked: dict[str, CheckedScore] = {}
    found: dict[str, Any] = {}
    missing = dict(components.missing_evaluators)
    for choice in components.evaluators:
        evaluator: Evaluator = choice.component
        absent = [need for need in evaluator.needs if not set(need.split("|")) & evidence.items.keys()]
        if absent:
            missing[choice.name] = f"the submission has no {' and no '.join(absent)}"
            continue
        if evaluator.judges and verifier.missing:
            missing[choice.name] = f"its judges are not available here: {verifier.missing}"
            continue
        scores, failed = score_with(choice, evidence, verifier.judges)
        if failed:
            missing[choice.name] = shown(next(iter(scores.values()))["reason"])
            continue
        found |= scores
        for name, score in scores.items():
            checked[name] = compare_score(record, name, score, exact=not evaluator.judges)
    return RecomputedScores(checked, found, missing)


def compare_score(
    record: Record, name: str, found: Mapping[str, Any], *, exact: bool, widen: float = 1.0
) -> CheckedScore:
    """Compare a score of a record with the one computed here; nothing that the record states decides how strictly.

    Args:
        record: record with the claimed score.
        name: name of the score.
        found: score computed here, as in `scores.json`.
        exact: whether every part may differ only by rounding; otherwise the claimed value must be in the interval
            computed here, because it is of other copies of the judges, or of another run.
        widen: factor of the half-widths of that interval.

    Raises:
        CorruptArtifactError: the scores contradict each other.
    """
    claimed, value = record.scores[name], found["value"]
    undefined = claimed.value is None or value is None
    differing = [part for part in PARTS if not is_close(found[part], getattr(claimed, part))]
    for part in differing:
        if exact or part in _WITHOUT_JUDGES or (undefined and part == "value"):
            requirement = f"be {shown(found[part])} as recomputed from its evidence"
            reject(record, requirement, shown(getattr(claimed, part)), name if part == "value" else f"{part} of {name}")
    if not differing or undefined:
        return CheckedScore(claimed=claimed.value, found=value, outcome="equal")
    return _compare_with_interval(record, name, found, widen)


def _compare_with_interval(record: Record, name: str, found: Mapping[str, Any], widen: float) -> CheckedScore:
    claimed, value = record.scores[name].value, found["value"]
    if found["interval"] is None and not is_close(value, claimed):
        reason = "it has no interval, and the judges or the evidence come from other trainings than the record's"
        return CheckedScore(claimed=claimed, found=value, outcome="not compared", reason=reason)
    low, high = (value + widen * (end - value) for end in found["interval"] or (value, value))
    if not (low - ABSOLUTE <= claimed <= high + ABSOLUTE or is_close(value, claimed)):
        requirement = f"be in the interval {low:.6g} to {high:.6g} of the recomputed {value:.6g}"
        reject(record, requirement, f"{claimed:.6g}", name)
    return CheckedScore(claimed=claimed, found=value, outcome="within")


def is_close(ours: Any, theirs: Any) -> bool:
    """Return whether two values, or mappings or sequences of values, are equal up to rounding."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(is_close(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(is_close, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return ours is None and theirs is None
