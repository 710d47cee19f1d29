"""Console, Markdown and CSV tables of records."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from ...analysis.aggregate import Row, Section
from ...analysis.excess import with_excess
from ...analysis.record_set import Records
from ...core.config import Definition
from ...records.verification import LEGEND as LEVEL_LEGEND
from ..formatting import (
    CONTROL_LEGEND,
    LEGEND,
    format_number,
    format_score,
    format_seeds,
    sanitize,
    section_title,
    shared_chance,
)
from .leaderboard import LEGEND as RANK_LEGEND
from .leaderboard import LeaderboardTable, leaderboard_table
from .rows import Footnotes, has_control, heading_lines, row_names, score_lines, section_notes, verified_notes

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

#: What a formula begins with in spreadsheets, also in full width.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_NAME_WIDTH = 24
_MARKDOWN = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {c: f"\\{c}" for c in "\\`*|~"})


def console(records: Records) -> RenderableType:
    """Tables for a terminal of any width; columns that do not fit move to further tables."""
    return _ConsoleReport(records)


class _ConsoleReport:
    """Tables that rich renders in the width of the terminal."""

    def __init__(self, records: Records) -> None:
        self._sections, self._records = records.sections(), records

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        for section in self._sections:
            footnotes = Footnotes()
            yield Text(section_title(section), style="bold")
            leaderboard = leaderboard_table(section)
            if leaderboard is not None:
                yield from _leaderboard(leaderboard, footnotes)
            section = with_excess(section)
            for i, columns in enumerate(_chunks(section, options.max_width)):
                if i:
                    yield Text("")
                yield _table(section, columns, footnotes)
            for line in (*footnotes.lines(), *verified_notes(section, self._records), *section_notes(section)):
                yield Text(line, style="dim")
            yield Text("")
        if self._sections:
            controls = [CONTROL_LEGEND] if any(has_control(section) for section in self._sections) else []
            yield Text("\n".join([RANK_LEGEND, LEGEND, *controls]), style="dim")


def _leaderboard(leaderboard: LeaderboardTable, footnotes: Footnotes) -> Iterator[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    yield Text(leaderboard.title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(leaderboard.headings):
        width = _NAME_WIDTH if index == 2 else None
        justify: Literal["right", "left"] = "right" if index in (3, 4, 5) else "left"
        table.add_column(Text(heading), justify=justify, max_width=width, overflow="fold")
    for row in leaderboard.rows:
        scores = (_stacked(score_lines(score, footnotes)) for score in (row.utility, row.worst))
        rank, best = row.rank + footnotes.mark(row.reason), _stacked(row.best.split(" ", 1))
        table.add_row(*map(Text, (rank, row.group, row.defense)), *scores, best, row.attacks, row.seeds)
    yield table
    for note in leaderboard.notes:
        yield Text(note, style="dim")
    yield Text("")


def _stacked(lines: Sequence[str]) -> Text:
    """A bold first line above dim ones."""
    from rich.text import Text

    return Text.assemble((lines[0], "bold"), *((f"\n{line}", "dim") for line in lines[1:]))


def _score_lines(section: Section, row: Row, column: Definition, footnotes: Footnotes) -> list[str]:
    """Value, interval, observations and, unless the whole column shares it, chance level of a score."""
    score = row.scores[column.name]
    lines = score_lines(format_score(score, len(row.seeds)), footnotes)
    if score.value is not None and score.chance is not None and shared_chance(section, column.name) is None:
        lines.append(f"chance {format_number(score.chance, column.unit)}")
    return lines


def _chunks(section: Section, width: int) -> Iterator[list[Definition]]:
    """Groups of columns that fit side by side."""
    widths = [
        max(min(_NAME_WIDTH, max(len(row_names(row)[part]) for row in section.rows)), len(heading)) + 2
        for part, heading in enumerate(("Defense", "Attack"))
    ]
    seeds = max(len("Seeds"), *(len(format_seeds(row.seeds)) for row in section.rows)) + 2
    free = width - sum(widths) - seeds - 2
    chunk: list[Definition] = []
    used = 0
    for column in section.columns:
        lines = heading_lines(section, column)
        lines += [line for row in section.rows for line in _score_lines(section, row, column, Footnotes())]
        needed = max(map(len, lines)) + 2
        if chunk and used + needed > free:
            yield chunk
            chunk, used = [], 0
        chunk.append(column)
        used += needed
    yield chunk


def _table(section: Section, columns: Sequence[Definition], footnotes: Footnotes) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("Defense", "Attack"):
        table.add_column(name, max_width=_NAME_WIDTH, overflow="fold")
    table.add_column("Seeds", no_wrap=True)
    for column in columns:
        table.add_column(Text("\n".join(heading_lines(section, column))), justify="right", overflow="fold")
    for i, row in enumerate(section.rows):
        cells = (_stacked(_score_lines(section, row, column, footnotes)) for column in columns)
        is_last = i + 1 == len(section.rows)
        table.add_row(*map(Text, row_names(row)), format_seeds(row.seeds), *cells, end_section=not is_last)
    return table


def markdown(records: Records) -> str:
    """A GitHub table for each section."""
    lines = [line for section in records.sections() for line in (*_markdown(section, records), "")]
    controls = [CONTROL_LEGEND, ""] if any(has_control(section) for section in records.sections()) else []
    return "\n".join([*lines, RANK_LEGEND, "", LEVEL_LEGEND, "", LEGEND, "", *controls])


def _markdown(section: Section, records: Records) -> Iterator[str]:
    footnotes = Footnotes()
    yield f"### {_escaped(section_title(section))}\n"
    leaderboard = leaderboard_table(section)
    if leaderboard is not None:
        yield from _markdown_leaderboard(leaderboard, footnotes)
    section = with_excess(section)
    columns = [", ".join(heading_lines(section, column)) for column in section.columns]
    yield _pipes(["Defense", "Attack", "Seeds", "Level", *columns])
    yield "|" + "---|" * 4 + "--:|" * len(columns)
    for row in section.rows:
        cells = (_inline(_score_lines(section, row, column, footnotes)) for column in section.columns)
        yield _pipes([*row_names(row), format_seeds(row.seeds), records.level(row.records), *cells])
    for line in (*footnotes.lines(), *section_notes(section)):
        yield f"\n{_escaped(line)}"


def _markdown_leaderboard(table: LeaderboardTable, footnotes: Footnotes) -> Iterator[str]:
    yield f"{_escaped(table.title)}\n"
    yield _pipes(table.headings)
    yield "|---|---|---|--:|--:|--:|---|---|"
    for row in table.rows:
        scores = (_inline(score_lines(score, footnotes)) for score in (row.utility, row.worst))
        rank = row.rank + footnotes.mark(row.reason)
        yield _pipes([rank, row.group, row.defense, *scores, row.best, row.attacks, row.seeds])
    for note in table.notes:
        yield f"\n{_escaped(note)}"
    yield ""


def _inline(lines: Sequence[str]) -> str:
    """Value, interval and the rest on one line."""
    return " ".join(lines[:2]) + "".join(f", {line}" for line in lines[2:])


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    return sanitize(text, 2000).translate(_MARKDOWN).replace("](", "]\\(").replace("]:", "]\\:")


def csv(records: Records) -> str:
    """Every score of every record, one per line, unrounded; an undefined value is empty and has a reason.

    Text that a spreadsheet would compute (it begins with `=`, `+`, `-` or `@`) has a `'` before it.
    """
    rows = [{field: _csv_cell(value) for field, value in row.items()} for row in records.long_rows()]
    fields = list(dict.fromkeys(field for row in rows for field in row))
    file = io.StringIO()
    writer = csv_format.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _csv_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = sanitize(value, max(len(value), 1))
    return f"'{text}" if text.startswith(_FORMULA) else text
