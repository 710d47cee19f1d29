"""Views of cells for the templates, and the data for comparing two cells in the browser."""

import json
import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Row
from ...analysis.excess import Controls, Excess
from ...analysis.flags import EXPLANATIONS
from ...analysis.row_labels import flat
from ...pipeline.write_record import command
from ...records.record import Choice, Flag, Record, RecordedScore
from ...records.submitted import Provenance
from ...records.verification import LEVELS, Level
from ..formatting import column_heading, format_interval, format_number, json_text, sanitize
from . import charts
from .leaderboards import SectionView, TableRow
from .urls import Picture, Urls

#: Number of cells to which a page links for the same defense, and for the same attack.
_NEIGHBOURS = 24
#: Characters that can end a script element or, in older engines, a line of a script.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Neighbour:
    """Another cell, with a label that distinguishes it from this one."""

    key: str
    label: str


@dataclass(frozen=True)
class ExplainedFlag:
    """A flag with the explanation of its meaning."""

    name: str
    message: str
    explanation: str


@dataclass(frozen=True)
class ComponentView:
    """A configured component: name with version and package, fields, names of the fields that the user set."""

    kind: str
    name: str
    fields: tuple[tuple[str, str], ...]
    changed: frozenset[str]


@dataclass(frozen=True)
class CellPage:
    """Everything that the page of a record shows."""

    record: Record
    name: str
    title: str
    view: SectionView
    row: TableRow
    scores: tuple[tuple[str, RecordedScore], ...]
    #: Scores minus the placebo's, by name; empty without a placebo to compare with.
    excess: Mapping[str, Excess]
    picture: Picture | None
    #: A picture with private images, or the reason why there is none; `None` if none was requested.
    private: Picture | str | None
    stages: tuple[str, ...]
    command: str
    settings: tuple[ComponentView, ...]
    curves: tuple[tuple[str, charts.Curve], ...]
    flags: tuple[ExplainedFlag, ...]
    previous: Neighbour | None
    next: Neighbour | None
    same_defense: tuple[Neighbour, ...]
    same_attack: tuple[Neighbour, ...]
    seeds: tuple[Neighbour, ...]
    level: Level
    #: Submitter and verifier; `None` if it was not submitted.
    source: Provenance | None

    @property
    def excess_notes(self) -> tuple[str, ...]:
        """Sentences on the coverage of the intervals of the excess, or the reasons why there are none."""
        covers = [
            f"Over placebo: the interval covers {found.covers}." for found in self.excess.values() if found.covers
        ]
        reasons = [f"Over placebo: {found.reason}." for found in self.excess.values() if found.reason]
        return tuple(dict.fromkeys(covers + reasons))


def cell_pages(
    view: SectionView,
    urls: Urls,
    pictures: Mapping[str, bytes],
    private: Mapping[str, bytes | str],
    sources: Mapping[str, Provenance],
) -> Iterator[CellPage]:
    """Views of the cells of a section, in the order of its table.

    Args:
        view: the section.
        urls: relative to the pages of cells.
        pictures: PNG of reconstructions, by key.
        private: PNG of private images, or the reason why there is none, by key; empty if none were requested.
        sources: provenance of submitted records, by key.
    """
    cells = [(row, record) for row in view.rows for record in row.row.records]
    by_defense, by_attack = _groups(view.rows, "defense"), _groups(view.rows, "attack")
    titles = [_title(row.row, record) for row, record in cells]
    padded = [None, *(Neighbour(record.key, title) for (_, record), title in zip(cells, titles, strict=True)), None]
    components: dict[Hashable, ComponentView] = {}
    controls = Controls(view.section)
    for i, (row, record) in enumerate(cells):
        yield CellPage(
            record=record,
            name=urls.names[record.key],
            title=titles[i],
            view=view,
            row=row,
            scores=tuple(
                (column.name, record.scores[column.name])
                for column in view.section.columns
                if column.name in record.scores
            ),
            excess=controls.of_record(row.row, record),
            picture=urls.picture(record.key, pictures[record.key]) if record.key in pictures else None,
            private=_private_picture(private.get(record.key), record, urls),
            stages=tuple(dict.fromkeys([*record.costs, *record.artifacts])),
            command=sanitize(shlex.join(command_of(record)), 4000),
            settings=tuple(_settings(record, components)),
            curves=tuple(_curves(record)),
            flags=tuple(_explained_flags(view.flags[record.key])),
            previous=padded[i],
            next=padded[i + 2],
            same_defense=_neighbours(by_defense[row.row.defense], row, "attack"),
            same_attack=_neighbours(by_attack[row.row.attack], row, "defense"),
            seeds=tuple(Neighbour(link.key, str(link.seed)) for link in row.links if link.key != record.key),
            level=sources[record.key].level if record.key in sources else LEVELS[0],
            source=sources.get(record.key),
        )


def _groups(rows: Iterable[TableRow], part: str) -> dict[str, list[TableRow]]:
    groups: dict[str, list[TableRow]] = {}
    for row in rows:
        groups.setdefault(getattr(row.row, part), []).append(row)
    return groups


