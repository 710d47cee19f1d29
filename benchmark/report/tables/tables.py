"""Records as a console table, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...analysis.aggregate import Row, Section
from ...analysis.record_set import Records
from ...core.config import Definition
from ...records.verification import LEGEND as LEVEL_LEGEND
from ..formatting import LEGEND, number, plain, seed_list, shared_chance, shown, title
from .leaderboard import LEGEND as RANK_LEGEND
from .leaderboard import LeaderboardTable, board, details
from .rows import Notes, header, names, not_run, verified

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table


_NAME_WIDTH = 24
_MARKDOWN = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {c: f"\\{c}" for c in "\\`*|~"})


def console(records: Records) -> RenderableType:
    """Tables for a terminal of any width; columns that do not fit go into further tables."""
    return _ConsoleReport(records)


class _ConsoleReport:
    """Draws itself as wide as the terminal is."""

    def __init__(self, records: Records) -> None:
        self._sections, self._records = records.sections(), records

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        for section in self._sections:
            notes = Notes()
            yield Text(title(section), style="bold")
            found = board(section)
            if found is not None:
                yield from _leaderboard(found, notes)
            for i, columns in enumerate(_chunks(section, options.max_width)):
                if i:
                    yield Text("")
                yield _table(section, columns, notes)
            for line in (*notes.lines(), *verified(section, self._records), *not_run(section)):
                yield Text(line, style="dim")
            yield Text("")
        if self._sections:
            yield Text(f"{RANK_LEGEND}\n{LEGEND}", style="dim")


def _leaderboard(found: LeaderboardTable, notes: Notes) -> Iterator[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    yield Text(found.title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, head in enumerate(found.heads):
        right = place in (3, 4)
        width = _NAME_WIDTH if place == 2 else None
        table.add_column(Text(head), justify="right" if right else "left", max_width=width, overflow="fold")
    for line in found.lines:
        utility, worst = (
            Text.assemble((cell.value + notes.mark(cell.reason), "bold"), *((f"\n{t}", "dim") for t in details(cell)))
            for cell in (line.utility, line.worst)
        )
        texts = [Text(text) for text in (line.rank, line.group, line.defense)]
        table.add_row(*texts, utility, worst, line.attacks, line.seeds)
    yield table
    for note in found.notes:
        yield Text(note, style="dim")
    yield Text("")


def _lines(section: Section, row: Row, column: Definition, notes: Notes) -> list[str]:
    score = row.scores[column.name]
    cell = shown(score, len(row.seeds))
    lines = [cell.value + notes.mark(cell.reason)]
    if score.value is None:
        return lines
    lines += [cell.interval or "no interval", *cell.basis.split(", ")]
    if score.chance is not None and shared_chance(section, column.name) is None:
        lines.append(f"chance {number(score.chance, column.unit)}")
    return lines


def _chunks(section: Section, width: int) -> Iterator[list[Definition]]:
    """Columns that fit side by side."""
    widths = [
        max(min(_NAME_WIDTH, max(len(names(row)[part]) for row in section.rows)), len(head)) + 2
        for part, head in enumerate(("Defense", "Attack"))
    ]
    seeds = max(len("Seeds"), *(len(seed_list(row.seeds)) for row in section.rows)) + 2
    free = width - sum(widths) - seeds - 2
    chunk: list[Definition] = []
    used = 0
    for column in section.columns:
        lines = header(section, column) + [
            line for row in section.rows for line in _lines(section, row, column, Notes())
        ]
        needed = max(map(len, lines)) + 2
        if chunk and used + needed > free:
            yield chunk
            chunk, used = [], 0
        chunk.append(column)
        used += needed
    yield chunk


def _table(section: Section, columns: Sequence[Definition], notes: Notes) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("Defense", "Attack"):
        table.add_column(name, max_width=_NAME_WIDTH, overflow="fold")
    table.add_column("Seeds", no_wrap=True)
    for column in columns:
        table.add_column(Text("\n".join(header(section, column))), justify="right", overflow="fold")
    for i, row in enumerate(section.rows):
        cells = []
        for column in columns:
            first, *rest = _lines(section, row, column, notes)
            cells.append(Text.assemble((first, "bold"), *((f"\n{line}", "dim") for line in rest)))
        defense, attack = names(row)
        table.add_row(Text(defense), Text(attack), seed_list(row.seeds), *cells, end_section=i + 1 < len(section.rows))
    return table


def markdown(records: Records) -> str:
    """A GitHub table for each section."""
    lines = [line for section in records.sections() for line in (*_markdown(section, records), "")]
    return "\n".join([*lines, RANK_LEGEND, "", LEVEL_LEGEND, "", LEGEND, ""])


def _markdown(section: Section, records: Records) -> Iterator[str]:
    notes = Notes()
    yield f"### {_escaped(title(section))}\n"
    found = board(section)
    if found is not None:
        yield from _markdown_leaderboard(found, notes)
    heads = ["Defense", "Attack", "Seeds", "Level", *(", ".join(header(section, each)) for each in section.columns)]
    yield _pipes(heads)
    yield "|" + "---|" * 4 + "--:|" * len(section.columns)
    for row in section.rows:
        cells = (_inline(_lines(section, row, column, notes)) for column in section.columns)
        yield _pipes([*names(row), seed_list(row.seeds), records.level(row.records), *cells])
    for line in (*notes.lines(), *not_run(section)):
        yield f"\n{_escaped(line)}"


def _markdown_leaderboard(found: LeaderboardTable, notes: Notes) -> Iterator[str]:
    yield f"{_escaped(found.title)}\n"
    yield _pipes(found.heads)
    yield "|---|---|---|--:|--:|---|---|"
    for line in found.lines:
        cells = (_inline([c.value + notes.mark(c.reason), *details(c)]) for c in (line.utility, line.worst))
        yield _pipes([line.rank, line.group, line.defense, *cells, line.attacks, line.seeds])
    for note in found.notes:
        yield f"\n{_escaped(note)}"
    yield ""


def _inline(lines: Sequence[str]) -> str:
    """Value, interval and the rest in one line."""
    return " ".join(lines[:2]) + "".join(f", {line}" for line in lines[2:])


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    return plain(text, 2000).translate(_MARKDOWN).replace("](", "]\\(").replace("]:", "]\\:")


def csv(records: Records) -> str:
    """Every score of every record, one a line, unrounded; undefined values are empty and have a reason."""
    rows = records.long_rows()
    fields = list(dict.fromkeys(field for row in rows for field in row))
    file = io.StringIO()
    writer = csv_format.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
