"""Comparison of published values with records.

A published value is compared with records of the same protocol, defense and attack if the score has the same
definition, the budget is `full` and there are three seeds. Otherwise both are shown with the reason why they are not
comparable. The order of the rows is compared in any case (`orders`). This module does not import torch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..analysis.aggregate import Row as OurRow
from ..analysis.aggregate import Section, Summary, sections
from ..analysis.record_set import Records
from ..core.config import BUDGETS
from ..errors import InvalidConfigurationError
from ..records.record import Record
from .orders import Measured, Order, pairs
from .record_matching import record_matcher
from .table import Column, Published, Row, Table, require_results
from .verdict import Verdict, tolerance, too_little_effort, verdict

#: Recorded unit of each printed unit that differs from it, and the factor from recorded to printed values.
_SCALES = {"per cent": ("fraction", 100.0)}


@dataclass(frozen=True)
class ComparedValue:
    """One printed value and ours, in the printed unit.

    Args:
        column: title of the column.
        unit: unit of the printed value, such as `per cent`.
        decimals: decimals of the printed value.
        published: the printed value.
        published_spread: the printed number after +-.
        score: name of the recorded score, or `None`.
        ours: mean over seeds, or the value of the only seed.
        interval: 95 % interval of `ours`.
        spread: our spread with the same meaning as the printed one, mean over seeds.
        seeds: number of seeds with a value.
        difference: ours - published, if they are comparable.
        tolerance: largest difference that still counts as agreement, in the printed unit: the printed spread, or else
            that of the unit.
        verdict: whether the values agree within the tolerance.
        reason: why the values are not comparable, such as `smoke` or `1 seed`, or why there is no value.
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
    tolerance: float | None = None
    verdict: Verdict = "no score"
    reason: str = ""

    @property
    def is_effort(self) -> bool:
        """True if the values are not comparable for the budget or the number of seeds alone."""
        return self.verdict == "not comparable" and (
            self.reason in BUDGETS or self.reason.endswith((" seed", " seeds"))
        )

    @property
    def finding(self) -> str:
        """The verdict in words, with a short reason."""
        return f"{self.verdict}: {self.reason}" if self.is_effort else self.verdict


@dataclass(frozen=True)
class ComparedRow:
    """One printed row and our records of it under one attack, which are equal in everything but the seed.

    Args:
        label: label of the printed row.
        attack: attack of the records.
        protocol: protocol of the records.
        budget: budget of the records.
        seeds: seeds of the records.
        deviations: settings that differ from the published ones, as `scope.field=value`.
        flags: messages of the records' flags.
        entries: compared values, in the order of the columns.
        keys: keys of the records.
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
    """A published table compared with records.

    Args:
        table: the published table.
        lines: compared rows, in the order of the table, then by attack, protocol and budget.
        missing: labels of rows without records, with the attack if the row has records of other attacks.
        substitute: data set that replaces the published ones, or `None`.
        orders: published orders of two rows each, and whether ours are the same.
    """

    table: Table
    lines: tuple[ComparedRow, ...]
    missing: tuple[str, ...]
    substitute: str | None = None
    orders: tuple[Order, ...] = ()


def compare(
    table: Table,
    records: Records,
    *,
    labels: Sequence[str] = (),
    dataset: str | None = None,
    budget: str | None = None,
) -> Comparison:
    """Compare records with a published table.

    Args:
        table: a table of results.
        records: any records; those of other cells are ignored.
        labels: rows to compare; all by default.
        dataset: a data set that replaces the published ones; its values are shown and not compared.
        budget: budget of the records; all by default.

    Raises:
        InvalidConfigurationError: the table has settings, or the budget does not exist.
        UnknownComponentError: no row has a given label.
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
            attack: list(_compare_row(table, row, attack, candidates.get((row.cell.defense, attack), ()), dataset))
            for attack in row.cell.attacks
        }
        lines += [line for of_attack in found.values() for line in of_attack]
        absent = [f"{row.label} ({attack})" for attack, of_attack in found.items() if not of_attack]
        missing += [row.label] if len(absent) == len(found) else absent
    return Comparison(table, tuple(lines), tuple(missing), dataset, _orders(table, lines))


def _orders(table: Table, lines: Sequence[ComparedRow]) -> tuple[Order, ...]:
    """Compare the orders of rows of one protocol and budget, with the same changed settings, column by column."""
    groups: dict[tuple[tuple[str, int, str, str, str], tuple[str, ...]], list[Measured]] = {}
    columns = {column.title: column for column in table.columns}
    approximated = {row.label for row in table.rows if row.approximation}
    for line in lines:
        if line.label in approximated:
            continue
        for entry in line.entries:
            column = columns[entry.column]
            if entry.ours is None or entry.score != column.score or column.incomparable:
                continue
            about = (entry.column, entry.decimals, line.attack, line.protocol, line.budget)
            measured = Measured(line.label, entry.published, entry.ours, entry.interval)
            groups.setdefault((about, line.deviations), []).append(measured)
    found = (Order(*about, pairs(rows)) for (about, _), rows in groups.items())
    return tuple(order for order in found if order.pairs)


