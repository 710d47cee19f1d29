"""Views of sections for the templates: leaderboards, trade-off plots, table of rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...analysis.aggregate import Row, Section, Summary
from ...analysis.cross_cell_flags import cross_cell_flags
from ...analysis.eligibility import points
from ...analysis.excess import with_excess
from ...analysis.ranking import rankings
from ...analysis.standings import Ranking, Standing
from ...core.config import Definition
from ...records.record import Flag, Record
from ...records.verification import Level
from ..formatting import FormattedScore, format_number, format_score, sanitize, section_title
from ..tables.leaderboard import format_utility, format_worst_case, uncertain_match
from . import charts
from .permalinks import row_anchors, section_anchors
from .tradeoff_svg import SvgPlot, svg_plot

#: A section with more defenses or rows has one ranking on the index and a page for each of the others.
MAX_DEFENSES, MAX_ROWS = 30, 150
#: Most pictures below the table of a section.
_GALLERY = 12
_NO_UTILITY = FormattedScore("n/a", "", "", "", "was not scored")
#: Function from records to the lowest of their verification levels.
LevelOf = Callable[[Iterable[Record]], Level]


@dataclass(frozen=True)
class Link:
    """One record of a row."""

    key: str
    seed: int


@dataclass(frozen=True)
class Leakage:
    """The leakage of a defense under one attack: score, cells, number of flags."""

    score: FormattedScore
    links: tuple[Link, ...]
    flags: int


@dataclass(frozen=True)
class Best:
    """The best known attack on a defense: value, label of the attack, key of the record."""

    value: str
    attack: str
    key: str


@dataclass(frozen=True)
class DefenseRow:
    """A defense in a leaderboard; `remark` is about a utility that is neither surely near nor surely far."""

    defense: str
    component: str
    rank: str
    interval: str
    group: str
    utility: FormattedScore
    remark: str
    worst: FormattedScore
    strip: charts.Strip | None
    best: Best | None
    leakage: tuple[Leakage | None, ...]
    seeds: str
    reason: str
    is_control: bool
    level: Level


@dataclass(frozen=True)
class Leaderboard:
    """Defenses ranked by their worst case in one leakage score."""

    score: Definition
    utility: Definition | None
    #: Attacks of the suite.
    attacks: tuple[str, ...]
    further: tuple[str, ...]
    suite: int
    margin: str
    rows: tuple[DefenseRow, ...]
    plot: SvgPlot | None
    notes: tuple[str, ...]
    basis: Literal["identity", "score"]
    #: Whether it is on the index; otherwise it has its own page.
    on_index: bool


@dataclass(frozen=True)
class TableRow:
    """A row of the table of all scores; each score has the number of the reason why it is missing, else 0."""

    anchor: str
    row: Row
    links: tuple[Link, ...]
    scores: tuple[tuple[FormattedScore, int], ...]
    flags: int
    level: Level


@dataclass(frozen=True)
class SectionView:
    """A section with everything that the index shows."""

    anchor: str
    section: Section
    title: str
    leaderboards: tuple[Leaderboard, ...]
    rows: tuple[TableRow, ...]
    #: Reasons for missing scores, numbered from 1.
    reasons: tuple[str, ...]
    #: Columns of the table of all scores; quality scores of a large section are only on the pages of its cells.
    columns: tuple[Definition, ...]
    #: The range of n of each column.
    counts: tuple[str, ...]
    gallery: tuple[TableRow, ...]
    #: Flags by record key.
    flags: Mapping[str, tuple[Flag, ...]]

    @property
    def defenses(self) -> int:
        """Number of defenses."""
        return len({row.row.defense for row in self.rows})

    @property
    def has_control(self) -> bool:
        """True if a row is a placebo's."""
        return any(row.row.is_control for row in self.rows)

    @property
    def attacks(self) -> int:
        """Number of attacks."""
        return len({row.row.attack for row in self.rows})


def section_views(sections: Sequence[Section], level: LevelOf) -> list[SectionView]:
    """The views of all sections, in order; `level` gives the verification level of records."""
    anchors = section_anchors(sections)
    return [_section_view(section, anchor, level) for section, anchor in zip(sections, anchors, strict=True)]


def _section_view(section: Section, anchor: str, level: LevelOf) -> SectionView:
    flags = _flags(section)
    leaderboards = tuple(_leaderboards(section, flags, level))
    section = with_excess(section)
    reasons: dict[str, int] = {}
    is_large = len(section.rows) > MAX_ROWS
    columns = tuple(column for column in section.columns if not (is_large and column.measures == "quality"))
    rows = tuple(
        _table_row(columns, row, name, reasons, flags, level)
        for row, name in zip(section.rows, row_anchors(section), strict=True)
    )
    pictured = [row for row in rows if row.row.records[0].picture]
    return SectionView(
        anchor=anchor,
        section=section,
        title=section_title(section),
        leaderboards=leaderboards,
        rows=rows,
        reasons=tuple(reasons),
        columns=columns,
        counts=tuple(_count_range(section, column) for column in columns),
        gallery=tuple(pictured[:_GALLERY]),
        flags=flags,
    )


