"""Score evidence with an evaluator, and draw the picture beside a record."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.config import Definition
from ..core.evidence import Evidence, Score
from ..errors import PrivbenchError
from ..records import bounds
from .cell import Choice
from .picture import grid_png

if TYPE_CHECKING:
    from ..networks.judges import Judges

log = logging.getLogger("privbench")

#: Rows of a record's picture: draws per label, or lines of single images.
PICTURE_ROWS = 4
#: Columns of a record's picture.
PICTURE_COLUMNS = 10


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


def picture_of(items: Mapping[str, Any]) -> bytes | None:
    """Draw a grid of reconstructions: for labels the first trial, a row per draw; for single images the first ones."""
    if "ClassReconstructions" in items:
        found = items["ClassReconstructions"]
        pixels = found.pixels[0, :PICTURE_ROWS, :PICTURE_COLUMNS]
        labels = [str(int(label)) for label in found.labels[:PICTURE_COLUMNS]]
    elif "PairedReconstructions" in items:
        found = items["PairedReconstructions"]
        columns = max(1, min(PICTURE_COLUMNS, len(found.pixels)))
        rows = min(PICTURE_ROWS, len(found.pixels) // columns)
        pixels = found.pixels[: rows * columns].unflatten(0, (rows, columns))
        labels = [""] * columns
    else:
        return None
    return grid_png(pixels.numpy(), labels) if pixels.numel() else None


def _error_message(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, PrivbenchError) else f"{type(cause).__name__}: {cause}"
