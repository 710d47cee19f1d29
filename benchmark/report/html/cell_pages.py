"""What the page of a cell shows, and the same as data for comparing two cells."""

from __future__ import annotations

import json
import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Row, flat
from ...analysis.flags import EXPLANATIONS
from ...records.record import Choice, Flag, Record, RecordedScore
from ...records.submitted import Provenance
from ...records.verification import LEVELS, Level
from ..formatting import format_interval, heading, json_text, number, plain
from . import svg
from .leaderboards import SectionView, TableRow
from .urls import Picture, Places

#: Cells that a page links to in each direction; the index has them all.
_NEIGHBOURS = 24
#: What ends a script or, in older engines, a line of it.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Neighbour:
    """Another cell, with what tells it from this one."""

    key: str
    label: str


@dataclass(frozen=True)
class ExplainedFlag:
    """A flag with what it means."""

    name: str
    message: str
    explanation: str


@dataclass(frozen=True)
class Component:
    """A configured component: its name with version and package, its fields, which of them the user set."""

    kind: str
    name: str
    fields: tuple[tuple[str, str], ...]
    changed: frozenset[str]


@dataclass(frozen=True)
class CellPage:
    """All of one record, in words."""

    record: Record
    name: str
    title: str
    board: SectionView
    row: TableRow
    scores: tuple[tuple[str, RecordedScore], ...]
    picture: Picture | None
    #: A picture beside the private images, or why there is none; `None` if none was asked for.
    private: Picture | str | None
    stages: tuple[str, ...]
    command: str
    settings: tuple[Component, ...]
    curves: tuple[tuple[str, svg.Curve], ...]
    flags: tuple[ExplainedFlag, ...]
    previous: Neighbour | None
    next: Neighbour | None
    same_defense: tuple[Neighbour, ...]
    same_attack: tuple[Neighbour, ...]
    seeds: tuple[Neighbour, ...]
    level: Level
    #: Who submitted and verified it; `None` where it was not submitted.
    source: Provenance | None


def cells(
    board: SectionView,
    places: Places,
    pictures: Mapping[str, bytes],
    private: Mapping[str, bytes | str],
    sources: Mapping[str, Provenance],
) -> Iterator[CellPage]:
    """The cells of a section in the order of its table.

    Args:
        board: the section.
        places: as seen from the pages of cells.
        pictures: PNG of reconstructions by key.
        private: PNG of private images, or why there is none, by key; empty if none were asked for.
        sources: of records that were submitted, by key.
    """
    order = [(line, record) for line in board.rows for record in line.row.records]
    by_defense, by_attack = _groups(board.rows, "defense"), _groups(board.rows, "attack")
    titles = [_title(line.row, record) for line, record in order]
    ends = [None, *(Neighbour(record.key, title) for (_, record), title in zip(order, titles, strict=True)), None]
    components: dict[Hashable, Component] = {}
    for i, (line, record) in enumerate(order):
        yield CellPage(
            record=record,
            name=places.names[record.key],
            title=titles[i],
            board=board,
            row=line,
            scores=tuple(
                (column.name, record.scores[column.name])
                for column in board.section.columns
                if column.name in record.scores
            ),
            picture=places.picture(record.key, pictures[record.key]) if record.key in pictures else None,
            private=_private(private.get(record.key), record, places),
            stages=tuple(dict.fromkeys([*record.costs, *record.artifacts])),
            command=plain(shlex.join(record.command), 4000),
            settings=tuple(_settings(record, components)),
            curves=tuple(_curves(record)),
            flags=tuple(_findings(board.flags[record.key])),
            previous=ends[i],
            next=ends[i + 2],
            same_defense=_near(by_defense[line.row.defense], line, "attack"),
            same_attack=_near(by_attack[line.row.attack], line, "defense"),
            seeds=tuple(Neighbour(link.key, str(link.seed)) for link in line.links if link.key != record.key),
            level=sources[record.key].level if record.key in sources else LEVELS[0],
            source=sources.get(record.key),
        )


def _groups(rows: Iterable[TableRow], part: str) -> dict[str, list[TableRow]]:
    groups: dict[str, list[TableRow]] = {}
    for line in rows:
        groups.setdefault(getattr(line.row, part), []).append(line)
    return groups


