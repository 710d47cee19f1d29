"""Utility against leakage, out of records alone: what is drawn, not how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Row, Section, Summary, flat
from ...analysis.record_set import Records
from ...core.config import Definition
from ...errors import InvalidConfigurationError, UnknownComponentError
from ..formatting import plain, title
from .labels import in_order, varied, written

#: Scores that are drawn unless others are named, the first that the records have.
UTILITIES = ("mcc", "accuracy")
LEAKAGES = ("ssim", "attack_acc")


@dataclass(frozen=True)
class Spot:
    """One defense configuration under one attack, over seeds.

    Args:
        leakage: across.
        utility: up.
        note: values of the varied fields; empty where nothing varies.
        seeds: leakage and utility of each seed, where there are two or more.
    """

    leakage: Summary
    utility: Summary
    note: str
    seeds: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Series:
    """Configurations of one defense; joined by a line where they differ in a number, in its order."""

    name: str
    spots: tuple[Spot, ...]
    joined: bool


@dataclass(frozen=True)
class Panel:
    """All defenses under one attack."""

    attack: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Tradeoff:
    """What a figure shows.

    Args:
        utility: definition of the score that is drawn up.
        leakage: definition of the score that is drawn across.
        title: what the records have in common.
        panels: one an attack.
        names: of all series, in order.
        left_out: configurations without both scores, one sentence each.
    """

    utility: Definition
    leakage: Definition
    title: str
    panels: tuple[Panel, ...]
    names: tuple[str, ...]
    left_out: tuple[str, ...]


def tradeoff(records: Records, utility: str | None = None, leakage: str | None = None) -> Tradeoff:
    """Put records side by side, aggregated over seeds.

    Args:
        records: of one protocol, budget and data set configuration.
        utility: name of a score; by default `mcc`, else `accuracy`, else the first that measures utility.
        leakage: name of a score; by default `ssim`, else `attack_acc`, else the first that measures leakage.

    Raises:
        InvalidConfigurationError: the records cannot be compared, or none has both scores.
        UnknownComponentError: no record has such a score.
    """
    section = _comparable(records.sections())
    up = _score(section, "utility", utility, UTILITIES)
    across = _score(section, "leakage", leakage, LEAKAGES)
    drawn = [row for row in section.rows if _has(row, up) and _has(row, across)]
    left_out = tuple(sentence for row in section.rows for sentence in _missing(row, (up, across)))
    if not drawn:
        raise InvalidConfigurationError(
            f"expected a record with both {up.name} and {across.name}, found none: {left_out[0]}"
        )
    panels = []
    lines = _lines(drawn)
    for attack in dict.fromkeys((row.attack, row.evaluators) for row in drawn):
        found = []
        for name, joined, members in lines:
            chosen = [(row, note) for row, note in members if (row.attack, row.evaluators) == attack]
            spots = tuple(_spot(row, note, up, across) for row, note in chosen)
            found += [Series(name, spots, joined)] if spots else []
        panels.append(Panel(plain(" ".join(part for part in attack if part), 60), tuple(found)))
    return Tradeoff(up, across, title(section), tuple(panels), tuple(name for name, _, _ in lines), left_out)


def _comparable(found: Sequence[Section]) -> Section:
    if len(found) == 1:
        return found[0]
    for what, values in (
        ("protocol", [section.protocol for section in found]),
        ("budget", [section.budget for section in found]),
        ("data set configuration", [section.dataset for section in found]),
    ):
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            raise InvalidConfigurationError(
                f"expected records of one {what}, got {' and '.join(plain(value, 80) for value in distinct)}, "
                "whose numbers do not compare; give the records of one"
            )
    raise AssertionError("sections differ in none of what divides them")


def _score(section: Section, measure: str, name: str | None, usual: Sequence[str]) -> Definition:
    known = {definition.name: definition for definition in section.columns}
    if name is not None:
        if name not in known:
            raise UnknownComponentError("score", name, known)
        return known[name]
    of_measure = [column.name for column in section.columns if column.measures == measure]
    for candidate in (*usual, *of_measure):
        if candidate in known and any(_has(row, known[candidate]) for row in section.rows):
            return known[candidate]
    raise InvalidConfigurationError(
        f"expected the records to have a score that measures {measure}, found none; name another with --{measure}: "
        f"{', '.join(known) or 'they have no score'}"
    )


def _has(row: Row, definition: Definition) -> bool:
    return row.scores[definition.name].value is not None


def _missing(row: Row, definitions: Iterable[Definition]) -> list[str]:
    return [
        f"{plain(row.defense, 60)} under {plain(row.attack, 60)} has no {definition.name}: "
        f"{plain(row.scores[definition.name].reason)}"
        for definition in definitions
        if not _has(row, definition)
    ]


def _spot(row: Row, note: str, utility: Definition, leakage: Definition) -> Spot:
    pairs: dict[int, tuple[float, float]] = {}
    for record in row.records:
        across, up = record.scores.get(leakage.name), record.scores.get(utility.name)
        if across and up and across.value is not None and up.value is not None:
            pairs[record.cell.seed] = (across.value, up.value)
    seeds = tuple(pairs.values()) if len(pairs) > 1 else ()
    return Spot(row.scores[leakage.name], row.scores[utility.name], note, seeds)


def _lines(rows: Sequence[Row]) -> list[tuple[str, bool, list[tuple[Row, str]]]]:
    """Name, whether it is joined, and rows with their notes, of each line; `none` first."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.records[0].cell.defense.name != "none", row.defense)):
        groups.setdefault(row.records[0].cell.defense.name, []).append(row)
    return [line for name, members in groups.items() for line in _of_defense(name, members)]


def _of_defense(name: str, rows: Sequence[Row]) -> list[tuple[str, bool, list[tuple[Row, str]]]]:
    """The lines of one defense.

    The number with the most values orders a line. Where it does not tell all configurations apart, there is a line for
    each combination of the other fields.
    """
    fields = varied(row.records[0].cell.defense for row in rows)
    if not fields:
        return [(name, False, [(row, "") for row in rows])]
    values = [flat(row.records[0].cell.defense.fields) for row in rows]
    distinct = {field: {repr(each.get(field)) for each in values} for field in fields}
    numbers = [field for field in fields if all(_is_number(each.get(field)) for each in values)]
    if not numbers:
        notes = [", ".join(written(each.get(field), field) for field in fields) for each in values]
        return [(f"{name}: {', '.join(fields)}", False, list(zip(rows, notes, strict=True)))]
    main = max(numbers, key=lambda field: len(distinct[field]))
    combinations = {tuple(repr(each.get(field)) for field in fields) for each in values}
    others = [field for field in fields if field != main]
    apart = others if len(combinations) > len(distinct[main]) else []
    shown = [main] if apart else [main, *others]
    lines: dict[str, list[tuple[Row, dict[str, Any]]]] = {}
    for row, each in zip(rows, values, strict=True):
        told = "".join(f", {field} = {written(each.get(field), field)}" for field in apart)
        lines.setdefault(f"{name}{told}: {', '.join(shown)}", []).append((row, each))
    found = []
    for label, members in sorted(lines.items()):
        members.sort(key=lambda member: in_order(member[1][main]))
        notes = [", ".join(written(each.get(field), field) for field in shown) for _, each in members]
        found.append((label, True, [(row, note) for (row, _), note in zip(members, notes, strict=True)]))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
