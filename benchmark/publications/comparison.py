"""Published numbers beside ours, from records alone.

A published value and ours are compared where protocol, defense and attack are those of the row and the score has the
same definition; elsewhere both are shown and the reason why they do not compare. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..aggregate import Row as OurRow
from ..aggregate import Section, Summary, sections
from ..contracts import BUDGETS, Budget
from ..errors import InvalidConfigurationError
from ..record import Record
from ..records import Records
from .publication import Cell, Column, Published, Row, Table, require_results

Verdict = Literal[
    "within both", "within published", "within ours", "outside", "no interval", "not compared", "undefined", "no score"
]
#: The unit of a recorded score that a printed one can be converted from, and the factor.
_SCALES = {"per cent": ("fraction", 100.0), "distance": ("distance", 1.0)}


@dataclass(frozen=True)
class Entry:
    """One printed number beside ours, in the printed unit.

    Args:
        column: title of the column.
        unit: `per cent` or `distance`.
        published: the printed value.
        published_spread: the number after its +-.
        score: the recorded score, or `None`.
        ours: the mean over seeds, or the value of the one seed.
        interval: 95 %, of `ours`.
        spread: ours of the same meaning as the printed one, mean over seeds.
        seeds: how many seeds have a value.
        difference: ours - published, where they compare.
        in_published: whether the published value +- its spread contains ours; `None` without a spread.
        in_ours: whether our interval contains the published value; `None` without an interval.
        verdict: both of them in words.
        reason: why the two do not compare, or why there is no value.
    """

    column: str
    unit: str
    published: float
    published_spread: float | None
    score: str | None = None
    ours: float | None = None
    interval: tuple[float, float] | None = None
    spread: float | None = None
    seeds: int = 0
    difference: float | None = None
    in_published: bool | None = None
    in_ours: bool | None = None
    verdict: Verdict = "no score"
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """One printed row beside our records of it, equal in everything but the seed.

    Args:
        label: of the printed row.
        protocol: of our records.
        budget: of our records.
        seeds: of our records.
        deviations: what was set otherwise than published, as `scope.field=value`.
        flags: findings that cast doubt on our scores.
        entries: by column.
        keys: of the records.
    """

    label: str
    protocol: str
    budget: str
    seeds: tuple[int, ...]
    deviations: tuple[str, ...]
    flags: tuple[str, ...]
    entries: tuple[Entry, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A table beside records.

    Args:
        table: the published one.
        lines: in the order of the table, then by protocol and budget.
        missing: labels of rows without records.
        substitute: the data set that stands in for the published ones, or `None`.
    """

    table: Table
    lines: tuple[Line, ...]
    missing: tuple[str, ...]
    substitute: str | None = None


def compare(
    table: Table,
    records: Records,
    *,
    labels: Sequence[str] = (),
    dataset: str | None = None,
    budget: str | None = None,
) -> Comparison:
    """Put records beside a published table.

    Args:
        table: of results.
        records: any; those of other cells are left out.
        labels: rows to compare; all by default.
        dataset: a data set that stands in for the published ones; nothing is then compared, only shown.
        budget: of the records; all by default.

    Raises:
        InvalidConfigurationError: the table holds settings, or there is no such budget.
        UnknownComponentError: a label names no row.
    """
    require_results(table)
    if budget not in (None, *BUDGETS):
        raise InvalidConfigurationError(f"expected budget to be one of {', '.join(BUDGETS)}, got {budget!r}")
    candidates = [record for record in records if budget in (None, record.cell.budget)]
    lines, missing = [], []
    for row in table.select(labels):
        belongs = _matcher(row.cell, dataset)
        found = list(_lines(table, row, [record for record in candidates if belongs(record)]))
        lines += found
        if not found:
            missing.append(row.label)
    return Comparison(table, tuple(lines), tuple(missing), dataset)


def _matcher(cell: Cell, dataset: str | None) -> Callable[[Record], bool]:
    """Whether a record is of a cell's data set (or its substitute), defense as configured there, and attack."""
    wanted = (dataset or cell.dataset, cell.defense, cell.attack)
    configurations: dict[Budget, dict[str, Any]] = {}

    def belongs(record: Record) -> bool:
        run = record.cell
        if (run.dataset.name, run.defense.name, run.attack.name) != wanted:
            return False
        if run.budget not in configurations:
            configurations[run.budget] = cell.configuration(run.budget)
        return _agree(configurations[run.budget], run.defense.fields)

    return belongs