def _near(group: Sequence[TableRow], line: TableRow, part: str) -> tuple[Neighbour, ...]:
    """The first cells of the nearest rows of a group, but for the row itself."""
    at = next(i for i, other in enumerate(group) if other is line)
    start = max(0, min(at - _NEIGHBOURS // 2, len(group) - _NEIGHBOURS - 1))
    found = (other for other in group[start : start + _NEIGHBOURS + 1] if other is not line)
    return tuple(Neighbour(other.links[0].key, plain(getattr(other.row, part), 60)) for other in found)


def _title(row: Row, record: Record) -> str:
    return f"{plain(row.defense, 80)} under {plain(row.attack, 80)}, seed {record.cell.seed}"


def _private(found: bytes | str | None, record: Record, places: Places) -> Picture | str | None:
    return places.picture(record.key, found, "private") if isinstance(found, bytes) else found


def _findings(flags: Iterable[Flag]) -> Iterator[ExplainedFlag]:
    for flag in flags:
        yield ExplainedFlag(plain(flag.name, 60), plain(flag.message), EXPLANATIONS.get(flag.name, ""))


def _settings(record: Record, known: dict[Hashable, Component]) -> Iterator[Component]:
    """The components of a record; `known` has those of the records before, most of which are the same."""
    cell = record.cell
    kinds: list[tuple[str, Choice]] = [("dataset", cell.dataset), ("defense", cell.defense), ("attack", cell.attack)]
    for kind, choice in kinds + [("evaluator", choice) for choice in cell.evaluators]:
        changed = record.changed.get(choice.name if kind == "evaluator" else kind, {})
        key = (kind, choice.name, choice.version, choice.distribution, repr(choice.fields), repr(changed))
        if key not in known:
            fields = tuple((path, plain(json_text(value), 300)) for path, value in flat(choice.fields).items())
            name = f"{choice.name} v{choice.version} of {plain(choice.distribution, 60)}"
            known[key] = Component(kind, name, fields, frozenset(flat(changed)))
        yield known[key]


def _curves(record: Record) -> Iterator[tuple[str, svg.Curve]]:
    """Name and drawing of every training and attack curve."""
    for stage, loops in sorted(record.curves.items()):
        for loop, series in sorted(loops.items()):
            for name, points in sorted(series.items()):
                drawn = svg.curve(points)
                if drawn:
                    yield " ".join(dict.fromkeys(plain(part, 40) for part in (stage, loop, name))), drawn


def payload(cell: CellPage, places: Places) -> str:
    """What comparing needs to know of a cell, as JSON that is safe inside a script."""
    record = cell.record
    values = {
        "id": cell.name,
        "title": cell.title,
        "section": cell.board.title,
        "anchor": cell.board.anchor,
        "seeds": [{"id": places.names[other.key], "label": other.label} for other in cell.seeds],
        "picture": cell.picture and vars(cell.picture),
        "command": cell.command,
        "flags": [vars(flag) for flag in cell.flags],
        "scores": [_score(name, score) for name, score in cell.scores],
        "settings": _facts(cell),
        "costs": _costs(record),
    }
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    for character, escaped in _UNSAFE.items():
        text = text.replace(character, escaped)
    return text


def _score(name: str, score: RecordedScore) -> dict[str, Any]:
    definition = score.definition
    return {
        "name": name,
        "title": heading(definition),
        "unit": definition.unit,
        "better": definition.better,
        "value": score.value,
        "text": number(score.value, definition.unit),
        "interval": score.interval,
        "range": format_interval(score.interval, definition.unit),
        "n": score.n,
        "reason": plain(score.reason or ""),
    }


def _facts(cell: CellPage) -> list[tuple[str, str]]:
    """Protocol, budget, seed and every setting but the evaluators', by dotted name."""
    record = cell.record
    found = [("protocol", record.protocol), ("budget", record.cell.budget), ("seed", str(record.cell.seed))]
    found += [("verification", cell.level)]
    for each in cell.settings:
        if each.kind != "evaluator":
            found += [(each.kind, each.name)]
            found += [(f"{each.kind}.{plain(path, 80)}", value) for path, value in each.fields]
    return found


def _costs(record: Record) -> list[tuple[str, str]]:
    costs = [(f"time of {plain(stage, 40)}", seconds(cost.seconds)) for stage, cost in record.costs.items()]
    peaks = [(stage, cost.peak_memory_bytes) for stage, cost in record.costs.items()]
    costs += [(f"peak memory of {plain(stage, 40)}", mebibytes(peak)) for stage, peak in peaks if peak is not None]
    return costs + [(f"{plain(name, 40)} queries", f"{count:,}") for name, count in record.queries.items()]


def mebibytes(count: int | None) -> str:
    """Bytes in words."""
    return "unknown" if count is None else f"{count / 2**20:,.0f} MiB"


def seconds(value: float) -> str:
    """A duration in words.

    Example:
        >>> seconds(31.24), seconds(75), seconds(7265)
        ('31.2 s', '1 min 15 s', '2 h 01 min')
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
