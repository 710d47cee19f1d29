"""What the index shows of each section: leaderboards, drawings and the table of rows, ready for the templates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...analysis.aggregate import Row, Section, Summary
from ...analysis.ranking import Ranking, Standing, rankings
from ...core.config import Definition
from ...records.record import Flag, Record
from ...records.verification import LEVELS, Level
from .. import formatting
from ..formatting import format_interval, number, plain
from . import svg
from .permalinks import row_anchors, section_anchors

#: A section with more defenses or rows shows one ranking on the index and has a page for each of the others.
MOST_DEFENSES, MOST_ROWS = 30, 150
#: Pictures under the table of a section.
_GALLERY = 12
#: Says how far the least of some records was verified.
LevelOf = Callable[[Iterable[Record]], Level]


@dataclass(frozen=True)
class Link:
    """One record of a row."""

    key: str
    seed: int


@dataclass(frozen=True)
class Score:
    """A score in words; `reason` says why there is none, `not_applicable` that the attack never gives it."""

    value: str
    interval: str
    reason: str = ""
    not_applicable: bool = False
    n: int = 0


@dataclass(frozen=True)
class Leak:
    """What a defense leaks under one attack: the score, the cells behind it, how many flags they have."""

    score: Score
    links: tuple[Link, ...]
    flags: int


@dataclass(frozen=True)
class DefenseRow:
    """A defense in a leaderboard."""

    defense: str
    component: str
    rank: str
    interval: str
    group: str
    utility: Score
    worst: Score
    strip: svg.Strip | None
    leaks: tuple[Leak | None, ...]
    seeds: str
    missing: str
    level: Level


@dataclass(frozen=True)
class Leaderboard:
    """Defenses ranked by their worst case in one leakage score."""

    score: Definition
    utility: Definition | None
    attacks: tuple[str, ...]
    lines: tuple[DefenseRow, ...]
    panels: tuple[svg.Panel, ...]
    notes: tuple[str, ...]
    basis: Literal["identity", "score"]
    #: Whether the index shows it; else it has a page of its own.
    inside: bool


@dataclass(frozen=True)
class TableRow:
    """A row of the full table; a score without value has the number of its reason."""

    anchor: str
    row: Row
    links: tuple[Link, ...]
    scores: tuple[tuple[Score, int], ...]
    flags: int
    level: Level


@dataclass(frozen=True)
class SectionView:
    """A section with everything that the index shows of it."""

    anchor: str
    section: Section
    title: str
    leaderboards: tuple[Leaderboard, ...]
    rows: tuple[TableRow, ...]
    #: Why scores are missing, numbered from 1.
    reasons: tuple[str, ...]
    #: Of the table of all rows: in a large section without the scores of quality, which cells have.
    columns: tuple[Definition, ...]
    #: The range of n of each column.
    counts: tuple[str, ...]
    gallery: tuple[TableRow, ...]
    #: Flags by record key.
    flags: Mapping[str, tuple[Flag, ...]]

    @property
    def defenses(self) -> int:
        """How many defenses the section has."""
        return len({row.row.defense for row in self.rows})

    @property
    def attacks(self) -> int:
        """How many attacks the section has."""
        return len({row.row.attack for row in self.rows})


def lowest_of_all(records: Iterable[Record]) -> Level:
    """The level of records of which nobody says anything."""
    return LEVELS[0]


def boards(sections: Sequence[Section], level: LevelOf = lowest_of_all) -> list[SectionView]:
    """The view of every section, in order; `level` says how far records were verified."""
    anchors = section_anchors(sections)
    return [board(section, anchor, level) for section, anchor in zip(sections, anchors, strict=True)]


def board(section: Section, anchor: str, level: LevelOf = lowest_of_all) -> SectionView:
    """The view of one section."""
    flags = _flags(section)
    reasons: dict[str, int] = {}
    large = len(section.rows) > MOST_ROWS
    columns = tuple(column for column in section.columns if not (large and column.measures == "quality"))
    rows = tuple(
        _table_row(columns, row, name, reasons, flags, level)
        for row, name in zip(section.rows, row_anchors(section), strict=True)
    )
    pictured = [row for row in rows if row.row.records[0].picture]
    return SectionView(
        anchor=anchor,
        section=section,
        title=formatting.title(section),
        leaderboards=tuple(_leaderboards(section, flags, level)),
        rows=rows,
        reasons=tuple(reasons),
        columns=columns,
        counts=tuple(_counts(section, column) for column in columns),
        gallery=tuple(pictured[:_GALLERY]),
        flags=flags,
    )


def _flags(section: Section) -> dict[str, tuple[Flag, ...]]:
    from ...analysis.cross_cell_flags import cross_cell_flags as between_cells

    found = between_cells(section)
    records = [record for row in section.rows for record in row.records]
    return {record.key: (*record.flags, *found.get(record.key, ())) for record in records}


def _flagged(row: Row, flags: Mapping[str, tuple[Flag, ...]]) -> int:
    return len({flag.name for record in row.records for flag in flags[record.key]})


def _links(row: Row) -> tuple[Link, ...]:
    return tuple(Link(record.key, record.cell.seed) for record in row.records)


def _score(summary: Summary) -> Score:
    unit = summary.definition.unit
    if summary.not_applicable:
        return Score("–", "", not_applicable=True)
    value = number(summary.value, unit)
    return Score(value, format_interval(summary.interval, unit), plain(summary.reason), n=summary.n)


def _counts(section: Section, column: Definition) -> str:
    found = {row.scores[column.name].n for row in section.rows if row.scores[column.name].value is not None}
    if not found:
        return ""
    return f"n {min(found):,}" + (f"–{max(found):,}" if len(found) > 1 else "")


def _table_row(
    columns: Sequence[Definition],
    row: Row,
    anchor: str,
    reasons: dict[str, int],
    flags: Mapping[str, tuple[Flag, ...]],
    level: LevelOf,
) -> TableRow:
    found = []
    for column in columns:
        score = _score(row.scores[column.name])
        mark = reasons.setdefault(score.reason, len(reasons) + 1) if score.reason else 0
        found.append((score, mark))
    return TableRow(anchor, row, _links(row), tuple(found), _flagged(row, flags), level(row.records))


def _leaderboards(section: Section, flags: Mapping[str, tuple[Flag, ...]], level: LevelOf) -> list[Leaderboard]:
    utility = next((column for column in section.columns if column.measures == "utility"), None)
    found = rankings(section)
    small = len(section.rows) <= MOST_ROWS and all(len(each.standings) <= MOST_DEFENSES for each in found)
    return [_leaderboard(section, each, utility, flags, level, small or i == 0) for i, each in enumerate(found)]


def _leaderboard(
    section: Section,
    ranking: Ranking,
    utility: Definition | None,
    flags: Mapping[str, tuple[Flag, ...]],
    level: LevelOf,
    inside: bool,
) -> Leaderboard:
    score, standings = ranking.score, ranking.standings
    strips = svg.strips([(each.worst.value, each.worst.interval, None) for each in standings], score.unit)
    return Leaderboard(
        score=score,
        utility=utility,
        attacks=ranking.attacks,
        lines=tuple(_line(ranking, each, strip, flags, level) for each, strip in zip(standings, strips, strict=True)),
        panels=tuple(svg.panels(section, utility, score)) if utility else (),
        notes=tuple(_sentence(plain(note)) for note in ranking.notes),
        basis="identity" if any(each.worst.basis == "identity" for each in standings) else "score",
        inside=inside,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _line(
    ranking: Ranking,
    standing: Standing,
    strip: svg.Strip | None,
    flags: Mapping[str, tuple[Flag, ...]],
    level: LevelOf,
) -> DefenseRow:
    unit, worst = ranking.score.unit, standing.worst
    rows = {row.attack: row for row in standing.rows}
    leaks = tuple(_leak(ranking, rows[name], flags) if name in rows else None for name in ranking.attacks)
    seeds = sorted({len(row.seeds) for row in standing.rows})
    low_high = standing.rank_interval
    first = next((row for row in standing.rows), None)
    return DefenseRow(
        defense=plain(standing.defense, 120),
        component=first.records[0].cell.defense.name if first else "",
        rank="" if standing.rank is None else str(standing.rank),
        interval="" if low_high is None else "–".join(map(str, dict.fromkeys(low_high))),
        group=standing.group,
        utility=_score(standing.utility) if standing.utility else Score("n/a", "", "was not scored"),
        worst=Score(number(worst.value, unit), format_interval(worst.interval, unit), plain(worst.reason), n=worst.n),
        strip=strip,
        leaks=leaks,
        seeds="" if not seeds else _seeds(seeds),
        missing=", ".join(plain(name, 60) for name in standing.missing),
        level=level(record for row in standing.rows for record in row.records),
    )


def _leak(ranking: Ranking, row: Row, flags: Mapping[str, tuple[Flag, ...]]) -> Leak:
    return Leak(_score(row.scores[ranking.score.name]), _links(row), _flagged(row, flags))


def _seeds(counts: Sequence[int]) -> str:
    """How many seeds there are under each attack.

    Example:
        >>> _seeds([1]), _seeds([3]), _seeds([1, 3])
        ('n = 1', 'n = 3', 'n = 1–3')
    """
    return f"n = {'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}"
