"""Published tables beside our records, ready for a template."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.record_set import Records
from ...papers.comparison import ComparedRow, ComparedValue, compare
from ...papers.table import tables

_VERDICTS = {"within published": "within the printed spread", "within ours": "within our interval"}


@dataclass(frozen=True)
class ShownEntry:
    """One printed number beside ours, in words."""

    column: str
    published: str
    ours: str
    interval: str
    seeds: str
    difference: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class ShownLine:
    """One printed row beside our cells of it under one attack; `cells` are key and seed."""

    label: str
    attack: str
    protocol: str
    budget: str
    cells: tuple[tuple[str, int], ...]
    deviations: str
    flags: tuple[str, ...]
    entries: tuple[ShownEntry, ...]


@dataclass(frozen=True)
class Publication:
    """A published table of results; `missing` are its rows without records."""

    name: str
    caption: str
    citation: str
    link: str
    lines: tuple[ShownLine, ...]
    missing: tuple[str, ...]


def publications(records: Records) -> list[Publication]:
    """Every published table of results, with the rows that some records are of."""
    seeds = {record.key: record.cell.seed for record in records}
    found = []
    for table in tables():
        if table.kind == "results":
            comparison = compare(table, records)
            lines = tuple(_line(line, seeds) for line in comparison.lines)
            shown = Publication(table.name, table.caption, table.citation, table.link, lines, comparison.missing)
            found.append(shown)
    return found


def _line(line: ComparedRow, seeds: dict[str, int]) -> ShownLine:
    return ShownLine(
        label=line.label,
        attack=line.attack,
        protocol=line.protocol,
        budget=line.budget,
        cells=tuple((key, seeds[key]) for key in line.keys),
        deviations=", ".join(line.deviations),
        flags=line.flags,
        entries=tuple(_entry(entry) for entry in line.entries),
    )


def _entry(entry: ComparedValue) -> ShownEntry:
    places = entry.decimals
    spread = "" if entry.published_spread is None else f" ± {entry.published_spread:.{places}f}"
    interval = entry.interval and f"[{entry.interval[0]:.{places}f}, {entry.interval[1]:.{places}f}]"
    unit = " %" if entry.unit == "per cent" else ""
    return ShownEntry(
        column=f"{entry.column}{unit}",
        published=f"{entry.published:.{places}f}{spread}",
        ours="–" if entry.ours is None else f"{entry.ours:.{places}f}",
        interval=interval or "",
        seeds=str(entry.seeds or "–"),
        difference="" if entry.difference is None else f"{entry.difference:+.{places}f}".replace("-", "−"),
        verdict=_VERDICTS.get(entry.verdict, entry.verdict),
        reason=entry.reason,
    )
