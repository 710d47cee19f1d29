"""One self-contained HTML page of records: tables, utility against leakage, every cell in detail, definitions.

Records are data of unknown origin: everything is escaped, and the page's policy allows no request and no script or
style but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..aggregate import Row, Section, flat
from ..contracts import Definition
from ..record import Choice, Record, RecordedScore
from ..records import Records
from . import charts, wording
from .wording import between, number, plain

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class TableRow:
    """A row with a strip per column, where the column has values."""

    row: Row
    shown: tuple[wording.Shown, ...]
    strips: tuple[charts.Strip | None, ...]


@dataclass(frozen=True)
class Picture:
    """A PNG as a data address, with its size in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Detail:
    """All of one record, in words."""

    record: Record
    headline: str
    scores: tuple[tuple[str, RecordedScore], ...]
    picture: Picture | None
    command: str
    settings: tuple[tuple[str, str, str], ...]
    curves: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class PageSection:
    """A section with its drawings."""

    anchor: str
    section: Section
    title: str
    tradeoffs: tuple[tuple[Definition, tuple[charts.Panel, ...]], ...]
    rows: tuple[TableRow, ...]
    details: tuple[Detail, ...]
    #: The first cell with a picture of each row.
    gallery: tuple[Detail, ...]


def html(records: Records) -> str:
    """The page; equal records give equal text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "number": number, "between": between, "heading": wording.heading}
    environment.filters |= {"bytes": _bytes, "seconds": _seconds, "json": _json}
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(
        sections=[_section(i, section, records) for i, section in enumerate(records.sections())],
        definitions=_definitions(records),
        count=len(records),
        newest=max((record.created for record in records), default=""),
        problems=records.problems,
        style=Markup(style),
        script=Markup(script),
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
        charts=charts,
        legend=wording.LEGEND,
        unit_of=wording.unit_of,
        arrows=wording.ARROWS,
        shared_chance=wording.shared_chance,
    )


def _source_hash(text: str) -> str:
    """As a content security policy names an inline source."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _section(index: int, section: Section, records: Records) -> PageSection:
    utility = [column for column in section.columns if column.measures == "utility"]
    leakage = [column for column in section.columns if column.measures == "leakage"]
    drawn = [(column, tuple(charts.panels(section, utility[0], column))) for column in leakage if utility]
    columns = [charts.strips(section, column) for column in section.columns]
    rows = [
        TableRow(
            row,
            tuple(wording.shown(row.scores[column.name], len(row.seeds)) for column in section.columns),
            tuple(column[i] for column in columns),
        )
        for i, row in enumerate(section.rows)
    ]
    by_row = [[_detail(record, row, records) for record in row.records] for row in section.rows]
    pictured = [[detail for detail in details if detail.picture] for details in by_row]
    return PageSection(
        anchor=f"s{index}",
        section=section,
        title=wording.title(section),
        tradeoffs=tuple((column, found) for column, found in drawn if found),
        rows=tuple(rows),
        details=tuple(detail for details in by_row for detail in details),
        gallery=tuple(details[0] for details in pictured if details),
    )


def _detail(record: Record, row: Row, records: Records) -> Detail:
    order = {name: i for i, name in enumerate(row.scores)}
    scores = sorted(record.scores.items(), key=lambda item: order[item[0]])
    content = records.picture(record)
    main = [
        f"{plain(s.definition.title, 40)} {number(s.value, s.definition.unit)}"
        for _, s in scores
        if s.definition.measures != "quality"
    ]
    return Detail(
        record=record,
        headline=", ".join(main),
        scores=tuple(scores),
        picture=None if content is None else _picture(content),
        command=plain(shlex.join(record.command), 4000),
        settings=tuple(_settings(record)),
        curves=tuple(_curves(record)),
    )


def _picture(content: bytes) -> Picture:
    """Width and height stand at a fixed place in a PNG."""
    width, height = struct.unpack(">II", content[16:24])
    return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)


def _settings(record: Record) -> Iterable[tuple[str, str, str]]:
    """Kind, name with version, and fields of every component."""
    cell = record.cell
    kinds: list[tuple[str, Choice]] = [("dataset", cell.dataset), ("defense", cell.defense), ("attack", cell.attack)]
    for kind, choice in kinds + [("evaluator", choice) for choice in cell.evaluators]:
        fields = ", ".join(f"{name}={_json(value)}" for name, value in flat(choice.fields).items())
        yield kind, f"{choice.name} v{choice.version} ({plain(choice.distribution, 60)})", plain(fields, 2000)


def _curves(record: Record) -> Iterable[tuple[str, str, str]]:
    """Name, polyline and last value of every training curve."""
    for stage, loops in sorted(record.curves.items()):
        for loop, series in sorted(loops.items()):
            for name, points in sorted(series.items()):
                line = charts.polyline(points)
                if line:
                    last = points[-1][1]
                    title = " ".join(dict.fromkeys(plain(part, 40) for part in (stage, loop, name)))
                    yield title, line, "n/a" if last is None else f"{last:.4g}"


def _definitions(records: Records) -> list[tuple[Definition, str]]:
    """Every distinct definition with the evaluator and version behind it."""
    found: dict[str, tuple[Definition, str]] = {}
    for record in records:
        for name, score in sorted(record.scores.items()):
            evaluator = record.evaluator(name)
            label = f"{evaluator.name} v{evaluator.version}"
            found.setdefault(score.definition.model_dump_json() + label, (score.definition, label))
    order = ("utility", "leakage", "quality")
    return sorted(found.values(), key=lambda item: (order.index(item[0].measures), item[0].name, item[1]))


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:,.0f} MiB"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