def _neighbours(group: Sequence[TableRow], row: TableRow, part: str) -> tuple[Neighbour, ...]:
    """The first cells of the rows of a group that are nearest to a row, without that row."""
    index = next(i for i, other in enumerate(group) if other is row)
    start = max(0, min(index - _NEIGHBOURS // 2, len(group) - _NEIGHBOURS - 1))
    others = (other for other in group[start : start + _NEIGHBOURS + 1] if other is not row)
    return tuple(Neighbour(other.links[0].key, sanitize(getattr(other.row, part), 60)) for other in others)


def _title(row: Row, record: Record) -> str:
    return f"{sanitize(row.defense, 80)} under {sanitize(row.attack, 80)}, seed {record.cell.seed}"


def _private_picture(found: bytes | str | None, record: Record, urls: Urls) -> Picture | str | None:
    return urls.picture(record.key, found, "private") if isinstance(found, bytes) else found


def _explained_flags(flags: Iterable[Flag]) -> Iterator[ExplainedFlag]:
    for flag in flags:
        yield ExplainedFlag(sanitize(flag.name, 60), sanitize(flag.message), EXPLANATIONS.get(flag.name, ""))


def _settings(record: Record, known: dict[Hashable, ComponentView]) -> Iterator[ComponentView]:
    """The components of a record; `known` caches them, because most records share most components."""
    cell = record.cell
    kinds: list[tuple[str, Choice]] = [("dataset", cell.dataset), ("defense", cell.defense), ("attack", cell.attack)]
    for kind, choice in kinds + [("evaluator", choice) for choice in cell.evaluators]:
        changed = record.changed.get(choice.name if kind == "evaluator" else kind, {})
        key = (kind, choice.name, choice.version, choice.distribution, repr(choice.fields), repr(changed))
        if key not in known:
            fields = tuple((path, sanitize(json_text(value), 300)) for path, value in flat(choice.fields).items())
            name = f"{choice.name} v{choice.version} of {sanitize(choice.distribution, 60)}"
            known[key] = ComponentView(kind, name, fields, frozenset(flat(changed)))
        yield known[key]


def _curves(record: Record) -> Iterator[tuple[str, charts.Curve]]:
    """Name and polyline of every training and attack curve."""
    for stage, loops in sorted(record.curves.items()):
        for loop, series in sorted(loops.items()):
            for name, points in sorted(series.items()):
                drawn = charts.curve(points)
                if drawn:
                    yield " ".join(dict.fromkeys(sanitize(part, 40) for part in (stage, loop, name))), drawn


def command_of(record: Record) -> list[str]:
    """Return the command that runs a cell, made from the cell; no word that its author wrote for a shell is shown."""
    changed: dict[str, dict[str, Any]] = {}
    for choice, scope in _scopes(record):
        fields = flat(choice.fields)
        known = {**fields, **choice.fields}
        found = {path: known[path] for path in record.changed.get(scope, {}) if path in known}
        changed |= {scope: found} if found else {}
    return command(record.cell, {scope: changed[scope] for scope in record.changed if scope in changed})


def _scopes(record: Record) -> Iterator[tuple[Choice, str]]:
    """The components of a cell and the words before the dot of their `--set`."""
    cell = record.cell
    yield from ((cell.dataset, "dataset"), (cell.defense, "defense"), (cell.attack, "attack"))
    yield from ((choice, choice.name) for choice in cell.evaluators)


def comparison_json(cell: CellPage, urls: Urls) -> str:
    """The data of a cell that a comparison shows, as JSON that is safe inside a script."""
    record = cell.record
    values = {
        "id": cell.name,
        "title": cell.title,
        "section": cell.view.title,
        "anchor": cell.view.anchor,
        "seeds": [{"id": urls.names[other.key], "label": other.label} for other in cell.seeds],
        "picture": cell.picture and vars(cell.picture),
        "command": cell.command,
        "flags": [vars(flag) for flag in cell.flags],
        "scores": [_score(name, score) for name, score in cell.scores],
        "settings": _comparable_settings(cell),
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
        "title": column_heading(definition),
        "unit": definition.unit,
        "better": definition.better,
        "value": score.value,
        "text": format_number(score.value, definition.unit),
        "interval": score.interval,
        "range": format_interval(score.interval, definition.unit),
        "n": score.n,
        "reason": sanitize(score.reason or ""),
    }


def _comparable_settings(cell: CellPage) -> list[tuple[str, str]]:
    """Protocol, budget, seed, verification level and all settings except those of evaluators, by dotted name."""
    record = cell.record
    found = [("protocol", record.protocol), ("budget", record.cell.budget), ("seed", str(record.cell.seed))]
    found += [("verification", cell.level)]
    for each in cell.settings:
        if each.kind != "evaluator":
            found += [(each.kind, each.name)]
            found += [(f"{each.kind}.{sanitize(path, 80)}", value) for path, value in each.fields]
    return found


def _costs(record: Record) -> list[tuple[str, str]]:
    costs, queries = record.costs.items(), record.queries.items()
    found = [(f"time of {sanitize(stage, 40)}", format_duration(cost.seconds)) for stage, cost in costs]
    peaks = [(stage, cost.peak_memory_bytes) for stage, cost in costs if cost.peak_memory_bytes is not None]
    found += [(f"peak memory of {sanitize(stage, 40)}", format_memory(peak)) for stage, peak in peaks]
    return found + [(f"{sanitize(name, 40)} queries", f"{count:,}") for name, count in queries]


def format_memory(count: int | None) -> str:
    """A number of bytes in MiB."""
    return "unknown" if count is None else f"{count / 2**20:,.0f} MiB"


def format_duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    Example:
        >>> format_duration(31.24), format_duration(75), format_duration(7265)
        ('31.2 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
