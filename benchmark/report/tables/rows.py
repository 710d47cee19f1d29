"""What the rows of tables have in common, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...analysis.aggregate import Row, Section
from ...core.config import Definition
from ...records.verification import LEVELS
from ..formatting import heading, number, plain, shared_chance

if TYPE_CHECKING:
    from ...analysis.record_set import Records


class Notes:
    """Numbers the reasons of missing scores, each distinct one once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The number of a reason in brackets; empty for none."""
        return f" ({self._numbers.setdefault(reason, len(self._numbers) + 1)})" if reason else ""

    def lines(self) -> Iterator[str]:
        """The reasons with their numbers."""
        for reason, index in self._numbers.items():
            yield f"({index}) {reason}"


def names(row: Row) -> tuple[str, str]:
    """Defense and attack; evaluators follow where they tell rows apart."""
    evaluators = f" [{row.evaluators}]" if row.evaluators else ""
    return plain(row.defense, 60), plain(row.attack + evaluators, 60)


def header(section: Section, column: Definition) -> list[str]:
    """The heading of a column, and what guessing gives if all rows agree."""
    chance = shared_chance(section, column.name)
    return [heading(column)] + ([f"chance {number(chance, column.unit)}"] if chance is not None else [])


def not_run(section: Section) -> list[str]:
    """Evaluators that did not run, one sentence each."""
    return [f"{plain(evaluator, 60)} did not run: {plain(reason)}" for evaluator, reason in section.not_run]


def verified(section: Section, records: Records) -> Iterator[str]:
    """The rows of a section that somebody other than their author has verified, one sentence a level."""
    for level in LEVELS[1:]:
        found = [" under ".join(names(row)) for row in section.rows if records.level(row.records) == level]
        if found:
            yield f"{level} by a verifier: {', '.join(found)}"
