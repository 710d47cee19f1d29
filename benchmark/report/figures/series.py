"""Series of a trade-off figure: configurations of one defense, ordered by the field that varies."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Row, Section
from ...analysis.record_set import Records
from ...analysis.row_labels import flat
from ...core.config import Definition
from ...errors import InvalidConfigurationError, UnknownComponentError
from ..formatting import sanitize, section_title
from ..tradeoff import Panel, Point, Tradeoff, has_score, tradeoff
from .labels import format_value, natural_key, varying_fields

#: Default scores of each measure, in order of preference.
PREFERRED = {"utility": ("mcc", "accuracy"), "leakage": ("ssim", "attack_acc")}


@dataclass(frozen=True)
class Series:
    """Configurations of one defense.

    Args:
        name: for the legend.
        rows: under all attacks, with the values of the fields that vary; empty text if none does.
        joined: whether they differ in a number; then a line joins them in its order.
    """

    name: str
    rows: Sequence[tuple[Row, str]]
    joined: bool

    def points(self, panel: Panel) -> list[tuple[Point, str]]:
        """The points of the series in a panel, with the texts of the rows."""
        points = {id(point.row): point for point in panel.points}
        return [(points[id(row)], note) for row, note in self.rows if id(row) in points]


@dataclass(frozen=True)
class TradeoffSeries:
    """The contents of a trade-off figure.

    Args:
        plot: axes and panels.
        series: of all panels, in order.
        title: what the records have in common.
        left_out: a sentence for each configuration that lacks a score.
    """

    plot: Tradeoff
    series: tuple[Series, ...]
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
    series = _series([point.row for panel in plot.panels for point in panel.points])
    return TradeoffSeries(plot, tuple(series), section_title(section), left_out)


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


def _series(rows: Iterable[Row]) -> Iterator[Series]:
    """The series of all defenses, `none` first."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.records[0].cell.defense.name != "none", row.defense)):
        groups.setdefault(row.records[0].cell.defense.name, []).append(row)
    for name, members in groups.items():
        yield from _series_of_defense(name, members)


def _series_of_defense(name: str, rows: Sequence[Row]) -> Iterator[Series]:
    """The series of one defense.

    The numeric field with the most distinct values orders a series. If its values do not identify all configurations,
    each combination of the other fields has its own series.
    """
    fields = varying_fields(row.records[0].cell.defense for row in rows)
    if not fields:
        yield Series(name, [(row, "") for row in rows], joined=False)
        return
    values = [flat(row.records[0].cell.defense.fields) for row in rows]
    distinct = {field: {repr(each.get(field)) for each in values} for field in fields}
    numeric = [field for field in fields if all(_is_number(each.get(field)) for each in values)]
    if not numeric:
        notes = [", ".join(format_value(each.get(field), field) for field in fields) for each in values]
        yield Series(f"{name}: {', '.join(fields)}", list(zip(rows, notes, strict=True)), joined=False)
        return
    main = max(numeric, key=lambda field: len(distinct[field]))
    combinations = {tuple(repr(each.get(field)) for field in fields) for each in values}
    others = [field for field in fields if field != main]
    fixed = others if len(combinations) > len(distinct[main]) else []
    varying = [main] if fixed else [main, *others]
    groups: dict[str, list[tuple[Row, dict[str, Any]]]] = {}
    for row, each in zip(rows, values, strict=True):
        settings = "".join(f", {field} = {format_value(each.get(field), field)}" for field in fixed)
        groups.setdefault(f"{name}{settings}: {', '.join(varying)}", []).append((row, each))
    for label, members in sorted(groups.items()):
        members.sort(key=lambda member: natural_key(member[1][main]))
        notes = [", ".join(format_value(each.get(field), field) for field in varying) for _, each in members]
        yield Series(label, [(row, note) for (row, _), note in zip(members, notes, strict=True)], joined=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
