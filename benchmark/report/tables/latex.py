"""LaTeX tables of records with booktabs; the best comparable value of each column is bold."""

from collections.abc import Iterator, Sequence

from ...analysis.aggregate import Row, Section
from ...analysis.excess import with_excess
from ...analysis.record_set import Records
from ...core.config import Definition
from ...records.record import Interval
from ...records.verification import LEGEND as LEVEL_LEGEND
from ..formatting import (
    CONTROL_LEGEND,
    FormattedScore,
    format_number,
    format_score,
    format_seeds,
    sanitize,
    section_title,
)
from .leaderboard import LEGEND as RANK_LEGEND
from .leaderboard import LeaderboardTable, leaderboard_table
from .rows import Footnotes, has_control, heading_lines, row_names, section_notes

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

    A symmetric interval, in the digits shown, is a half-width after +-; any other is `[low, high]`. Bold is the best
    for the defender: in a leaderboard among all ranked defenses, in a table among the rows of one attack.
    """
    return "\n".join(line for section in records.sections() for line in _section(section, records))


def _section(section: Section, records: Records) -> Iterator[str]:
    yield f"% {sanitize(section_title(section))}; needs \\usepackage{{booktabs}}"
    footnotes = Footnotes()
    leaderboard = leaderboard_table(section)
    if leaderboard is not None:
        yield from _leaderboard(leaderboard, footnotes)
    yield from _table(with_excess(section), footnotes, records)
    notes = [*footnotes.lines(), *(leaderboard.notes if leaderboard else ()), *section_notes(section)]
    legends = [*([RANK_LEGEND] if leaderboard else []), LEVEL_LEGEND]
    for line in (*notes, *legends, *([CONTROL_LEGEND] if has_control(section) else [])):
        yield f"\n{escape(line)}"
    yield ""


def _leaderboard(table: LeaderboardTable, footnotes: Footnotes) -> Iterator[str]:
    yield f"% {table.title}"
    yield "\\begin{tabular}{lllrrrll}\n\\toprule"
    yield " & ".join(escape(heading) for heading in table.headings) + " \\\\\n\\midrule"
    utility, worst = (_leaderboard_column(table, index, footnotes) for index in (0, 1))
    for i, row in enumerate(table.rows):
        texts = (escape(text) for text in (row.rank + footnotes.mark(row.reason), row.group, row.defense))
        yield " & ".join([*texts, utility[i], worst[i], escape(row.best), row.attacks, row.seeds]) + " \\\\"
    yield "\\bottomrule\n\\end{tabular}\n"


def _leaderboard_column(table: LeaderboardTable, index: int, footnotes: Footnotes) -> list[str]:
    """The cells of utility (index 0) or worst case (1); only ranked defenses compete for bold."""
    definition = (table.utility, table.score)[index]
    bold = _is_best(definition, [None if row.reason else row.values[index] for row in table.rows])
    return [
        _cell((row.utility, row.worst)[index], definition, row.values[index], row.intervals[index], is_best, footnotes)
        for row, is_best in zip(table.rows, bold, strict=True)
    ]


def _table(section: Section, footnotes: Footnotes, records: Records) -> Iterator[str]:
    columns = [", ".join(heading_lines(section, column)) for column in section.columns]
    yield f"\\begin{{tabular}}{{llll{'r' * len(columns)}}}\n\\toprule"
    yield " & ".join(map(escape, ("Defense", "Attack", "Seeds", "Level", *columns))) + " \\\\\n\\midrule"
    bold = {column.name: _bold_rows(section.rows, column) for column in section.columns}
    for i, row in enumerate(section.rows):
        cells = []
        for column in section.columns:
            score = row.scores[column.name]
            text = format_score(score, len(row.seeds))
            cells.append(_cell(text, score.definition, score.value, score.interval, bold[column.name][i], footnotes))
        texts = (*row_names(row), format_seeds(row.seeds), records.level(row.records))
        yield " & ".join([*map(escape, texts), *cells]) + " \\\\"
    yield "\\bottomrule\n\\end{tabular}"


def _bold_rows(rows: Sequence[Row], column: Definition) -> list[bool]:
    """Tell for each row but controls whether it is the best of those with the same attack and evaluators."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if row.is_control:
            continue
        groups.setdefault((row.attack, row.evaluators), []).append(i)
    bold = [False] * len(rows)
    for members in groups.values():
        best = _is_best(column, [rows[i].scores[column.name].value for i in members])
        for i, is_best in zip(members, best, strict=True):
            bold[i] = is_best
    return bold


def _is_best(definition: Definition | None, values: Sequence[float | None]) -> list[bool]:
    """Tell for each value whether it prints as the best for the defender; none does unless two print differently."""
    known = [value for value in values if value is not None]
    if definition is None or not known:
        return [False] * len(values)
    texts = [format_number(value, definition.unit) for value in values]
    best = format_number((max if definition.better == "higher" else min)(known), definition.unit)
    distinct = {text for text, value in zip(texts, values, strict=True) if value is not None}
    return [len(distinct) > 1 and value is not None and text == best for text, value in zip(texts, values, strict=True)]


def _cell(
    score: FormattedScore,
    definition: Definition | None,
    value: float | None,
    interval: Interval | None,
    bold: bool,
    footnotes: Footnotes,
) -> str:
    text = f"\\textbf{{{escape(score.value)}}}" if bold else escape(score.value + footnotes.mark(score.reason))
    half = None if definition is None else half_width(value, interval, definition.unit)
    spread = f"$\\pm$ {half}" if half else escape(score.interval)
    rest = " ".join(part for part in (spread, escape(score.basis)) if part)
    return f"{text} {{\\scriptsize {rest}}}" if rest else text


def half_width(value: float | None, interval: Interval | None, unit: str) -> str | None:
    """The half-width of an interval in the digits of its value; `None` unless both sides print equally.

    Example:
        >>> half_width(0.5, (0.4, 0.6), "fraction"), half_width(0.9, (0.7, 1.0), "fraction")
        ('10.0', None)
    """
    text = format_number(value, unit)
    if value is None or interval is None or "e" in text:
        return None
    digits = len(text.partition(".")[2])
    scale = 100 if unit == "fraction" else 1
    below, above = (f"{scale * abs(end - value):,.{digits}f}" for end in interval)
    return below if below == above else None


def escape(text: str) -> str:
    """Text with the special characters of LaTeX escaped."""
    return sanitize(text, 2000).translate(_LATEX)
