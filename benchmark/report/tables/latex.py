"""Records as LaTeX tables: booktabs, the best comparable value of each column in bold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...analysis.aggregate import Row, Section
from ...analysis.record_set import Records
from ...core.config import Definition
from ...records.record import Interval
from ...records.verification import LEGEND as LEVEL_LEGEND
from ..formatting import Shown, number, plain, seed_list, shown, title
from .leaderboard import LEGEND as RANK_LEGEND
from .leaderboard import LeaderboardTable, board
from .rows import Notes, header, names, not_run

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


def latex(records: Records) -> str:
    """A leaderboard and a table of all rows for each section.

    An interval is a half-width after +- where both halves are equal in the digits shown, else `[low, high]`. Bold is
    the best for the defender, of all ranked defenses in a leaderboard and of the rows of one attack in a table.
    """
    return "\n".join(line for section in records.sections() for line in _section(section, records))


def _section(section: Section, records: Records) -> Iterator[str]:
    yield f"% {plain(title(section))}; needs \\usepackage{{booktabs}}"
    notes = Notes()
    found = board(section)
    if found is not None:
        yield from _leaderboard(found, notes)
    yield from _table(section, notes, records)
    legends = [RANK_LEGEND, LEVEL_LEGEND] if found else [LEVEL_LEGEND]
    for line in (*notes.lines(), *(found.notes if found else ()), *not_run(section), *legends):
        yield f"\n{escape(line)}"
    yield ""


def _leaderboard(found: LeaderboardTable, notes: Notes) -> Iterator[str]:
    yield f"% {found.title}"
    yield "\\begin{tabular}{lllrrll}\n\\toprule"
    yield " & ".join(escape(head) for head in found.heads) + " \\\\\n\\midrule"
    columns = [_board_column(found, place, notes) for place in (0, 1)]
    for i, line in enumerate(found.lines):
        texts = (escape(text) for text in (line.rank, line.group, line.defense))
        yield " & ".join([*texts, columns[0][i], columns[1][i], line.attacks, line.seeds]) + " \\\\"
    yield "\\bottomrule\n\\end{tabular}\n"


def _board_column(found: LeaderboardTable, place: int, notes: Notes) -> list[str]:
    """Utility (0) or worst case (1) of each line; defenses without a rank are not compared."""
    definition = (found.utility, found.score)[place]
    bold = best(definition, [line.values[place] if line.rank != "-" else None for line in found.lines])
    return [
        _cell((line.utility, line.worst)[place], definition, line.values[place], line.intervals[place], marked, notes)
        for line, marked in zip(found.lines, bold, strict=True)
    ]


def _table(section: Section, notes: Notes, records: Records) -> Iterator[str]:
    heads = ["Defense", "Attack", "Seeds", "Level", *(", ".join(header(section, each)) for each in section.columns)]
    yield f"\\begin{{tabular}}{{llll{'r' * len(section.columns)}}}\n\\toprule"
    yield " & ".join(escape(head) for head in heads) + " \\\\\n\\midrule"
    bold = {column.name: _bold_rows(section.rows, column) for column in section.columns}
    for i, row in enumerate(section.rows):
        cells = []
        for column in section.columns:
            score = row.scores[column.name]
            cell = shown(score, len(row.seeds))
            cells.append(_cell(cell, score.definition, score.value, score.interval, bold[column.name][i], notes))
        texts = (*names(row), seed_list(row.seeds), records.level(row.records))
        yield " & ".join([*map(escape, texts), *cells]) + " \\\\"
    yield "\\bottomrule\n\\end{tabular}"


def _bold_rows(rows: Sequence[Row], column: Definition) -> list[bool]:
    """Only rows of one attack, with the same evaluators, are compared."""
    alike: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault((row.attack, row.evaluators), []).append(i)
    bold = [False] * len(rows)
    for places in alike.values():
        for i, marked in zip(places, best(column, [rows[i].scores[column.name].value for i in places]), strict=True):
            bold[i] = marked
    return bold


def best(definition: Definition | None, values: Sequence[float | None]) -> list[bool]:
    """Which values print as the best for the defender; none where there are not two that print differently."""
    known = [value for value in values if value is not None]
    if definition is None or not known:
        return [False] * len(values)
    texts = [number(value, definition.unit) for value in values]
    top = number((max if definition.better == "higher" else min)(known), definition.unit)
    apart = {text for text, value in zip(texts, values, strict=True) if value is not None}
    return [len(apart) > 1 and value is not None and text == top for text, value in zip(texts, values, strict=True)]


def _cell(
    cell: Shown, definition: Definition | None, value: float | None, interval: Interval | None, bold: bool, notes: Notes
) -> str:
    text = f"\\textbf{{{escape(cell.value)}}}" if bold else escape(cell.value + notes.mark(cell.reason))
    half = None if definition is None else half_width(value, interval, definition.unit)
    spread = f"$\\pm$ {half}" if half else escape(cell.interval)
    rest = " ".join(part for part in (spread, escape(cell.basis)) if part)
    return f"{text} {{\\scriptsize {rest}}}" if rest else text


def half_width(value: float | None, interval: Interval | None, unit: str) -> str | None:
    """The half-width in the digits that the value is shown with, if that of both sides is equal.

    Example:
        >>> half_width(0.5, (0.4, 0.6), "fraction"), half_width(0.9, (0.7, 1.0), "fraction")
        ('10.0', None)
    """
    text = number(value, unit)
    if value is None or interval is None or "e" in text:
        return None
    digits = len(text.partition(".")[2])
    scale = 100 if unit == "fraction" else 1
    below, above = (f"{scale * abs(end - value):,.{digits}f}" for end in interval)
    return below if below == above else None


def escape(text: str) -> str:
    """Text as LaTeX shows it."""
    return plain(text, 2000).translate(_LATEX)
