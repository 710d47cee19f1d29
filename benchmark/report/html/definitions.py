"""Definitions of the scores in a report."""

from collections.abc import Iterable
from dataclasses import dataclass

from ...analysis.aggregate import MEASURES
from ...core.config import Definition
from ...records.record import Record
from ..formatting import format_number, unit_of

#: Most chance levels that a definition lists.
_MAX_LISTED = 3


@dataclass(frozen=True)
class DefinitionRow:
    """A definition with its evaluator and version, and the chance levels in the records."""

    definition: Definition
    evaluator: str
    chance: str


def definition_rows(records: Iterable[Record]) -> list[DefinitionRow]:
    """Every distinct definition, sorted by measure and name."""
    chances: dict[tuple[Definition, str], set[float]] = {}
    for record in records:
        labels = {choice.name: f"{choice.name} v{choice.version}" for choice in record.cell.evaluators}
        for score in record.scores.values():
            values = chances.setdefault((score.definition, labels[score.evaluator]), set())
            if score.chance is not None:
                values.add(score.chance)
    rows = [
        DefinitionRow(definition, label, _chance(definition, values)) for (definition, label), values in chances.items()
    ]
    return sorted(rows, key=_sort_key)


def _sort_key(row: DefinitionRow) -> tuple[int, str, str, str]:
    definition = row.definition
    return MEASURES.index(definition.measures), definition.name, row.evaluator, definition.model_dump_json()


def _chance(definition: Definition, values: set[float]) -> str:
    if not values:
        return "not defined"
    if len(values) > _MAX_LISTED:
        return "depends on the cell"
    unit = unit_of(definition)
    return ", ".join(format_number(value, definition.unit) for value in sorted(values)) + (f" {unit}" if unit else "")
