"""Series of a trade-off figure: configurations of one defense, ordered by the field that varies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Row, Section, flat
from ...analysis.record_set import Records
from ...core.config import Definition
from ...errors import InvalidConfigurationError, UnknownComponentError
from ..formatting import sanitize, section_title
from ..tradeoff import Panel, Point, Tradeoff, has_score, tradeoff
from .labels import format_value, natural_key, varying_fields

#: Default scores of each measure, in order of preference.
PREFERRED = {"utility": ("mcc", "accuracy"), "leakage": ("ssim", "attack_acc")}


@dataclass(frozen=True)
class SeriesPoint:
    """A point of a series.

    Args:
        point: leakage and utility.
        note: values of the fields that vary; empty if none does.
        seeds: leakage and utility of each seed, if there are at least two.
    """

    point: Point
    note: str
    seeds: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Series:
    """Configurations of one defense; joined by a line in the order of a numeric field if they differ in one."""

    name: str
    points: tuple[SeriesPoint, ...]
    joined: bool


@dataclass(frozen=True)
class TradeoffSeries:
    """The contents of a trade-off figure.

    Args:
        plot: axes and panels.
        series: of each panel.
        names: of all series, in order.
        title: what the records have in common.
        left_out: a sentence for each configuration that lacks a score.
    """

    plot: Tradeoff
    series: tuple[tuple[Series, ...], ...]
    names: tuple[str, ...]
    title: str
    left_out: tuple[str, ...]


def tradeoff_series(records: Records, utility: str | None = None, leakage: str | None = None) -> TradeoffSeries:
    """Arrange records, aggregated over seeds, in series.

    Args:
        records: of one protocol, budget and data set configuration.
        utility: name of a score; by default `mcc`, else `accuracy`, else the first that measures utility.
        leakage: name of a score; by default `ssim`, else `attack_acc`, else the first that measures leakage.

    Raises:
        InvalidConfigurationError: the records are not comparable, or none has both scores.
        UnknownComponentError: no record has such a score.
    """
    section = _require_one_section(records.sections())
    scores = _choose_score(section, "utility", utility), _choose_score(section, "leakage", leakage)
    plot = tradeoff(section, *scores)
    left_out = tuple(message for row in section.rows for message in _missing_scores(row, scores))
    if plot is None:
        raise InvalidConfigurationError(
            f"expected a record with both {scores[0].name} and {scores[1].name}, found none: {left_out[0]}"
        )
    lines = _lines([point.row for panel in plot.panels for point in panel.points])
    series = tuple(tuple(_panel_series(panel, lines)) for panel in plot.panels)
    names = tuple(line.name for line in lines)
    return TradeoffSeries(plot, series, names, section_title(section), left_out)


def _require_one_section(sections: Sequence[Section]) -> Section:
    if len(sections) == 1:
        return sections[0]
    for name, values in (
        ("protocol", [section.protocol for section in sections]),
        ("budget", [section.budget for section in sections]),
        ("data set configuration", [section.dataset for section in sections]),
    ):
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            raise InvalidConfigurationError(
                f"expected records of one {name}, got {' and '.join(sanitize(value, 80) for value in distinct)}, "
                "whose numbers are not comparable; give the records of one"
            )
    raise AssertionError("sections differ in protocol, budget or data set configuration")


def _choose_score(section: Section, measure: str, name: str | None) -> Definition:
    known = {definition.name: definition for definition in section.columns}
    if name is not None:
        if name not in known:
            raise UnknownComponentError("score", name, known)
        return known[name]
    measuring = [column.name for column in section.columns if column.measures == measure]
    for candidate in (*PREFERRED[measure], *measuring):
        if candidate in known and any(has_score(row, known[candidate]) for row in section.rows):
            return known[candidate]
    raise InvalidConfigurationError(
        f"expected the records to have a score that measures {measure}, found none; name another with --{measure}: "
        f"{', '.join(known) or 'they have no score'}"
    )


def _missing_scores(row: Row, definitions: Iterable[Definition]) -> list[str]:
    return [
        f"{sanitize(row.defense, 60)} under {sanitize(row.attack, 60)} has no {definition.name}: "
        f"{sanitize(row.scores[definition.name].reason)}"
        for definition in definitions
        if not has_score(row, definition)
    ]


@dataclass(frozen=True)
class _Line:
    """The rows of a series with their notes, in all panels."""

    name: str
    rows: Sequence[tuple[Row, str]]
    joined: bool


def _panel_series(panel: Panel, lines: Iterable[_Line]) -> Iterator[Series]:
    points = {id(point.row): point for point in panel.points}
    for line in lines:
        members = [(points[id(row)], note) for row, note in line.rows if id(row) in points]
        if members:
            yield Series(line.name, tuple(SeriesPoint(*each, _seeds(each[0])) for each in members), line.joined)


def _seeds(point: Point) -> tuple[tuple[float, float], ...]:
    pairs: dict[int, tuple[float, float]] = {}
    for record in point.row.records:
        x, y = (record.scores.get(score.definition.name) for score in (point.leakage, point.utility))
        if x and y and x.value is not None and y.value is not None:
            pairs[record.cell.seed] = (x.value, y.value)
    return tuple(pairs.values()) if len(pairs) > 1 else ()


def _lines(rows: Iterable[Row]) -> list[_Line]:
    """The lines of all defenses, `none` first."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.records[0].cell.defense.name != "none", row.defense)):
        groups.setdefault(row.records[0].cell.defense.name, []).append(row)
    return [line for name, members in groups.items() for line in _lines_of_defense(name, members)]


def _lines_of_defense(name: str, rows: Sequence[Row]) -> list[_Line]:
    """The lines of one defense.

    The numeric field with the most distinct values orders a line. If its values do not identify all configurations,
    each combination of the other fields has its own line.
    """
    fields = varying_fields(row.records[0].cell.defense for row in rows)
    if not fields:
        return [_Line(name, [(row, "") for row in rows], joined=False)]
    values = [flat(row.records[0].cell.defense.fields) for row in rows]
    distinct = {field: {repr(each.get(field)) for each in values} for field in fields}
    numeric = [field for field in fields if all(_is_number(each.get(field)) for each in values)]
    if not numeric:
        notes = [", ".join(format_value(each.get(field), field) for field in fields) for each in values]
        return [_Line(f"{name}: {', '.join(fields)}", list(zip(rows, notes, strict=True)), joined=False)]
    main = max(numeric, key=lambda field: len(distinct[field]))
    combinations = {tuple(repr(each.get(field)) for field in fields) for each in values}
    others = [field for field in fields if field != main]
    fixed = others if len(combinations) > len(distinct[main]) else []
    varying = [main] if fixed else [main, *others]
    groups: dict[str, list[tuple[Row, dict[str, Any]]]] = {}
    for row, each in zip(rows, values, strict=True):
        settings = "".join(f", {field} = {format_value(each.get(field), field)}" for field in fixed)
        groups.setdefault(f"{name}{settings}: {', '.join(varying)}", []).append((row, each))
    lines = []
    for label, members in sorted(groups.items()):
        members.sort(key=lambda member: natural_key(member[1][main]))
        notes = [", ".join(format_value(each.get(field), field) for field in varying) for _, each in members]
        lines.append(_Line(label, [(row, note) for (row, _), note in zip(members, notes, strict=True)], joined=True))
    return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
