"""Published numbers beside ours, from records alone.

A published value and ours are compared where protocol, defense and attack are those of the row and the score has the
same definition; elsewhere both are shown and the reason why they do not compare. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..analysis.aggregate import Row as OurRow
from ..analysis.aggregate import Section, Summary, flat, sections
from ..analysis.record_set import Records
from ..core.config import BUDGETS, Budget
from ..errors import InvalidConfigurationError
from ..records.record import Record
from .table import Column, Published, Row, Table, require_results

Verdict = Literal[
    "within both", "within published", "within ours", "outside", "no interval", "not compared", "undefined", "no score"
]
#: The unit of a recorded score that a printed one is converted from, and the factor; others are printed as recorded.
_SCALES = {"per cent": ("fraction", 100.0)}


@dataclass(frozen=True)
class ComparedValue:
    """One printed number beside ours, in the printed unit.

    Args:
        column: title of the column.
        unit: of the printed value, such as `per cent`.
        decimals: of the printed value.
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
    decimals: int
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
class ComparedRow:
    """One printed row beside our records of it under one attack, equal in everything but the seed.

    Args:
        label: of the printed row.
        attack: which the values come from.
        protocol: of our records.
        budget: of our records.
        seeds: of our records.
        deviations: what was set otherwise than published, as `scope.field=value`.
        flags: findings that cast doubt on our scores.
        entries: by column.
        keys: of the records.
    """

    label: str
    attack: str
    protocol: str
    budget: str
    seeds: tuple[int, ...]
    deviations: tuple[str, ...]
    flags: tuple[str, ...]
    entries: tuple[ComparedValue, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A table beside records.

    Args:
        table: the published one.
        lines: in the order of the table, then by attack, protocol and budget.
        missing: labels of rows without records, with the attack where others of the row have some.
        substitute: the data set that stands in for the published ones, or `None`.
    """

    table: Table
    lines: tuple[ComparedRow, ...]
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
    candidates: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if budget in (None, record.cell.budget):
            candidates.setdefault((record.cell.defense.name, record.cell.attack.name), []).append(record)
    lines: list[ComparedRow] = []
    missing: list[str] = []
    for row in table.select(labels):
        found = {
            attack: list(_lines(table, row, attack, candidates.get((row.cell.defense, attack), ()), dataset))
            for attack in row.cell.attacks
        }
        lines += [line for some in found.values() for line in some]
        absent = [f"{row.label} ({attack})" for attack, some in found.items() if not some]
        missing += [row.label] if len(absent) == len(found) else absent
    return Comparison(table, tuple(lines), tuple(missing), dataset)


def _matcher(table: Table, row: Row, attack: str, dataset: str | None) -> Callable[[Record], bool]:
    """Whether a record is of a row: of its defense, attack and data set (or the substitute) as the row has them.

    Of a defense with a preset all fields count, else, as of attack and data set, those that tell the table's rows
    apart. What a row needs of its user is any value but the default.
    """
    cell, brought = row.cell, row.needs.partition(".")[2]
    wanted = (dataset or cell.dataset, cell.defense, attack)
    scopes = {"dataset": "dataset", "attack": attack} | ({} if cell.preset else {"defense": "defense"})
    configurations: dict[Budget, tuple[dict[str, Any], set[str]]] = {}

    def apart(record: Record) -> bool:
        return all(
            _apart(
                table.varied(scope) - {brought},
                cell.fields.get(scope, {}),
                getattr(record.cell, kind).fields,
                record.changed.get(kind, {}),
            )
            for kind, scope in scopes.items()
        )

    def belongs(record: Record) -> bool:
        run = record.cell
        if (run.dataset.name, run.defense.name, run.attack.name) != wanted or (row.not_runnable and not brought):
            return False
        if not apart(record) or (brought and brought not in record.changed.get("dataset", {})):
            return False
        if not cell.preset:
            return True
        if run.budget not in configurations:
            configurations[run.budget] = flat(cell.configuration(run.budget)), cell.decided_by_data(run.budget)
        return _defended(*configurations[run.budget], flat(run.defense.fields), record.changed.get("defense", {}))

    return belongs


def _defended(
    wanted: Mapping[str, Any], by_data: Collection[str], recorded: Mapping[str, Any], changed: Collection[str]
) -> bool:
    """Whether all fields, by dotted name, are equal; one that is newer than the record does not count.

    Those that the data set decides are equal if nobody changed them.
    """
    shared = wanted.keys() & recorded.keys()
    return all(name not in changed if name in by_data else wanted[name] == recorded[name] for name in shared)


def _apart(
    names: Collection[str], wanted: Mapping[str, Any], recorded: Mapping[str, Any], changed: Collection[str]
) -> bool:
    """Whether fields that tell rows apart have the values of the row, or are as they are without one."""

    def same(name: str) -> bool:
        if name not in wanted:
            return all(path.partition(".")[0] != name for path in changed)
        value = recorded.get(name)
        return bool(value == wanted[name] or value == [wanted[name]])

    return all(same(name) for name in names)


def _lines(
    table: Table, row: Row, attack: str, candidates: Sequence[Record], dataset: str | None
) -> Iterator[ComparedRow]:
    belongs = _matcher(table, row, attack, dataset)
    for section in sections([record for record in candidates if belongs(record)]):
        for ours in section.rows:
            yield _line(table, row, attack, section, ours)


def _line(table: Table, row: Row, attack: str, section: Section, ours: OurRow) -> ComparedRow:
    changed = _changed(table, row, attack, ours.records)
    obstacle = _obstacle(table, row, section.protocol, ours.records, changed)
    values = table.values(row, attack)
    entries = (_entry(table.column(name), value, ours, obstacle) for name, value in values.items())
    return ComparedRow(
        label=row.label,
        attack=attack,
        protocol=section.protocol,
        budget=section.budget,
        seeds=tuple(ours.seeds),
        deviations=tuple(f"{path}={value}" for path, value in sorted(changed.items())),
        flags=tuple(dict.fromkeys(flag.message for record in ours.records for flag in record.flags)),
        entries=tuple(entries),
        keys=tuple(record.key for record in ours.records),
    )


def _changed(table: Table, row: Row, attack: str, records: Sequence[Record]) -> dict[str, Any]:
    """What was set otherwise than the names, the budget and the row give, by `scope.field`."""
    scopes = {"dataset": "dataset", "attack": attack, "defense": "defense"}
    return {
        f"{kind}.{path}": value
        for record in records
        for kind, fields in record.changed.items()
        for path, value in fields.items()
        if path.partition(".")[0] not in table.varied(scopes.get(kind, kind))
        and not (kind == "defense" and row.cell.preset)
    }


def _obstacle(table: Table, row: Row, protocol: str, records: Sequence[Record], changed: Mapping[str, Any]) -> str:
    """Why no number of the records compares with the row; empty if they do."""
    if protocol != row.cell.protocol:
        return f"{protocol} is not the published protocol, {row.cell.protocol}"
    required = {f"dataset.{name}" for name in table.requires}
    settings = [path for path in sorted(changed) if path.partition(".")[0] in ("attack", "dataset", "defense")]
    settings = [path for path in settings if path not in required]
    if settings:
        return f"{', '.join(settings)} was set otherwise than published"
    for name, value in table.requires.items():
        for record in records:
            ours = record.cell.dataset.fields.get(name)
            if ours != value:
                return f"dataset.{name} is {ours} with budget {record.cell.budget}, published is {value}"
    return ""


def _entry(column: Column, published: Published, ours: OurRow, obstacle: str) -> ComparedValue:
    name = next((name for name in (column.score, column.otherwise) if name in ours.scores), None)
    printed = partial(
        ComparedValue,
        column=column.title,
        unit=column.unit,
        decimals=column.decimals,
        published=published.value,
        published_spread=published.spread,
    )
    if column.score is None:
        return printed(reason=column.incomparable)
    if name is None:
        why = [record.not_run[column.score].reason for record in ours.records if column.score in record.not_run]
        return printed(reason=why[0] if why else f"{column.score} was not recorded")
    summary = ours.scores[name]
    if summary.value is None:
        return printed(score=name, verdict="undefined", reason=summary.reason)
    _, scale = _recorded_unit(column)
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
    unit, _ = _recorded_unit(column)
    return "" if summary.definition.unit == unit else f"{name} is recorded as {summary.definition.unit}, not as {unit}"


def _recorded_unit(column: Column) -> tuple[str, float]:
    """The unit in which a record has what a column prints, and the factor between them."""
    return _SCALES.get(column.unit, (column.unit, 1.0))


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
