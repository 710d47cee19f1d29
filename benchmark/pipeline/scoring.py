"""What a scores stage makes of evidence: the scores of one evaluator, and the picture beside a record."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.evidence import Evidence, Score
from ..errors import PrivbenchError
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
    """The scores of one evaluator as JSON, and whether it raised."""
    evaluator = choice.component
    definitions = {definition.name: definition for definition in evaluator.scores}
    broke = False
    try:
        found = evaluator.score(evidence, judges)
        if set(found) != set(definitions):
            raise TypeError(f"expected the scores {sorted(definitions)}, got {sorted(found)}")
    except Exception as cause:  # a plugin's fault must not take the other scores along
        log.debug("evaluator %s failed", choice.name, exc_info=True)
        found, broke = (
            {name: Score(None, reason=f"{choice.name} failed: {_sentence(cause)}") for name in definitions},
            True,
        )
    return {
        name: dataclasses.asdict(score)
        | {"evaluator": choice.name, "definition": definitions[name].model_dump(mode="json")}
        for name, score in found.items()
    }, broke


def picture_of(items: Mapping[str, Any]) -> bytes | None:
    """A grid of reconstructions: of labels, the first trial with a row per draw; of single images, the first ones."""
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


def _sentence(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, PrivbenchError) else f"{type(cause).__name__}: {cause}"
