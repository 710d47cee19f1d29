"""Every score of some records as their evaluators define it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...analysis.aggregate import MEASURES
from ...core.config import Definition
from ...records.record import Record
from ..formatting import number, unit_of

#: More values than these are not listed.
_LISTED = 3


@dataclass(frozen=True)
class DefinitionRow:
    """A definition with the evaluator and version behind it, and what guessing gives in the records."""

    definition: Definition
    evaluator: str
    chance: str


def entries(records: Iterable[Record]) -> list[DefinitionRow]:
    """Every distinct definition, by what it measures and its name."""
    chances: dict[tuple[Definition, str], set[float]] = {}
    for record in records:
        labels = {choice.name: f"{choice.name} v{choice.version}" for choice in record.cell.evaluators}
        for score in record.scores.values():
            found = chances.setdefault((score.definition, labels[score.evaluator]), set())
            if score.chance is not None:
                found.add(score.chance)
    listed = [
        DefinitionRow(definition, label, _chance(definition, found)) for (definition, label), found in chances.items()
    ]
    return sorted(
        listed,
        key=lambda entry: (
            MEASURES.index(entry.definition.measures),
            entry.definition.name,
            entry.evaluator,
            entry.definition.model_dump_json(),
        ),
    )


def _chance(definition: Definition, values: set[float]) -> str:
    if not values:
        return "no meaning"
    if len(values) > _LISTED:
        return "depends on the cell"
    unit = unit_of(definition)
    return ", ".join(number(value, definition.unit) for value in sorted(values)) + (f" {unit}" if unit else "")
