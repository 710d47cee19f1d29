"""Scores of a submitted record, computed again by the verifier's own judges and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ..analysis.cell_flags import cell_flags
from ..contracts import Evaluator
from ..core.canonical import digest
from ..core.evidence import Evidence
from ..errors import CorruptArtifactError, UnsupportedCellError
from ..files.untrusted import shown
from ..networks.judges import Judges
from ..pipeline import stages
from ..pipeline.plan import Plan, Stage, build_plan
from ..pipeline.record_artifacts import name_of
from ..pipeline.scoring import score_with
from ..pipeline.trained_models import load_judge
from ..pipeline.write_record import lineage
from ..records.record import Record, RecordedScore
from ..records.verification import CheckedScore
from .check_components import Components

if TYPE_CHECKING:
    from ..pipeline.session import Session
    from ..store.manifest import Artifact

#: How much of a score may differ between two computations from the same bytes by the same judges: float32 sums round
#: to about 1e-6 on another processor or number of threads, and distances between means and covariances lose two digits
#: of that. A share of N images that differs by one of them differs by far more.
RELATIVE = 1e-4
#: The same near zero, where a share of it means nothing.
ABSOLUTE = 1e-6
#: Kinds of stages that make judges, by the name that evaluators have for them.
_ROLES = {"classifier": "judge", "second": "second_judge"}
JUDGES = frozenset(_ROLES.values())
#: Parts of a score that must agree: with the same judges, and with other copies of them on the same evidence.
SAME = ("value", "n", "interval", "intervals", "spreads", "chance", "per_class")
OTHERS = ("n", "chance")


@dataclass(frozen=True)
class Bench:
    """The verifier's judges for one record.

    Args:
        judges: to be asked.
        artifacts: of the judges, by role.
        same: roles of the judges that are those of the record to the last bit.
    """

    judges: Judges
    artifacts: Mapping[str, Artifact]
    same: frozenset[str]

    def agrees(self, evaluator: Evaluator) -> bool:
        """Whether all judges of an evaluator are the record's."""
        return {_ROLES[judge] for judge in evaluator.judges} <= self.same


def bench(record: Record, components: Components, session: Session) -> Bench:
    """Judges out of the verifier's store, trained where they are missing.

    Raises:
        CorruptArtifactError: the record's keys are not those of its components and data, or its judges are others.
    """
    artifacts: dict[str, Artifact] = {}
    if not components.absent or any(choice.component.judges for choice in components.evaluators):
        plan = build_plan([components.cell(record)], session.data_root)
        for skipped in plan.skipped:
            raise UnsupportedCellError(f"{name_of(record)} has no meaning: {skipped.reason}")
        _require_keys(record, components, plan)
        artifacts |= {stage.kind: _artifact(stage, session) for stage in plan.stages.values() if stage.kind in JUDGES}
    same = frozenset(role for role, found in artifacts.items() if found.digest == record.artifacts[role].digest)
    _require_judges(record, artifacts, same)
    protocol = components.protocol
    judges = Judges(
        lambda: load_judge(artifacts["judge"], protocol, session.device),
        session.device,
        protocol,
        (lambda: load_judge(artifacts["second_judge"], protocol, session.device, second=True))
        if "second_judge" in artifacts
        else None,
    )
    return Bench(judges, artifacts, same)


def _artifact(stage: Stage, session: Session) -> Artifact:
    with session.store.lock(stage.kind, stage.key):
        return session.store.find(stage.kind, stage.key) or stages.run(stage, session)


def _require_keys(record: Record, components: Components, plan: Plan) -> None:
    """Refuse a record whose artifacts are not those of its cell, as far as its components are here."""
    (scores,) = plan.cells
    due = dict(plan.stages[scores].inputs)
    whole = components.defense is not None and components.attack is not None
    if whole and not components.missing:
        due["scores"] = scores
    elif not whole:
        due = {role: key for role, key in due.items() if role in JUDGES}
    for role, key in due.items():
        given = record.artifacts[role].key if role in record.artifacts else "none"
        if given != key:
            raise CorruptArtifactError(
                f"expected the {role} of {name_of(record)} to have the key {key[:12]} that its components, "
                f"fields, seed and data give here, got {given[:12]}; run its cell again with this privbench and the "
                "same copy of the data"
            )
    if "scores" in due and digest({"cell": components.cell(record).identity(), "scores": scores}) != record.key:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to have the key of its cell, got another; run its cell again"
        )


def _require_judges(record: Record, artifacts: Mapping[str, Artifact], same: frozenset[str]) -> None:
    """Refuse facts about judges that are not theirs."""
    for role, artifact in artifacts.items():
        facts: JsonValue = record.judge if role == "judge" else record.judge.get(role)
        given = facts if isinstance(facts, dict) else {}
        exact = ("network", "n", "pretrained", "test_accuracy") if role in same else ("network", "n", "pretrained")
        for name in exact:
            if given.get(name) != artifact.info[name]:
                raise CorruptArtifactError(
                    f"expected {name} of the {role} of {name_of(record)} to be {artifact.info[name]!r}, got "
                    f"{shown(repr(given.get(name)))}; run its cell again"
                )
        claimed = given.get("test_accuracy")
        if isinstance(claimed, bool) or not isinstance(claimed, int | float) or not 0 <= claimed <= 1:
            raise CorruptArtifactError(
                f"expected test_accuracy of the {role} of {name_of(record)} to be in [0, 1], got "
                f"{shown(repr(claimed))}; run its cell again"
            )


