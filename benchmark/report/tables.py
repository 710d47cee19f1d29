"""Records as a console table, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..aggregate import Row, Section
from ..contracts import Definition
from ..records import Records
from .wording import LEGEND, Shown, heading, number, plain, seed_list, shared_chance, shown, title

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_NAME_WIDTH = 24
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "…": r"\ldots{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
_MARKDOWN = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {c: f"\\{c}" for c in "\\`*|~"})


class _Notes:
    """Numbers the reasons of missing scores, each distinct one once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        return f" ({self._numbers.setdefault(reason, len(self._numbers) + 1)})" if reason else ""

    def lines(self) -> Iterator[str]:
        for reason, index in self._numbers.items():
            yield f"({index}) {reason}"


def console(records: Records) -> RenderableType:
    """Tables for a terminal of any width; columns that do not fit go into further tables."""
    return _ConsoleReport(records.sections())


class _ConsoleReport:
    """Draws itself as wide as the terminal is."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._sections = sections

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        for section in self._sections:
            notes = _Notes()
            yield Text(title(section), style="bold")
            for i, columns in enumerate(_chunks(section, options.max_width)):
                if i:
                    yield Text("")
                yield _table(section, columns, notes)
            for line in (*notes.lines(), *_not_run(section)):
                yield Text(line, style="dim")
            yield Text("")
        if self._sections:
            yield Text(LEGEND, style="dim")


def _names(row: Row) -> tuple[str, str]:
    """Defense and attack; evaluators follow where they tell rows apart."""
    evaluators = f" [{row.evaluators}]" if row.evaluators else ""
    return plain(row.defense, 60), plain(row.attack + evaluators, 60)


def _header(section: Section, column: Definition) -> list[str]:
    chance = shared_chance(section, column.name)
    return [heading(column)] + ([f"chance {number(chance, column.unit)}"] if chance is not None else [])


def _lines(section: Section, row: Row, column: Definition, notes: _Notes) -> list[str]:
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
    names = [
        max(min(_NAME_WIDTH, max(len(_names(row)[part]) for row in section.rows)), len(header)) + 2
        for part, header in enumerate(("Defense", "Attack"))
    ]
    seeds = max(len("Seeds"), *(len(seed_list(row.seeds)) for row in section.rows)) + 2
    free = width - sum(names) - seeds - 2
    chunk: list[Definition] = []
    used = 0
    for column in section.columns:
        lines = _header(section, column) + [
            line for row in section.rows for line in _lines(section, row, column, _Notes())
        ]
        needed = max(map(len, lines)) + 2
        if chunk and used + needed > free:
            yield chunk
            chunk, used = [], 0
        chunk.append(column)
        used += needed
    yield chunk


def _table(section: Section, columns: Sequence[Definition], notes: _Notes) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("Defense", "Attack"):
        table.add_column(name, max_width=_NAME_WIDTH, overflow="fold")
    table.add_column("Seeds", no_wrap=True)
    for column in columns:
        table.add_column(Text("\n".join(_header(section, column))), justify="right", overflow="fold")
    for i, row in enumerate(section.rows):
        cells = []
        for column in columns:
            first, *rest = _lines(section, row, column, notes)
            cells.append(Text.assemble((first, "bold"), *((f"\n{line}", "dim") for line in rest)))
        defense, attack = _names(row)
        table.add_row(Text(defense), Text(attack), seed_list(row.seeds), *cells, end_section=i + 1 < len(section.rows))
    return table


def _not_run(section: Section) -> list[str]:
    return [f"{plain(evaluator, 60)} did not run: {plain(reason)}" for evaluator, reason in section.not_run]


def markdown(records: Records) -> str:
    """A GitHub table for each section."""
    lines = [line for section in records.sections() for line in (*_markdown(section), "")]
    return "\n".join([*lines, LEGEND, ""])


def _markdown(section: Section) -> Iterator[str]:
    notes = _Notes()
    yield f"### {_escape(title(section), _MARKDOWN)}\n"
    heads = ["Defense", "Attack", "Seeds", *(", ".join(_header(section, column)) for column in section.columns)]
    yield _pipes(heads)
    yield "|" + "---|" * 3 + "--:|" * len(section.columns)
    for row in section.rows:
        cells = (_inline(_lines(section, row, column, notes)) for column in section.columns)
        yield _pipes([*_names(row), seed_list(row.seeds), *cells])
    for line in (*notes.lines(), *_not_run(section)):
        yield f"\n{_escape(line, _MARKDOWN)}"


def _inline(lines: Sequence[str]) -> str:
    """Value, interval and the rest in one line."""
    return " ".join(lines[:2]) + "".join(f", {line}" for line in lines[2:])


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escape(cell, _MARKDOWN) for cell in cells) + " |"


def _escape(text: str, table: dict[int, str]) -> str:
    escaped = plain(text, 2000).translate(table)
    return escaped.replace("](", "]\\(").replace("]:", "]\\:") if table is _MARKDOWN else escaped


def csv(records: Records) -> str:
    """Every score of every record, one a line, unrounded; undefined values are empty and have a reason."""
    rows = records.long_rows()
    fields = list(dict.fromkeys(field for row in rows for field in row))
    file = io.StringIO()
    writer = csv_format.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def latex(records: Records) -> str:
    """A booktabs table for each section."""
    return "\n".join(line for section in records.sections() for line in _latex(section))


def _latex(section: Section) -> Iterator[str]:
    notes = _Notes()
    heads = ["Defense", "Attack", "Seeds", *(", ".join(_header(section, column)) for column in section.columns)]
    yield f"% {plain(title(section))}; needs \\usepackage{{booktabs}}"
    yield f"\\begin{{tabular}}{{lll{'r' * len(section.columns)}}}\n\\toprule"
    yield " & ".join(_escape(head, _LATEX) for head in heads) + " \\\\\n\\midrule"
    for row in section.rows:
        scores = [(shown(row.scores[column.name], len(row.seeds)), column) for column in section.columns]
        cells = [_latex_cell(score, notes) for score, _ in scores]
        yield " & ".join([*(_escape(name, _LATEX) for name in (*_names(row), seed_list(row.seeds))), *cells]) + " \\\\"
    yield "\\bottomrule\n\\end{tabular}"
    for line in (*notes.lines(), *_not_run(section)):
        yield f"\n{_escape(line, _LATEX)}"
    yield ""


def _latex_cell(cell: Shown, notes: _Notes) -> str:
    value = _escape(cell.value + notes.mark(cell.reason), _LATEX)
    rest = " ".join(part for part in (cell.interval, cell.basis) if part)
    return f"{value} {{\\scriptsize {_escape(rest, _LATEX)}}}" if rest else value