def _agree(wanted: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    """Whether all fields that both have are equal; a field that is newer than the record does not count."""
    for name in wanted.keys() & recorded.keys():
        one, other = wanted[name], recorded[name]
        both = isinstance(one, Mapping) and isinstance(other, Mapping)
        if not (_agree(one, other) if both else one == other):
            return False
    return True


def _lines(table: Table, row: Row, records: Sequence[Record]) -> Iterator[Line]:
    for section in sections(records):
        for ours in section.rows:
            yield _line(table, row, section, ours)


def _line(table: Table, row: Row, section: Section, ours: OurRow) -> Line:
    deviations = tuple(
        f"{scope}.{path}={value}"
        for scope, fields in sorted(_changed(ours.records).items())
        for path, value in sorted(fields.items())
    )
    obstacle = _obstacle(row.cell, section.protocol, ours.records)
    entries = (_entry(table.column(name), value, ours, obstacle) for name, value in row.values.items())
    return Line(
        label=row.label,
        protocol=section.protocol,
        budget=section.budget,
        seeds=tuple(ours.seeds),
        deviations=deviations,
        flags=tuple(dict.fromkeys(flag.message for record in ours.records for flag in record.flags)),
        entries=tuple(entries),
        keys=tuple(record.key for record in ours.records),
    )


def _changed(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """What was set otherwise than the names and the budget give; the defense's fields are the row's own."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        for scope, fields in record.changed.items():
            if scope != "defense":
                found.setdefault(scope, {}).update(fields)
    return found


def _obstacle(cell: Cell, protocol: str, records: Sequence[Record]) -> str:
    """Why no number of the records compares with the row; empty if they do."""
    if protocol != cell.protocol:
        return f"{protocol} is not the published protocol, {cell.protocol}"
    changed = _changed(records)
    settings = [f"{scope}.{path}" for scope in ("dataset", "attack") for path in changed.get(scope, {})]
    return f"{', '.join(settings)} was set otherwise than published" if settings else ""


def _entry(column: Column, published: Published, ours: OurRow, obstacle: str) -> Entry:
    name = next((name for name in (column.score, column.otherwise) if name in ours.scores), None)
    printed = partial(
        Entry,
        column=column.title,
        unit=column.unit,
        published=published.value,
        published_spread=published.spread,
    )
    if name is None:
        return printed(reason=f"{column.score} was not recorded")
    summary = ours.scores[name]
    if summary.value is None:
        return printed(score=name, verdict="undefined", reason=summary.reason)
    _, scale = _SCALES[column.unit]
    value, interval = scale * summary.value, _scaled(summary, scale)
    measured = partial(
        printed,
        score=name,
        ours=value,
        interval=interval,
        spread=_spread(column.spread, name, ours.records, scale) if name == column.score else None,
        seeds=summary.seeds,
    )
    obstacle = obstacle or _difference(column, name, summary) or column.incomparable
    if obstacle:
        return measured(verdict="not compared", reason=obstacle)
    in_published = None if published.spread is None else abs(value - published.value) <= published.spread
    in_ours = None if interval is None else interval[0] <= published.value <= interval[1]
    return measured(
        difference=value - published.value,
        in_published=in_published,
        in_ours=in_ours,
        verdict=verdict(in_published, in_ours),
        reason=summary.reason,
    )


def _difference(column: Column, name: str, summary: Summary) -> str:
    """Why a recorded score is not what the column prints; empty if it is."""
    if name != column.score:
        return f"{name} has another definition than {column.score}, which was not recorded"
    unit, _ = _SCALES[column.unit]
    return "" if summary.definition.unit == unit else f"{name} is recorded as {summary.definition.unit}, not as {unit}"


def verdict(in_published: bool | None, in_ours: bool | None) -> Verdict:
    """Two answers in words; `None` is an interval that does not exist.

    Example:
        >>> verdict(True, True), verdict(None, True), verdict(None, False), verdict(None, None)
        ('within both', 'within ours', 'outside', 'no interval')
    """
    if in_published is None and in_ours is None:
        return "no interval"
    if in_published and in_ours:
        return "within both"
    if in_published:
        return "within published"
    return "within ours" if in_ours else "outside"


def _scaled(summary: Summary, scale: float) -> tuple[float, float] | None:
    return None if summary.interval is None else (scale * summary.interval[0], scale * summary.interval[1])


def _spread(kind: str | None, score: str, records: Sequence[Record], scale: float) -> float | None:
    """Our spread of one kind, mean over the latest record of each seed that has it."""
    latest = {}
    for record in sorted(records, key=lambda record: (record.created, record.key)):
        found = record.scores[score].spreads.get(kind) if kind and score in record.scores else None
        if found is not None:
            latest[record.cell.seed] = found
    return scale * math.fsum(latest.values()) / len(latest) if latest else None