@dataclass(frozen=True)
class Recomputed:
    """Scores that were computed again.

    Args:
        checked: by name, how they compare.
        found: by name, as `scores.json` holds them.
        missing: why evaluators did not compute theirs, by name.
    """

    checked: dict[str, CheckedScore]
    found: dict[str, Any]
    missing: dict[str, str]


def recompute(record: Record, components: Components, evidence: Evidence, bench: Bench) -> Recomputed:
    """Compute every score again that can be, and compare.

    Raises:
        CorruptArtifactError: a score is not what the evidence gives.
    """
    checked: dict[str, CheckedScore] = {}
    found: dict[str, Any] = {}
    missing = dict(components.missing)
    for choice in components.evaluators:
        evaluator: Evaluator = choice.component
        absent = [need for need in evaluator.needs if not set(need.split("|")) & evidence.items.keys()]
        if absent:
            missing[choice.name] = f"the submission holds no {' and no '.join(absent)}"
            continue
        scores, failed = score_with(choice, evidence, bench.judges)
        if failed:
            missing[choice.name] = shown(next(iter(scores.values()))["reason"])
            continue
        found |= scores
        for name, score in scores.items():
            checked[name] = compare(record, name, score, SAME if bench.agrees(evaluator) else OTHERS)
    return Recomputed(checked, found, missing)


def compare(record: Record, name: str, found: Mapping[str, Any], exact: Sequence[str]) -> CheckedScore:
    """A score of a record beside the one that was found.

    Args:
        record: that claims the score.
        name: of the score.
        found: as `scores.json` holds it.
        exact: parts of it in which only rounding may differ; without `value`, it is to be in the claimed interval.

    Raises:
        CorruptArtifactError: they contradict each other.
    """
    claimed, value = record.scores[name], found["value"]
    undefined = claimed.value is None or value is None
    for part in dict.fromkeys([*exact, "value"]) if undefined else exact:
        if not alike(found[part], getattr(claimed, part)):
            raise CorruptArtifactError(_differs(record, name, part, getattr(claimed, part), found[part]))
    if undefined or "value" in exact:
        return CheckedScore(claimed=claimed.value, found=value, outcome="equal")
    return _within(record, name, claimed, value)


def _within(record: Record, name: str, claimed: RecordedScore, value: float) -> CheckedScore:
    if claimed.interval is None:
        reason = "it has no interval, and the judges or the evidence here are other copies than the record's"
        return CheckedScore(claimed=claimed.value, found=value, outcome="not compared", reason=reason)
    low, high = claimed.interval
    if not low - ABSOLUTE <= value <= high + ABSOLUTE:
        raise CorruptArtifactError(
            f"expected {name} of {name_of(record)} to have an interval with the {value:.6g} that was found "
            f"here, got {low:.6g} to {high:.6g}; run its cell again"
        )
    return CheckedScore(claimed=claimed.value, found=value, outcome="within")


def _differs(record: Record, name: str, part: str, theirs: Any, ours: Any) -> str:
    what = name if part == "value" else f"{part} of {name}"
    return (
        f"expected {what} of {name_of(record)} to be {shown(ours)} as computed again from its evidence, got "
        f"{shown(theirs)}; run its cell again"
    )


def alike(ours: Any, theirs: Any) -> bool:
    """Whether two values, or mappings or sequences of them, differ by rounding at most."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(alike(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return ours is None and theirs is None


def lacking_flags(
    record: Record, components: Components, found: Mapping[str, Any], probe: Mapping[str, JsonValue]
) -> list[str]:
    """Names of flags that the record's own numbers raise here and that it does not carry.

    Args:
        record: whose scores all were computed again.
        components: of the record.
        found: the recomputed scores, which raise flags of their own.
        probe: how the target answered, as the submission says.
    """
    facts = record.model_dump(mode="json")
    scores = {name: score | {"flags": found[name]["flags"]} for name, score in facts["scores"].items()}
    protocol, judges = components.protocol, [record.judge, record.judge.get("second_judge")]
    raised = cell_flags(
        scores=scores,
        judge=facts["judge"],
        curves=facts["curves"],
        decreasing_losses=components.attack.component.decreasing_losses if components.attack else {},
        probe=probe,
        target=lineage(protocol.target_network, pretrained=protocol.pretrained),
        judges=[
            lineage(str(one["network"]), pretrained=bool(one.get("pretrained")))
            for one in judges
            if isinstance(one, dict) and one
        ],
    )
    carried = {flag.name for flag in record.flags}
    return [flag["name"] for flag in raised if flag["name"] not in carried]
