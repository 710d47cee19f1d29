"""Recomputation of the scores of a submitted record with the verifier's judges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ..contracts import Evaluator
from ..core.canonical import digest
from ..core.config import is_placebo
from ..core.evidence import Evidence
from ..errors import CorruptArtifactError, UnsupportedCellError
from ..files.untrusted import shown
from ..networks.judges import Judges
from ..pipeline import stages
from ..pipeline.keys import KEY_FORMAT
from ..pipeline.plan import Plan, Stage, build_plan
from ..pipeline.record_artifacts import name_of
from ..pipeline.scoring import score_with
from ..pipeline.trained_models import load_judges
from ..pipeline.write_record import record_flags
from ..records.record import Record, RecordedScore
from ..records.verification import CheckedScore
from .check_components import Components
from .rejection import reject

if TYPE_CHECKING:
    from ..pipeline.session import Session
    from ..store.manifest import Artifact

#: Relative tolerance between two computations from the same evidence and judges. float32 sums round to about 1e-6 on
#: another processor or number of threads, and distances between means and covariances lose two more digits. One image
#: more or less in a share of N images makes a far larger difference.
RELATIVE = 1e-4
#: Absolute tolerance, for values near zero.
ABSOLUTE = 1e-6
#: Kinds of stages that train judges, by the name that evaluators have for them.
_ROLES = {"classifier": "judge", "second": "second_judge"}
JUDGES = frozenset(_ROLES.values())
#: Parts of a score that must agree with the same judges, and with other trainings of the judges.
WITH_SAME_JUDGES = ("value", "n", "interval", "intervals", "spreads", "chance", "per_class")
WITH_OTHER_JUDGES = ("n", "chance")


@dataclass(frozen=True)
class VerifierJudges:
    """Judges of the verifier for one record.

    Args:
        judges: the judges.
        same: roles of the judges that equal those of the record bit by bit.
    """

    judges: Judges
    same: frozenset[str]

    def agrees(self, evaluator: Evaluator) -> bool:
        """Return whether all judges of an evaluator equal those of the record."""
        return {_ROLES[judge] for judge in evaluator.judges} <= self.same


def prepare_judges(record: Record, components: Components, session: Session) -> VerifierJudges:
    """Load the judges from the verifier's store; train those that are missing.

    Raises:
        CorruptArtifactError: the record's keys or judges do not match its components and data.
    """
    artifacts: dict[str, Artifact] = {}
    if not components.missing or any(choice.component.judges for choice in components.evaluators):
        plan = build_plan([components.cell(record)], session.data_root)
        for skipped in plan.skipped:
            raise UnsupportedCellError(f"{name_of(record)} cannot be run: {skipped.reason}")
        if record.key_format == KEY_FORMAT:
            _require_keys(record, components, plan)
        artifacts |= {
            stage.kind: _judge_artifact(stage, session) for stage in plan.stages.values() if stage.kind in JUDGES
        }
    claimed = {role: reference.digest for role, reference in record.artifacts.items()}
    same = frozenset(role for role, found in artifacts.items() if found.digest == claimed.get(role))
    _require_judges(record, artifacts, same)
    return VerifierJudges(load_judges(artifacts, components.protocol, session.device), same)


def _judge_artifact(stage: Stage, session: Session) -> Artifact:
    with session.store.lock(stage.kind, stage.key):
        return session.store.find(stage.kind, stage.key) or stages.run(stage, session)


def _require_keys(record: Record, components: Components, plan: Plan) -> None:
    """Reject a record whose artifacts are not those of its cell, for the installed components."""
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


def _require_judges(record: Record, artifacts: Mapping[str, Artifact], same: frozenset[str]) -> None:
    """Reject a record with other facts about its judges."""
    for role, artifact in artifacts.items():
        facts: JsonValue = record.judge if role == "judge" else record.judge.get(role)
        given = facts if isinstance(facts, dict) else {}
        exact = ("network", "n", "pretrained", "test_accuracy") if role in same else ("network", "n", "pretrained")
        for name in exact:
            if given.get(name) != artifact.info[name]:
                reject(record, f"be {artifact.info[name]!r}", shown(repr(given.get(name))), f"{name} of the {role}")
        claimed = given.get("test_accuracy")
        if isinstance(claimed, bool) or not isinstance(claimed, int | float) or not 0 <= claimed <= 1:
            reject(record, "be in [0, 1]", shown(repr(claimed)), f"test_accuracy of the {role}")


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
        scores, failed = score_with(choice, evidence, verifier.judges)
        if failed:
            missing[choice.name] = shown(next(iter(scores.values()))["reason"])
            continue
        found |= scores
        for name, score in scores.items():
            exact = WITH_SAME_JUDGES if verifier.agrees(evaluator) else WITH_OTHER_JUDGES
            checked[name] = compare_score(record, name, score, exact)
    return RecomputedScores(checked, found, missing)


def compare_score(record: Record, name: str, found: Mapping[str, Any], exact: Sequence[str]) -> CheckedScore:
    """Compare a score of a record with the recomputed one.

    Args:
        record: record with the claimed score.
        name: name of the score.
        found: recomputed score, as in `scores.json`.
        exact: parts that may differ only by rounding; without `value`, the value must be in the claimed interval.

    Raises:
        CorruptArtifactError: the scores contradict each other.
    """
    claimed, value = record.scores[name], found["value"]
    undefined = claimed.value is None or value is None
    for part in dict.fromkeys([*exact, "value"]) if undefined else exact:
        if not is_close(found[part], getattr(claimed, part)):
            requirement = f"be {shown(found[part])} as recomputed from its evidence"
            reject(record, requirement, shown(getattr(claimed, part)), name if part == "value" else f"{part} of {name}")
    if undefined or "value" in exact:
        return CheckedScore(claimed=claimed.value, found=value, outcome="equal")
    return _compare_with_interval(record, name, claimed, value)


def _compare_with_interval(record: Record, name: str, claimed: RecordedScore, value: float) -> CheckedScore:
    if claimed.interval is None:
        reason = "it has no interval, and the judges or the evidence come from other trainings than the record's"
        return CheckedScore(claimed=claimed.value, found=value, outcome="not compared", reason=reason)
    low, high = claimed.interval
    if not low - ABSOLUTE <= value <= high + ABSOLUTE:
        requirement = f"have an interval that contains the recomputed {value:.6g}"
        reject(record, requirement, f"{low:.6g} to {high:.6g}", name)
    return CheckedScore(claimed=claimed.value, found=value, outcome="within")


def is_close(ours: Any, theirs: Any) -> bool:
    """Return whether two values, or mappings or sequences of values, are equal up to rounding."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(is_close(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(is_close, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return ours is None and theirs is None


def missing_flags(
    record: Record, components: Components, found: Mapping[str, Any], probe: Mapping[str, JsonValue]
) -> list[str]:
    """Return the names of flags that the record's numbers raise and that the record lacks.

    Args:
        record: record whose scores were all recomputed.
        components: components of the record.
        found: recomputed scores, with their flags.
        probe: result of probing the target, from the submission.
    """
    facts = record.model_dump(mode="json")
    raised = record_flags(
        components.protocol,
        components.attack.component if components.attack else None,
        scores={name: score | {"flags": found[name]["flags"]} for name, score in facts["scores"].items()},
        judge=facts["judge"],
        curves=facts["curves"],
        probe=probe,
        control=is_placebo(record.cell.defense.name, record.cell.defense.distribution),
    )
    carried = {flag.name for flag in record.flags}
    return [flag["name"] for flag in raised if flag["name"] not in carried]
