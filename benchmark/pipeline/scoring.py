"""Score evidence with an evaluator."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from ..core.config import Definition
from ..core.evidence import Evidence, Score
from ..errors import PrivbenchError
from ..records import bounds
from .cell import Choice

if TYPE_CHECKING:
    from ..networks.judges import Judges

log = logging.getLogger("privbench")


def score_with(choice: Choice, evidence: Evidence, judges: Judges) -> tuple[dict[str, Any], bool]:
    """Return the scores of one evaluator as JSON, and whether it raised an exception."""
    evaluator = choice.component
    definitions = {definition.name: definition for definition in evaluator.scores}
    raised = False
    try:
        found = evaluator.score(evidence, judges)
        if set(found) != set(definitions):
            raise TypeError(f"expected the scores {sorted(definitions)}, got {sorted(found)}")
        for name, score in found.items():
            _require_bounds(definitions[name], score)
    except Exception as cause:  # a fault of a plugin must not lose the other scores
        log.debug("evaluator %s failed", choice.name, exc_info=True)
        found, raised = (
            {name: Score(None, reason=f"{choice.name} failed: {_error_message(cause)}") for name in definitions},
            True,
        )
    return {
        name: dataclasses.asdict(score)
        | {"evaluator": choice.name, "definition": definitions[name].model_dump(mode="json")}
        for name, score in found.items()
    }, raised


def _require_bounds(definition: Definition, score: Score) -> None:
    """Refuse numbers that the unit of a score excludes; a record with them could not be read."""
    names = ("n", "interval", "intervals", "spreads", "chance", "per_class")
    fault = bounds.fault(definition.unit, score.value, **{name: getattr(score, name) for name in names})
    if fault:
        raise ValueError(f"{definition.name}: {fault}")


def _error_message(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, PrivbenchError) else f"{type(cause).__name__}: {cause}"
