"""Parts of a table that every format shares: row names, column headings, footnotes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...analysis.aggregate import Row, Section
from ...core.config import Definition
from ...records.verification import LEVELS
from ..formatting import FormattedScore, column_heading, format_number, sanitize, shared_chance

if TYPE_CHECKING:
    from ...analysis.record_set import Records


class Footnotes:
    """Numbered reasons for missing scores; equal reasons share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The number of a reason in parentheses; empty if there is no reason."""
        return f" ({self._numbers.setdefault(reason, len(self._numbers) + 1)})" if reason else ""

    def lines(self) -> Iterator[str]:
        """The reasons with their numbers."""
        for reason, number in self._numbers.items():
            yield f"({number}) {reason}"


def score_lines(score: FormattedScore, footnotes: Footnotes) -> list[str]:
    """A score on several lines: value with footnote, then interval and number of observations if it has a value."""
    uncertainty = [score.interval or "no interval", *score.basis.split(", ")] if score.basis else []
    return [score.value + footnotes.mark(score.reason), *uncertainty]


def row_names(row: Row) -> tuple[str, str]:
    """Defense and attack; the attack is followed by the evaluators if only they distinguish rows."""
    evaluators = f" [{row.evaluators}]" if row.evaluators else ""
    control = " (control)" if row.is_control else ""
    return sanitize(row.defense, 60) + control, sanitize(row.attack + evaluators, 60)


def has_control(section: Section) -> bool:
    """Return whether a row of the section is a placebo's."""
    return any(row.is_control for row in section.rows)


def heading_lines(section: Section, column: Definition) -> list[str]:
    """The heading of a column, and the chance level if all rows share it."""
    chance = shared_chance(section, column.name)
    return [column_heading(column)] + ([f"chance {format_number(chance, column.unit)}"] if chance is not None else [])


def section_notes(section: Section) -> list[str]:
    """The notes on settings, and a sentence for each evaluator that did not run."""
    not_run = (f"{sanitize(evaluator, 60)} did not run: {sanitize(reason)}" for evaluator, reason in section.not_run)
    return [*map(sanitize, section.notes), *not_run]


def verified_notes(section: Section, records: Records) -> Iterator[str]:
    """A sentence for each verification level above self-reported, with the rows that have it."""
    for level in LEVELS[1:]:
        verified = [" under ".join(row_names(row)) for row in section.rows if records.level(row.records) == level]
        if verified:
            yield f"{level} by a verifier: {', '.join(verified)}"