def _flags(section: Section) -> dict[str, tuple[Flag, ...]]:
    found = cross_cell_flags(section)
    records = [record for row in section.rows for record in row.records]
    return {record.key: (*record.flags, *found.get(record.key, ())) for record in records}


def _flag_count(row: Row, flags: Mapping[str, tuple[Flag, ...]]) -> int:
    return len({flag.name for record in row.records for flag in flags[record.key]})


def _links(row: Row) -> tuple[Link, ...]:
    return tuple(Link(record.key, record.cell.seed) for record in row.records)


def _format_score(summary: Summary) -> FormattedScore:
    score = format_score(summary, summary.seeds)
    return replace(score, value="–") if summary.not_applicable else score


def _count_range(section: Section, column: Definition) -> str:
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
    scores = [_format_score(row.scores[column.name]) for column in columns]
    numbers = [reasons.setdefault(score.reason, len(reasons) + 1) if score.reason else 0 for score in scores]
    numbered = tuple(zip(scores, numbers, strict=True))
    return TableRow(anchor, row, _links(row), numbered, _flag_count(row, flags), level(row.records))


def _leaderboards(section: Section, flags: Mapping[str, tuple[Flag, ...]], level: LevelOf) -> list[Leaderboard]:
    found = rankings(section)
    all_on_index = len(section.rows) <= MAX_ROWS and all(len(each.standings) <= MAX_DEFENSES for each in found)
    return [_leaderboard(section, each, flags, level, all_on_index or i == 0) for i, each in enumerate(found)]


def _leaderboard(
    section: Section,
    ranking: Ranking,
    flags: Mapping[str, tuple[Flag, ...]],
    level: LevelOf,
    on_index: bool,
) -> Leaderboard:
    score, standings = ranking.score, ranking.standings
    strips = charts.strips([(each.worst.value, each.worst.interval) for each in standings], score.unit)
    return Leaderboard(
        score=score,
        utility=ranking.utility,
        attacks=ranking.attacks,
        further=ranking.further,
        suite=ranking.rules.suite,
        margin=points(ranking.rules.margin),
        rows=tuple(
            _defense_row(ranking, each, strip, flags, level) for each, strip in zip(standings, strips, strict=True)
        ),
        plot=svg_plot(section, ranking.utility, score) if ranking.utility else None,
        notes=tuple(_capitalize(sanitize(note)) for note in ranking.notes),
        basis="identity" if any(each.worst.basis == "identity" for each in standings) else "score",
        on_index=on_index,
    )


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _defense_row(
    ranking: Ranking,
    standing: Standing,
    strip: charts.Strip | None,
    flags: Mapping[str, tuple[Flag, ...]],
    level: LevelOf,
) -> DefenseRow:
    score, best = ranking.score, standing.best
    suite = {row.records[0].cell.attack.name: row for row in standing.rows}
    others = {row.attack: row for row in standing.further}
    found = [*(suite.get(name) for name in ranking.attacks), *(others.get(label) for label in ranking.further)]
    seeds = sorted({len(row.seeds) for row in standing.rows})
    return DefenseRow(
        defense=sanitize(standing.defense, 120),
        component=next((record.cell.defense.name for record in standing.records), ""),
        rank="" if standing.rank is None else str(standing.rank),
        interval=_range_text(standing.rank_interval or ()),
        group=standing.group,
        utility=format_utility(standing) if standing.utility else _NO_UTILITY,
        remark=sanitize(uncertain_match(standing)),
        worst=format_worst_case(score, standing.worst),
        strip=strip,
        best=Best(format_number(best.value, score.unit), sanitize(best.attack, 60), best.key) if best else None,
        leakage=tuple(_leakage(ranking, row, flags) if row else None for row in found),
        seeds=f"n = {_range_text((seeds[0], seeds[-1]))}" if seeds else "",
        reason=sanitize(standing.reason),
        is_control=standing.is_control,
        level=level(standing.records),
    )


def _leakage(ranking: Ranking, row: Row, flags: Mapping[str, tuple[Flag, ...]]) -> Leakage:
    return Leakage(_format_score(row.scores[ranking.score.name]), _links(row), _flag_count(row, flags))


def _range_text(bounds: Sequence[int]) -> str:
    """A range as text; one number if the bounds are equal.

    Example:
        >>> _range_text((1, 1)), _range_text((1, 3)), _range_text(())
        ('1', '1–3', '')
    """
    return "–".join(map(str, dict.fromkeys(bounds)))