def _compare_row(
    table: Table, row: Row, attack: str, candidates: Sequence[Record], dataset: str | None
) -> Iterator[ComparedRow]:
    belongs = record_matcher(table, row, attack, dataset)
    for section in sections([record for record in candidates if belongs(record)]):
        for ours in section.rows:
            yield _compare_seeds(table, row, attack, section, ours)


def _compare_seeds(table: Table, row: Row, attack: str, section: Section, ours: OurRow) -> ComparedRow:
    deviations = _deviations(table, row, attack, ours.records)
    incomparable = _incomparable_records(table, row, section.protocol, ours.records, deviations)
    values = table.values(row, attack)
    entries = (
        _compare_value(table.column(name), value, ours, incomparable, section.budget) for name, value in values.items()
    )
    return ComparedRow(
        label=row.label,
        attack=attack,
        protocol=section.protocol,
        budget=section.budget,
        seeds=tuple(ours.seeds),
        deviations=tuple(f"{path}={value}" for path, value in sorted(deviations.items())),
        flags=tuple(dict.fromkeys(flag.message for record in ours.records for flag in record.flags)),
        entries=tuple(entries),
        keys=tuple(record.key for record in ours.records),
    )


def _deviations(table: Table, row: Row, attack: str, records: Sequence[Record]) -> dict[str, Any]:
    """Settings that differ from those of the components, the budget and the row, by `scope.field`."""
    scopes = {"dataset": "dataset", "attack": attack, "defense": "defense"}
    return {
        f"{kind}.{path}": value
        for record in records
        for kind, fields in record.changed.items()
        for path, value in fields.items()
        if path.partition(".")[0] not in table.varied_fields(scopes.get(kind, kind))
        and not (kind == "defense" and row.cell.preset)
    }


def _incomparable_records(
    table: Table, row: Row, protocol: str, records: Sequence[Record], deviations: Mapping[str, Any]
) -> str:
    """Explain why the records are not comparable with the row; empty if they are."""
    if protocol != row.cell.protocol:
        return f"{protocol} is not the published protocol, {row.cell.protocol}"
    if row.approximation:
        return row.approximation
    required = {f"dataset.{name}" for name in table.requires}
    settings = [path for path in sorted(deviations) if path.partition(".")[0] in ("attack", "dataset", "defense")]
    settings = [path for path in settings if path not in required]
    if settings:
        return f"{', '.join(settings)} {'differs' if len(settings) == 1 else 'differ'} from the published settings"
    for name, value in table.requires.items():
        for record in records:
            ours = record.cell.dataset.fields.get(name)
            if ours != value:
                return f"dataset.{name} is {ours} with budget {record.cell.budget}, the published one is {value}"
    return ""


def _compare_value(column: Column, published: Published, ours: OurRow, incomparable: str, budget: str) -> ComparedValue:
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
        reasons = [record.not_run[column.score].reason for record in ours.records if column.score in record.not_run]
        return printed(reason=reasons[0] if reasons else f"{column.score} was not recorded")
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
    incomparable = incomparable or _other_definition(column, name, summary) or column.incomparable
    incomparable = incomparable or too_little_effort(budget, summary.seeds)
    if incomparable:
        return measured(verdict="not comparable", reason=incomparable)
    allowed = tolerance(column.unit, published)
    return measured(
        difference=value - published.value,
        tolerance=allowed,
        verdict=verdict(published.value, allowed, interval),
        reason=summary.reason,
    )


def _other_definition(column: Column, name: str, summary: Summary) -> str:
    """Explain how a recorded score differs from what the column prints; empty if it does not."""
    if name != column.score:
        return f"the definition of {name} differs from that of {column.score}, which was not recorded"
    unit, _ = _recorded_unit(column)
    return "" if summary.definition.unit == unit else f"{name} is recorded as {summary.definition.unit}, not as {unit}"


def _recorded_unit(column: Column) -> tuple[str, float]:
    """Recorded unit of what a column prints, and the factor to the printed unit."""
    unit, scale = _SCALES.get(column.unit, (column.unit, 1.0))
    return unit, scale * column.factor


def _scaled(summary: Summary, scale: float) -> tuple[float, float] | None:
    return None if summary.interval is None else (scale * summary.interval[0], scale * summary.interval[1])


def _spread(kind: str | None, score: str, records: Sequence[Record], scale: float) -> float | None:
    """Our spread of one kind, mean over the first record of each seed that has it."""
    by_seed: dict[int, float] = {}
    for record in records:
        found = record.scores[score].spreads.get(kind) if kind and score in record.scores else None
        if found is not None:
            by_seed.setdefault(record.cell.seed, found)
    return scale * math.fsum(by_seed.values()) / len(by_seed) if by_seed else None
